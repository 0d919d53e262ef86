"""The estimators against formulas by hand, and their intervals against a truth that is known."""

import math

import numpy as np
import pytest

from clipper.learning.decisions.evaluation.estimators import (
    Array,
    Estimate,
    dr,
    effective_sample_size,
    ips,
    on_policy,
    snips,
)

LOSSES = np.array([1.0, 0.0, 1.0, 0.5])
WEIGHTS = np.array([2.0, 0.0, 1.0, 4.0])


def test_values_by_hand() -> None:
    assert on_policy(LOSSES).value == 2.5 / 4
    assert ips(LOSSES, WEIGHTS).value == (2 + 0 + 1 + 2) / 4
    assert snips(LOSSES, WEIGHTS).value == 5 / 7
    chosen, target = np.array([0.5, 0.5, 0.25, 0.5]), np.array([0.1, 0.2, 0.3, 0.4])
    assert dr(LOSSES, WEIGHTS, chosen, target).value == pytest.approx((1.0 + 1.0 + 0.75 + 0.0) / 4)
    assert effective_sample_size(WEIGHTS) == 49 / 21


def test_intervals_by_hand() -> None:
    terms = WEIGHTS * LOSSES
    error = math.sqrt(((terms - terms.mean()) ** 2).sum() / 3 / 4)
    found = ips(LOSSES, WEIGHTS, confidence=0.9)
    assert (found.low, found.high) == pytest.approx((1.25 - 1.6449 * error, 1.25 + 1.6449 * error), abs=1e-4)
    many = 40  # of the same: below some, another interval holds
    error = math.sqrt(many * (4 * (2 / 7) ** 2 + (2 / 7) ** 2 + 16 * (1.5 / 7) ** 2)) / (7 * many)
    assert snips(np.tile(LOSSES, many), np.tile(WEIGHTS, many)).high == pytest.approx(5 / 7 + 1.95996 * error)


def test_an_interval_is_not_empty_where_all_lost_alike() -> None:
    weights = np.full(100, 2.0)
    found = snips(np.zeros(100), weights)
    share = 2 / 104
    assert (found.value, found.high) == (0.0, pytest.approx(1.959964 * math.sqrt(share * (1 - share) / 100)))
    assert snips(np.ones(100), weights).low == pytest.approx(1.0 - found.high)
    # By the rule of three, that could be 3 of 100.
    assert 0.02 < found.high < 0.04


def test_a_perfect_direct_model_leaves_no_variance() -> None:
    found = dr(LOSSES, WEIGHTS, LOSSES, np.full(4, 0.25))
    assert found == Estimate(0.25, 0.25, 0.25)


def test_nothing_to_go_by() -> None:
    none = np.array([])
    assert math.isnan(ips(none, none).value) and math.isnan(snips(none, none).value)
    assert math.isnan(snips(LOSSES, np.zeros(4)).value)
    assert effective_sample_size(np.zeros(4)) == 0.0
    one = ips(LOSSES[:1], WEIGHTS[:1])
    assert (one.value, one.low, one.high) == (2.0, -math.inf, math.inf)


def drawn(seed: int, queries: int = 2000) -> tuple[Array, Array, Array, Array]:
    """Losses of models right with chances of their own, chosen by uneven chances; the target turns these about."""
    random = np.random.default_rng(seed)
    logging, target, errors = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6]), np.array([0.5, 0.3, 0.1])
    chosen = random.choice(3, queries, p=logging)
    losses = (random.random(queries) < errors[chosen]).astype(float)
    direct = np.array([0.4, 0.4, 0.2])
    return losses, (target / logging)[chosen], direct[chosen], np.full(queries, float(target @ direct))


TRUTH = 0.1 * 0.5 + 0.3 * 0.3 + 0.6 * 0.1
SEEDS = 400


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    held, values = 0, []
    for seed in range(SEEDS):
        losses, weights, chosen, target = drawn(seed)
        more = (chosen, target) if name == "dr" else ()
        found = {"ips": ips, "snips": snips, "dr": dr}[name](losses, weights, *more)
        held += found.low <= TRUTH <= found.high
        values.append(found.value)
    # 95 % of 400, within four standard errors of a share of that many.
    assert 0.906 <= held / SEEDS <= 0.994
    assert abs(np.mean(values) - TRUTH) < 4 * np.std(values) / math.sqrt(SEEDS)


def test_the_direct_model_makes_the_interval_smaller() -> None:
    losses, weights, chosen, target = drawn(1)
    widths = [found.high - found.low for found in (ips(losses, weights), dr(losses, weights, chosen, target))]
    assert widths[1] < widths[0]
