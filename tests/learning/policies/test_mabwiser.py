"""The policies that MABWiser has too, from the same feedback: an independent implementation must expect the same."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mabwiser import mab

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.epsilon_greedy import EpsilonGreedy
from clipper.learning.policies.linear import beliefs, lessons
from clipper.learning.policies.linucb import LinUcb
from clipper.learning.policies.policy import JudgedQuery, QueryView
from clipper.learning.policies.thompson import Thompson
from clipper.learning.policies.ucb1 import Ucb1
from tests.example_counts import share_of
from tests.learning.policies.bandits import MODELS, learned

# Of each model some rewards of 0 and 1; each was scored at least once, as MABWiser takes 0 for what it never saw.
rewards = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), min_size=5, max_size=5)
quick = settings(max_examples=share_of(25), deadline=None)


def theirs(policy, rewards):
    bandit = mab.MAB(list(MODELS), policy, seed=1)
    decisions = [model for model, of_model in zip(MODELS, rewards) for _ in of_model]
    bandit.fit(decisions, [reward for of_model in rewards for reward in of_model])
    return bandit


def ours(rewards):
    return learned({m: (len(found), len(found) - sum(found)) for m, found in zip(MODELS, rewards)})


@quick
@given(rewards)
def test_epsilon_greedy(rewards) -> None:
    expected = theirs(mab.LearningPolicy.EpsilonGreedy(epsilon=0), rewards).predict_expectations()
    found = EpsilonGreedy(epsilon=0).probabilities(MODELS, ours(rewards))
    best = {model for model in MODELS if expected[model] == pytest.approx(max(expected.values()))}
    assert {model for model, share in zip(MODELS, found) if share > 0} == best


@quick
@given(rewards, st.sampled_from([0.5, 1, 2]))
def test_ucb1(rewards, exploration: float) -> None:
    expected = theirs(mab.LearningPolicy.UCB1(alpha=exploration), rewards).predict_expectations()
    assert Ucb1(exploration).indices(MODELS, ours(rewards)) == pytest.approx([expected[model] for model in MODELS])


@quick
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_linucb(seed: int, size: int) -> None:
    """Theirs has no 1 before the features, no prior but 0, and the features' own scale: ours is given such queries."""
    random = np.random.default_rng(seed)
    decisions = [MODELS[number % 5] for number in range(60)]
    contexts, losses = random.choice([-1.0, 1.0], size=(60, size)), random.integers(0, 2, 60)
    theirs = mab.MAB(list(MODELS), mab.LearningPolicy.LinUCB(alpha=1.0, l2_lambda=1.0), seed=1)
    # To theirs the 1 is one of the features.
    theirs.fit(decisions, -(losses - 0.5), np.hstack((np.ones((60, 1)), contexts)))
    ledger = Ledger(None)
    for model, x, loss in zip(decisions, contexts, losses):
        query = JudgedQuery(packed_features=x.tobytes())
        ledger.add(ledger.entries({**lessons({model: float(loss)}, query)}))
    x = random.choice([-1.0, 1.0], size=size)
    # Nothing but arrays: the mean loss that ours begin with is a half, as is subtracted above.
    found = beliefs(LinUcb(), MODELS, ledger.totals(), QueryView(packed_features=x.tobytes()))
    bounds = 0.5 - found.means + found.errors / 0.5
    expected = theirs.predict_expectations(np.array([[1.0, *x]]))
    assert bounds == pytest.approx([expected[model] for model in MODELS])


def test_thompson() -> None:
    """Their draws are of numpy, so means of many are compared, within five standard errors."""
    rewards, draws = [[1] * 8 + [0] * 2, [1] * 3 + [0] * 7, [1, 0], [1] * 20, [0] * 20], 400
    bandit = theirs(mab.LearningPolicy.ThompsonSampling(), rewards)
    drawn = [bandit.predict_expectations() for _ in range(draws)]
    for choice, successes, failures in Thompson(prior=1).beliefs(MODELS, ours(rewards)):
        total = successes + failures
        deviation = math.sqrt(successes * failures / (total**2 * (total + 1)) / draws)
        mean = sum(of_models[choice.models[0]] for of_models in drawn) / draws
        assert abs(mean - successes / total) < 5 * deviation
