"""Whether what came with a query picked its models, and the weights of their losses."""

from random import Random
from typing import Any

import pytest

from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals, tally
from clipper.learning.policies.policy import Choice, Step
from clipper.worker.selection.feedback.picking import Picked, how_picked, least_loss_increase, weights_of

BY_NOTHING = Picked(among_all=False, in_context=False, is_weighed=False)
BY_CONTEXT = Picked(among_all=True, in_context=False, is_weighed=True)
BY_QUERY = Picked(among_all=True, in_context=True, is_weighed=True)
BY_OTHERS = Picked(among_all=True, in_context=True, is_weighed=False)


@pytest.mark.parametrize(
    ("given", "picked"),
    [
        ({}, BY_NOTHING),
        ({"has_context": True}, BY_CONTEXT),
        ({"goes_by": "nothing", "has_context": True, "knows_context": True}, BY_NOTHING),
        ({"goes_by": "query"}, BY_QUERY),
        ({"goes_by": "query", "has_context": True}, BY_QUERY),
        ({"goes_by": "nothing", "is_partial": True}, BY_QUERY),
        ({"goes_by": "nothing", "is_pinned": True}, BY_OTHERS),
        ({"has_context": True, "is_pinned": True}, BY_OTHERS),
        # A split that keeps contexts together draws once for each of them.
        ({"learns": False}, BY_NOTHING),
        ({"learns": False, "has_context": True}, BY_NOTHING),
        ({"learns": False, "has_context": True, "knows_context": True}, Picked(True, False, False)),
    ],
)
def test_what_picked_the_models(given: dict[str, Any], picked: Picked) -> None:
    usual = {"goes_by": "context", "learns": True, "is_pinned": False, "has_context": False}
    assert how_picked(**{**usual, "knows_context": False, "is_partial": False, **given}) == picked


def test_one_model_weighs_one_over_its_share_and_a_shadow_one() -> None:
    assert weights_of(Choice(("a",), (0.25,)), ("s",), Random(1)) == {"a": 4.0, "s": 1.0}
    assert weights_of(Choice(("a",), (0.0,)), (), Random(1)) == {"a": 1.0}


def test_models_of_a_cascade_weigh_by_the_chance_of_going_so_far() -> None:
    steps = (Step(1, 0.9, 0.02), Step(2, 0.5, 1.0))
    weights = weights_of(Choice(("a", "b", "c"), (0.0, 0.0, 1.0), steps=steps), (), Random(1))
    assert weights == {"a": 1.0, "b": 50.0, "c": 50.0}
    assert weights_of(Choice(("a", "b"), (0.5, 0.5)), (), Random(1)) == {"a": 1.0, "b": 1.0}, "not known"


@pytest.mark.parametrize(("index", "chance"), [(0, 0.75), (1, 0.25)])
def test_draws_weigh_one_over_the_chance_to_win(index: int, chance: float) -> None:
    """Of Beta(3, 1) and Beta(1, 1) the first wins three times in four."""
    beliefs, random = ((3.0, 1.0), (1.0, 1.0)), Random(5)
    choice = Choice((("a", "b")[index],), (0.5,), beliefs, ("a", "b"))
    weights = [weights_of(choice, (), random)[choice.models[0]] for _ in range(4000)]
    assert sum(weights) / len(weights) == pytest.approx(2 / chance, rel=0.05)


def test_a_model_that_hardly_ever_wins_costs_a_bounded_number_of_draws() -> None:
    beliefs = ((1000.0, 1.0), (1.0, 1000.0))
    assert weights_of(Choice(("b",), (1.0,), beliefs, ("a", "b")), (), Random(1)) == {"b": 200.0}
    assert weights_of(Choice(("b",), (1.0,), beliefs), (), Random(1)) == {"b": 1.0}, "among which it won is not known"


def test_least_loss_increases_add_up_to_that_of_the_contexts_best_model() -> None:
    prior, ledger, random = Totals({("", "observations"): 9.0}), Ledger(None), Random(4)
    lost, told, total = {"a": 0.0, "b": 0.0}, {"a": 0, "b": 0}, 0.0
    for _ in range(300):
        model = random.choice(("a", "b"))
        loss = float(random.random() < {"a": 0.2, "b": 0.5}[model])
        totals = ledger.totals().with_prior(prior)
        total += least_loss_increase(totals, prior, {model: loss, "shadow": 0.0}, ("a", "b"))
        lost[model], told[model] = lost[model] + loss, told[model] + 1
        ledger.add(ledger.entries(tally((model,), {model: loss})))
    assert total == pytest.approx(300 * min(lost[model] / told[model] for model in lost))
    assert least_loss_increase(prior, prior, {"a": 0.25}, ("a", "b")) == 0.25, "the first of a context"
