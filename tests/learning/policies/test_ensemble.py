"""The ensemble: weights by accuracy, and answers better than the best model's."""

import math
from random import Random

import pytest

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals, tally
from clipper.learning.policies.ensemble import EXCESS_BY, SHARPNESSES, Ensemble, best_sharpness
from clipper.learning.policies.policy import Choice, Combined, JudgedQuery, QueryView
from tests.learning.policies.bandits import MODELS, bernoulli, learned, play


def shares(policy: Ensemble, totals: Totals) -> tuple[float, ...]:
    return policy.select(("a", "b"), totals, QueryView(), Random(0)).shares


def test_equal_weights_do_not_learn() -> None:
    assert shares(Ensemble(weighting="equal"), learned({"a": (100, 1), "b": (100, 50)})) == (0.5, 0.5)


def test_votes_weigh_their_log_odds() -> None:
    totals = learned({"a": (98, 9), "b": (98, 24)})
    for classes in (2, 10):
        found = shares(Ensemble(classes=classes), totals)
        assert found[0] / found[1] == pytest.approx(math.log(9 * (classes - 1)) / math.log(3 * (classes - 1)))


def test_means_weigh_by_the_inverse_of_the_loss() -> None:
    found = shares(Ensemble("mean"), learned({"a": (98, 9), "b": (98, 19)}))
    assert found == pytest.approx((2 / 3, 1 / 3))


def test_without_feedback_all_count_alike() -> None:
    assert shares(Ensemble(), Totals()) == (0.5, 0.5)
    assert shares(Ensemble("median"), Totals()) == (0.5, 0.5)


def test_a_model_that_is_mostly_wrong_hardly_counts() -> None:
    assert shares(Ensemble(), learned({"a": (100, 10), "b": (100, 95)}))[1] < 0.01


@pytest.mark.parametrize("weighting", ["equal", "accuracy"])
def test_several_are_right_more_often_than_the_best(weighting: str) -> None:
    game = play(Ensemble(weighting=weighting), bernoulli((0.2, 0.22, 0.25, 0.28, 0.3)), 3000)
    assert game.loss < 0.8 * min(game.static_losses)


def test_weights_help_where_models_are_unequal() -> None:
    means = (0.05, 0.5, 0.5, 0.7, 0.7)
    games = [play(Ensemble(weighting=weighting), bernoulli(means), 3000) for weighting in ("equal", "accuracy")]
    assert games[1].loss < 0.5 * games[0].loss
    assert games[1].loss < min(games[1].static_losses)


def observed(policy: Ensemble, totals: Totals, outputs: dict[str, bytes]) -> dict[int, float]:
    """The excess of each sharpness's loss over their mean; b"1" is right."""
    choice = policy.select(tuple(outputs), totals, QueryView(), Random(0))
    losses = {model: float(output != b"1") for model, output in outputs.items()}
    found = policy.observe(choice, losses, totals, JudgedQuery(outputs=outputs))
    return {
        sharpness: found[key] for sharpness, key in ((each, ("", EXCESS_BY[each])) for each in SHARPNESSES) if found
    }


def test_a_better_model_prevails_the_sooner_the_sharper_votes_weigh() -> None:
    """ln(9 * 9) is 1.44 times ln(9 * 7 / 3): its fourth power is more than three times as much, and its square not."""
    totals = learned({"a": (98, 9), "b": (98, 29), "c": (98, 29), "d": (98, 29)})
    found = observed(Ensemble(), totals, {"a": b"1", "b": b"2", "c": b"2", "d": b"2"})
    assert found == pytest.approx({1: 0.6, 2: 0.6, 4: -0.4, 8: -0.4, 16: -0.4})
    assert observed(Ensemble(), totals, dict.fromkeys("abcd", b"2")) == {}
    assert observed(Ensemble("mean"), totals, {"a": b"1", "b": b"2"}) == {}


def test_the_sharpness_whose_answers_lost_least_decides() -> None:
    totals = learned({"a": (98, 9), "b": (98, 24)})
    records = {
        ("", EXCESS_BY[sharpness]): excess for sharpness, excess in zip(SHARPNESSES, (2.0, 1.0, -2.0, 0.0, -1.0))
    }
    found = shares(Ensemble(), Totals({**totals.numbers, **records}))
    assert best_sharpness(Totals(records)) == 4 and best_sharpness(Totals()) == 1
    assert found[0] / found[1] == pytest.approx((math.log(81) / math.log(27)) ** 4)


def test_models_that_err_together_do_not_outvote_a_better_one_for_long() -> None:
    """Four that err on the same half of the inputs, with the same label, beside one that errs on a tenth."""
    policy, ledger, random = Ensemble(), Ledger(100), Random(2)
    models, wrong = ("a", "b", "c", "d", "e"), []
    for _ in range(400):
        together = b"2" if random.random() < 0.5 else b"1"
        outputs = {"a": b"3" if random.random() < 0.1 else b"1", **dict.fromkeys(models[1:], together)}
        totals = ledger.totals()
        choice = policy.select(models, totals, QueryView(), random)
        wrong.append(policy.combine(choice, outputs, totals, QueryView()).output != b"1")
        losses = {model: float(output != b"1") for model, output in outputs.items()}
        judged = JudgedQuery(outputs=outputs)
        ledger.add(ledger.entries({**tally(models, losses), **policy.observe(choice, losses, totals, judged)}))
    assert sum(wrong[100:]) < 0.15 * 300


def test_missing_models_do_not_agree() -> None:
    choice = Choice(MODELS, (0.2,) * 5)
    combined = Ensemble().combine(choice, {"a": b"1", "b": b"1", "c": b"1", "d": b"1"}, Totals(), QueryView())
    assert combined == Combined(b"1", pytest.approx(0.8))


def test_a_median_answers_with_numbers() -> None:
    choice = Choice(("a", "b", "c"), (1 / 3,) * 3)
    assert Ensemble("median").combine(choice, {"a": b"1", "b": b"2", "c": b"9"}, Totals(), QueryView()).output == b"2.0"
