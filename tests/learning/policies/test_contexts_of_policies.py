"""A new context does what its application does, and leaves that as its own feedback comes, with every policy."""

from collections import Counter
from random import Random

import pytest

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals, tally
from clipper.learning.policies.by_name import POLICIES, default_half_life, make_policy
from clipper.learning.policies.policy import JudgedQuery, Policy, QueryView
from tests.learning.policies.bandits import MODELS, bernoulli

# Where features tell users apart, contexts have nothing of their own to go by; ``best_arm`` is a test of the
# application, over all contexts.
NOT_BY_CONTEXT = ("single", "weighted", "ensemble", "best_arm", "cascade", "linucb", "linear_thompson")
LEARNING = [name for name in POLICIES if name not in NOT_BY_CONTEXT]
# Epsilon-greedy knows of models that it hardly asks no more than that they were once wrong.
FEW = dict.fromkeys(LEARNING, 8) | {"epsilon_greedy": 12}
MEANS = (0.05, 0.2, 0.3, 0.4, 0.5)


def shares(policy: Policy, totals: Totals, draws: int = 2000) -> dict[str, float]:
    """Of the queries that ask each model; of a policy that asks all, its weight in the answer."""
    random, found = Random(0), Counter[str]()
    # One that asks all leaves nothing to chance.
    draws = 3 if policy.feedback == "all" else draws
    for _ in range(draws):
        choice = policy.select(MODELS, totals, QueryView("new"), random)
        found.update({choice.models[0]: 1.0} if len(choice.models) == 1 else dict(zip(choice.models, choice.shares)))
    return {model: found[model] / draws for model in MODELS}


def learn(policy: Policy, ledger: Ledger, totals: Totals, losses: list[float], random: Random) -> None:
    choice, by_model = policy.select(MODELS, totals, QueryView(), random), dict(zip(MODELS, losses))
    scored = by_model if policy.feedback == "all" else {model: by_model[model] for model in choice.models}
    ledger.add(
        ledger.entries({**tally(choice.models, scored), **policy.observe(choice, scored, totals, JudgedQuery())})
    )
    ledger.drop_stale()


def application(name: str, observations: int = 5000) -> Totals:
    policy, ledger, random = make_policy(name), Ledger(default_half_life(name)), Random(1)
    losses = bernoulli(MEANS, seed=2)
    for step in range(observations):
        learn(policy, ledger, ledger.totals(), list(losses(step)), random)
    return ledger.totals()


@pytest.fixture(scope="module", params=LEARNING)
def learned(request: pytest.FixtureRequest) -> tuple[str, Totals]:
    return request.param, application(request.param)


def test_a_new_context_does_what_its_application_does(learned: tuple[str, Totals]) -> None:
    name, crowd = learned
    expected = shares(make_policy(name), crowd)
    found = shares(make_policy(name), Totals().with_prior(crowd))
    assert found == pytest.approx(expected, abs=0.05)
    # Else any mixture would do.
    assert expected["a"] > 0.6


def test_feedback_that_agrees_leaves_it_there(learned: tuple[str, Totals]) -> None:
    name, crowd = learned
    policy, ledger, random = make_policy(name), Ledger(default_half_life(name)), Random(3)
    before = shares(policy, crowd)
    for _ in range(8):
        learn(policy, ledger, ledger.totals().with_prior(crowd), [0.0, 0.0, 0.0, 1.0, 1.0], random)
    after = shares(policy, ledger.totals().with_prior(crowd))
    if name != "stacking":  # where all three are right, it divides among them what one had
        assert after["a"] >= before["a"] - 0.2
    assert max(after, key=lambda model: after[model]) == "a"
    assert after["e"] < 0.1


def test_eight_pieces_of_its_own_matter(learned: tuple[str, Totals]) -> None:
    """To this user the crowd's best model is always wrong, and the next always right."""
    name, crowd = learned
    policy, ledger, random = make_policy(name), Ledger(default_half_life(name)), Random(3)
    before = shares(policy, crowd)
    for count in (FEW[name], 40):
        while ledger.clock < count:
            learn(policy, ledger, ledger.totals().with_prior(crowd), [1.0, 0.0, 0.5, 0.5, 0.5], random)
        after = shares(policy, ledger.totals().with_prior(crowd))
        assert after["a"] < (before["a"] - 0.2 if count == FEW[name] else 0.2), (count, after)


def test_without_a_prior_a_context_begins_at_nothing(learned: tuple[str, Totals]) -> None:
    name, crowd = learned
    # Without feedback adaptive asks the first link.
    nothing = dict.fromkeys(MODELS, 0.0) | {MODELS[0]: 1.0} if name == "adaptive" else dict.fromkeys(MODELS, 0.2)
    assert shares(make_policy(name), Totals().with_prior(crowd, 0)) == pytest.approx(nothing, abs=0.05)
