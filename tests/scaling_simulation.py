"""A version whose replicas are scaled by its load, in virtual time: a queue, arrivals by chance, replicas that take a
while to start. Seconds are of virtual time; nothing waits.
"""

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from clipper.supervisor.managers.reconcile.autoscale import Autoscaler, Load

STEP_S = 0.01
LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Version:
    """Replicas that answer ``capacity_per_s`` each, and are ready ``start_s`` after they are wished for.

    ``told`` is the planner's belief about the capacity, as a factor: it may be wrong.
    """

    capacity_per_s: float = 100.0
    start_s: float = 2.0
    slo_s: float = 0.2
    told: float = 1.0


@dataclass(slots=True)
class Run:
    """The course of a run: the wishes with when they came, and when queries were found to be late."""

    wishes: list[tuple[float, int]]
    arrivals: int = 0
    late_at_s: list[float] = field(default_factory=list)

    @property
    def late_share(self) -> float:
        return len(self.late_at_s) / max(self.arrivals, 1)

    @property
    def most(self) -> int:
        return max(replicas for _, replicas in self.wishes)

    @property
    def last(self) -> int:
        return self.wishes[-1][1]

    def late_share_from(self, from_s: float) -> float:
        """Of all arrivals, those that were late after ``from_s``."""
        return sum(at_s >= from_s for at_s in self.late_at_s) / max(self.arrivals, 1)

    @property
    def turns(self) -> int:
        """How often what was wished for changed its direction."""
        wished = [replicas for _, replicas in self.wishes]
        ups = [later > earlier for earlier, later in itertools.pairwise(wished)]
        return sum(one != other for one, other in itertools.pairwise(ups))


class Simulation:
    """Load ``version`` with ``rate_at`` queries a second, by time, and scale it between ``least`` and ``most``."""

    def __init__(
        self, version: Version, rate_at: Callable[[float], float], least: int = 1, most: int = 8, seed: int = 1
    ) -> None:
        self._version = version
        self._rate_at = rate_at
        self._rng = np.random.default_rng(seed)
        self._autoscaler = Autoscaler(least, most, least, 0.0)
        self._ready_at_s = [0.0] * least
        self._queue: deque[float] = deque()  # when each arrived
        self._budget = 0.0  # rows that the replicas could have answered by now, and have not
        self._arrived = self._late = self._taken = 0
        self._waited_s = 0.0
        self.run = Run([(0.0, least)])

    def until(self, until_s: float) -> Run:
        steps_a_look = round(LOOK_EVERY_S / STEP_S)
        for step in range(1, round(until_s / STEP_S) + 1):
            self._pass_time(step * STEP_S)
            if step % steps_a_look == 0:
                self._look(step * STEP_S)
        return self.run

    def _pass_time(self, now_s: float) -> None:
        arrived = int(self._rng.poisson(self._rate_at(now_s) * STEP_S))
        self._arrived += arrived
        self._queue.extend([now_s] * arrived)
        self._budget += self._ready(now_s) * self._version.capacity_per_s * STEP_S
        while self._queue and self._budget >= 1.0:
            self._take(now_s)
        self._budget = min(self._budget, 1.0)

    def _take(self, now_s: float) -> None:
        wait_s = now_s - self._queue.popleft()
        if wait_s > self._version.slo_s:
            self._late += 1
            self.run.late_at_s.append(now_s)
        else:
            self._budget -= 1.0
            self._taken += 1
            self._waited_s += wait_s

    def _ready(self, now_s: float) -> int:
        return sum(at_s <= now_s for at_s in self._ready_at_s)

    def _look(self, now_s: float) -> None:
        version = self._version
        load = Load(
            at_s=now_s,
            interval_s=LOOK_EVERY_S,
            arrivals=self._arrived,
            late=self._late,
            wait_s=self._waited_s / max(self._taken, 1),
            service_s=1 / version.capacity_per_s,
            slo_s=version.slo_s,
            capacity_per_s=version.capacity_per_s * version.told if self._taken else 0.0,
            ready=self._ready(now_s),
            start_s=version.start_s,
        )
        self.run.arrivals += self._arrived
        self._arrived = self._late = self._taken = 0
        self._waited_s = 0.0
        self._follow(now_s, self._autoscaler.plan(load).replicas)

    def _follow(self, now_s: float, replicas: int) -> None:
        if replicas != self.run.wishes[-1][1]:
            self.run.wishes.append((now_s, replicas))
        self._ready_at_s = self._ready_at_s[:replicas]
        self._ready_at_s += [now_s + self._version.start_s] * (replicas - len(self._ready_at_s))
