"""Thompson sampling: its beliefs and its regret; discounted, it follows a change."""

import math
from random import Random

from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.policy import QueryView
from clipper.learning.policies.thompson import Thompson
from tests.learning.policies.bandits import MODELS, bernoulli, failing, learned, play, pseudo_regret


def test_beliefs_count_successes_and_failures() -> None:
    beliefs = Thompson(prior=2).beliefs(("a", "new"), learned({"a": (10, 3.5)}))
    assert [(successes, failures) for _, successes, failures in beliefs] == [(8.5, 5.5), (2, 2)]


def test_without_feedback_all_are_asked_alike() -> None:
    policy, random, totals = Thompson(), Random(0), Totals()
    asked = [policy.select(MODELS, totals, QueryView(), random).models[0] for _ in range(5000)]
    assert all(abs(asked.count(model) - 1000) < 4 * math.sqrt(800) for model in MODELS)


def test_bayesian_regret_is_under_the_bound() -> None:
    """sqrt(n k ln(k) / 2) over instances drawn from the prior: Russo and Van Roy (2016), proposition 3."""
    steps, games, regrets = 1000, 20, []
    for seed in range(games):
        instance = Random(seed)
        means = [instance.random() for _ in MODELS]
        game = play(Thompson(), bernoulli(means, seed), steps, seed=seed)
        regrets.append(pseudo_regret(means, game.leaders))
    assert sum(regrets) / games <= math.sqrt(steps * 5 * math.log(5) / 2)


def test_discounted_it_leaves_a_model_that_fails_and_returns() -> None:
    means = (0.1, 0.4, 0.4, 0.5, 0.5)
    game = play(Thompson(), failing(means, broken=range(2000, 4000)), 7000, half_life=300)
    left = game.steps_until(2000, lambda share: share < 0.3)
    returned = game.steps_until(4000, lambda share: share > 0.7)
    assert left is not None and left <= 400
    assert returned is not None and returned <= 2000


def test_losses_between_count_in_part() -> None:
    game = play(Thompson(), lambda _step: [0.2, 0.8], 500)
    assert game.leaders.count("a") > 450
