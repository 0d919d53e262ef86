"""Intervals of mean losses that hold at all times at once: the formulas, and that they hold as often as they say."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.learning.mathematics.confidence_sequences import (
    NO_EVIDENCE,
    Evidence,
    difference_interval,
    log_capital_above,
    log_capital_below,
    log_capital_less,
    mean_interval,
    nearest_means,
)
from tests.example_counts import share_of

ERROR = 0.1
RUNS, LOSSES = 60, 300

Draw = Callable[[Random], float]


def of(*losses: float) -> Evidence:
    return Evidence(len(losses), math.fsum(losses), math.fsum(loss * (1 - loss) for loss in losses))


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    count = draw(st.integers(0, 5000))
    loss = draw(st.floats(0, 1)) * count
    most = loss * (1 - loss / count) if count else 0.0
    return Evidence(count, loss, draw(st.sampled_from([0.0, 0.3, 0.9, 1.0])) * most)


def test_without_losses_nothing_is_known() -> None:
    interval = mean_interval(NO_EVIDENCE, 0.05)
    assert (interval.low, interval.high) == (0.0, 1.0)
    both = difference_interval(NO_EVIDENCE, NO_EVIDENCE, 0.05)
    assert (both.low, both.high) == (-1.0, 1.0)
    assert log_capital_less(NO_EVIDENCE, NO_EVIDENCE) <= 0.0
    assert NO_EVIDENCE + of(0.5) == of(0.5) + NO_EVIDENCE == of(0.5)
    assert NO_EVIDENCE.mean == 0.5


def test_capital_of_zeros_and_ones_is_a_mixture_of_bernoulli_likelihoods() -> None:
    # Of one loss of 1 Jeffreys' mixture gives 1/2; against a mean of 0.1 that is 5 times as likely, with 3/4 of it bet.
    assert log_capital_above(of(1.0), 0.1) == pytest.approx(math.log(0.75 * 5))
    assert log_capital_below(of(0.0), 0.9) == pytest.approx(math.log(0.75 * 5))
    # None of three losses was 1: the mixture gives 1/2 × 3/4 × 5/6, and nothing is likelier than a mean of 0.
    assert log_capital_above(of(0.0, 0.0, 0.0), 0.3) == pytest.approx(math.log(0.75 * 0.3125))


def test_capital_against_a_pair_on_the_same_queries_is_the_mean_of_both() -> None:
    first, second = Evidence(20, 12, 0.0), Evidence(10, 4, 0.0)
    below, above = log_capital_below(first, first.mean), log_capital_above(second, second.mean)
    expected = math.log((math.exp(below) + math.exp(above)) / 2)
    assert log_capital_less(first, second, are_together=True) == pytest.approx(expected)


def test_what_cannot_be_is_refuted_at_once() -> None:
    assert log_capital_above(of(1.0), 0.0) == math.inf
    assert log_capital_below(of(0.0), 1.0) == math.inf
    assert log_capital_less(of(0.5), of(0.5), 1.5) == math.inf


def test_losses_that_differ_little_tell_more() -> None:
    rough, fine = Evidence(1000, 200, 0.0), Evidence(1000, 200, 155.0)
    width = {each: mean_interval(each, 0.05).high - mean_interval(each, 0.05).low for each in (rough, fine)}
    assert width[fine] < 0.5 * width[rough]


@given(evidence(), st.sampled_from([0.01, 0.05, 0.4]))
def test_interval_of_a_mean_holds_what_was_observed(known: Evidence, error: float) -> None:
    interval = mean_interval(known, error)
    assert 0.0 <= interval.low <= known.mean <= interval.high <= 1.0


@settings(max_examples=share_of(20))
@given(evidence(), evidence())
def test_interval_of_a_difference_is_as_symmetric_as_a_difference(first: Evidence, second: Evidence) -> None:
    forth, back = difference_interval(first, second, 0.05), difference_interval(second, first, 0.05)
    assert -1.0 <= forth.low <= first.mean - second.mean <= forth.high <= 1.0
    assert forth.low == pytest.approx(-back.high, abs=1e-6)


@settings(max_examples=share_of(40))
@given(evidence(), evidence(), st.floats(-0.5, 0.5))
def test_least_capital_of_a_pair_is_the_least(first: Evidence, second: Evidence, margin: float) -> None:
    found = log_capital_less(first, second, margin)
    together = log_capital_less(first, second, margin, are_together=True)
    low, high = max(0.0, -margin), min(1.0, 1.0 - margin)
    for step in range(101):
        mean = low + (high - low) * step / 100
        below = log_capital_below(first, min(max(mean + margin, 0.0), 1.0))
        above = log_capital_above(second, mean)
        assert found <= below + above + 1e-6
        assert together <= np.logaddexp(below, above) - math.log(2) + 1e-4


@settings(max_examples=share_of(20))
@given(evidence(), evidence())
def test_sureness_is_the_confidence_whose_interval_is_on_one_side(first: Evidence, second: Evidence) -> None:
    sure = -math.expm1(-max(log_capital_less(first, second), 0.0))
    if 1e-6 < sure < 1 - 1e-6:
        assert difference_interval(first, second, (1 - sure) * 0.98).high >= -1e-6
        assert difference_interval(first, second, min((1 - sure) * 1.02, 0.999)).high <= 1e-6


def bernoulli(mean: float) -> Draw:
    return lambda random: float(random.random() < mean)


def beta(ones: float, zeros: float) -> Draw:
    return lambda random: random.betavariate(ones, zeros)


@pytest.mark.parametrize(
    ("draws", "means"),
    [
        ((bernoulli(0.1), bernoulli(0.2)), (0.1, 0.2)),
        ((beta(2, 8), beta(3, 7)), (0.2, 0.3)),
        ((bernoulli(0.5), beta(50, 50)), (0.5, 0.5)),
    ],
)
def test_intervals_hold_the_means_at_all_times_at_once(draws: tuple[Draw, Draw], means: tuple[float, float]) -> None:
    """The model that is asked depends on all losses before, as a policy has it."""
    limit, misses = -math.log(ERROR), [0, 0]
    for seed in range(RUNS):
        random, known = Random(seed), [NO_EVIDENCE, NO_EVIDENCE]
        missed = [False, False]
        for _ in range(LOSSES):
            best = 0 if known[0].mean <= known[1].mean else 1
            asked = random.randrange(2) if random.random() < 0.2 else best
            known[asked] += of(draws[asked](random))
            capitals = (log_capital_above(known[asked], means[asked]), log_capital_below(known[asked], means[asked]))
            missed[0] |= max(capitals) >= limit
            # The pair's least capital is at most that at the true means.
            at_truth = log_capital_above(known[0], means[0]) + log_capital_below(known[1], means[1])
            missed[1] |= at_truth >= limit
        misses = [total + each for total, each in zip(misses, missed)]
    assert max(misses) <= ERROR * RUNS


def test_the_nearest_means_are_what_was_observed_if_these_are_such() -> None:
    assert nearest_means(Evidence(100, 50), Evidence(100, 30)) == (0.5, 0.3)
    assert nearest_means(Evidence(100, 30), Evidence(100, 50), margin=-0.2) == (0.3, 0.5)


@pytest.mark.parametrize("margin", [-0.1, 0.0, 0.1, 0.5])
@pytest.mark.parametrize("counts", [(100, 100), (20, 1000), (1000, 20)])
def test_no_other_means_are_likelier_than_the_nearest(margin: float, counts: tuple[int, int]) -> None:
    first, second = Evidence(counts[0], 0.3 * counts[0]), Evidence(counts[1], 0.5 * counts[1])

    def log_likelihood(one: float, two: float) -> float:
        parts = ((first, one), (second, two))
        return sum(
            known.loss * math.log(mean) + (known.count - known.loss) * math.log1p(-mean) for known, mean in parts
        )

    one, two = nearest_means(first, second, margin)
    assert one - two == pytest.approx(margin)
    grid = [step / 500 for step in range(1, 500)]
    best = max(log_likelihood(mean + margin, mean) for mean in grid if 0 < mean + margin < 1)
    assert log_likelihood(one, two) >= best - 1e-9


@pytest.mark.parametrize("mean", [0.1, 0.3, 0.6])
def test_capital_of_other_losses_is_the_mixture_of_all_bets(mean: float) -> None:
    losses = [0.6, 0.7, 0.5, 0.9]
    count, total, squares = 4, sum(losses), sum((loss - mean) ** 2 for loss in losses)
    mixed = math.gamma(total + 0.5) * math.gamma(count - total + 0.5) / math.gamma(count + 1) / math.pi
    bernoulli = mixed / (mean**total * (1 - mean) ** (count - total))
    bets = [0.5**step for step in range(1, 15)]
    parts = [1 / step for step in range(1, 15)]
    won = [math.exp(bet * (total - count * mean) + (math.log(1 - bet) + bet) * squares) for bet in bets]
    variance = sum(part * each for part, each in zip(parts, won)) / sum(parts)
    assert log_capital_above(of(*losses), mean) == pytest.approx(math.log(0.75 * bernoulli + 0.125 * variance))
    gains = of(*(1 - loss for loss in losses))
    assert log_capital_below(gains, 1 - mean) == pytest.approx(math.log(0.75 * bernoulli + 0.125 * variance))


@pytest.mark.parametrize("first", [of(0.5), of(0.2, 0.6), of(0.0, 1.0, 0.0)])
@pytest.mark.parametrize("second", [of(0.9), of(1.0, 1.0), of(0.7, 0.8, 1.0)])
def test_a_pairs_capital_is_the_least_over_all_pairs_of_means(first: Evidence, second: Evidence) -> None:
    for margin in (0.0, 0.1):
        grid = [step / 1000 * (1 - margin) for step in range(1001)]
        least = min(log_capital_below(first, mean + margin) + log_capital_above(second, mean) for mean in grid)
        assert log_capital_less(first, second, margin) == pytest.approx(least, abs=1e-3)


def test_below_is_above_of_what_was_not_lost() -> None:
    assert log_capital_below(of(0.9), 0.95) == pytest.approx(log_capital_above(of(0.1), 0.05))
