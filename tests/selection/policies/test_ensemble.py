"""The ensemble: weights by accuracy, and answers better than the best model's."""

import math
from random import Random

import pytest
from bandits import MODELS, bernoulli, learned, play

from clipper.selection.learning.totals import Totals
from clipper.selection.policies.ensemble import Ensemble
from clipper.selection.policies.policy import Choice, Combined, QueryView


def shares(policy: Ensemble, totals: Totals) -> tuple[float, ...]:
    return policy.select(("a", "b"), totals, QueryView(), Random(0)).shares


def test_equal_weights_do_not_learn() -> None:
    assert shares(Ensemble(), learned({"a": (100, 1), "b": (100, 50)})) == (0.5, 0.5)


def test_votes_weigh_their_log_odds() -> None:
    totals = learned({"a": (98, 9), "b": (98, 24)})
    for classes in (2, 10):
        found = shares(Ensemble(weighting="accuracy", classes=classes), totals)
        assert found[0] / found[1] == pytest.approx(math.log(9 * (classes - 1)) / math.log(3 * (classes - 1)))


def test_means_weigh_by_the_inverse_of_the_loss() -> None:
    found = shares(Ensemble("mean", "accuracy"), learned({"a": (98, 9), "b": (98, 19)}))
    assert found == pytest.approx((2 / 3, 1 / 3))


def test_without_feedback_all_count_alike() -> None:
    assert shares(Ensemble(weighting="accuracy"), Totals()) == (0.5, 0.5)
    assert shares(Ensemble("median", "accuracy"), Totals()) == (0.5, 0.5)


def test_a_model_that_is_mostly_wrong_hardly_counts() -> None:
    assert shares(Ensemble(weighting="accuracy"), learned({"a": (100, 10), "b": (100, 95)}))[1] < 0.01


@pytest.mark.parametrize("weighting", ["equal", "accuracy"])
def test_several_are_right_more_often_than_the_best(weighting: str) -> None:
    game = play(Ensemble(weighting=weighting), bernoulli((0.2, 0.22, 0.25, 0.28, 0.3)), 3000)
    assert game.loss < 0.8 * min(game.static_losses)


def test_weights_help_where_models_are_unequal() -> None:
    means = (0.05, 0.5, 0.5, 0.7, 0.7)
    games = [play(Ensemble(weighting=weighting), bernoulli(means), 3000) for weighting in ("equal", "accuracy")]
    assert games[1].loss < 0.5 * games[0].loss
    assert games[1].loss < min(games[1].static_losses)


def test_missing_models_do_not_agree() -> None:
    choice = Choice(MODELS, (0.2,) * 5)
    combined = Ensemble().combine(choice, {"a": b"1", "b": b"1", "c": b"1", "d": b"1"}, Totals(), QueryView())
    assert combined == Combined(b"1", pytest.approx(0.8))


def test_a_median_answers_with_numbers() -> None:
    choice = Choice(("a", "b", "c"), (1 / 3,) * 3)
    assert Ensemble("median").combine(choice, {"a": b"1", "b": b"2", "c": b"9"}, Totals(), QueryView()).output == b"2.0"
