"""The history of processes and decisions: steps that explain the server's present state, and events for operators."""

from collections import deque
from collections.abc import Iterable

from clipper import __version__
from clipper.api.events import Step
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.rollout import instructions as do
from clipper.supervisor.rollout.facts import DOWN, Facts, SlotFacts, WorkerFacts, changed_slots

# Steps take some hundred bytes each. A deployment makes about ten.
MAX_STEPS = 500
_UP = ("starting", "ready", "lost")


def started_event(pid: int, workers: int, replicas: int) -> NewEvent:
    """Make the event of a supervisor's start, with the number of workers and replicas that it took over."""
    over = f"; it has taken over {workers} workers and {replicas} replicas" if workers or replicas else ""
    return NewEvent("server", "server", f"the supervisor is started, Clipper {__version__}, pid {pid}{over}")


class Story:
    """Keeps the latest steps, oldest first. A process that stops because of an operator's change causes no event."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=MAX_STEPS)
        self._slots: tuple[SlotFacts, ...] = ()
        # By slot and by worker: the phase at the last look, and whether it was in a crash loop. Only the beginning of a
        # loop is an event.
        self._replicas: dict[str, tuple[str, bool]] = {}
        self._workers: dict[int, tuple[str, bool]] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)

    def follow(self, at: float, facts: Facts) -> list[NewEvent]:
        """Record how processes have changed since the last look, and return the events."""
        events = []
        changed, gone = changed_slots(self._slots, facts.slots)
        self._slots = facts.slots
        for slot in changed:
            name, loops = str(slot.slot), slot.history.crash_loop
            before, looped = self._replicas.get(name, ("", loops))
            self._replicas[name] = slot.phase, loops
            self._note_phase(at, name, before, slot)
            if slot.phase == "dead" and (before == "ready" or (loops and not looped)):
                events += _of_replica(slot, loops=loops, looped=looped)
        workers: dict[int, tuple[str, bool]] = {}
        for worker in facts.workers:
            before, looped = self._workers.get(worker.index, ("", worker.phase == "crash_loop"))
            loops = worker.phase == "crash_loop" or (looped and worker.phase != "backing_off")
            workers[worker.index] = worker.phase, loops
            self._note_phase(at, f"worker-{worker.index}", before, worker)
            if before not in ("", worker.phase) and not looped:
                events += _of_worker(worker, before)
        for name in sorted({str(one.slot) for one in gone} - {str(one.slot) for one in changed}):
            del self._replicas[name]
            self.note(at, name, "gone")
        for index in sorted(self._workers.keys() - workers.keys()):
            self.note(at, f"worker-{index}", "gone")
        self._workers = workers
        return events

    def note(self, at: float, subject: str, text: str) -> None:
        """Record a step. It may be neither a change of a process nor a decision of the rollout."""
        self._steps.append(Step(at, subject, text))

    def record(self, at: float, instructions: Iterable[do.Instruction]) -> None:
        for one in instructions:
            if (described := _described(one)) is not None:
                self.note(at, *described)

    def _note_phase(self, at: float, subject: str, before: str, now: SlotFacts | WorkerFacts) -> None:
        if now.phase != before:
            why = f": {now.last_error}" if now.phase in DOWN and now.last_error else ""
            self.note(at, subject, f"{now.phase}{why}")


def _of_replica(slot: SlotFacts, *, loops: bool, looped: bool) -> list[NewEvent]:
    subject, version = f"model {slot.slot.model}", slot.slot.version
    if not loops:
        text = f"replica {slot.slot} has ended and is started again: {slot.last_error}"
        return [NewEvent("restart", subject, text, version, "warning")]
    if looped:
        return []
    text = f"replica {slot.slot} ends again and again, and is started every half minute: {slot.last_error}"
    return [NewEvent("crash_loop", subject, text, version, "error")]


def _of_worker(worker: WorkerFacts, was: str) -> list[NewEvent]:
    subject, why = f"worker {worker.index}", f": {worker.last_error}" if worker.last_error else ""
    if worker.phase == "lost":
        text = (
            f"the worker on node {worker.node} cannot be reached: it goes on with its last snapshot, and nothing waits "
            f"for it{why}"
        )
        return [NewEvent("lost", subject, text, level="warning")]
    if was == "lost" and worker.phase == "ready":
        return [NewEvent("lost", subject, f"the worker on node {worker.node} can be reached again")]
    if worker.phase == "crash_loop":
        text = f"the worker ends again and again, and is started every half minute{why}"
        return [NewEvent("crash_loop", subject, text, level="error")]
    if worker.phase == "backing_off" and was in _UP:
        return [NewEvent("restart", subject, f"the worker has ended and is started again{why}", level="warning")]
    if worker.phase == "draining":
        reason = "it stood in while others were replaced"
        if not worker.is_spare:
            reason = "it is started again with the present code and settings"
        return [NewEvent("restart", subject, f"the worker is drained: {reason}")]
    return []


def _described(one: do.Instruction) -> tuple[str, str] | None:
    match one:
        case do.Note(record, why):
            return str(record.id), f"{record.state}: {why}"
        case do.Commit(id_, _, why):
            return str(id_), why
        case do.Push(snapshot, why):
            return "workers", f"get snapshot {snapshot.generation}: {why}"
        case do.Start(slot, _, why):
            return str(slot), f"is started: {why}"
        case do.Retire(slot, why):
            return str(slot), f"leaves service: {why}"
        case do.Stop(slot, why):
            return str(slot), f"is stopped: {why}"
        case do.Forget(slot, why):
            return str(slot), f"is forgotten: {why}"
        case do.StartSpare(why):
            return "workers", f"get a spare: {why}"
        case do.DrainWorker(index, why):
            return f"worker-{index}", f"is drained: {why}"
        case do.TakeEpochAbove(epoch, why):
            return "workers", f"obey epoch {epoch}, which is left behind: {why}"
        case do.WakeAt():
            return None
