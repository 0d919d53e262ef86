"""UCB1: its index and its regret; discounted, it follows a change."""

import math

import pytest

from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.ucb1 import Ucb1
from tests.learning.policies.bandits import MODELS, bernoulli, failing, learned, mean_regret, play


def test_index_is_the_mean_reward_and_a_width() -> None:
    totals = learned({"a": (10, 4), "b": (30, 3)})
    width = math.sqrt(2 * math.log(40))
    expected = [0.6 + width / math.sqrt(10), 0.9 + width / math.sqrt(30)]
    assert Ucb1(1.0).indices(("a", "b"), totals) == pytest.approx(expected)
    assert Ucb1(0.5).indices(("a", "b"), totals)[0] == pytest.approx(0.6 + 0.5 * width / math.sqrt(10))


def test_what_forgetting_leaves_of_counts_has_no_negative_width() -> None:
    assert Ucb1(1.0).indices(("a", "b"), learned({"a": (1, 0), "b": (1, 1)})) == pytest.approx(
        [1 + math.sqrt(2 * math.log(2)), math.sqrt(2 * math.log(2))]
    )
    assert Ucb1(1.0).indices(("a", "b"), learned({"a": (0.1, 0), "b": (0.1, 0.1)})) == pytest.approx([1.0, 0.0])


def test_a_model_never_scored_comes_first() -> None:
    assert Ucb1().indices(("a", "new"), learned({"a": (10, 0)}))[1] == math.inf
    assert Ucb1().indices(("a", "b"), Totals()) == [math.inf, math.inf]


def test_regret_is_under_the_bound() -> None:
    """Auer, Cesa-Bianchi, Fischer (2002), theorem 1."""
    means, steps = (0.1, 0.4, 0.5, 0.6, 0.7), 20000
    gaps = [mean - means[0] for mean in means[1:]]
    bound = 8 * math.log(steps) * sum(1 / gap for gap in gaps) + (1 + math.pi**2 / 3) * sum(gaps)
    assert mean_regret(Ucb1(1.0), means, steps, games=2) <= bound
    # Choosing at random would cost far more, so that the bound says something.
    assert steps * sum(gaps) / 5 > 5 * bound


def test_discounted_it_leaves_a_model_that_fails_and_returns() -> None:
    means = (0.1, 0.4, 0.4, 0.5, 0.5)
    game = play(Ucb1(0.3), failing(means, broken=range(2000, 4000)), 7000, half_life=300)
    left = game.steps_until(2000, lambda share: share < 0.3)
    returned = game.steps_until(4000, lambda share: share > 0.7)
    assert left is not None and left <= 400
    assert returned is not None and returned <= 1500


def test_of_equals_each_is_tried() -> None:
    assert set(play(Ucb1(), bernoulli([0.5] * 5), 5).leaders) == set(MODELS)
