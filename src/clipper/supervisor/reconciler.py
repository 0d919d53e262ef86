"""Makes what runs and what workers know follow the catalog, one step at a time.

A pass looks at everything and does what can be done now; it waits for nothing. Whatever changes (a container, a worker,
an operator) asks for another pass. So nothing that is slow holds up anything else, and no query is lost because of
the order: new replicas are known to every worker before a version becomes current, and a replica is stopped only when
every worker has said that it was taken out and has no batch left.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from clipper.errors import InvalidArgument, RegistryUnavailable
from clipper.managers.manager import Manager, SlotStatus
from clipper.managers.reconcile.plan import Slot, plan_replicas
from clipper.registry.records import ApplicationRecord, VersionRecord
from clipper.registry.store import Put
from clipper.snapshot import ReplicaAddress, Snapshot
from clipper.supervisor import newcomers, rules
from clipper.supervisor.artifacts import Artifacts
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.servable import Servable
from clipper.supervisor.workers import Workers
from clipper.types import ModelId

log = logging.getLogger(__name__)

# A worker dials by itself; only what came of it has to be asked for again.
ASK_AGAIN_S = 0.5
# A worker that has to be started first, and then waits for a replica in vain, takes no longer to say so.
LINK_TIMEOUT_S = 45.0
# Workers take a snapshot in milliseconds, or within their settle timeout where a replica does not answer.
REACH_TIMEOUT_S = 15.0
# A registry that could not be written is tried again after this.
SAVE_AGAIN_S = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class Retired:
    """A replica on its way out: since when, and the first snapshot without it."""

    since_s: float
    generation: int
    stopped: bool = False


class Reconciler:
    """Runs on the event loop that it is made on."""

    def __init__(
        self,
        catalog: Catalog,
        manager: Manager,
        workers: Workers,
        artifacts: Artifacts,
        epoch: int,
        needs_key: bool = False,
    ) -> None:
        """
        Args:
            epoch: one more than that of the supervisor before: its snapshots are newer than all of that one's.
            needs_key: every application answers only who shows a key.
        """
        self._needs_key = needs_key
        self._catalog = catalog
        self._manager = manager
        self._workers = workers
        self._servable = Servable(artifacts.code_folder)
        self._loop = asyncio.get_running_loop()
        self._generation = epoch << 32
        self._content = rules.Content()
        self._pushed_at_s = 0.0
        # Of each replica in service, the first snapshot that tells of it.
        self._told_in: dict[str, int] = {}
        self._retired: dict[Slot, Retired] = {}
        self._linking_since_s: dict[ModelId, float] = {}
        self._announcing: dict[ModelId, int] = {}
        self._waiting: list[Callable[[], bool]] = []
        self._timer: asyncio.Handle | None = None
        # uvloop's handle of a call that is due at once does not tell for when it was.
        self._timer_at_s = 0.0
        self._is_running = False

    def start(self) -> None:
        self._is_running = True
        self._push(self._current_content())
        self.wake()

    def stop(self) -> None:
        """Make no more changes."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()

    def wake(self, delay_s: float = 0.0) -> None:
        """Have a pass made soon, or after ``delay_s``; the earliest that was asked for counts."""
        if not self._is_running:
            return
        at_s = self._loop.time() + delay_s
        if self._timer is not None and not self._timer.cancelled():
            if self._timer_at_s <= at_s:
                return
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._loop.call_at(at_s, self._on_timer)

    async def until(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something that passes bring about; whether it came true in time."""
        done = self._loop.create_future()
        check = _resolver(is_so, done)
        if check():
            return True
        self._waiting.append(check)
        self.wake()
        try:
            async with asyncio.timeout(timeout_s):
                await done
        except TimeoutError:
            return False
        finally:
            if check in self._waiting:
                self._waiting.remove(check)
        return True

    async def reach_workers(self, timeout_s: float) -> bool:
        """Tell workers what the catalog says now; whether all serve by it in time."""
        self._push_if_changed()
        generation = self._generation
        return await self.until(lambda: self._workers.have_applied(generation), timeout_s)

    def check_servable(self, record: ApplicationRecord) -> None:
        """Check that workers can be told of a record, before it is stored.

        Raises:
            InvalidArgument, TooLarge: as ``Servable.check``.
        """
        self._servable.check(record, self._catalog.applications)

    @property
    def left_out(self) -> Mapping[str, str]:
        """Applications that workers are not told of, and why: what an older Clipper has stored, for instance."""
        return self._servable.left_out

    def is_announced(self, id_: ModelId) -> bool:
        """Whether every worker has all that makes the version ready: its replicas, and that it is current if it is."""
        return id_ not in self._announcing

    def is_told_of(self, replica: ReplicaAddress) -> bool:
        """Whether all workers that answer queries have it among those that they ask."""
        generation = self._told_in.get(replica.id)
        return generation is not None and self._workers.serve_by(generation)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self._make_pass()
        except Exception:  # a bug of ours: what runs goes on, and the next pass may do better
            log.exception("a pass of the reconciler failed")
            self.wake(SAVE_AGAIN_S)

    def _make_pass(self) -> None:
        now_s = self._loop.time()
        if not self._catalog.save_notes():
            self.wake(SAVE_AGAIN_S)
        self._judge_versions(now_s)
        self._push_if_changed()
        self._finish_deployments(now_s)
        self._move_replicas(now_s)
        self._push_if_changed()
        self._stop_retired(now_s)
        self._ask_again(now_s)
        self._announce()
        self._waiting = [check for check in self._waiting if not check()]

    # Versions

    def _judge_versions(self, now_s: float) -> None:
        runs = rules.running(self._catalog)
        for id_, record in list(self._catalog.versions.items()):
            if id_ not in runs:
                self._let_sleep(record)
            elif record.state == "sleeping":
                self._catalog.note(replace(record, state="starting", last_error=None, log_tail=()))
            elif record.state == "starting":
                self._judge_start(record, now_s)

    def _let_sleep(self, record: VersionRecord) -> None:
        self._linking_since_s.pop(record.id, None)
        if record.state in ("starting", "ready"):
            self._catalog.note(replace(record, state="sleeping", promotion=None))

    def _judge_start(self, record: VersionRecord, now_s: float) -> None:
        """A version's first replicas: if one cannot start the version has failed; once all are up, workers get them."""
        slots = self._manager.slots(record.id)
        failures = [slot.start_failure for slot in slots if slot.start_failure]
        if failures:
            self._fail(record, failures[0].reason, failures[0].log_tail)
        elif record.id not in self._linking_since_s and _count_ready(slots) >= record.replicas_wanted:
            self._take_down_type(record, slots, now_s)

    def _take_down_type(self, record: VersionRecord, slots: list[SlotStatus], now_s: float) -> None:
        welcome = next(slot.replica.welcome for slot in slots if slot.replica and slot.replica.welcome)
        warning = next((one.replica.warning for one in slots if one.replica and one.replica.warning), record.warning)
        record = replace(record, input_type=str(welcome.input_type), runtime=welcome.runtime, warning=warning)
        try:
            for application, pinned in self._catalog.linking(record.model):
                if pinned == record.version or (pinned is None and record.promotion is not None):
                    rules.check_fits(application, record)
        except InvalidArgument as error:
            self._fail(record, str(error))
            return
        self._linking_since_s[record.id] = now_s
        self._catalog.note(record)

    def _fail(self, record: VersionRecord, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        log.error("%s has failed: %s", record.id, reason)
        self._linking_since_s.pop(record.id, None)
        self._catalog.note(replace(record, state="failed", promotion=None, last_error=reason, log_tail=log_tail))

    def _finish_deployments(self, now_s: float) -> None:
        """Versions whose replicas all workers have linked are ready, and become current if they are to."""
        for id_, record in list(self._catalog.versions.items()):
            if not (id_ in self._linking_since_s or _only_to_be_promoted(record)):
                continue
            why_not = self._why_not_linked(id_)
            if why_not is None:
                self._make_ready(record)
            elif now_s - self._linking_since_s.setdefault(id_, now_s) > LINK_TIMEOUT_S:
                self._give_up(record, why_not)

    def _give_up(self, record: VersionRecord, reason: str) -> None:
        if record.state == "starting":
            self._fail(record, reason)
        else:
            self._linking_since_s.pop(record.id, None)
            self._catalog.note(replace(record, promotion=None, last_error=reason))

    def _why_not_linked(self, id_: ModelId) -> str | None:
        if not self._workers.have_applied(self._generation):
            return "not every worker took the snapshot with its replicas in time"
        unlinked = self._workers.unlinked()
        reasons = [unlinked[address.id] for address in self._addresses().get(id_, ()) if address.id in unlinked]
        return f"a worker cannot dial its replica: {reasons[0]}" if reasons else None

    def _make_ready(self, record: VersionRecord) -> None:
        ready = replace(record, state="ready", promotion=None, last_error=None, log_tail=())
        changes = [Put(ready)]
        if record.promotion is not None:
            model = self._catalog.models[record.model]
            if model.current != record.version:
                model = replace(model, current=record.version, previous=model.current)
            promoted = Put(replace(ready, kept=False, is_new=False))
            changes = [promoted, Put(model), *self._overtaken(record), *self._ramped(record)]
        try:
            self._catalog.commit(*changes)
        except RegistryUnavailable as error:
            log.error("%s cannot be made ready: %s", record.id, error)
            self.wake(SAVE_AGAIN_S)
            return
        log.info("%s is ready%s", record.id, " and current" if record.promotion is not None else "")
        self._linking_since_s.pop(record.id, None)
        self._push_if_changed()
        self._announcing[record.id] = self._generation

    def _ramped(self, record: VersionRecord) -> list[Put]:
        """Applications that follow its model: of those whose policy learns, it gets a share of the queries at first."""
        was = self._catalog.current(record.model)

        def current(model: str) -> str | None:
            return record.version if model == record.model else self._catalog.current(model)

        return [
            Put(after)
            for application in self._catalog.applications.values()
            if (
                after := newcomers.after_promotion(
                    application, record.model, record.version, was, is_new=record.is_new, current=current
                )
            )
            is not application
        ]

    def _overtaken(self, winner: VersionRecord) -> list[Put]:
        """Versions that were asked to become current before the winner was: they are not to any more."""
        return [
            Put(replace(record, promotion=None))
            for record in self._catalog.versions_of(winner.model)
            if record.promotion is not None and record.promotion < (winner.promotion or 0)
        ]

    def _announce(self) -> None:
        for id_, generation in list(self._announcing.items()):
            if self._workers.have_applied(generation):
                del self._announcing[id_]

    # Replicas

    def _move_replicas(self, now_s: float) -> None:
        self._retire_outdated()
        plan = plan_replicas(rules.running(self._catalog), self._manager.observed(), now_s)
        for slot in plan.forget:
            self._manager.forget(slot)
        for slot in plan.start:
            self._manager.start(slot, self._catalog.versions[slot.model_id].spec)
        # Not before all workers know what takes a replica's place.
        if self._workers.have_applied(self._generation):
            for slot in plan.retire:
                self._manager.retire(slot)
        if plan.wake_at_s is not None:
            self.wake(plan.wake_at_s - now_s)

    def _retire_outdated(self) -> None:
        """A version that was removed and deployed anew under its name gets none of the old one's replicas."""
        for status in self._manager.slots():
            record = self._catalog.versions.get(status.slot.model_id)
            if record is not None and status.replica is not None and status.replica.note.spec != record.spec:
                self._manager.retire(status.slot)

    def _stop_retired(self, now_s: float) -> None:
        """The last snapshot has no replica that is stopping: once it is applied, none of them gets another batch."""
        ids = {
            one.slot: one.replica.note.id for one in self._manager.slots() if one.replica and one.phase == "stopping"
        }
        undrained = self._workers.undrained()
        fresh = {slot: Retired(now_s, self._generation) for slot in ids}
        self._retired = {slot: self._retired.get(slot, fresh[slot]) for slot in ids}
        for slot, retired in self._retired.items():
            drained = self._workers.have_applied(retired.generation) and ids[slot] not in undrained
            overdue = now_s - retired.since_s > rules.batch_timeout_s(self._catalog, slot.model)
            if not retired.stopped and (drained or overdue):
                retired.stopped = True
                self._manager.stop(slot)

    # Snapshots

    def _addresses(self) -> dict[ModelId, tuple[ReplicaAddress, ...]]:
        """The replicas in service."""
        addresses: dict[ModelId, tuple[ReplicaAddress, ...]] = {}
        for status in self._manager.slots():
            address = None if status.replica is None else status.replica.address
            if address is not None and status.phase == "ready":
                addresses[status.slot.model_id] = (*addresses.get(status.slot.model_id, ()), address)
        return addresses

    def _current_content(self) -> rules.Content:
        applications = self._servable.snapshots(self._catalog.applications)
        return rules.content(self._catalog, applications, self._addresses(), self._workers.peers())

    def _push_if_changed(self) -> None:
        content = self._current_content()
        if content != self._content:
            self._push(content)

    def _push(self, content: rules.Content) -> None:
        self._content = content
        self._generation += 1
        self._pushed_at_s = self._loop.time()
        ids = [replica.id for model in content.models for version in model.versions for replica in version.replicas]
        self._told_in = {id_: self._told_in.get(id_, self._generation) for id_ in ids}
        self._workers.push(
            Snapshot(
                self._generation,
                content.applications,
                content.models,
                content.peers,
                content.keys,
                self._needs_key,
                len(self._workers),
            )
        )

    def _ask_again(self, now_s: float) -> None:
        """Workers told what they had dialled and drained when they were asked; where that was not all, ask again."""
        waits = any(not retired.stopped for retired in self._retired.values()) or bool(self._linking_since_s)
        if not waits:
            return
        if now_s - self._pushed_at_s < ASK_AGAIN_S or not self._workers.have_applied(self._generation):
            self.wake(ASK_AGAIN_S)
        else:
            self._push(self._content)


def _count_ready(slots: list[SlotStatus]) -> int:
    return sum(slot.phase == "ready" for slot in slots)


def _only_to_be_promoted(record: VersionRecord) -> bool:
    """Its replicas are up already: it was the previous version, or kept."""
    return record.state == "ready" and record.promotion is not None


def _resolver(is_so: Callable[[], bool], done: "asyncio.Future[None]") -> Callable[[], bool]:
    def check() -> bool:
        if done.done():
            return True
        if is_so():
            done.set_result(None)
            return True
        return False

    return check
