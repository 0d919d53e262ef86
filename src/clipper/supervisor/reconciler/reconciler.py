"""Carries out what the rollout decides: the shell around ``clipper.supervisor.rollout``, without rules of its own.

A pass gathers all facts, does what can be done now, and waits for nothing. Every change of a container or a worker, and
every change by an operator, asks for another pass. So nothing slow holds up anything else.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from clipper.control.snapshot import Peer
from clipper.errors import RegistryUnavailable
from clipper.settings.version import VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.history.story import Story
from clipper.supervisor.managers.manager import Manager, SlotStatus
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.managers.replica import Replica
from clipper.supervisor.reconciler.servable import Servable
from clipper.supervisor.rollout import instructions as do
from clipper.supervisor.rollout.facts import DOWN, Facts, Failure, SlotFacts, WorkerFacts
from clipper.supervisor.rollout.rollout import Rollout
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.supervisor.workers.workers import Workers
from clipper.values.types import CPU

# The interval at which all slots are checked, whether or not the manager has noted a change: it bounds a change's
# delay.
LOOK_AT_ALL_S = 10.0


class SlotGathering:
    """Gathers the facts of all slots. Unchanged facts stay the same object, by which moments are compared."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._known: dict[Slot, SlotFacts] = {}
        self._facts: tuple[SlotFacts, ...] = ()
        self._looked_s = float("-inf")

    def facts(self, now_s: float) -> tuple[SlotFacts, ...]:
        touched = self._manager.touched()
        if now_s - self._looked_s >= LOOK_AT_ALL_S:
            self._looked_s = now_s
            touched = dict.fromkeys(self._known) | {one.slot: one for one in self._manager.slots()}
        has_changed, in_order = False, True
        for slot, status in touched.items():
            before = self._known.get(slot)
            now = None if status is None else slot_facts(status, self._manager)
            if now == before:
                continue
            has_changed = True
            if now is None:
                del self._known[slot]
            else:
                in_order = in_order and before is not None
                self._known[slot] = now
        if not in_order:
            self._known = {slot: self._known[slot] for slot in sorted(self._known)}
        if has_changed:
            self._facts = tuple(self._known.values())
        return self._facts


def slot_facts(status: SlotStatus, manager: Manager) -> SlotFacts:
    replica, death = status.replica, status.start_failure
    welcome = None if replica is None else replica.welcome
    return SlotFacts(
        status.slot,
        status.phase,
        status.spec,
        id="" if replica is None else replica.note.id,
        address=None if replica is None else replica.address,
        input_type=None if welcome is None else str(welcome.input_type),
        runtime="" if welcome is None else ", on ".join(filter(None, (welcome.runtime, welcome.device))),
        warning=None if replica is None else _warning(replica, status.spec),
        start_failure=None if death is None else Failure(death.reason, death.log_tail),
        last_error=status.last_error,
        history=status.history,
        is_outdated=replica is not None and manager.is_outdated(replica.note),
        has_to_move=replica is not None and manager.has_to_move(replica),
        output_type=None if welcome is None or welcome.output_type is None else str(welcome.output_type),
        output_is_declared=welcome is not None and welcome.output_is_declared,
        output_is_untyped=welcome is not None and welcome.output_is_untyped,
    )


def _warning(replica: Replica, spec: VersionSpec) -> str | None:
    """Return what an operator should know of a replica that works nevertheless."""
    welcome = replica.welcome
    if welcome is None:
        return replica.warning
    unused = (
        f"GPUs are reserved for it (--gpus {spec.gpus}), but it computes on the processor: its library found no GPU "
        "that it can use"
    )
    return "; ".join(filter(None, (replica.warning, unused if welcome.device == CPU else "", welcome.warning))) or None


def worker_facts(worker: WorkerProcess) -> WorkerFacts:
    applied = worker.applied
    return WorkerFacts(
        worker.index,
        worker.phase,
        # An adopted worker is a peer even before we have dialled it: the other workers know it already.
        None if worker.process is None or worker.control is None else Peer(worker.instance, worker.control.wire),
        generation=None if applied is None else applied.generation,
        found_generation=worker.found_generation,
        unlinked={} if applied is None else applied.unlinked,
        undrained=() if applied is None else applied.undrained,
        last_error=worker.last_error,
        is_spare=worker.is_spare,
        is_outdated=worker.process is not None and worker.is_outdated,
        node=worker.node,
    )


log = logging.getLogger(__name__)

# Workers apply a snapshot in milliseconds, or within their settle timeout if a replica does not answer.
REACH_TIMEOUT_S = 15.0
# A registry that could not be written is tried again after this.
SAVE_AGAIN_S = 5.0
# A pass takes a handful of looks, however much there is to do. A pass that never ends is a bug.
MAX_LOOKS = 100


class Reconciler:
    """Carries out the rollout, on the event loop that it is made on. ``Rollout`` decides what, and in which order."""

    def __init__(
        self,
        rollout: Rollout,
        catalog: Catalog,
        manager: Manager,
        workers: Workers,
        code_folder: Callable[[str], str],
        record: Callable[[Sequence[NewEvent]], None] = lambda _: None,
        take_epoch_above: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Make a reconciler.

        ``code_folder`` maps an artifact's digest to the folder of its modules. ``record`` gets the events of processes.
        ``take_epoch_above`` begins a lease of a later epoch.
        """
        self.story = Story()
        self._record = record
        self._take_epoch_above = take_epoch_above
        self.rollout = rollout
        self._catalog = catalog
        self._manager = manager
        self._workers = workers
        self.servable = Servable(code_folder)
        self._slots = SlotGathering(manager)
        self._loop = asyncio.get_running_loop()
        self._can_commit_at_s = float("-inf")
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._timer: asyncio.Handle | None = None
        # uvloop's handle of a call that is due at once does not report its time.
        self._timer_at_s = 0.0
        self._is_running = False

    def start(self) -> None:
        self._is_running = True
        self._make_pass()

    def stop(self) -> None:
        """Make no more changes."""
        self._is_running = False
        if self._timer is not None:
            self._timer.cancel()

    def wake(self, delay_s: float = 0.0) -> None:
        """Ask for a pass, now or after ``delay_s``; the earliest request counts."""
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
        """Wait until passes have made a condition true; return whether they did in time."""
        if is_so():
            return True
        waiter = is_so, self._loop.create_future()
        self._waiting.append(waiter)
        self.wake()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1]
        except TimeoutError:
            return False
        finally:
            self._waiting.remove(waiter)
        return True

    async def reach_workers(self, timeout_s: float) -> bool:
        """Push the catalog's present state; return whether all workers serve by it in time."""
        if self._is_running:
            self._make_pass()
        snapshots = self.rollout.snapshots
        generation = snapshots.generation
        return await self.until(lambda: snapshots.have_applied(self._facts(), generation), timeout_s)

    def told(self) -> Callable[[str], bool]:
        """Return a function that tells by a replica's id whether all workers that answer queries may ask it now."""
        return self.rollout.told(self._facts())

    def outdated(self) -> list[str]:
        """Return the problem of processes with other code or settings than ours, and why they are not replaced yet."""
        facts = self._facts()
        names = [f"worker-{one.index}" for one in facts.workers if one.is_outdated]
        names += [one.id for one in facts.slots if one.is_outdated]
        if not names:
            return []
        ended: list[tuple[str, str | None]] = [(one.phase, one.last_error) for one in facts.workers]
        ended += [(one.phase, one.last_error) for one in facts.slots]
        errors = [error for phase, error in ended if phase in DOWN and error]
        why = f"; held up by: {errors[0]}" if errors else ""
        return [f"{', '.join(names)} still run another Clipper's code or other settings, and are being replaced{why}"]

    def _on_timer(self) -> None:
        self._timer = None
        self._make_pass()

    def _make_pass(self) -> None:
        try:
            self._look()
        except Exception:  # a bug of ours: what runs goes on, and the next pass may do better
            log.exception("a pass of the reconciler failed")
            self.wake(SAVE_AGAIN_S)
        for is_so, done in self._waiting:
            if not done.done() and is_so():
                done.set_result(None)

    def _look(self) -> None:
        if not self._catalog.save_notes():
            self.wake(SAVE_AGAIN_S)
        # Facts are gathered anew for each look, so the next rule sees what the last rule has changed, or could not
        # change: a registry that cannot be written, a container that cannot be started.
        for _ in range(MAX_LOOKS):
            facts, at = self._facts(), time.time()
            self._record(self.story.follow(at, facts))
            instructions = self.rollout.look(facts)
            self.story.record(at, instructions)
            for instruction in instructions:
                self._carry_out(instruction)
            if all(isinstance(one, do.WakeAt) for one in instructions):
                return
        raise RuntimeError(f"after {MAX_LOOKS} looks there is still something to do: {instructions!r:.1000}")

    def _facts(self) -> Facts:
        catalog, now_s = self._catalog, self._loop.time()
        return Facts(
            now_s=now_s,
            records=catalog,
            applications=self.servable.snapshots(catalog.applications, catalog.revision),
            slots=self._slots.facts(now_s),
            workers=tuple(map(worker_facts, self._workers)),
            can_commit_at_s=self._can_commit_at_s,
            revision=catalog.revision,
            fleet_revision=catalog.fleet_revision,
        )

    def _carry_out(self, instruction: do.Instruction) -> None:
        match instruction:
            case do.Note(record, why):
                level = logging.ERROR if record.state == "failed" else logging.INFO
                log.log(level, "%(model)s:%(version)s: %(reason)s", {**record.id.log_fields, "reason": why})
                self._catalog.note(record)
            case do.Commit():
                self._commit(instruction)
            case do.Push(snapshot):
                self._workers.push(snapshot)
            case do.Start(slot, spec):
                self._manager.start(slot, spec)
            case do.Retire(slot):
                self._manager.retire(slot)
            case do.Stop(slot):
                self._manager.stop(slot)
            case do.Forget(slot):
                self._manager.forget(slot)
            case do.StartSpare(why):
                log.info("a spare worker is started: %(reason)s", {"reason": why})
                self._workers.start_spare()
            case do.DrainWorker(index, why):
                log.info("%(worker)s is drained: %(reason)s", {"worker": f"worker-{index}", "reason": why})
                self._workers.renew(index)
            case do.TakeEpochAbove(epoch, why):
                log.warning("workers obey epoch %(epoch)d: %(reason)s", {"epoch": epoch, "reason": why})
                self._take_epoch_above(epoch)
            case do.WakeAt(at_s):
                self.wake(at_s - self._loop.time())

    def _commit(self, commit: do.Commit) -> None:
        try:
            self._catalog.commit(*commit.changes)
        except RegistryUnavailable as error:
            log.error("%(model)s:%(version)s cannot be made ready: %(error)s", {**commit.id.log_fields, "error": error})
            self._can_commit_at_s = self._loop.time() + SAVE_AGAIN_S
        else:
            log.info("%(model)s:%(version)s: %(reason)s", {**commit.id.log_fields, "reason": commit.why})
