"""One version of a model as a query worker sees it: cache first, then the queue, then a replica.

The shell around ``batching.Scheduler`` and ``cache.CacheTable``: it turns their decisions into frames and callbacks.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

import msgspec

from clipper.abstraction.alarm import Alarm
from clipper.abstraction.batching.controller import BATCH_SHARE_OF_SLO, make_controller
from clipper.abstraction.batching.flow import Batch
from clipper.abstraction.batching.replica_state import ReplicaState
from clipper.abstraction.batching.scheduler import Scheduler
from clipper.abstraction.cache.clock import ClockCache
from clipper.abstraction.counts import Counts
from clipper.abstraction.replica import Replica
from clipper.abstraction.turns import Turns
from clipper.abstraction.work import Waiter, Work
from clipper.containers.protocol.messages import Results, Welcome
from clipper.control.snapshot import ReplicaAddress, VersionSnapshot
from clipper.control.statistics import ReplicaStatistics, VersionLoad, VersionStatistics
from clipper.types import InputType, ModelId

log = logging.getLogger(__name__)

# At 50,000 queries/s this is a third of a second of work: whoever queues behind it has missed any usual SLO.
MAX_QUEUE_LENGTH = 16_384
# The same bound for large inputs: a few hundred images.
MAX_QUEUE_BYTES = 256 * 1024 * 1024
# Of a model's error in an answer; the whole of it is in the container's log.
MAX_MESSAGE_CHARACTERS = 300

# Of queries that get no output, such as a queue that expires at once, so many are told in one turn of the loop: 3 ms of
# work, each answer being written. All of a full queue took 70 to 90 ms, in which nobody else was answered.
MAX_TOLD = 250

# An input that was in flight when that many replicas died is taken to be what killed them.
MAX_LOSSES = 2

# Checks the syntax, but takes any bytes within a text. Nesting too deep for it would be too deep for most readers.
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ModelQueue:
    """Evaluates inputs on one version. All methods run on the worker's event loop."""

    def __init__(self, model: ModelId, snapshot: VersionSnapshot, cache: ClockCache, turns: Turns) -> None:
        self.model = model
        self.snapshot = snapshot
        self.input_type = InputType.parse(snapshot.input_type)
        self._dtype, self._dimensions = self.input_type.dtype, self.input_type.leading_dimensions
        self._table = cache.table() if snapshot.cache else None
        self._turns = turns
        self._scheduler = Scheduler(MAX_QUEUE_LENGTH, MAX_QUEUE_BYTES, snapshot.batching.delay_ms / 1000, turns.flow)
        self._links: dict[str, Replica] = {}
        self._loop = asyncio.get_running_loop()
        self._turn_is_due = False
        self._wake = Alarm(self._loop, self._take_turn)
        # Who waited for work that was dropped, and why it was: bounded as the queue is, and empty but for a moment.
        self._untold: deque[tuple[Waiter, str, str]] = deque()
        self._tell_is_due = False
        # One that was answered: what it is used for must not be an input that kills containers.
        self.recent_row: bytes | None = None
        self.recent_output: bytes | None = None
        self.output_type: InputType | None = None  # if its container knows
        self._counts = Counts()

    # -- queries ---------------------------------------------------------------------------------------

    def predict(
        self, row: bytes, waiter: Waiter, arrival_s: float, slo_s: float, *, is_background: bool = False
    ) -> bytes | None:
        """Return the output if the cache has it; else ``waiter`` hears of it later.

        A query that cannot even be queued is told so by ``waiter.on_failure`` before this returns.

        Args:
            is_background: it is done only where that costs no other query its answer.
        """
        table = self._table
        key: bytes | int = row
        if table is not None:
            key = table.key_of(row)
            found = table.find(row, key)
            if found is not None:
                if found.output is not None:
                    return found.output
                if found.lane or arrival_s < found.arrival_s + slo_s:
                    found.join(waiter)
                    if not is_background:
                        self._scheduler.queue.hasten(found, slo_s, waiter.deadline_s)
                    return None
                # It has been under way for longer than a query may take: on a replica that hangs. Ask another.
                table.forget(found)
        work = Work(row, [waiter], arrival_s, slo_s, waiter.deadline_s, waiter.deadline_s, key)
        if not self._links:
            self._fail(work, "no_replica", f"{self.model} has no replica")
            return None
        if is_background:
            if not self._scheduler.queue.push_background(work):
                self._refuse(work)
                return None
        else:
            self._counts.arrivals += 1
            self._turns.flow.arrivals += 1
            if not self._scheduler.queue.push(work) and not self._push_for_expired(work, arrival_s):
                return None
        if table is not None:
            table.begin(work)
        if not self._turn_is_due:
            if self._turns.are_idle and self._scheduler.is_quiet():
                self._take_turn()
            else:
                self._await_turn()
        return None

    def _push_for_expired(self, work: Work, now_s: float) -> bool:
        """The queue is full: push ``work`` in place of what has expired; if nothing has, fail it and return False."""
        accepted, expired = self._scheduler.push(work, now_s)
        if expired:
            self._time_out(expired)
        if not accepted:
            self._refuse(work)
        return accepted

    def _refuse(self, work: Work) -> None:
        self._counts.rejected += 1
        self._fail(work, "overloaded", f"the queue of {self.model} is full")

    def peek(self, row: bytes) -> bytes | None:
        """The output, if the cache has it; not counted as a look-up of a query's."""
        return None if self._table is None else self._table.peek(row)

    def why_late(self) -> tuple[str, str]:
        """The reason and its explanation for a query whose deadline came before its output."""
        if self.is_linked:
            return "timeout", f"{self.model} did not answer within the SLO"
        return "no_replica", f"no replica of {self.model} is connected"

    @property
    def is_linked(self) -> bool:
        """Whether a replica is there to be asked."""
        return any(replica.link.is_linked for replica in self._links.values())

    def set_slo(self, slo_s: float) -> None:
        """The smallest SLO of the applications that ask this version: batches are sized for it."""
        self._scheduler.set_slo(slo_s)

    def can_follow(self, snapshot: VersionSnapshot) -> bool:
        """Whether only replicas differ; a change of anything else (a version deployed anew) needs a new queue."""
        return msgspec.structs.replace(snapshot, replicas=()) == msgspec.structs.replace(self.snapshot, replicas=())

    # -- replicas --------------------------------------------------------------------------------------

    def set_replicas(self, addresses: Sequence[ReplicaAddress]) -> None:
        """Dial the new ones; give the missing ones no more work, and hang up when they have answered."""
        wanted = {address.id: address for address in addresses}
        for replica_id, address in wanted.items():
            known = self._links.get(replica_id)
            if known is None:
                replica = self._links[replica_id] = Replica(address, self)
                replica.link.open()
            elif known.is_draining:
                self._resume(known)
        for replica_id in [known for known in self._links if known not in wanted]:
            self._drain(self._links[replica_id])

    def replicas(self) -> list[Replica]:
        return list(self._links.values())

    @property
    def has_replicas(self) -> bool:
        """Whether any is in service: to be asked as soon as it is linked."""
        return any(not replica.is_draining for replica in self._links.values())

    def close(self) -> None:
        """The version is gone: hang up, fail what waits, forget the cache's entries."""
        for replica in list(self._links.values()):
            self._remove(replica)
        if self._table is not None:
            self._table.close()
        self._wake.cancel()

    def linked(self, replica: Replica, welcome: Welcome) -> None:
        """Its container has said what the model is."""
        batching, max_batch = self.snapshot.batching, welcome.max_batch
        self.output_type = welcome.output_type or self.output_type
        if max_batch is not None and max_batch < batching.max_batch:
            batching = msgspec.structs.replace(batching, max_batch=max_batch)
        controller = make_controller(batching, self._scheduler.slo_s * BATCH_SHARE_OF_SLO)
        most = 1 if batching.policy == "none" else batching.max_batch
        is_fixed = batching.policy in ("fixed", "none")
        replica.state = self._scheduler.add_replica(replica.id, most, controller, is_fixed=is_fixed)
        self._take_turn()

    def lost(self, replica: Replica) -> None:
        """Its connection broke: what it had in flight goes to another replica, or waits for one."""
        works = self._lose(replica)
        self._scheduler.queue.push_back([work for work in works if self._may_retry(work)])
        if replica.is_draining:
            self._remove(replica)
        self._take_turn()

    def _may_retry(self, work: Work) -> bool:
        work.losses += 1
        if not work.is_wanted:
            self._forget(work)
            return False
        if work.losses >= MAX_LOSSES:
            self._fail_output(work, f"{MAX_LOSSES} containers of {self.model} died while evaluating this input")
            return False
        return True

    def _drain(self, replica: Replica) -> None:
        replica.is_draining = True
        if replica.state is None or not replica.state.in_flight:
            self._remove(replica)
        else:
            self._scheduler.drain_replica(replica.id)

    def _resume(self, replica: Replica) -> None:
        # Only a replica with a batch in flight, hence linked, is still there to be resumed.
        replica.is_draining = False
        self._scheduler.resume_replica(replica.id)

    def _remove(self, replica: Replica) -> None:
        del self._links[replica.id]
        replica.link.close()
        self._scheduler.queue.push_back(self._lose(replica))
        if not self._links:
            self._drop(self._scheduler.queue.clear(), "no_replica", f"{self.model} has no replica any more")

    def _lose(self, replica: Replica) -> list[Work]:
        """It takes no more. Returns what it had in flight."""
        if replica.state is None:
            return []
        for batch in replica.state.in_flight.values():
            self._turns.ended(batch)
        replica.state = None
        return self._scheduler.lose_replica(replica.id)

    # -- batches ---------------------------------------------------------------------------------------

    def _await_turn(self) -> None:
        self._turn_is_due = True
        self._turns.await_end(self)

    def waits_for_flow(self, now_s: float, *, have_come: bool) -> bool:
        return self._scheduler.waits_for_flow(now_s, have_come=have_come)

    def flow_wait_ends_s(self) -> float:
        return self._scheduler.flow_wait_ends_s()

    def take_due_turn(self) -> None:
        # Not if a batch that came back has led to one meanwhile.
        if self._turn_is_due:
            self._take_turn()

    def _take_turn(self) -> None:
        self._turn_is_due = False
        now_s = self._loop.time()
        decision = self._scheduler.decide(now_s)
        for state, batch in decision.batches:
            self._send(state, batch)
        if decision.late:
            self._time_out(decision.late)
        if decision.shed:
            self._counts.rejected += len(decision.shed)
            message = f"{self.model} gets more queries than it can answer within the SLO"
            self._drop(decision.shed, "overloaded", message)
        if decision.wake_s is not None:
            self._wake.set(decision.wake_s)

    def _send(self, state: ReplicaState, batch: Batch) -> None:
        counts = self._counts
        works = batch.works
        # The oldest query's wait stands for the batch's: one observation a batch, at the cost of one.
        counts.queue_wait_s.observe(batch.sent_s - works[0].arrival_s)
        counts.batch_size.observe(len(works))
        self._turns.flow.sent(batch)
        rows = [work.row for work in works]
        self._links[state.id].link.send(batch.id, self._dtype, self._dimensions, rows)

    def receive_results(self, replica: Replica, batch_id: int, results: Results) -> None:
        batch = self._finish(replica, batch_id)
        if batch is None:
            return
        self._go_on(replica)
        works, outputs, failures = batch.works, results.outputs, results.failures
        if len(outputs) != len(works):
            message = f"the container answered {len(outputs)} outputs for {len(works)} inputs"
            for work in works:
                self._fail_output(work, message)
            return
        if not failures:
            try:
                # One look for all: hardly any output holds other characters than ASCII's.
                _check_utf8(b"\n".join(outputs))
                for work, output in zip(works, outputs):
                    _check_json(output)
                    work.output = output
            except NOT_JSON:
                pass  # rare: which ones is found out below
            else:
                self.recent_row, self.recent_output = works[0].row, outputs[0]
                self._settle(works, outputs)
                return
        for row, (work, output) in enumerate(zip(works, outputs)):
            if row in failures:
                self._fail_output(work, failures[row])
                continue
            try:
                _check_utf8(output)
                _check_json(output)
            except NOT_JSON as error:
                work.output = None  # as it was before all were looked at together
                self._fail_output(work, f"the container's output is not JSON: {error}")
            else:
                work.output = output
                self._settle([work], [output])

    def receive_error(self, replica: Replica, batch_id: int, message: str) -> None:
        batch = self._finish(replica, batch_id)
        if batch is not None:
            self._go_on(replica)
            for work in batch.works:
                self._fail_output(work, message)

    def _finish(self, replica: Replica, batch_id: int) -> Batch | None:
        if replica.state is None:
            return None
        finished = self._scheduler.finished(replica.state, batch_id, self._loop.time())
        if finished is None:
            log.warning("replica %s answered batch %d, which it was not sent", replica.id, batch_id)
            return None
        batch, service_s = finished
        self._turns.ended(batch)
        self._counts.batch_latency_s.observe(service_s)
        return batch

    def _go_on(self, replica: Replica) -> None:
        """Before the batch's answers are written, which takes a while: so that the replica works meanwhile."""
        if replica.is_draining and replica.state is not None and not replica.state.in_flight:
            self._remove(replica)
        queue = self._scheduler.queue
        if not queue.length and not queue.background:
            return
        # Those whose answers are written now may ask again, and so make a short batch a better one.
        if not self._scheduler.waits_for_flow(self._loop.time(), have_come=True):
            self._take_turn()
        elif not self._turn_is_due:
            self._await_turn()

    def _settle(self, works: Sequence[Work], outputs: Sequence[bytes]) -> None:
        """These works have their outputs: keep them, then tell who waits."""
        self._counts.outputs += len(works)
        if self._table is not None:
            self._table.fulfil(works)
        name = self.model.name
        for work, output in zip(works, outputs):
            for waiter in work.dismiss():
                waiter.on_output(name, output)

    def _fail_output(self, work: Work, message: str) -> None:
        self._counts.model_errors += 1
        self._fail(work, "model_error", message[:MAX_MESSAGE_CHARACTERS])

    def _fail(self, work: Work, code: str, message: str) -> None:
        for waiter in self._forget(work):
            if not waiter.done:
                waiter.on_failure(self.model.name, code, message)

    def _time_out(self, works: Sequence[Work]) -> None:
        self._counts.expired += len(works)
        self._drop(works, *self.why_late())

    def _drop(self, works: Sequence[Work], code: str, message: str) -> None:
        """As ``_fail`` for many works, of which there may be a whole queue: some are told in later turns.

        All are forgotten now, so that no query joins what will have no output.
        """
        for work in works:
            self._untold.extend((waiter, code, message) for waiter in self._forget(work) if not waiter.done)
        if not self._tell_is_due:
            self._tell()

    def _tell(self) -> None:
        untold, name = self._untold, self.model.name
        now = [untold.popleft() for _ in range(min(len(untold), MAX_TOLD))]
        # Before anybody is told, since what that leads to may drop more.
        self._tell_is_due = bool(untold)
        if untold:
            self._loop.call_soon(self._tell)
        for waiter, code, message in now:
            if not waiter.done:
                waiter.on_failure(name, code, message)

    def _forget(self, work: Work) -> list[Waiter]:
        """It will have no output. Returns who waited for it."""
        if work.table is not None:
            work.table.forget(work)
        return work.dismiss()

    # -- statistics ------------------------------------------------------------------------------------

    def statistics(self) -> VersionStatistics:
        return self._counts.statistics(self.model, self._scheduler, self._table)

    def load(self) -> VersionLoad:
        return self._counts.load(self.model, self._scheduler)

    def replica_statistics(self) -> list[ReplicaStatistics]:
        return [replica.statistics(self._scheduler.slo_s) for replica in self._links.values()]


def _check_utf8(outputs: bytes) -> None:
    if not outputs.isascii():
        outputs.decode()
