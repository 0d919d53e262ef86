"""Decides how many replicas a version needs, from facts about its load. The caller gives all times.

The target rises at once, to the replicas needed for the rate that is expected when a new replica is ready. It falls
slowly, to the most replicas that were needed in the last minute. The share of busy time above which it rises is larger
than the share below which it falls, so noise does not make it flap.
The rate of arrivals and the capacity of a replica show a need before any query is late. If they mislead (queries in
bursts, a batch that takes most of the SLO), queries that wait or are late show it: then one replica is added at a time.

A version that may have no replica falls asleep when no query has come to be evaluated for a while, and wakes with the
next. While it is awake it has at least one replica: only the time without queries decides about the last replica.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# The share of its time that a replica should be busy. Above the first, replicas are started; a replica is stopped if
# the rest would stay below the second. At 0.7, queries of one row that arrive at random wait 1.2 times their own time.
BUSY_SHARE_UP = 0.7
BUSY_SHARE_DOWN = 0.55

# Arrivals are counted in this many groups, enough to tell a ramp from a step. A group lasts for the shortest of these
# times, in seconds, in which the latest group has enough arrivals to be significant.
GROUPS = 4
GROUPS_S = (1.0, 2.0, 4.0, 8.0)
ENOUGH_ARRIVALS = 25
# A rate within this many standard deviations of the mean counts as the mean, assuming independent arrivals.
CHANCE = 2.0
# The time from a change of the load until a replica is started for it.
REACTION_S = 1.0
# A ramp that was observed for some seconds is not expected to continue for longer than this.
MAX_HORIZON_S = 10.0

# A step adds at most as many replicas as are ready, or this many if that is more. The next look decides on further
# ones.
MIN_STEP_UP = 2
# The target falls once the last minute needed fewer replicas, and then by one at a time.
DOWN_AFTER_S = 60.0
DOWN_EVERY_S = 10.0

# Queries are in trouble if they wait for this share of the SLO, or if this share of them is late. A running batch takes
# up to 0.3 of the SLO, so waiting for one batch is no trouble.
WAIT_SHARE = 0.5
LATE_SHARE = 0.005
# After a rise, new replicas get this time to take effect before trouble adds one more.
SETTLED_S = 2.0
# For this long after trouble, no replica is stopped if each of the others would then get this share of the load that
# brought the trouble.
AVOID_S = 600.0
AVOID_SHARE = 0.8

# Each look keeps this share of the last estimate of a replica's capacity, which changes with the batches.
CAPACITY_KEPT = 0.75


# A version that has not woken after this time is given up: nearly all models start sooner.
MOST_WAKING_S = 600.0
# The reason that a version has no replica, if no other is known.
ASLEEP = "it is asleep until it is asked"


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a version since the last look, over all workers.

    Attributes:
        late: how many of the arrivals were refused, or expired in a queue.
        wait_s: the mean wait of the oldest query of each batch; 0 if no batch was sent.
        service_s: the mean time of a batch; 0 if none was answered.
        slo_s: the smallest SLO of the applications that use the version.
        capacity_per_s: the mean number of rows that a replica can answer in a second; 0 if that is not known.
        ready: the number of replicas in service.
        start_s: the time that a new replica takes to be ready.
        coming_per_s: the rows a second that pipelines are about to ask of it: see ``together``.
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
    coming_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """The target number of replicas, and the reason."""

    replicas: int
    reason: str


class Autoscaler:
    """Decides for a version, between ``least`` and ``most`` replicas."""

    def __init__(self, least: int, most: int, replicas: int, now_s: float, idle_after_s: float = math.inf) -> None:
        """Start at ``replicas``; if ``least`` is 0, the version falls asleep after ``idle_after_s`` without queries."""
        self._least = max(least, 1)
        self._most = most
        self._idle_after_s = idle_after_s if least == 0 else math.inf
        self._asked_at_s = now_s
        is_asleep = least == 0 and replicas == 0
        self._target = Target(0, ASLEEP) if is_asleep else Target(self._bounded(replicas), "no load has been seen yet")
        self._loads: deque[Load] = deque()
        self._needs: deque[tuple[float, int]] = deque()
        self._may_fall_at_s = now_s + DOWN_AFTER_S
        self._capacity_per_s = 0.0
        self._ready = 0
        self._settled_at_s = now_s
        self._avoided: tuple[float, float] | None = None  # when, and queries per second and replica

    @property
    def target(self) -> Target:
        return self._target

    @property
    def is_asleep(self) -> bool:
        return self._target.replicas == 0

    def wake(self, now_s: float) -> Target:
        """Wake the version for a query without a replica. Return the new target, unchanged if it is awake."""
        if self.is_asleep:
            self._asked_at_s = now_s
            self._settled_at_s = now_s + SETTLED_S
            self._may_fall_at_s = now_s + DOWN_AFTER_S
            self._target = Target(1, "it was asked while it was asleep")
        return self._target

    def plan(self, load: Load) -> Target:
        """Take in the load since the last look, which covers a second or less; return the new target."""
        if load.arrivals:
            self.wake(load.at_s)
        if self.is_asleep:
            return self._target
        # After waking, the idle time counts from when the version can answer.
        if load.arrivals or load.ready > self._ready:
            self._asked_at_s = load.at_s
        elif load.at_s - self._asked_at_s >= self._idle_after_s + (0 if load.ready else MOST_WAKING_S):
            self._target, self._ready = Target(0, f"{ASLEEP}: no query came for {self._idle_after_s:g} s"), 0
            return self._target
        self._loads.append(load)
        while self._loads[0].at_s <= load.at_s - GROUPS * GROUPS_S[-1]:
            self._loads.popleft()
        if load.capacity_per_s:
            before = self._capacity_per_s or load.capacity_per_s
            self._capacity_per_s = load.capacity_per_s + CAPACITY_KEPT * (before - load.capacity_per_s)
        if load.ready != self._ready:
            self._ready = load.ready
            self._settled_at_s = load.at_s + SETTLED_S
        rate_per_s = expected_per_s(self._loads, min(load.start_s + REACTION_S, MAX_HORIZON_S))
        rate_per_s = max(rate_per_s, load.coming_per_s)
        self._note_need(load.at_s, rate_per_s)
        needed = self._needed(rate_per_s, BUSY_SHARE_UP)
        if needed > self._target.replicas:
            self._rise(needed, load, self._forecast(rate_per_s))
        elif trouble := self._trouble(load):
            if avoided_per_s := AVOID_SHARE * load.arrivals / load.interval_s / max(load.ready, 1):
                self._avoided = load.at_s, avoided_per_s
            self._rise(self._target.replicas + 1, load, trouble)
        else:
            self._fall(load.at_s, rate_per_s)
        return self._target

    def hold_at(self, replicas: int, reason: str) -> Target:
        """Take back a rise for which there is no room: the target is this number until a later look."""
        self._target = Target(replicas, reason)
        return self._target

    def _needed(self, rate_per_s: float, busy_share: float) -> int:
        """Return the replicas for a rate; the least number while their capacity is not known."""
        if not self._capacity_per_s:
            return self._least
        return self._bounded(math.ceil(rate_per_s / (self._capacity_per_s * busy_share)))

    def _note_need(self, now_s: float, rate_per_s: float) -> None:
        """Keep the needs that no later need exceeds. So the first is the highest of the last minute."""
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
        """Return why another replica would help; None if queries are in time, or replicas are still starting."""
        if load.ready < self._target.replicas or load.at_s < self._settled_at_s or load.service_s >= load.slo_s:
            return None
        if load.wait_s > WAIT_SHARE * load.slo_s:
            return f"queries wait {load.wait_s * 1e3:.0f} ms of their {load.slo_s * 1e3:g} ms"
        if load.late > LATE_SHARE * load.arrivals:
            return f"{load.late} of {load.arrivals} queries were late"
        return None

    def _rise(self, replicas: int, load: Load, reason: str) -> None:
        replicas = self._bounded(min(replicas, load.ready + max(load.ready, MIN_STEP_UP)))
        if replicas > self._target.replicas:
            self._target = Target(replicas, reason)
            self._settled_at_s = load.at_s + SETTLED_S
            self._may_fall_at_s = load.at_s + DOWN_AFTER_S

    def _fall(self, now_s: float, rate_per_s: float) -> None:
        if self._needs[0][1] < self._target.replicas and now_s >= self._may_fall_at_s:
            self._may_fall_at_s = now_s + DOWN_EVERY_S
            reason = f"no more were needed for {DOWN_AFTER_S:g} s; {self._forecast(rate_per_s)}"
            self._target = Target(self._target.replicas - 1, reason)

    def _forecast(self, rate_per_s: float) -> str:
        return f"{rate_per_s:.3g} queries/s expected, each answers {self._capacity_per_s:.3g}/s"

    def _bounded(self, replicas: int) -> int:
        return min(max(replicas, self._least), self._most)


def expected_per_s(loads: Sequence[Load], horizon_s: float) -> float:
    """Return the expected rate of arrivals ``horizon_s`` after the last of the looks, which are in order.

    A rate that rose from each group to the next is expected to go on rising by the smallest of these rises, which after
    a step, or by chance, is next to nothing.
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
    """Return the rates of the latest groups, oldest first, without groups that have no look."""
    groups: dict[int, list[Load]] = {}
    for load in loads:
        groups.setdefault(int((loads[-1].at_s - load.at_s) / group_s), []).append(load)
    return [
        sum(load.arrivals for load in groups[age]) / sum(load.interval_s for load in groups[age])
        for age in sorted(groups, reverse=True)
        if age < GROUPS
    ]
