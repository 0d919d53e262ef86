"""The shell of a version of a model in a worker: turns decisions of ``Scheduler`` and ``ClockCache`` into frames."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from clipper.control.snapshot import ReplicaAddress, VersionSnapshot
from clipper.control.statistics import ReplicaStatistics, VersionStatistics
from clipper.model.protocol.batches import make_encoder
from clipper.model.protocol.columns import BatchResults
from clipper.model.protocol.messages import BATCH_TOO_LARGE, Welcome
from clipper.values.outputs.output import Output
from clipper.values.records import parse_type
from clipper.values.types import ModelId
from clipper.worker.abstraction import results as batch_results
from clipper.worker.abstraction.alarm import Alarm
from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.batching.in_time import InTime
from clipper.worker.abstraction.batching.quarantine import Quarantine
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.block_rows import BlockRuns
from clipper.worker.abstraction.cache.clock import HASHED_BYTES, CacheTable, ClockCache
from clipper.worker.abstraction.compute_time import ComputeTime
from clipper.worker.abstraction.counts import VersionCounts
from clipper.worker.abstraction.notices import FailureNotices, why_no_replica
from clipper.worker.abstraction.output_typing import OutputTyping
from clipper.worker.abstraction.replica import Replica
from clipper.worker.abstraction.turns import Steps, Turns, at_once
from clipper.worker.abstraction.work import NOBODY, Waiter, Work

log = logging.getLogger(__name__)

# At 50,000 queries/s this is the work of a third of a second: a query behind that many others misses any usual SLO.
MAX_QUEUE_LENGTH = 16_384
# The same bound for large inputs: a few hundred images fit.
MAX_QUEUE_BYTES = 256 * 1024 * 1024


class ModelQueue:
    """Evaluates inputs on a version. All methods run on the worker's event loop."""

    def __init__(self, model: ModelId, snapshot: VersionSnapshot, cache: ClockCache, turns: Turns, node: str) -> None:
        self.model, self.name, self.node, self.max_output_bytes = model, model.name, node, turns.max_output_bytes
        self.snapshot, self.input_type = snapshot, parse_type(snapshot.input_type)
        self.encoder = make_encoder(self.input_type)
        self._table = CacheTable(cache) if snapshot.cache else None
        self._turns, self.unsettled, self.asks, self._flow = turns, turns.unsettled, turns.asks, turns.flow
        self._scheduler = Scheduler(MAX_QUEUE_LENGTH, MAX_QUEUE_BYTES, snapshot.batching.delay_ms / 1000, turns.flow)
        self._scheduler.most_batch_bytes = self.encoder.most_batch_bytes
        self._queue, self._suspects = self._scheduler.queue, self._scheduler.suspects
        self.in_time, self.output_typing = InTime(self._scheduler), OutputTyping(snapshot)
        self._quarantine = Quarantine(self._suspects, str(model), cache.seed)
        self._links: dict[str, Replica] = {}
        self._loop, self._turn_is_due = asyncio.get_running_loop(), False
        self._wake, self._notices = Alarm(self._loop), FailureNotices(model.name, self._loop)
        self.blocks = BlockRuns(self._scheduler.blocks, model, self._await_turn, self._wake_replica)
        self.recent_row: bytes | None = None  # the latest answered input, which kills no container
        self.compute_time, self._counts = ComputeTime(), VersionCounts()
        self.wakes, self.is_starting = snapshot.wakes, snapshot.is_starting
        self.is_served = False  # whether a replica is in service: linked or being dialled, and not draining

    # -- queries ---------------------------------------------------------------------------------------

    def predict(
        self, row: bytes, waiter: Waiter, arrival_s: float, slo_s: float, source: str, *, is_background: bool = False
    ) -> Output | None:
        """Return the output if the cache has it; else call ``waiter`` once the input has been evaluated or has failed.

        If the query cannot even be queued, ``waiter.on_failure`` is called before this method returns.

        Args:
            source: the application.
            is_background: evaluate the input only if no other query becomes late by that.
        """
        table = self._table
        key: bytes | int = row
        if table is not None:
            if len(row) >= HASHED_BYTES:  # shorter ones are their own keys
                key = table.key_of(row)
            found = table.find(row, key)
            if found is not None:
                if found.output is not None:
                    return found.output
                if found.lane or arrival_s < found.arrival_s + slo_s:
                    found.join(waiter)
                    if not is_background:
                        self._suspects.queue_of(found).hasten(found, slo_s, waiter.deadline_s)
                        if not self.is_served:
                            self._turns.unserved[self.model] = self._loop.time()
                    return None
                # The input has been in flight for longer than the SLO, so its replica hangs. Send it elsewhere.
                table.forget(found)
        work = Work(row, [waiter], arrival_s, slo_s, waiter.deadline_s, waiter.deadline_s, key, source, table)
        suspects, is_suspect = self._suspects, False
        if suspects.by_name or self._quarantine.inputs or source not in suspects.known:
            is_suspect = suspects.meet(source)
            if (refusal := self._quarantine.refusal(work, arrival_s)) is not None:
                self._fail_output(work, refusal)
                return None
            is_suspect = is_suspect or bool(work.group)
        if not self.is_served:
            if self.wakes and not is_background:
                self._turns.unserved[self.model] = self._loop.time()
            elif not (self._links or (self.is_starting and waiter.may_wait)):
                self._fail(work, "no_replica", f"{self.model} has no replica")
                return None
        if is_background and not is_suspect:
            if not self._queue.push_background(work):
                self._refuse(work)
                return None
        else:
            self._flow.arrivals += 1
            if (is_suspect or not self._queue.push(work)) and not self._push_for_expired(work, arrival_s):
                return None
        if table is not None:
            table.entries[key] = work
        if not self._turn_is_due:
            if self._turns.waiting or not self._scheduler.is_quiet():
                self._await_turn()
            elif (alone := self._scheduler.send_alone(self._loop.time())) is not None:
                self._send(*alone)
            else:
                self._take_turn()
        return None

    def _push_for_expired(self, work: Work, now_s: float) -> bool:
        """Push ``work``. A full queue first drops expired work; if none has expired, fail ``work``."""
        accepted, expired = self._scheduler.push(work, now_s)
        if expired:
            self._counts.expired += len(expired)
            self._notices.drop(expired, *self.why_late())
        if not accepted:
            self._counts.turned_away += 1
            self._refuse(work)
        return accepted

    def _refuse(self, work: Work) -> None:
        self._counts.rejected += 1
        self._fail(work, "overloaded", f"the queue of {self.model} is full")

    def want(self) -> None:
        """Count a query as demand that went elsewhere because this version could not answer it in time."""
        self._counts.led_away += 1
        self._wake_replica()

    def _wake_replica(self) -> None:
        if not self.is_served and self.wakes:
            self._turns.unserved[self.model] = self._loop.time()

    def peek(self, row: bytes) -> Output | None:
        """Return the output if the cache has it. This does not count as a look-up."""
        return None if self._table is None else self._table.peek(row)

    def why_late(self) -> tuple[str, str]:
        """Return the error code and the message of a query whose deadline passed before its output came."""
        if self.is_linked:
            return "timeout", f"{self.model} did not answer within the SLO"
        return "no_replica", why_no_replica(self.model, is_asleep=self.is_asleep, is_starting=self.is_starting)

    @property
    def is_linked(self) -> bool:
        """Whether at least one replica is connected."""
        return any(replica.link.is_linked for replica in self._links.values())

    @property
    def is_asleep(self) -> bool:
        """Whether the version has no replica and gets one as soon as a query asks it."""
        return self.wakes and not self.is_served

    @property
    def has_waiting(self) -> bool:
        """Whether queries wait for a replica."""
        return bool(self._queue.length or self._suspects.length or self._scheduler.blocks.waiting)

    def set_slo(self, slo_s: float) -> None:
        """Set the smallest SLO of the applications that query this version: batches are sized for it."""
        self._scheduler.set_slo(slo_s)

    # -- replicas --------------------------------------------------------------------------------------

    def set_replicas(self, addresses: Sequence[ReplicaAddress]) -> None:
        """Dial new replicas; drain replicas that are missing from ``addresses``, and then hang up."""
        wanted = {address.id: address for address in addresses}
        for replica_id, address in wanted.items():
            known = self._links.get(replica_id)
            if known is None:
                replica = self._links[replica_id] = Replica(address, self)
                replica.link.open()
            elif known.is_draining:
                # A draining replica is only kept while it has a batch in flight, so it is still linked.
                known.set_draining(False)
                self._scheduler.resume_replica(replica_id)
        for replica_id in [known for known in self._links if known not in wanted]:
            self._drain(self._links[replica_id])
        self.is_served = bool(wanted)
        if wanted:  # the queries that woke it are answered now, and must not wake it again later
            self._turns.unserved.pop(self.model, None)
        self._drop_unservable()  # work has waited in vain for a replica that no longer comes

    def replicas(self) -> list[Replica]:
        return list(self._links.values())

    @property
    def has_replicas(self) -> bool:
        """Whether a replica is in service, or will be once the version is asked."""
        return self.wakes or self.is_served

    def close(self) -> None:
        """Hang up, fail the queued work, and drop the cache's entries: the version was removed."""
        self.wakes = self.is_starting = self.is_served = False
        for replica in list(self._links.values()):
            self._remove(replica)
        self._drop_unservable()
        self.blocks.close()
        if self._table is not None:
            self._table.close()
        self._wake.cancel()

    def linked(self, replica: Replica, welcome: Welcome) -> None:
        """Give a replica to the scheduler: its container has sent WELCOME."""
        self.output_typing.take(welcome)
        most_rows = batch_results.rows_of_type(self.output_typing.type)
        devices = self._turns.devices_of(replica)
        replica.enter(self._scheduler, self.snapshot, welcome, most_rows, devices, self._await_turn)
        self._take_turn()

    def lost(self, replica: Replica) -> None:
        """Try each input that was in flight again, alone: the connection broke."""
        again, failed = self._quarantine.lost(self._lose(replica), self._loop.time())
        for message, works in failed.items():
            log.warning("%(reason)s", {"reason": message, **self.model.log_fields})
            for work in works:
                self._fail_output(work, message)
        self._push_back(again)
        if replica.is_draining:
            self._remove(replica)
        self._take_turn()

    def _drain(self, replica: Replica) -> None:
        replica.set_draining(True)
        if replica.state is None or not replica.state.in_flight:
            self._remove(replica)
        else:
            self._scheduler.drain_replica(replica.id)

    def _remove(self, replica: Replica) -> None:
        del self._links[replica.id]
        replica.close()
        self._push_back([work for batch in self._lose(replica) for work in batch.works])
        self._drop_unservable()

    def _push_back(self, works: Sequence[Work]) -> None:
        for work in works:
            if not work.is_wanted:
                work.forget()
        self._suspects.push_back([work for work in works if work.is_wanted])

    def _drop_unservable(self) -> None:
        if not self._links and not self.wakes:
            works = self._suspects.give_up(is_starting=self.is_starting)
            self._notices.drop(works, "no_replica", f"{self.model} has no replica any more")

    def _lose(self, replica: Replica) -> list[Batch]:
        """Remove the replica from the scheduler. Return the batches that it had in flight, oldest first."""
        if replica.state is None:
            return []
        batches = list(replica.state.in_flight.values())
        for batch in batches:
            self._turns.ended(self.model, batch)
        replica.state = None
        self._scheduler.lose_replica(replica.id)
        return [batch for batch in batches if not self.blocks.failed(batch, has_begun=batch is batches[0])]

    # -- batches ---------------------------------------------------------------------------------------

    def _await_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._turns.await_end(self)

    def flow_wait_until_s(self) -> float:
        return self._scheduler.flow_wait_until_s()

    def take_due_turn(self) -> None:
        # A batch that came back in the meantime may have taken the turn already.
        if self._turn_is_due:
            self._take_turn()

    def _take_turn(self) -> None:
        self._turn_is_due = False
        decision = self._scheduler.decide(self._loop.time())
        for state, batch in decision.batches:
            self._send(state, batch)
        if decision.late:
            self._counts.expired += len(decision.late)
            self._notices.drop(decision.late, *self.why_late())
        if decision.shed:
            self._counts.rejected += len(decision.shed)
            self._notices.drop(
                decision.shed, "overloaded", f"{self.model} gets more queries than it can answer within the SLO"
            )
        if decision.wake_s is not None:
            self._wake.set(decision.wake_s, self._take_turn)

    def _send(self, state: ReplicaState, batch: Batch) -> None:
        if batch.piece is not None:
            self._links[state.id].link.send_frame(self.blocks.encode(batch))
            return
        counts, works = self._counts, batch.works
        # One observation for each batch keeps this cheap: the oldest query's wait stands for the batch.
        counts.queue_wait_s.record(batch.sent_s - works[0].arrival_s)
        counts.batch_size.record(len(works))
        trace = self._turns.sent(self.model, state.id, batch)
        self._links[state.id].link.send(batch.id, [work.row for work in works], trace)

    def receive_results(self, replica: Replica, batch_id: int, results: BatchResults) -> bool:
        """Take the outputs of a batch; return False if the replica was sent no such batch."""
        batch = self._finish(replica, batch_id, batch_results.blamed(results.failures), results.evaluation_us)
        if batch is None:
            return False
        if batch.piece is not None:
            self.blocks.take(batch, results)
            self._go_on(replica)
            return True
        state, are_large, most = replica.state, results.is_large, replica.max_batch
        if state is not None:
            state.max_batch = batch_results.rows_within(results, most) if are_large else most
        self._go_on(replica)
        is_quick = results.evaluation_us < 1e6 * self._scheduler.slo_s
        if are_large:
            self._turns.do(self._take_large(batch.works, results, is_quick))
            return True
        works, outputs, failures, step = batch_results.read_results(
            batch.works, results, self.max_output_bytes, self.output_typing.declared
        )
        if failures:
            self._fail_rows(batch.works, failures)
        if works:
            self._settle_in_turns(works, outputs, step, is_quick)
            if replica.state is not None:
                replica.state.answered(self._loop.time())
        return True

    def _take_large(self, works: Sequence[Work], results: BatchResults, is_quick: bool) -> Steps:
        """Read large outputs in steps, and settle each once it is read."""
        reader = batch_results.RowReader(results, len(works), self.max_output_bytes, self.output_typing)
        failures = yield from batch_results.read_each(reader, works, partial(self._settle, is_quick=is_quick))
        self._fail_rows(works, failures)

    def _settle_in_turns(self, works: Sequence[Work], outputs: Sequence[Output], step: int, is_quick: bool) -> None:
        if len(works) > step:
            self._loop.call_soon(self._settle_in_turns, works[step:], outputs[step:], step, is_quick)
            works, outputs = works[:step], outputs[:step]
        self._settle(works, outputs, is_quick)

    def receive_error(self, replica: Replica, batch_id: int, message: str) -> bool:
        """Take the error of a whole batch; return False if the replica was sent no such batch."""
        known = None if replica.state is None else replica.state.in_flight.get(batch_id)
        rows = range(0 if known is None else len(known.works))
        are_too_large = message.startswith(BATCH_TOO_LARGE) and len(rows) > 1
        batch = self._finish(replica, batch_id, () if are_too_large else rows)
        if batch is None:
            return False
        if self.blocks.failed(batch, message):
            self._go_on(replica)
            return True
        if are_too_large and replica.state is not None:  # together: evaluate them again, in smaller batches
            replica.state.max_batch = len(rows) // 2
            self._suspects.push_back(batch.works)
        self._go_on(replica)
        if not are_too_large:
            self._fail_rows(batch.works, dict.fromkeys(rows, message), is_whole=True)
        return True

    def _fail_rows(self, works: Sequence[Work], failures: Mapping[int, str], *, is_whole: bool = False) -> None:
        """Fail rows of an answered batch. Rows whose error may be about another input are evaluated again, apart."""
        self._suspects.blame(works, batch_results.blamed(failures))
        is_unclear, is_mixed = self._suspects.are_unclear(works, failures, is_whole=is_whole)
        now_s = self._loop.time()
        again, told = batch_results.told_apart(works, failures, now_s, is_unclear=is_unclear, is_mixed=is_mixed)
        for work, message in told:
            self._fail_output(work, message)
        if again:
            self._suspects.try_apart(again)
            self._await_turn()

    def _finish(
        self, replica: Replica, batch_id: int, failed: Collection[int], evaluation_us: int | None = None
    ) -> Batch | None:
        state, now_s = replica.state, self._loop.time()
        finished = None if state is None else self._scheduler.finished(state, batch_id, now_s, failed)
        if finished is None:
            return None
        batch, service_s = finished
        if batch.source:
            self._quarantine.answered(batch.works)
        self._turns.ended(self.model, batch, evaluation_us)
        if batch.piece is not None:
            return batch
        self._counts.answered(len(batch.works), service_s)
        if evaluation_us is not None:
            self.compute_time.record(len(batch.works), evaluation_us / 1e6, service_s)
        return batch

    def _go_on(self, replica: Replica) -> None:
        """Send the next batch before the answers of the last one are written, so that the replica does not idle."""
        if replica.is_draining and replica.state is not None and not replica.state.in_flight:
            self._remove(replica)
        if not self._scheduler.has_work:
            return
        # Clients whose answers are written now may query again, which would make a short batch larger.
        if self._scheduler.flow_wait_until_s() <= self._loop.time():
            self._take_turn()
        else:
            self._await_turn()

    def _settle(self, works: Sequence[Work], outputs: Sequence[Output], is_quick: bool) -> None:
        """Store the outputs in the cache, then notify the waiters."""
        self._counts.outputs += len(works)
        if not self.output_typing.is_known:
            at_once(self.output_typing.learning(outputs[0]))  # reading long outputs in steps has taught it already
        if is_quick:  # it warms up new replicas, which a slow input would keep busy for too long
            self.recent_row = works[0].row
        if self._table is not None:
            self._table.fulfil(works)
        name = self.name
        for work, output in zip(works, outputs):
            waiters, work.waiters = work.waiters, NOBODY
            for waiter in waiters:
                waiter.on_output(name, output)

    def _fail_output(self, work: Work, message: str) -> None:
        code, message = batch_results.code_of(message)
        self._fail(work, code, self._counts.count_error(message))

    def _fail(self, work: Work, code: str, message: str) -> None:
        for waiter in work.forget():
            if not waiter.done:
                waiter.on_failure(self.model.name, code, message)

    def statistics(self, *, with_batches: bool = False) -> VersionStatistics:
        return self._counts.statistics(self.model, self._scheduler, self._table, self._links, with_batches=with_batches)

    def mark(self) -> int:
        return self._counts.mark(self._scheduler, self._table, self._links)

    def replica_statistics(self) -> list[ReplicaStatistics]:
        return [replica.statistics(self._scheduler.slo_s) for replica in self._links.values()]
