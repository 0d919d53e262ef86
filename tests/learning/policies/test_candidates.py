"""Among which models a policy selects, by how likely each is to answer in time."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.decisions.evaluation.beliefs import propensity
from clipper.learning.mathematics.costs import Costs
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.by_name import POLICIES, make_policy
from clipper.learning.policies.candidates import candidates
from clipper.learning.policies.policy import SURE, Outlook, QueryView

MODELS = ("good", "middling", "bad")
# Seen a thousand times each.
KNOWN = Totals(
    {
        **{(name, "scored"): 1000.0 for name in MODELS},
        **{(name, "loss"): 1000.0 * loss for name, loss in zip(MODELS, (0.02, 0.2, 0.6))},
    }
)
ONE = [name for name, kind in POLICIES.items() if kind.feedback == "selected" and not kind.weighs_time]
ALL = [name for name, kind in POLICIES.items() if kind.feedback == "all"]
FEATURES = np.ones(1).tobytes()


def left(name: str, *chances: float, totals: Totals = KNOWN, default_loss: float = 1.0) -> tuple[str, ...]:
    query = QueryView(in_time=dict(zip(MODELS, chances)))
    return candidates(make_policy(name), MODELS, totals, query, default_loss)


@pytest.mark.parametrize("name", ONE)
def test_models_that_are_sure_to_answer_are_all_left_to_the_policy(name: str) -> None:
    assert left(name, 1.0, 0.97, 1.0) == MODELS


@pytest.mark.parametrize("name", ["adaptive", "thompson", "exp3", "epsilon_greedy", "ucb1", "best_arm"])
def test_a_full_model_is_asked_while_it_gives_the_user_most(name: str) -> None:
    # Another one stands in for it in nine of ten cases.
    assert left(name, 0.9, 1.0, 1.0) == MODELS
    assert left(name, 0.5, 1.0, 1.0) == MODELS
    assert left(name, 0.1, 1.0, 1.0) == ("middling", "bad")
    assert left(name, 0.8, 0.5, 0.9) == ("good",)


def test_a_default_that_is_often_right_is_worth_waiting_for() -> None:
    assert "good" not in left("adaptive", 0.1, 1.0, 1.0)
    assert "good" in left("adaptive", 0.1, 1.0, 1.0, default_loss=0.1)


@pytest.mark.parametrize("policy", ["single", "weighted", "adaptive", "thompson"])
def test_where_nothing_is_known_the_order_of_the_links_counts(policy: str) -> None:
    assert left(policy, 0.2, 0.94, 0.1, totals=Totals()) == ("middling",)
    assert left(policy, 0.2, 1.0, 1.0, totals=Totals()) == ("middling", "bad")
    assert left(policy, 0.6, 1.0, 1.0, totals=Totals()) == ("good", "middling", "bad")


def test_a_single_model_has_the_links_behind_it_as_fallbacks_in_order() -> None:
    assert left("single", 0.5, 1.0, 1.0, totals=Totals())[0] == "good"
    assert left("single", 0.05, 1.0, 1.0, totals=Totals())[0] == "middling"
    assert left("single", 0.05, 0.05, 1.0, totals=Totals()) == ("bad",)


@pytest.mark.parametrize("name", ALL)
def test_a_joint_answer_leaves_out_models_that_it_would_await_in_vain(name: str) -> None:
    assert left(name, 0.3, 0.6, 1.0) == ("middling", "bad")
    assert left(name, 0.3, 0.2, 0.1) == ("good",), "an answer of one is better than none"


@pytest.mark.parametrize("name", [*ONE, *ALL])
def test_where_no_model_has_a_chance_the_policy_has_all(name: str) -> None:
    assert left(name, 0.0, 0.0, 0.0) == MODELS


@given(
    st.sampled_from([*ONE, *ALL, "cascade"]),
    st.tuples(*(st.floats(0, 1) for _ in MODELS)),
    st.floats(0, 1),
)
def test_at_least_one_is_left_in_order_and_every_sure_one(
    name: str, chances: tuple[float, ...], default_loss: float
) -> None:
    found = left(name, *chances, default_loss=default_loss)
    assert found and list(found) == [model for model in MODELS if model in found]
    assert {model for model, chance in zip(MODELS, chances) if chance >= SURE} <= set(found)


@pytest.mark.parametrize("name", ["exp3", "epsilon_greedy", "adaptive", "weighted", "thompson", "linear_thompson"])
def test_the_share_of_a_choice_is_its_probability_among_those_with_time(name: str) -> None:
    policy, random = make_policy(name), Random(1)
    query = QueryView(packed_features=FEATURES, in_time={"good": 0.1, "middling": 1.0, "bad": 1.0})
    among = candidates(policy, MODELS, KNOWN, query, 1.0)
    assert among == ("middling", "bad")
    draws = 4000
    choices = [policy.select(among, KNOWN, query, random) for _ in range(draws)]
    drawn = Counter(choice.models[0] for choice in choices)
    for model in drawn:
        share = next(
            propensity(model, among, choice.shares[0], choice.beliefs)
            for choice in choices
            if choice.models == (model,)
        )
        assert drawn[model] / draws == pytest.approx(share, abs=0.04)


def test_features_decide_whom_a_query_gains_most_from() -> None:
    policy = make_policy("linear_thompson")
    losses = policy.expected_losses(MODELS, KNOWN, QueryView(packed_features=FEATURES))
    assert len(losses) == 3 and all(0.0 <= loss <= 1.0 for loss in losses)


def cascade_numbers(stops: float, seen: float = 2000.0) -> dict[tuple[str, str], float]:
    """A cheap model that is sure of a share of its queries: those that are not gain by going on."""
    return {
        ("good", "seen_0"): seen * (1 - stops),
        ("good", "went_on_0"): seen * (1 - stops),
        ("good", "excess_0"): -0.3 * seen * (1 - stops),
        ("good", "seen_18"): seen * stops,
        ("good", "went_on_18"): 0.1 * seen * stops,
        ("good", "excess_18"): 0.05 * seen * stops,
    }


@pytest.mark.parametrize(
    ("stops", "cheap", "first"),
    [(0.0, 0.0, "bad"), (0.5, 0.0, "good"), (0.3, 4.0, "bad"), (0.3, 1.0, "good"), (0.6, 4.0, "good")],
)
def test_a_cascade_begins_with_the_dear_model_if_that_costs_no_more(stops: float, cheap: float, first: str) -> None:
    costs = Costs({"good": cheap, "bad": 10.0}, 0.0001) if cheap else Costs()
    totals = Totals(cascade_numbers(stops), costs=costs)
    policy, random = make_policy("cascade", {"explore": 0.0}), Random(1)
    models = ("good", "bad")
    assert policy.select(models, totals, QueryView(), random).models == (first,)
    full = QueryView(in_time={"good": 1.0, "bad": 0.6})
    choice = policy.select(models, totals, full, random)
    assert choice.models == ("good",), "a dear model without room is asked only for what is unsure"
    outlook = Outlook(1.0, {"bad": 0.1}, {"bad": 0.05})
    assert not outlook.has_time_for("bad")


def test_a_cascade_that_began_with_the_dear_model_goes_on_to_none() -> None:
    policy, random = make_policy("cascade", {"explore": 0.0}), Random(1)
    totals = Totals(cascade_numbers(0.0))
    choice = policy.select(("good", "bad"), totals, QueryView(), random)
    assert choice.models == ("bad",)
    outlook = Outlook(1.0, {"good": 0.01})
    assert policy.next(choice, {"bad": b"1"}, totals, QueryView(), outlook, random) is None
    instead = policy.next(choice, {}, totals, QueryView(), outlook, random)
    assert instead is not None and instead.models == ("bad", "good"), "it stands in for a dear one that fails"
