"""When queries are due: as many as the rate says, in order, within the duration."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.cli.load.arrivals import BURST_PERIOD_S, BURST_SHARE, Arrivals, due_times_s

KINDS = st.sampled_from(("poisson", "constant", "burst"))


@given(KINDS, st.floats(0.01, 2000), st.floats(0.01, 3), st.integers(0, 2**32))
def test_in_order_within_the_duration_and_the_same_again(
    kind: Arrivals, rate_per_s: float, duration_s: float, seed: int
) -> None:
    due_s = list(due_times_s(kind, rate_per_s, duration_s, Random(seed)))
    assert due_s == sorted(due_s)
    assert all(0 <= each < duration_s for each in due_s)
    assert due_s == list(due_times_s(kind, rate_per_s, duration_s, Random(seed)))


@pytest.mark.parametrize("kind", ["poisson", "constant", "burst"])
def test_the_mean_is_the_rate(kind: Arrivals) -> None:
    count = len(list(due_times_s(kind, 1000, 20, Random(1))))
    # Six standard deviations of a Poisson count.
    assert abs(count - 20_000) < 6 * 20_000**0.5


def test_constant_is_one_each_interval() -> None:
    assert list(due_times_s("constant", 4, 1.0, Random(0))) == [0, 0.25, 0.5, 0.75]


def test_a_burst_takes_part_of_each_period_at_the_density_for_the_rate() -> None:
    due_s = list(due_times_s("burst", 1000, 4, Random(2)))
    assert all(each % BURST_PERIOD_S < BURST_PERIOD_S * BURST_SHARE for each in due_s)
    assert {int(each) for each in due_s} == {0, 1, 2, 3}


def test_poisson_gaps_are_exponential() -> None:
    due_s = list(due_times_s("poisson", 1000, 20, Random(3)))
    gaps_s = [after - before for before, after in pairwise(due_s)]
    longer = sum(gap > 1 / 1000 for gap in gaps_s) / len(gaps_s)
    assert abs(longer - 0.3679) < 0.02
