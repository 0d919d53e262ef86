"""Searches for the cheapest numbers of replicas with which an application keeps its SLO at a rate.

It begins with as many replicas of each step as the work needs, adds the replica that helps the most for its cost until
the simulation keeps the SLO, and then removes surplus replicas: the greedy search of InferLine (Crankshaw et
al., SoCC 2020, section 4.3), without its choices of hardware and batch size, which Clipper's schedulers make.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from random import Random

from clipper.cli.capacity.simulation import Outcome, Simulation, Step, arrivals, follow_s
from clipper.errors import InvalidArgument

# A plan must answer this share of queries in time in simulation. Real runs, which are longer, then keep 0.99.
PLANNED_SHARE, KEPT_SHARE = 0.995, 0.99
# Squared coefficient of variation of the gaps between queries: bursts like those of InferLine's traces.
VARIATION = 4.0
# A simulation has enough queries for one in two hundred to mean something, and enough time for queues to grow.
LEAST_QUERIES, LEAST_SLOS = 6_000, 15.0
# A run has at most this many rows, which takes a second or two: with a long SLO and many queries, or with long lists,
# runs are shorter. A run of less than this share would show nothing.
MOST_ROWS, FEWEST_QUERIES, FEWEST_SLOS = 500_000, 300, 3.0
SEED = 20
MAX_REPLICAS = 64
# The rate at which the SLO breaks is searched to within this factor, up to this many times the given rate.
BREAKS_WITHIN, BREAKS_BELOW = 1.03, 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How many replicas of each step a load needs.

    Attributes:
        replicas: by step.
        cost: of all replicas.
        outcome: what comes of the load in simulation.
        limit: the place of the step that limits, which is busiest where the SLO breaks.
        breaks_per_s: the largest rate at which the SLO was kept.
    """

    replicas: tuple[int, ...]
    cost: float
    outcome: Outcome
    limit: int
    breaks_per_s: float

    @property
    def is_kept(self) -> bool:
        return self.outcome.in_time >= KEPT_SHARE


class Planner:
    """Plans for measured steps. ``costs``: of a replica of each step, e.g. the processors that it uses."""

    def __init__(self, steps: Sequence[Step], slo_s: float, costs: Sequence[float]) -> None:
        self._steps, self._slo_s, self._costs = tuple(steps), slo_s, costs
        self._rows_per_query = sum(step.rows_per_query for step in steps)
        self._known: dict[tuple[tuple[int, ...], float, float], Outcome] = {}

    def outcome(self, replicas: tuple[int, ...], per_s: float, enough: float = 0.0) -> Outcome:
        """Return what comes of a load, by simulation, which ends early if less than ``enough`` will be in time."""
        known = self._known.get((replicas, per_s, enough)) or self._known.get((replicas, per_s, 0.0))
        if known is None:
            seconds = min(max(LEAST_SLOS * self._slo_s, LEAST_QUERIES / per_s), self._most_s(per_s))
            times_s = list(arrivals(per_s, seconds, VARIATION, Random(SEED))) or [0.0]
            steps = [replace(step, replicas=each) for step, each in zip(self._steps, replicas, strict=True)]
            known = Simulation(steps, self._slo_s, Random(SEED + 1)).run(times_s, enough)
            self._known[replicas, per_s, enough] = known
        return known

    def _most_s(self, per_s: float) -> float:
        return MOST_ROWS / max(self._rows_per_query, 1.0) / per_s

    def _quickest_s(self) -> float:
        """Return the time of the longest path for a single row in each step."""
        take_s = [step.batch_s(1) for step in self._steps]
        return max(map(sum, zip(take_s, follow_s(self._steps, take_s), strict=True)))

    def keeps(self, replicas: tuple[int, ...], per_s: float, share: float) -> bool:
        return self.outcome(replicas, per_s, share).in_time >= share

    def cheapest(self, per_s: float, budget: float | None = None) -> Plan:
        """Return the cheapest plan that keeps the SLO.

        If the ``budget`` does not suffice, or no number of replicas does, return the best plan that there is: its
        ``is_kept`` is False.

        Raises InvalidArgument if that is too much to simulate.
        """
        if self._most_s(per_s) < max(FEWEST_SLOS * self._slo_s, FEWEST_QUERIES / per_s):
            raise InvalidArgument(
                f"{per_s:g} queries a second of {self._rows_per_query:.3g} rows, with an SLO of {self._slo_s:g} s, are "
                "more than can be simulated: plan for a part of the rate, and take as many times the replicas"
            )
        replicas = self._least(per_s)
        if not self._fits(replicas, budget):
            replicas = (1,) * len(replicas)
        # More replicas do not make a single query faster.
        is_able = self._quickest_s() <= self._slo_s
        while is_able and self.outcome(replicas, per_s).in_time < PLANNED_SHARE:
            wider = [each for each in self._neighbours(replicas, 1) if self._fits(each, budget)]
            if not wider or max(replicas) >= MAX_REPLICAS:
                break
            gains = {each: self._gain(replicas, each, per_s) for each in wider}
            best = max(wider, key=gains.__getitem__)
            if gains[best] <= 0.0:
                # One more replica of a single step helps no query: all steps get one.
                together = tuple(each + 1 for each in replicas)
                best = together if self._fits(together, budget) else best
            replicas = best
        else:
            replicas = self._trimmed(replicas, per_s)
        breaks_per_s = self._breaks_at(replicas, per_s)
        return Plan(
            replicas,
            self.cost(replicas),
            self.outcome(replicas, per_s),
            self._limit(replicas, BREAKS_WITHIN**3 * breaks_per_s),
            breaks_per_s,
        )

    def cost(self, replicas: Sequence[int]) -> float:
        return sum(cost * each for cost, each in zip(self._costs, replicas, strict=True))

    def _fits(self, replicas: Sequence[int], budget: float | None) -> bool:
        return budget is None or self.cost(replicas) <= budget + 1e-9

    def _least(self, per_s: float) -> tuple[int, ...]:
        """Return the replicas that the work needs with the largest batches within the SLO: with fewer, queues grow."""
        able = [step.capacity_per_s(2 * self._slo_s) for step in self._steps]
        return tuple(
            min(max(1, ceil(per_s * step.rows_per_query / rows_per_s - 1e-9)), MAX_REPLICAS)
            for step, rows_per_s in zip(self._steps, able, strict=True)
        )

    def _gain(self, replicas: tuple[int, ...], wider: tuple[int, ...], per_s: float) -> float:
        gained = self.outcome(wider, per_s).in_time - self.outcome(replicas, per_s).in_time
        return gained / max(self.cost(wider) - self.cost(replicas), 1e-9)

    def _trimmed(self, replicas: tuple[int, ...], per_s: float) -> tuple[int, ...]:
        """Reduce a plan until no replica can be removed, or moved to a cheaper step."""
        while True:
            cheaper = [each for each in self._neighbours(replicas, -1) if min(each) >= 1]
            cheaper += [
                moved
                for fewer in cheaper
                for moved in self._neighbours(fewer, 1)
                if self.cost(moved) < self.cost(replicas) - 1e-9
            ]
            kept = [each for each in cheaper if self.keeps(each, per_s, PLANNED_SHARE)]
            if not kept:
                return replicas
            replicas = min(kept, key=self.cost)

    @staticmethod
    def _neighbours(replicas: tuple[int, ...], by: int) -> list[tuple[int, ...]]:
        return [(*replicas[:place], each + by, *replicas[place + 1 :]) for place, each in enumerate(replicas)]

    def _breaks_at(self, replicas: tuple[int, ...], per_s: float) -> float:
        """Return the largest rate, below ``BREAKS_BELOW`` times the given one, that keeps the SLO in simulation."""

        def keeps(rate: float) -> bool:
            return self.keeps(replicas, rate, KEPT_SHARE)

        kept, broken = per_s, per_s
        while keeps(broken):
            if broken >= BREAKS_BELOW * per_s:
                return broken
            kept, broken = broken, 1.25 * broken
        while not keeps(kept):
            broken, kept = kept, kept / 1.5
            if kept < per_s / 50:
                return 0.0
        while broken > BREAKS_WITHIN * kept:
            middle = (kept * broken) ** 0.5
            kept, broken = (middle, broken) if keeps(middle) else (kept, middle)
        return kept

    def _limit(self, replicas: tuple[int, ...], per_s: float) -> int:
        """Return the step for which one more replica would help the most."""
        if not per_s:
            return max(range(len(replicas)), key=lambda place: self._steps[place].batch_s(1))
        wider = self._neighbours(replicas, 1)
        return max(range(len(replicas)), key=lambda place: self.outcome(wider[place], per_s).in_time)
