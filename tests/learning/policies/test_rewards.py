"""A reward in place of a label teaches every policy: of 1,000 rewards, who is good."""

from random import Random

import pytest

from clipper.control.feedback import Feedback
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.losses import ZeroOne
from clipper.learning.policies.by_name import POLICIES, default_half_life, make_policy
from clipper.learning.policies.policy import Choice, JudgedQuery, Policy, QueryView
from clipper.worker.selection.feedback.scoring import lesson, score
from tests.learning.policies.bandits import MODELS, answer, bernoulli

MEANS = (0.4, 0.1, 0.4, 0.5, 0.5)
# Without features there is nothing that the linear ones learn.
LEARNING = [name for name in POLICIES if name not in ("single", "weighted", "linucb", "linear_thompson", "cascade")]


def play(policy: Policy, half_life: int | None, steps: int, seed: int = 1) -> tuple[Ledger, list[Choice]]:
    """Users say how good each answer was, and never what would have been right."""
    ledger, random, noise, losses = Ledger(half_life), Random(seed), Random(seed + 1), bernoulli(MEANS, seed + 2)
    choices = []
    for step in range(steps):
        totals = ledger.totals()
        choice = policy.select(MODELS, totals, QueryView(), random)
        outputs = {model: answer(loss, noise) for model, loss in zip(MODELS, losses(step)) if model in choice.models}
        given = policy.combine(choice, outputs, totals, QueryView()).output
        feedback = Feedback("i", reward=float(given == b"0"))
        taught = score(feedback, ZeroOne(), choice, outputs, answer=given)
        ledger.add(
            ledger.entries(
                lesson(policy, choice, taught, totals, JudgedQuery(outputs=outputs), is_reward=len(choice.models) > 1)
            )
        )
        choices.append(choice)
    return ledger, choices


# Stacking solves a system of equations at each query: one game of it takes as long as all of another policy.
@pytest.mark.parametrize(
    ("name", "seed"), [(name, seed) for name in LEARNING for seed in (1, 2, 3) if name != "stacking" or seed == 1]
)
def test_it_finds_the_best_model(name: str, seed: int) -> None:
    parameters = {"weighting": "accuracy"} if name == "ensemble" else {}
    _, choices = play(make_policy(name, parameters), default_half_life(name), 1000, seed)
    # Shares of single models are their chances; of several, their weights.
    last = choices[-200:]
    shares = {
        model: sum(
            (choice.shares[choice.models.index(model)] if len(choice.models) > 1 else 1.0)
            for choice in last
            if model in choice.models
        )
        / len(last)
        for model in MODELS
    }
    assert max(shares, key=lambda model: shares[model]) == "b"
    assert shares["b"] > (0.25 if name in ("ensemble", "stacking") else 0.5), shares


def test_an_ensembles_guess_of_the_others_is_near_what_labels_tell() -> None:
    policy = make_policy("ensemble", {"weighting": "accuracy"})
    ledger, _ = play(policy, None, 2000)
    totals = ledger.totals()
    for model, mean in zip(MODELS, MEANS):
        seen = totals.number(model, "scored") + totals.number(model, "guessed")
        lost = totals.number(model, "loss") + totals.number(model, "guessed_loss")
        assert seen == 2000
        assert lost / seen == pytest.approx(mean, abs=0.08)
