"""`make regret` plays the policies that the server runs: after the same feedback both ask models alike."""

from random import Random

import numpy as np
import pytest

from benchmarks.regret import ours, textbook
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import tally
from clipper.learning.policies.adaptive import WIDTHS, Adaptive
from clipper.learning.policies.epsilon_greedy import EpsilonGreedy
from clipper.learning.policies.exp3 import Exp3
from clipper.learning.policies.policy import Choice, JudgedQuery, Policy
from clipper.learning.policies.thompson import Thompson
from clipper.learning.policies.ucb1 import Ucb1

MODELS = ("a", "b", "c", "d")
STEPS, HALF_LIFE = 700, 50
COUNTS = {"half_life": np.array([float(HALF_LIFE)])}


def history():
    """Which model is asked and what it loses, by chance; at half the best becomes the worst."""
    random = Random(7)
    for step in range(STEPS):
        means = (0.1, 0.3, 0.4, 0.8) if step < STEPS / 2 else (0.9, 0.3, 0.4, 0.5)
        yield random.randrange(4), [float(random.random() < mean) for mean in means]


def add(ledger: Ledger, policy: Policy, choice: Choice, losses: dict[str, float]) -> None:
    increments = {**tally(choice.models, losses), **policy.observe(choice, losses, ledger.totals(), JudgedQuery())}
    ledger.add(ledger.entries(increments))


def learn(bandit, policy: Policy) -> Ledger:
    """Teach both the same. The ledger is one observation ahead in its clock, which counts for all models alike."""
    ledger = Ledger(HALF_LIFE)
    for asked, losses in history():
        add(ledger, policy, Choice((MODELS[asked],), (1.0,)), {MODELS[asked]: losses[asked]})
        bandit.learn(np.array([asked]), np.array([losses[asked]]))
    return ledger


def test_counts_of_the_discounted_policies() -> None:
    for kind, parameter, policy in (
        (textbook.EpsilonGreedy, "epsilon", EpsilonGreedy()),
        (textbook.Ucb, "exploration", Ucb1()),
        (textbook.Thompson, "prior", Thompson()),
    ):
        bandit = kind(1, 4, **{parameter: np.array([getattr(policy, parameter)])}, **COUNTS)
        totals = learn(bandit, policy).totals()
        kept = 2 ** (-1 / HALF_LIFE)
        assert [totals.number(model, "scored") for model in MODELS] == pytest.approx(bandit.counts.scored[0] * kept)
        assert [totals.number(model, "loss") for model in MODELS] == pytest.approx(bandit.counts.lost[0] * kept)


def test_adaptive() -> None:
    policy = Adaptive()
    bandit = ours.Adaptive(1, 4, exploration=np.array([policy.exploration]))
    totals = learn(bandit, policy).totals()
    # Its clock too is an observation ahead, by which nothing differs but the last digits.
    asked = np.zeros(4)
    for width, probability in WIDTHS:
        asked[bandit.lower_bounds(np.array([width]))[0].argmin()] += probability
    assert policy.probabilities(MODELS, totals) == pytest.approx(asked, abs=1e-9)


def test_exp3() -> None:
    policy, ledger = Exp3(), Ledger(HALF_LIFE)
    bandit = ours.Exp3(1, 4, eta=np.array([policy.eta]), gamma=np.array([policy.gamma]), **COUNTS)
    for step, (asked, losses) in enumerate(history()):
        bandit.choose(np.random.default_rng(0))
        if step % 100 == 99:
            assert policy.probabilities(MODELS, ledger.totals()) == pytest.approx(bandit.probabilities[0], abs=0.01)
        choice = Choice((MODELS[asked],), (float(bandit.probabilities[0, asked]),))
        add(ledger, policy, choice, {MODELS[asked]: losses[asked]})
        bandit.learn(np.array([asked]), np.array([losses[asked]]))


def test_a_window_forgets_what_is_older() -> None:
    windowed = textbook.Windowed(2, 3, np.array([2.0, 3.0]))
    for asked, loss in ((0, 1.0), (1, 1.0), (2, 0.0), (2, 1.0)):
        windowed.add(np.array([asked, asked]), np.array([loss, loss]))
    assert windowed.scored.tolist() == [[0, 0, 2], [0, 1, 2]]
    assert windowed.lost.tolist() == [[0, 0, 1], [0, 1, 1]]
