"""Finds the events in changes of processes: replicas and workers that end and come back."""

from collections.abc import Iterable

from clipper import __version__
from clipper.events.log import NewEvent
from clipper.rollout.facts import SlotFacts, WorkerFacts, changed_slots

_UP = ("starting", "ready", "lost")


def started_event(pid: int, workers: int, replicas: int) -> NewEvent:
    """The start of a supervisor that has taken over so many workers and replicas."""
    over = f"; it has taken over {workers} workers and {replicas} replicas" if workers or replicas else ""
    return NewEvent("server", "server", f"the supervisor is started, Clipper {__version__}, pid {pid}{over}")


class ProcessEvents:
    """Compares each look with the one before. A process that stops because of an operator's change makes no event."""

    def __init__(self) -> None:
        self._slots: tuple[SlotFacts, ...] = ()
        # The phase of each at the last look, and whether it was in a crash loop, of which only the beginning is told.
        self._replicas: dict[str, tuple[str, bool]] = {}
        self._workers: dict[int, tuple[str, bool]] = {}

    def follow(self, slots: Iterable[SlotFacts], workers: Iterable[WorkerFacts]) -> list[NewEvent]:
        events = []
        changed, gone = changed_slots(self._slots, slots := tuple(slots))
        self._slots = slots
        for name in {str(one.slot) for one in gone} - {str(one.slot) for one in changed}:
            del self._replicas[name]
        for slot in changed:
            name, loops = str(slot.slot), slot.history.crash_loop
            before, looped = self._replicas.get(name, ("", loops))
            self._replicas[name] = slot.phase, loops
            if slot.phase == "dead" and (before == "ready" or (loops and not looped)):
                events += _of_replica(slot, loops=loops, looped=looped)
        phases: dict[int, tuple[str, bool]] = {}
        for worker in workers:
            was, looped = self._workers.get(worker.index, (worker.phase, worker.phase == "crash_loop"))
            loops = worker.phase == "crash_loop" or (looped and worker.phase != "backing_off")
            phases[worker.index] = worker.phase, loops
            if worker.phase != was and not looped:
                events += _of_worker(worker, was)
        self._workers = phases
        return events


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
        text = f"the worker, on the node {worker.node}, goes on by what it knows, and nothing waits for it{why}"
        return [NewEvent("lost", subject, text, level="warning")]
    if was == "lost" and worker.phase == "ready":
        return [NewEvent("lost", subject, f"the worker, on the node {worker.node}, can be reached again")]
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
