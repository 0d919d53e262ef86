"""The latest events and decisions, for operators who ask why the server is in its present state."""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from clipper.rollout.facts import Facts
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
        self._before: dict[str, tuple[str, str]] = {}

    @property
    def events(self) -> tuple[Step, ...]:
        return tuple(self._events)

    def follow(self, at: float, facts: Facts) -> None:
        """Record how the phases of processes changed since the last time."""
        now: dict[str, tuple[str, str]] = {str(one.slot): (one.phase, one.last_error or "") for one in facts.slots}
        now |= {f"worker-{one.index}": (one.phase, one.last_error or "") for one in facts.workers}
        for subject, (phase, error) in now.items():
            if self._before.get(subject, ("", ""))[0] != phase:
                is_down = phase in ("dead", "backing_off", "crash_loop")
                self._events.append(Step(at, subject, f"{phase}: {error}" if is_down and error else phase))
        self._events.extend(Step(at, subject, "gone") for subject in self._before.keys() - now.keys())
        self._before = now

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
        case WakeAt():
            return None
