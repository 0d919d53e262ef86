"""Exp4: its formula, its bound for any losses, and a best model that fails and recovers."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.exp3 import EXCESS_LOSS
from clipper.learning.policies.exp4 import FURTHEST, Exp4
from clipper.learning.policies.policy import Choice, Combined, JudgedQuery, QueryView
from tests.learning.policies.bandits import MODELS, failing, play

rounds = st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), max_size=60)


@given(rounds, st.sampled_from([0.01, 0.1, 1.0]))
def test_weights_lose_little_more_than_the_best_model_whatever_comes(rounds, eta: float) -> None:
    """Hedge's bound, and what it costs that none falls further behind: ln(k) / eta + eta n / 8 + (k - 1) exp(-4) n."""
    policy, ledger, loss = Exp4(eta), Ledger(None), 0.0
    for losses in rounds:
        choice = policy.select(MODELS, ledger.totals(), QueryView(), Random(0))
        loss += sum(share * of_model for share, of_model in zip(choice.shares, losses))
        ledger.add(ledger.entries(policy.observe(choice, dict(zip(MODELS, losses)), ledger.totals(), JudgedQuery())))
    best = min((sum(of_model) for of_model in zip(*rounds)), default=0.0)
    assert loss - best <= math.log(5) / eta + eta * len(rounds) / 8 + 4 * math.exp(-FURTHEST) * len(rounds) + 1e-9


def test_no_model_falls_further_behind_and_each_comes_back_as_fast() -> None:
    policy, ledger = Exp4(), Ledger(None)
    shares: list[float] = []
    for step in range(1030):
        choice = policy.select(("a", "b"), ledger.totals(), QueryView(), Random(0))
        shares.append(choice.shares[0])
        losses = {"a": float(step >= 1000), "b": float(step < 1000)}
        ledger.add(ledger.entries(policy.observe(choice, losses, ledger.totals(), JudgedQuery())))
    assert max(shares) == pytest.approx(1 / (1 + math.exp(-FURTHEST)), abs=0.002)
    assert shares[1000 + math.ceil(FURTHEST / policy.eta)] < 0.5


def test_what_workers_have_taught_at_once_is_not_undone() -> None:
    """One that is further behind than any should be stays: were each of many to move it nearer, it would lead."""
    behind = Totals({("a", EXCESS_LOSS): 0.0, ("b", EXCESS_LOSS): 40.0})
    choice = Choice(("a", "b"), (1.0, 0.0))
    increments = Exp4().observe(choice, {"a": 0.0, "b": 1.0}, behind, JudgedQuery())
    assert increments == {("a", EXCESS_LOSS): 0.0, ("b", EXCESS_LOSS): 0.0}


def test_weights_are_exponential() -> None:
    totals = Totals({("a", EXCESS_LOSS): 1.0, ("b", EXCESS_LOSS): 3.0})
    shares = Exp4(0.5).select(("a", "b"), totals, QueryView(), Random(0)).shares
    assert shares == pytest.approx((1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(1.0))))


def test_a_model_that_was_not_scored_neither_gains_nor_loses() -> None:
    choice = Choice(("a", "b", "c"), (0.5, 0.25, 0.25))
    increments = Exp4().observe(choice, {"a": 0.0, "b": 1.0, "shadow": 1.0}, Totals(), JudgedQuery())
    assert increments == {("a", EXCESS_LOSS): pytest.approx(-1 / 3), ("b", EXCESS_LOSS): pytest.approx(2 / 3)}


def test_models_without_a_say_are_compared_with_each_other() -> None:
    choice = Choice(("a", "b", "c"), (1.0, 0.0, 0.0))
    increments = Exp4().observe(choice, {"b": 0.0, "c": 1.0}, Totals(), JudgedQuery())
    assert increments == {("b", EXCESS_LOSS): -0.5, ("c", EXCESS_LOSS): 0.5}


def test_the_answer_is_weighed() -> None:
    policy = Exp4()
    choice = Choice(("a", "b", "c"), (0.6, 0.2, 0.2))
    assert policy.combine(choice, {"a": b"1", "b": b"2", "c": b"2"}, Totals(), QueryView()) == Combined(b"1", 0.6)
    answer = Exp4(answer="mean", tolerance=0.3).combine(
        choice, {"a": b"1", "b": b"2", "c": b"2"}, Totals(), QueryView()
    )
    assert (float(answer.output), answer.confidence) == (pytest.approx(1.4), pytest.approx(0.6))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("means", [(0.10, 0.18, 0.22, 0.26, 0.30), (0.11, 0.13, 0.15, 0.17, 0.22)])
def test_a_best_model_that_fails_is_left_and_found_again(seed: int, means: tuple[float, ...]) -> None:
    game = play(Exp4(), failing(means, seed), 20000, seed=seed, half_life=1000)
    assert game.loss < min(game.static_losses)
    left = game.steps_until(5000, lambda share: share < 0.5)
    returned = game.steps_until(10000, lambda share: share > 0.5)
    assert left is not None and left <= 300
    assert returned is not None and returned <= 6000
