"""Exp3: its formula, its regret, and a best model that fails and recovers."""

import math
from random import Random

import pytest

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.exp3 import CAUTION, EXCESS_LOSS, Exp3
from clipper.learning.policies.policy import Choice, JudgedQuery, QueryView
from tests.learning.policies.bandits import MODELS, bernoulli, failing, learned, play


def excess(**losses: float) -> Totals:
    return Totals({(model, EXCESS_LOSS): loss for model, loss in losses.items()})


def test_probabilities_are_exponential_weights_over_a_floor() -> None:
    found = Exp3(eta=0.5, gamma=0.1).probabilities(("a", "b"), excess(a=1.0, b=3.0))
    weight = 1 / (1 + math.exp(-1.0))
    assert found == pytest.approx([0.9 * weight + 0.05, 0.9 * (1 - weight) + 0.05])


def test_a_loss_is_weighed_by_how_unlikely_it_was_to_be_seen() -> None:
    totals = learned({"a": (3, 1), "b": (1, 0)})
    increments = Exp3().observe(Choice(("b",), (0.2,)), {"b": 1.0, "shadow": 0.0}, totals, JudgedQuery())
    assert increments == {("b", EXCESS_LOSS): pytest.approx((1.0 - 0.25) / (0.2 + CAUTION))}


def test_models_that_another_policy_asked_were_seen_for_certain() -> None:
    increments = Exp3().observe(
        Choice(("a", "b"), (1.0, 0.0)), {"a": 0.0, "b": 1.0}, learned({"a": (4, 1)}), JudgedQuery()
    )
    assert increments == {("a", EXCESS_LOSS): -0.25, ("b", EXCESS_LOSS): 0.75}


def test_a_model_linked_later_starts_as_an_average_one() -> None:
    ledger, policy, random = Ledger(None), Exp3(), Random(0)
    means = {"a": 0.3, "b": 0.3}
    for _ in range(2000):
        choice = policy.select(("a", "b"), ledger.totals(), QueryView(), random)
        losses = {choice.models[0]: float(random.random() < means[choice.models[0]])}
        counts = {(choice.models[0], "scored"): 1.0, (choice.models[0], "loss"): losses[choice.models[0]]}
        ledger.add(ledger.entries(counts | dict(policy.observe(choice, losses, ledger.totals(), JudgedQuery()))))
    # Losses of 0.3 a query would, summed up as they are, leave the others e^-60 beside a new one's 1.
    assert policy.probabilities(("a", "b", "new"), ledger.totals())[2] < 0.8


def test_regret_is_under_the_bound_against_an_adversary() -> None:
    """Auer et al. (2002), for losses within [-1, 1] of the baseline and eta = gamma / k."""
    steps, models, gamma = 10000, 5, 0.1
    eta = gamma / models
    bound = gamma * steps + math.log(models) / eta + eta * models * steps / (1 - gamma)

    def losses(step: int) -> list[float]:
        """Which model is good changes every 1,000 steps, but over all the last one is best."""
        good = (step // 1000) % 4
        return [0.0 if model == good else 1.0 for model in range(4)] + [0.25]

    regrets = []
    for seed in range(3):
        game = play(Exp3(eta, gamma), losses, steps, seed=seed)
        regrets.append(game.loss - min(game.static_losses))
    assert sum(regrets) / 3 <= bound
    assert steps * (4 * 0.75 + 0.25) / 5 - 0.25 * steps > 1.5 * bound  # what choosing at random would


@pytest.mark.parametrize("seed", range(3))
def test_a_best_model_that_fails_is_left_and_found_again(seed: int) -> None:
    means = (0.10, 0.18, 0.22, 0.26, 0.30)
    game = play(Exp3(), failing(means, seed), 20000, seed=seed, half_life=1000)
    assert game.loss < min(game.static_losses)
    left = game.steps_until(5000, lambda share: share < 0.5)
    returned = game.steps_until(10000, lambda share: share > 0.5)
    assert left is not None and left <= 400
    assert returned is not None and returned <= 6000


def test_ten_million_updates_are_numerically_safe() -> None:
    """Of the worst model always, seen at the floor's odds: a loss of 100 each time; in steps of 1,000 updates."""
    policy, worst = Exp3(gamma=0.05), 1 / (0.05 / 5)
    for half_life in (None, 1000):
        ledger = Ledger(half_life)
        for _ in range(10_000):
            ledger.add(ledger.entries({("a", EXCESS_LOSS): worst * 1000}, observations=1000))
            ledger.drop_stale()
        found = policy.probabilities(MODELS, ledger.totals())
        assert ledger.clock == 10_000_000
        assert found[0] == pytest.approx(0.01)
        assert math.fsum(found) == pytest.approx(1.0)
    assert policy.probabilities(MODELS, excess(a=-1e9, b=1e9))[0] == pytest.approx(0.96)


def test_the_memo_is_used() -> None:
    policy, totals = Exp3(), excess(a=1.0)
    drawn = [policy.select(MODELS, totals, QueryView(), Random(0)) for _ in range(2)]
    assert drawn[0] is drawn[1]


def test_stationary_it_settles_on_the_best() -> None:
    game = play(Exp3(), bernoulli((0.1, 0.4, 0.4, 0.5, 0.5)), 5000, half_life=1000)
    assert game.leaders[1000:].count("a") / 4000 > 0.85
