"""The latest events and decisions, for operators who ask why the server is in its present state."""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from clipper.rollout.facts import Facts, SlotFacts, changed_slots
from clipper.rollout.instructions import (
    Commit,
    DrainWorker,
    Forget,
    Instruction,
    Note,
    Push,
    Retire,
    Start,
    StartSpare,
    Stop,
    TakeEpochAbove,
    WakeAt,
)

# Some hundred bytes each. A deployment makes about ten.
MAX_EVENTS = 500


class Step(Struct, frozen=True):
    """One step of the history, which is finer than events and is not kept over restarts.

    Attributes:
        at: seconds since 1970.
        subject: a version, a replica, a worker, ``workers`` for all of them, or an application.
    """

    at: float
    subject: str
    text: str


class Story:
    """Keeps the latest events, oldest first."""

    def __init__(self) -> None:
        self._events: deque[Step] = deque(maxlen=MAX_EVENTS)
        self._slots: tuple[SlotFacts, ...] = ()
        self._workers: set[str] = set()
        # By slot and worker.
        self._phases: dict[str, str] = {}

    @property
    def events(self) -> tuple[Step, ...]:
        return tuple(self._events)

    def follow(self, at: float, facts: Facts) -> None:
        """Record how the phases of processes changed since the last time."""
        changed, gone = changed_slots(self._slots, facts.slots)
        self._slots = facts.slots
        now: dict[str, tuple[str, str | None]] = {str(one.slot): (one.phase, one.last_error) for one in changed}
        now |= {f"worker-{one.index}": (one.phase, one.last_error) for one in facts.workers}
        for subject, (phase, error) in now.items():
            if self._phases.get(subject) != phase:
                is_down = phase in ("dead", "backing_off", "crash_loop")
                self._events.append(Step(at, subject, f"{phase}: {error}" if is_down and error else phase))
                self._phases[subject] = phase
        workers = {f"worker-{one.index}" for one in facts.workers}
        left = [str(one.slot) for one in gone] + sorted(self._workers - workers)
        self._workers = workers
        for subject in left:
            if subject not in now:
                self._events.append(Step(at, subject, "gone"))
                del self._phases[subject]

    def note(self, at: float, subject: str, text: str) -> None:
        """Record the outcome of something that is neither a process nor a decision of the rollout."""
        self._events.append(Step(at, subject, text))

    def record(self, at: float, instructions: Iterable[Instruction]) -> None:
        """Record what was decided."""
        for one in instructions:
            if (described := _described(one)) is not None:
                self._events.append(Step(at, *described))


def _described(one: Instruction) -> tuple[str, str] | None:
    match one:
        case Note(record, why):
            return str(record.id), f"{record.state}: {why}"
        case Commit(id_, _, why):
            return str(id_), why
        case Push(snapshot, why):
            return "workers", f"get snapshot {snapshot.generation}: {why}"
        case Start(slot, _, why):
            return str(slot), f"is started: {why}"
        case Retire(slot, why):
            return str(slot), f"leaves service: {why}"
        case Stop(slot, why):
            return str(slot), f"is stopped: {why}"
        case Forget(slot, why):
            return str(slot), f"is forgotten: {why}"
        case StartSpare(why):
            return "workers", f"get a spare: {why}"
        case DrainWorker(index, why):
            return f"worker-{index}", f"is drained: {why}"
        case TakeEpochAbove(epoch, why):
            return "workers", f"obey epoch {epoch}, which is left behind: {why}"
        case WakeAt():
            return None
