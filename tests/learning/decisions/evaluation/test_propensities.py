"""The log's probability of a choice, for each policy that chooses one model, against how often it is made."""

from collections import Counter
from random import Random

import pytest

from clipper.learning.decisions.evaluation.beliefs import propensity
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals, tally
from clipper.learning.policies.by_name import POLICIES, make_policy
from clipper.learning.policies.policy import Choice, JudgedQuery, QueryView

MODELS = ("a", "b", "c")
TOGETHER = ("exp4", "ensemble", "stacking")
DRAWS = 20_000


def learned(name: str, seed: int, queries: int, errors: tuple[float, ...]) -> Totals:
    """The state that feedback on a policy's own choices has taught, half of it in a context."""
    random, policy = Random(seed), make_policy(name)
    everyone, own = Ledger(policy.default_half_life), Ledger(policy.default_half_life)
    totals = everyone.totals()
    for number in range(queries):
        choice = policy.select(MODELS, totals, QueryView(), random)
        losses = {model: float(random.random() < errors[MODELS.index(model)]) for model in choice.models}
        increments = tally(choice.models, losses) | dict(policy.observe(choice, losses, totals, JudgedQuery()))
        everyone.add(everyone.entries(increments))
        if number % 2:
            own.add(own.entries(increments))
        totals = own.totals().with_prior(everyone.totals())
    return totals


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in TOGETHER])
@pytest.mark.parametrize(("queries", "errors"), [(0, (0.5,) * 3), (40, (0.5, 0.4, 0.3)), (400, (0.2, 0.25, 0.6))])
def test_what_is_logged_is_how_often_it_is_chosen(name: str, queries: int, errors: tuple[float, ...]) -> None:
    policy, random = make_policy(name), Random(7)
    totals = learned(name, 5, queries, errors)
    chosen: Counter[str] = Counter()
    choices: dict[str, Choice] = {}
    for _ in range(DRAWS):
        choice = policy.select(MODELS, totals, QueryView(), random)
        (model,) = choice.models
        chosen[model] += 1
        choices[model] = choice
    logged = {model: propensity(model, MODELS, each.shares[0], each.beliefs) for model, each in choices.items()}
    # Those that were never drawn have what is left.
    assert sum(logged.values()) == pytest.approx(1.0, abs=0.002)
    for model, probability in logged.items():
        deviation = (probability * (1 - probability) / DRAWS) ** 0.5
        assert chosen[model] / DRAWS == pytest.approx(probability, abs=4 * deviation + 0.001)


def test_several_models_together_are_weights_and_no_probabilities() -> None:
    """Which samples leave out: a policy of one model whose weights were taken for that would be judged wrongly."""
    for name in TOGETHER:
        assert len(make_policy(name).select(MODELS, Totals(), QueryView(), Random(1)).models) == len(MODELS)
