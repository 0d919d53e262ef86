"""With a weight of costs every policy that asks one model prefers the cheap one of equally good ones, and no more."""

from collections import Counter
from random import Random

import pytest

from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.costs import NO_COSTS, Costs
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import default_half_life, make_policy
from clipper.learning.policies.policy import JudgedQuery, QueryView
from clipper.worker.selection.feedback.scoring import lesson
from tests.learning.policies.bandits import bernoulli

MODELS = ("dear", "cheap", "cheapest")
ONE_OF_THEM = ["adaptive", "epsilon_greedy", "ucb1", "thompson", "exp3"]
# A query of the dear model weighs as much as 0.3 of a loss, one of the cheap as much as 0.03.
COSTS = Costs({"dear": 10.0, "cheap": 1.0, "cheapest": 0.0}, 0.03)


def asked(name: str, means: tuple[float, ...], costs: Costs, queries: int = 1500) -> Counter[str]:
    """Of the last third of so many queries, which models were asked."""
    policy, random, losses = make_policy(name), Random(1), bernoulli(means, seed=2)
    ledger, arms, last = Ledger(default_half_life(name)), Arms({}, costs), Counter[str]()
    for number in range(queries):
        totals = arms.view(ledger.totals())
        choice = policy.select(MODELS, totals, QueryView(), random)
        scored = {model: loss for model, loss in zip(MODELS, losses(number)) if model in choice.models}
        ledger.add(ledger.entries(lesson(policy, choice, scored, totals, JudgedQuery())))
        ledger.drop_stale()
        if number >= queries * 2 // 3:
            last.update(choice.models)
    return last


@pytest.mark.parametrize("name", ONE_OF_THEM)
def test_of_equally_good_models_the_cheap_one_is_asked(name: str) -> None:
    last = asked(name, (0.2, 0.2, 0.9), COSTS)
    assert max(last, key=lambda model: last[model]) == "cheap" and last["cheap"] > 0.6 * last.total()


@pytest.mark.parametrize("name", ONE_OF_THEM)
def test_a_dear_model_is_asked_where_it_saves_more_than_it_costs(name: str) -> None:
    # 0.05 + 0.3 is less than 0.6 + 0.03, and than 0.9.
    assert asked(name, (0.05, 0.6, 0.9), COSTS).most_common(1)[0][0] == "dear"
    # Without a weight costs change nothing.
    assert asked(name, (0.1, 0.3, 0.9), Costs(COSTS.by_model)) == asked(name, (0.1, 0.3, 0.9), NO_COSTS)


@pytest.mark.parametrize("name", ["exp4", "ensemble", "stacking"])
def test_policies_that_ask_all_models_learn_what_they_would_without_costs(name: str) -> None:
    policy, totals = make_policy(name), Arms({}, COSTS).view(Ledger(None).totals())
    choice = policy.select(MODELS, totals, QueryView(), Random(0))
    losses = {"dear": 0.0, "cheap": 1.0, "cheapest": 0.5}
    plain = Arms({}).view(Ledger(None).totals())
    assert lesson(policy, choice, losses, totals, JudgedQuery()) == lesson(policy, choice, losses, plain, JudgedQuery())
