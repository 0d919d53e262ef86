"""Decides which replicas start and end, when a dead one starts again, and how long a start may take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from clipper.settings.version import MOST_START_TIMES
from clipper.values.types import ModelId

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 10.0

# This many deaths in this time are a crash loop. Its cause rarely goes away by itself, so retries are rare.
CRASH_LOOP_DEATHS = 5
CRASH_LOOP_WINDOW_S = 60.0
CRASH_LOOP_DELAY_S = 30.0

# A process that stayed up this long has recovered: its next death counts as the first.
HEALTHY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """The deaths of a process that is started again and again.

    ``deaths_s`` are the times of the last ``CRASH_LOOP_DEATHS``, oldest first. ``streak`` counts deaths since it was
    last healthy. Only a healthy run ends a crash loop.
    """

    deaths_s: tuple[float, ...] = ()
    streak: int = 0
    crash_loop: bool = False

    def died(self, now_s: float, uptime_s: float) -> "History":
        """Return the history with a further death, ``uptime_s`` after it was ready (0 if it never was)."""
        before = History() if uptime_s >= HEALTHY_AFTER_S else self
        deaths = (*before.deaths_s, now_s)[-CRASH_LOOP_DEATHS:]
        quick = len(deaths) == CRASH_LOOP_DEATHS and now_s - deaths[0] <= CRASH_LOOP_WINDOW_S
        return replace(before, deaths_s=deaths, streak=before.streak + 1, crash_loop=before.crash_loop or quick)

    @property
    def restart_at_s(self) -> float:
        """Return the earliest time to start it again; minus infinity if it never died."""
        if not self.deaths_s:
            return float("-inf")
        doublings = min(self.streak - 1, 16)  # far past MAX_DELAY_S, and no overflow
        delay_s = CRASH_LOOP_DELAY_S if self.crash_loop else min(FIRST_DELAY_S * 2.0**doublings, MAX_DELAY_S)
        return self.deaths_s[-1] + delay_s


NO_DEATHS = History()


Phase = Literal["starting", "ready", "stopping", "dead"]


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A place for a replica. ``str()`` is the replica's name, e.g. ``digits:2#1``."""

    model: str
    version: str
    index: int

    @property
    def model_id(self) -> ModelId:
        return ModelId(self.model, self.version)

    @property
    def log_fields(self) -> dict[str, str]:
        """Return the fields that name this slot in a record of the log."""
        return {"model": self.model, "version": self.version, "replica": str(self)}

    def __str__(self) -> str:
        return f"{self.model}:{self.version}#{self.index}"


@dataclass(frozen=True, slots=True)
class SlotState:
    """The last observed state of a slot."""

    slot: Slot
    phase: Phase
    history: History = NO_DEATHS


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps to take now, in the order of slots.

    Retired slots leave service, and stop once no query needs them; forgotten slots are dead and not desired.
    ``wake_at_s`` is when the next start falls due; None if none is waiting.
    """

    start: tuple[Slot, ...] = ()
    retire: tuple[Slot, ...] = ()
    forget: tuple[Slot, ...] = ()
    wake_at_s: float | None = None


def plan_replicas(desired: Mapping[ModelId, int], observed: Iterable[SlotState], now_s: float) -> Plan:
    """Compare desired with observed replicas, and plan what to do now.

    ``desired`` is the target number of replicas of each version; 0 for a version that is absent. ``observed`` is every
    slot that has a container or a history.
    """
    seen = {one.slot: one for one in observed}
    wanted = {
        Slot(model_id.name, model_id.version, index)
        for model_id, replicas in desired.items()
        for index in range(1, replicas + 1)
    }
    vacant = sorted(slot for slot in wanted if slot not in seen or seen[slot].phase == "dead")
    due = {slot: seen[slot].history.restart_at_s if slot in seen else now_s for slot in vacant}
    unwanted = sorted(slot for slot in seen if slot not in wanted)
    return Plan(
        start=tuple(slot for slot in vacant if due[slot] <= now_s),
        retire=tuple(slot for slot in unwanted if seen[slot].phase in ("starting", "ready")),
        forget=tuple(slot for slot in unwanted if seen[slot].phase == "dead"),
        wake_at_s=min((at_s for at_s in due.values() if at_s > now_s), default=None),
    )


# The interval between looks at how busy a container is; a quarter of its start_timeout_s if that is less.
LOOK_S = 5.0
# A container makes progress if it has computed, or waited for a processor, for this share of the time between looks.
# A container that waits for anything else is below it.
LEAST_SHARE = 0.02


class StartTime:
    """The time of a start.

    Until ``deadline_s`` it need not be busy. Until ``last_s`` it may go on while it is. ``is_extended``: whether it has
    gone on after ``deadline_s``.
    """

    def __init__(self, now_s: float, timeout_s: float) -> None:
        self.deadline_s = now_s + timeout_s
        self.last_s = now_s + MOST_START_TIMES * timeout_s
        self.is_extended = False
        self._look_s = min(LOOK_S, timeout_s / 4)
        self._next_s = self.deadline_s - self._look_s
        self._busy_s: float | None = None

    def has_to_look(self, now_s: float) -> bool:
        """Whether ``is_over`` needs to know now how busy the container is."""
        return now_s >= self._next_s

    def is_over(self, now_s: float, busy_s: float | None) -> bool:
        """Whether the start has taken too long. ``busy_s``: how long its processes have been busy so far."""
        if now_s < self._next_s:
            return False
        before_s, self._busy_s = self._busy_s, busy_s
        self._next_s = now_s + self._look_s
        if now_s < self.deadline_s:
            # Even after a late look, the next one is at the deadline.
            self._next_s = min(self._next_s, self.deadline_s)
            return False
        if now_s >= self.last_s or before_s is None or busy_s is None:
            return True
        is_over = busy_s - before_s < LEAST_SHARE * self._look_s
        self.is_extended = self.is_extended or not is_over
        return is_over
