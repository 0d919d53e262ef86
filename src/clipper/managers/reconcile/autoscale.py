"""How many replicas a version needs: facts about its load in, a wish out. All times are given by the caller.

Up at once, for what is expected to come while a new replica starts; down slowly, for the most that the last minute
needed. The share of its time that a replica may be busy differs between the two, and so noise does not flap it.
Arrivals and what a replica can answer tell before anything is late. Where they tell wrongly (queries that come in
bursts, a batch that takes most of the objective), queries that wait or are late do: one replica more at a time.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# How much of its time a replica is to be busy: more are started above the first, and stopped if one fewer stayed below
# the second. Queries of one row each that come at random wait 1.2 times their own time at 0.7.
BUSY_SHARE_UP = 0.7
BUSY_SHARE_DOWN = 0.55

# Arrivals are looked at by so many groups: enough to tell a ramp from a step. They are the shortest of these, in
# seconds, of which the latest holds enough arrivals to say anything.
GROUPS = 4
GROUPS_S = (1.0, 2.0, 4.0, 8.0)
ENOUGH_ARRIVALS = 25
# A rate within so many standard deviations of the mean, if queries come independently of each other, is that mean.
CHANCE = 2.0
# From a change to the next look at it, and on to the start of a replica.
REACTION_S = 1.0
# A ramp that was seen for some seconds is not believed for longer than this.
MAX_HORIZON_S = 10.0

# As many at once as there are, or this many if that is more: the next look tells whether that was enough.
MIN_STEP_UP = 2
# Fewer once the last minute needed no more, and then one at a time.
DOWN_AFTER_S = 60.0
DOWN_EVERY_S = 10.0

# Queries are in trouble if they have waited for this part of the objective, or this part of them was late. A batch
# that runs takes up to 0.3 of it, so that a wait for one is none.
WAIT_SHARE = 0.5
LATE_SHARE = 0.005
# New replicas have to show what they do before one more is started for trouble.
SETTLED_S = 2.0
# Replicas are not stopped for so long, if those that are left over would then have this part of a load that brought
# trouble.
AVOID_S = 600.0
AVOID_SHARE = 0.8

# What replicas answer changes with their batches from look to look; how much of each look is taken over.
CAPACITY_KEPT = 0.75


@dataclass(frozen=True, slots=True)
class Load:
    """What one version had to do since the last look, over all workers.

    Attributes:
        at_s: when the look was; the interval before it is ``interval_s`` long.
        arrivals: queries to evaluate.
        late: those of them that were refused, or expired in a queue.
        wait_s: what the oldest query of a batch had waited, as a mean; 0 if no batch was sent.
        service_s: what a batch took, as a mean; 0 if none was answered.
        slo_s: the smallest objective of the applications that ask it.
        capacity_per_s: rows that a replica can answer a second, as a mean; 0 if that is not known.
        ready: replicas in service.
        start_s: how long a new one takes to be ready.
    """

    at_s: float
    interval_s: float
    arrivals: int
    late: int
    wait_s: float
    service_s: float
    slo_s: float
    capacity_per_s: float
    ready: int
    start_s: float


@dataclass(frozen=True, slots=True)
class Wish:
    """How many replicas, and why."""

    replicas: int
    reason: str


class Autoscaler:
    """Decides for one version, between ``least`` and ``most`` replicas."""

    def __init__(self, least: int, most: int, replicas: int, now_s: float) -> None:
        """``replicas`` is how many it has been told to have so far."""
        self._least = least
        self._most = most
        self._wish = Wish(self._bounded(replicas), "no load has been seen yet")
        self._loads: deque[Load] = deque()
        self._needs: deque[tuple[float, int]] = deque()
        self._may_fall_at_s = now_s + DOWN_AFTER_S
        self._capacity_per_s = 0.0
        self._ready = 0
        self._settled_at_s = now_s
        self._avoided: tuple[float, float] | None = None  # when, queries a second and replica

    @property
    def wish(self) -> Wish:
        return self._wish

    def plan(self, load: Load) -> Wish:
        """Look at the load, which is at most about a second's; return what follows."""
        self._take_down(load)
        rate_per_s = expected_per_s(self._loads, min(load.start_s + REACTION_S, MAX_HORIZON_S))
        self._note_need(load.at_s, rate_per_s)
        needed = self._needed(rate_per_s, BUSY_SHARE_UP)
        if needed > self._wish.replicas:
            self._rise(needed, load, self._told(rate_per_s))
        elif trouble := self._trouble(load):
            self._avoid(load)
            self._rise(self._wish.replicas + 1, load, trouble)
        else:
            self._fall(load.at_s, rate_per_s)
        return self._wish

    def _take_down(self, load: Load) -> None:
        self._loads.append(load)
        while self._loads[0].at_s <= load.at_s - GROUPS * GROUPS_S[-1]:
            self._loads.popleft()
        if load.capacity_per_s:
            before = self._capacity_per_s or load.capacity_per_s
            self._capacity_per_s = load.capacity_per_s + CAPACITY_KEPT * (before - load.capacity_per_s)
        if load.ready != self._ready:
            self._ready = load.ready
            self._settled_at_s = load.at_s + SETTLED_S

    def _needed(self, rate_per_s: float, busy_share: float) -> int:
        """Replicas for that rate; none more than there are while it is not known what they do."""
        if not self._capacity_per_s:
            return self._least
        return self._bounded(math.ceil(rate_per_s / (self._capacity_per_s * busy_share)))

    def _note_need(self, now_s: float, rate_per_s: float) -> None:
        """Keep the needs of the last while that no later one is above: the first is the highest of all."""
        need = max(self._needed(rate_per_s, BUSY_SHARE_DOWN), self._needed_by_experience(now_s, rate_per_s))
        while self._needs and self._needs[-1][1] <= need:
            self._needs.pop()
        self._needs.append((now_s, need))
        while self._needs[0][0] <= now_s - DOWN_AFTER_S:
            self._needs.popleft()

    def _needed_by_experience(self, now_s: float, rate_per_s: float) -> int:
        if self._avoided is None or now_s - self._avoided[0] > AVOID_S:
            return self._least
        return self._bounded(math.ceil(rate_per_s / self._avoided[1]))

    def _trouble(self, load: Load) -> str | None:
        """Why one more replica would help, if queries fare badly and all that were wished for are there."""
        if load.ready < self._wish.replicas or load.at_s < self._settled_at_s or load.service_s >= load.slo_s:
            return None
        if load.wait_s > WAIT_SHARE * load.slo_s:
            return f"queries wait {load.wait_s * 1e3:.0f} ms of their {load.slo_s * 1e3:g} ms"
        if load.late > LATE_SHARE * load.arrivals:
            return f"{load.late} of {load.arrivals} queries were late"
        return None

    def _avoid(self, load: Load) -> None:
        rate_per_s = AVOID_SHARE * load.arrivals / load.interval_s / max(load.ready, 1)
        if rate_per_s:
            self._avoided = load.at_s, rate_per_s

    def _rise(self, replicas: int, load: Load, reason: str) -> None:
        replicas = self._bounded(min(replicas, load.ready + max(load.ready, MIN_STEP_UP)))
        if replicas > self._wish.replicas:
            self._wish = Wish(replicas, reason)
            self._settled_at_s = load.at_s + SETTLED_S
            self._may_fall_at_s = load.at_s + DOWN_AFTER_S

    def _fall(self, now_s: float, rate_per_s: float) -> None:
        if self._needs[0][1] < self._wish.replicas and now_s >= self._may_fall_at_s:
            self._may_fall_at_s = now_s + DOWN_EVERY_S
            reason = f"no more were needed for {DOWN_AFTER_S:g} s; {self._told(rate_per_s)}"
            self._wish = Wish(self._wish.replicas - 1, reason)

    def _told(self, rate_per_s: float) -> str:
        return f"{rate_per_s:.3g} queries/s expected, each answers {self._capacity_per_s:.3g}/s"

    def _bounded(self, replicas: int) -> int:
        return min(max(replicas, self._least), self._most)


def expected_per_s(loads: Sequence[Load], horizon_s: float) -> float:
    """The rate of arrivals in ``horizon_s`` from the last of the looks, which are in order.

    A rate that rose from each group to the next is taken to go on rising as it did where it rose least: that is next
    to nothing where it only stepped, or by chance.
    """
    group_s = _group_s(loads)
    rates_per_s = _rates_per_s(loads, group_s)
    newest = rates_per_s[-1]
    rise_per_s = min((later - earlier for earlier, later in pairwise(rates_per_s)), default=0.0) / group_s
    if rise_per_s > 0 and len(rates_per_s) == GROUPS:
        return newest + rise_per_s * horizon_s
    mean = sum(rates_per_s) / len(rates_per_s)
    return mean if abs(newest - mean) <= CHANCE * math.sqrt(mean / group_s) else newest


def _group_s(loads: Sequence[Load]) -> float:
    for group_s in GROUPS_S:
        latest = (load.arrivals for load in loads if loads[-1].at_s - load.at_s < group_s)
        if sum(latest) >= ENOUGH_ARRIVALS:
            return group_s
    return GROUPS_S[-1]


def _rates_per_s(loads: Sequence[Load], group_s: float) -> list[float]:
    """Of the latest groups, oldest first; without those of which there is no look."""
    groups: dict[int, list[Load]] = {}
    for load in loads:
        groups.setdefault(int((loads[-1].at_s - load.at_s) / group_s), []).append(load)
    return [
        sum(load.arrivals for load in groups[age]) / sum(load.interval_s for load in groups[age])
        for age in sorted(groups, reverse=True)
        if age < GROUPS
    ]
