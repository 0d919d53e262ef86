"""Epsilon-greedy: its probabilities and its regret."""

import pytest

from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.epsilon_greedy import EpsilonGreedy
from tests.learning.policies.bandits import learned, mean_regret


def test_the_best_gets_all_but_what_explores() -> None:
    totals = learned({"a": (10, 5), "b": (10, 1), "c": (10, 2)})
    assert EpsilonGreedy(0.3).probabilities(("a", "b", "c"), totals) == pytest.approx([0.1, 0.8, 0.1])


def test_without_feedback_all_are_alike() -> None:
    assert EpsilonGreedy(0.1).probabilities(("a", "b"), Totals()) == pytest.approx([0.5, 0.5])


def test_a_new_model_is_explored_and_not_flooded() -> None:
    totals = learned({"a": (100, 10), "b": (100, 30)})
    assert EpsilonGreedy(0.3).probabilities(("a", "b", "new"), totals) == pytest.approx([0.8, 0.1, 0.1])


def test_regret_is_what_exploring_costs() -> None:
    means, steps, epsilon = (0.1, 0.3, 0.4, 0.4, 0.5), 5000, 0.1
    exploring = epsilon * steps * (sum(means) / 5 - min(means))
    # Besides, the best has to be told from the others: at a gap of 0.2, some 100 queries that another gets.
    assert mean_regret(EpsilonGreedy(epsilon), means, steps, games=5) <= 1.1 * exploring + 0.4 * 100
