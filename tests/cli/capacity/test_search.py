"""Plans, beside all that could be planned, and in longer runs than they were made by."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import ClassVar

import pytest

from clipper.cli.capacity.search import KEPT_SHARE, MOST_ROWS, PLANNED_SHARE, VARIATION, Planner
from clipper.cli.capacity.simulation import Outcome, Simulation, Step, arrivals
from clipper.errors import InvalidArgument

FIVE_MINUTES_S = 300.0


def drawn(seed: int) -> tuple[list[Step], float, float]:
    """Steps by chance, an SLO and a rate."""
    chance = random.Random(seed)
    steps: list[Step] = []
    for place in range(chance.randint(1, 3)):
        needs = tuple(sorted(chance.sample(range(place), chance.randint(1, place)))) if place else ()
        fixed_s, row_s = chance.uniform(0.001, 0.02), chance.uniform(0.0005, 0.006)
        asked = (0.0, 1.0) if chance.random() < 0.7 or not place else (0.0, chance.uniform(0.2, 0.9))
        rows = (1,) if chance.random() < 0.8 or not place else (1, 3)
        steps.append(Step(f"s{place}", needs, fixed_s, row_s, asked=asked, rows=rows))
    return steps, chance.uniform(0.12, 0.3), chance.uniform(40.0, 160.0)


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 20))])
def test_plan_is_within_a_replica_of_brute_force_and_keeps_its_promise(seed: int) -> None:
    steps, slo_s, per_s = drawn(seed)
    planner = Planner(steps, slo_s, [1.0] * len(steps))
    found = planner.cheapest(per_s)
    assert found.outcome.in_time >= PLANNED_SHARE
    assert found.cost == sum(found.replicas)
    # More replicas of a step never hurt, so that no plan is two cheaper if none is exactly two cheaper.
    most = int(found.cost) - 2
    ranges = [range(1, most + 1)] * len(steps)
    assert not [each for each in product(*ranges) if sum(each) == most and planner.keeps(each, per_s, PLANNED_SHARE)]
    wide = [replace(step, replicas=each) for step, each in zip(steps, found.replicas, strict=True)]
    times_s = list(arrivals(per_s, FIVE_MINUTES_S, VARIATION, random.Random(seed)))
    assert Simulation(wide, slo_s, random.Random(seed)).run(times_s).in_time >= KEPT_SHARE
    assert found.breaks_per_s >= per_s
    if found.breaks_per_s < 3 * per_s:
        assert planner.outcome(found.replicas, 1.2 * found.breaks_per_s).in_time < KEPT_SHARE


def test_step_that_limits_is_the_one_that_more_replicas_of_help() -> None:
    steps = [Step("quick", (), 0.001, 0.0001), Step("slow", (0,), 0.01, 0.008)]
    found = Planner(steps, 0.2, [1.0, 1.0]).cheapest(200.0)
    assert (found.limit, found.replicas[0]) == (1, 1)
    assert found.replicas[1] >= 2


def test_dear_replicas_are_saved() -> None:
    """Either of two steps in a row could be given more; the cheaper one is."""
    steps = [Step("dear", (), 0.01, 0.004), Step("cheap", (0,), 0.01, 0.004)]
    found = Planner(steps, 0.1, [10.0, 1.0]).cheapest(150.0)
    assert found.replicas[0] <= found.replicas[1]


def test_what_cannot_be_kept_is_said() -> None:
    steps = [Step("slow", (), 0.3, 0.001)]
    found = Planner(steps, 0.2, [1.0]).cheapest(10.0)
    assert (found.is_kept, found.breaks_per_s, found.limit) == (False, 0.0, 0)
    few = Planner([Step("one", (), 0.0, 0.01)], 0.2, [1.0])
    bound = few.cheapest(400.0, budget=2.0)
    assert (bound.is_kept, bound.replicas) == (False, (2,))
    assert 100.0 < bound.breaks_per_s < 200.0
    assert few.cheapest(400.0).is_kept


class Counted:
    """In place of ``Simulation``: notes how many queries each run has; none is in time."""

    runs: ClassVar[list[int]] = []

    def __init__(self, steps: Sequence[Step], slo_s: float, chance: random.Random) -> None:
        self._steps = steps

    def run(self, times_s: Sequence[float], enough: float) -> Outcome:
        Counted.runs.append(len(times_s))
        nothing = (0.0,) * len(self._steps)
        return Outcome(0.0, 0.0, nothing, nothing, nothing)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr("clipper.cli.capacity.search.Simulation", Counted)
    Counted.runs.clear()
    return Counted.runs


def test_a_plan_that_cannot_be_is_given_up_soon(runs: list[int]) -> None:
    """A pipeline of 32 steps, whose SLO is shorter than they take, was simulated two thousand times."""
    steps = [Step(str(place), (place - 1,) if place else (), 0.01, 0.001) for place in range(32)]
    found = Planner(steps, 0.1, [1.0] * 32).cheapest(50.0)
    assert not found.is_kept and found.breaks_per_s == 0.0
    assert len(runs) < 100


@pytest.mark.long
@pytest.mark.parametrize(("slo_s", "per_s", "rows"), [(0.1, 1e6, 1), (60.0, 2000.0, 1), (1.0, 100.0, 1000)])
def test_what_is_simulated_has_a_bound(runs: list[int], slo_s: float, per_s: float, rows: int) -> None:
    Planner([Step("one", (), 0.0, 1e-7, rows=(rows,))], slo_s, [1.0]).cheapest(per_s)
    assert 0 < max(runs) * rows <= 1.2 * MOST_ROWS


@pytest.mark.parametrize(
    ("slo_s", "per_s", "rows"), [(600.0, 1e6, 1), (600.0, 1000.0, 1), (1.0, 1.0, 10_000), (1.0, 1e6, 1000)]
)
def test_what_cannot_be_simulated_is_told(runs: list[int], slo_s: float, per_s: float, rows: int) -> None:
    with pytest.raises(InvalidArgument, match="more than can be simulated: plan for a part of the rate"):
        Planner([Step("one", (), 0.0, 1e-7, rows=(rows,))], slo_s, [1.0]).cheapest(per_s)
    assert not runs
