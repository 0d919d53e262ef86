"""Queues in virtual time: against formulas, and what must hold of any load."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.cli.capacity.simulation import Simulation, Step, arrivals, even_split, follow_s
from tests.example_counts import share_of

BOXES = Step("boxes", (), 0.002, 0.001)
CHAIN = (BOXES, Step("names", (0,), 0.004, 0.0005, rows=(2, 4)), Step("sum", (0, 1), 0.001, 0.0001))


def run(
    steps: tuple[Step, ...], slo_s: float, per_s: float, seconds: float = 60.0, enough: float = 0.0, **more: object
):  # type: ignore[no-untyped-def]
    times_s = list(arrivals(per_s, seconds, 1.0, random.Random(1)))
    return Simulation(steps, slo_s, random.Random(2), **more).run(times_s, enough)  # type: ignore[arg-type]


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_rows_wait_as_in_a_queue_with_one_server(busy: float) -> None:
    """M/D/1: the mean wait is busy / (2 * (1 - busy)) times the service time (Pollaczek and Khinchine)."""
    found = run((Step("one", (), 0.0, 0.01, largest=1),), 100.0, busy / 0.01, 600.0)
    assert found.busy[0] == pytest.approx(busy, rel=0.03)
    assert found.wait_s[0] == pytest.approx(0.01 * busy / (2 * (1 - busy)), rel=0.1)
    assert found.in_time == 1.0


def test_more_than_can_be_done_is_given_up_before_the_last_step() -> None:
    calm, flooded = run(CHAIN, 0.1, 100.0), run(CHAIN, 0.1, 1500.0)
    assert calm.in_time == 1.0
    assert calm.in_vain == (0.0, 0.0, 0.0)
    assert flooded.in_time < 0.6
    assert flooded.p99_s <= 0.1
    assert flooded.in_vain[2] <= 0.01
    # A run that only shall tell whether nearly all are in time need not go on.
    assert run(CHAIN, 0.1, 1500.0, enough=0.99).in_time == 0.0
    assert run(CHAIN, 0.1, 100.0, enough=0.99) == calm


def test_a_branch_gets_its_share_of_the_queries() -> None:
    first = Step("language", (), 0.001, 0.0)
    steps = (first, Step("de", (0,), 0.0, 0.01, asked=(0.0, 0.3)), Step("fr", (0,), 0.0, 0.01, asked=(0.3, 1.0)))
    assert [step.rows_per_query for step in steps] == pytest.approx([1.0, 0.3, 0.7])
    found = run(steps, 1.0, 50.0)
    assert found.busy[1] == pytest.approx(0.15, rel=0.1)
    assert found.busy[2] == pytest.approx(0.35, rel=0.1)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 0.02), st.floats(0.0, 0.01), st.integers(1, 3), st.booleans()), min_size=1, max_size=4
    ),
    st.floats(20.0, 400.0),
    st.booleans(),
)
@settings(max_examples=share_of(60), deadline=None)
def test_no_answer_is_late_and_nothing_is_lost(
    drawn: list[tuple[float, float, int, bool]], per_s: float, is_split: bool
) -> None:
    steps = tuple(
        Step(str(place), (place - 1,) if place and is_chained else (), fixed_s, row_s, replicas)
        for place, (fixed_s, row_s, replicas, is_chained) in enumerate(drawn)
    )
    slo_s = 0.1
    found = run(steps, slo_s, per_s, 2.0, split_s=even_split(steps, slo_s) if is_split else None)
    assert 0.0 <= found.in_time <= 1.0
    assert found.p99_s <= slo_s + 1e-6
    assert all(0.0 <= share <= 1.0 for share in found.in_vain)
    more = run(tuple(Step(each.name, each.needs, each.fixed_s, each.row_s, 64) for each in steps), slo_s, per_s, 2.0)
    if sum(step.batch_s(1) for step in steps) < slo_s / 2:
        assert more.in_time >= found.in_time - 0.02


def test_a_split_shares_the_time_of_the_longest_path() -> None:
    steps = (Step("a", (), 0.01, 0.0), Step("b", (), 0.03, 0.0), Step("c", (0, 1), 0.01, 0.0))
    assert follow_s(steps, [0.01, 0.03, 0.01]) == pytest.approx([0.01, 0.01, 0.0])
    assert even_split(steps, 0.1) == pytest.approx([0.05, 0.075, 0.025])


@pytest.mark.parametrize("variation", [1.0, 4.0])
def test_gaps_vary_as_asked(variation: float) -> None:
    times_s = list(arrivals(100.0, 500.0, variation, random.Random(3)))
    gaps_s = [later - before for before, later in pairwise(times_s)]
    mean_s = sum(gaps_s) / len(gaps_s)
    assert mean_s == pytest.approx(0.01, rel=0.05)
    assert sum((gap_s - mean_s) ** 2 for gap_s in gaps_s) / len(gaps_s) / mean_s**2 == pytest.approx(
        variation, rel=0.15
    )
