"""Prices at work: they hold a budget, keep a quality, and leave a scarce model to the queries that gain most by it."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.mathematics.costs import Costs
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.by_name import POLICIES, make_policy
from clipper.learning.policies.candidates import candidates
from clipper.learning.policies.policy import QueryView
from clipper.learning.policies.prices import LEAST_SCARCITY, SAVED_SHARE, STEP, Price, Prices, Resource
from tests.learning.policies.budgets import MODELS, Operator, World

ABLE = [name for name, kind in POLICIES.items() if kind.has_budget]
BANDITS = [name for name in ABLE if POLICIES[name].learns and not POLICIES[name].needs_features]
COSTS = Costs(dict(zip(MODELS, (1.0, 0.2, 0.01))))
KNOWN = Totals(
    {
        **{(name, "scored"): 1000.0 for name in MODELS},
        **{(name, "loss"): 1000.0 * loss for name, loss in zip(MODELS, (0.02, 0.2, 0.6))},
    },
    costs=COSTS,
)
# Three groups of queries: the middling model is as good as the dear one in the second, and all are alike in the third.
LOSSES = ((0.02, 0.2, 0.5), (0.02, 0.05, 0.6), (0.3, 0.32, 0.35))
USUAL = World((0.3, 0.4, 0.3), LOSSES, (1.0, 0.2, 0.01))


def at_rate(rate: float, chances: tuple[float, ...] = (1.0, 1.0, 1.0), name: str = "adaptive") -> tuple[str, ...]:
    prices = Prices()
    prices.follow(COSTS, 0.2, None)
    prices._rate = Price(rate)
    return candidates(
        make_policy(name), MODELS, KNOWN, QueryView(in_time=dict(zip(MODELS, chances))), 1.0, prices=prices
    )


# -- a price ---------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1, 1), max_size=300), st.floats(0.001, 10))
def test_a_price_is_the_exponential_of_all_excesses(excesses: list[float], first: float) -> None:
    price = Price(first)
    for excess in excesses:
        price.learn(excess, 0.0, float("inf"))
    assert price.value == pytest.approx(first * np.exp(STEP * sum(excesses)))
    assert price.debt == pytest.approx(sum(excesses))


@given(st.lists(st.floats(-1, 1), max_size=300))
def test_a_price_stays_in_its_bounds_and_makes_no_debt_there(excesses: list[float]) -> None:
    price, other = Price(1.0, repay=40.0), Price(1.0, repay=40.0, is_unused_positive=True)
    for excess in excesses:
        price.learn(excess, 0.9, 1.1)
        other.learn(-excess, 0.9, 1.1)
        assert 0.9 <= price.value <= 1.1 and 0.9 <= other.value <= 1.1
        assert -40.0 * SAVED_SHARE <= price.debt <= 40.0, "a little of what was not used is saved"
        assert -40.0 <= other.debt <= 40.0 * SAVED_SHARE
    price.value, price.debt = 1.1, 3.0
    price.learn(1.0, 0.9, 1.1)
    assert price.debt == 3.0, "no price can pay it"


# -- among which models a query is answered --------------------------------------------------------------


def test_the_higher_the_rate_the_cheaper_the_models() -> None:
    assert at_rate(0.0) == MODELS, "without a price the policy has all that surely answer"
    assert at_rate(0.1)[0] == "dear"
    # 0.02 + 0.99 * 0.5 is more than 0.2 + 0.19 * 0.5.
    assert at_rate(0.5) == ("middling", "cheap")
    assert at_rate(5.0) == ("cheap",)


def test_a_model_that_is_cheaper_and_full_is_not_waited_for() -> None:
    assert at_rate(0.5, (1.0, 0.0, 0.0)) == ("dear",)
    assert "cheap" in at_rate(5.0, (1.0, 1.0, 0.6))


@given(
    st.sampled_from(ABLE),
    st.tuples(*(st.floats(0, 1) for _ in MODELS)),
    st.tuples(*(st.floats(0, 1e6) for _ in MODELS)),
    st.floats(0, 1000),
    st.floats(0, 1),
    st.booleans(),
)
def test_at_least_one_model_with_a_chance_is_left_in_order(
    name: str,
    chances: tuple[float, ...],
    costs: tuple[float, ...],
    rate: float,
    default_loss: float,
    is_scarce: bool,
) -> None:
    prices = Prices()
    prices.follow(Costs(dict(zip(MODELS, costs))), 0.2, None)
    if rate:
        prices._rate = Price(rate)
    if is_scarce:
        prices.ration("cheap", {"dear": 0.0}, places_of(dear=1.0), 1.0)
        prices.scarcity["dear"].value = 0.3
    query = QueryView(packed_features=np.ones(1).tobytes(), in_time=dict(zip(MODELS, chances)))
    found = candidates(make_policy(name), MODELS, KNOWN, query, default_loss, prices=prices)
    assert found and list(found) == [model for model in MODELS if model in found]
    if max(chances) > 0.0:
        assert all(chance > 0.0 for model, chance in zip(MODELS, chances) if model in found)


def test_what_is_not_known_yet_is_tried_within_the_budget() -> None:
    prices = Prices()
    prices.follow(COSTS, 0.2, None)
    policy, nothing = make_policy("adaptive"), Totals()
    first = candidates(policy, MODELS, nothing, QueryView(), 1.0, prices=prices)
    assert "cheap" in first
    asked = set(first)
    for _ in range(500):
        prices.asked(("cheap",))
        asked |= set(candidates(policy, MODELS, nothing, QueryView(), 1.0, prices=prices))
    assert asked == set(MODELS), "what is left of the budget buys a look at the dearer ones"


# -- a budget --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["linear_thompson", "linucb"])
def test_a_budget_is_held_and_goes_where_it_gains_most(policy: str) -> None:
    operator = Operator(policy, max_cost=0.2)
    world = World((0.5, 0.5), ((0.02, 0.3, 0.6), (0.02, 0.03, 0.03)), USUAL.costs)
    first, spell = operator.live(world, 1500), operator.live(world, 1500)
    # A little of what it did not spend on good models before it knew them is spent later.
    assert spell.cost == pytest.approx(0.2, rel=0.1)
    assert (first.cost + spell.cost) / 2 <= 0.2 * 1.02
    # Without features the same money buys less.
    assert spell.loss < world.least(0.2, knows_groups=False)


@pytest.mark.parametrize("policy", BANDITS)
def test_each_policy_holds_it_through_changes_of_price_and_mix(policy: str) -> None:
    operator = Operator(policy, max_cost=0.2)
    changed = World((0.8, 0.1, 0.1), LOSSES, (2.0, 0.5, 0.05))
    spells = [operator.live(world, 2000) for world in (USUAL, changed, USUAL)]
    # Money that one spell has saved is spent by the next, and the reverse.
    assert sum(spell.cost for spell in spells) / 3 == pytest.approx(0.2, rel=0.02)
    for spell in spells:
        assert spell.cost == pytest.approx(0.2, rel=0.1)


def test_a_budget_for_the_best_model_changes_nothing() -> None:
    spell = Operator("adaptive", max_cost=2.0).live(USUAL, 1500)
    assert spell.loss <= 0.12, "the dear model alone has 0.104"


def test_a_budget_below_the_cheapest_model_asks_that_one() -> None:
    operator = Operator("epsilon_greedy", max_cost=0.001)
    operator.live(USUAL, 300)
    assert operator.live(USUAL, 300).cost == pytest.approx(0.01)
    # When the price falls, the budget buys more at once: what could not be paid was no debt.
    cheaper = World(USUAL.shares, LOSSES, (0.002, 0.0005, 0.0001))
    assert operator.live(cheaper, 1000).cost == pytest.approx(0.001, rel=0.1)


def test_costs_in_another_unit_change_nothing() -> None:
    pennies = World(USUAL.shares, LOSSES, (1e5, 2e4, 1e3))
    one, other = Operator("adaptive", max_cost=0.2), Operator("adaptive", max_cost=2e4)
    ours, theirs = one.live(USUAL, 1000), other.live(pennies, 1000)
    assert theirs.cost == pytest.approx(1e5 * ours.cost, rel=1e-6) and theirs.loss == pytest.approx(ours.loss)


@pytest.mark.parametrize("policy", ["linear_thompson", "adaptive", "thompson"])
def test_a_quality_is_kept_and_not_at_any_price(policy: str) -> None:
    operator = Operator(policy, min_quality=0.8)
    operator.live(USUAL, 2000)
    spell = operator.live(USUAL, 3000)
    assert spell.loss == pytest.approx(0.2, abs=0.015)
    if POLICIES[policy].needs_features:
        assert spell.cost <= 1.35 * USUAL.cheapest(spell.loss)
    else:
        assert spell.cost <= 0.3, "all queries to the dear model cost 1"


def test_a_quality_that_no_model_has_asks_the_best() -> None:
    operator = Operator("adaptive", min_quality=0.99)
    operator.live(USUAL, 1000)
    assert operator.live(USUAL, 500).cost >= 0.95


def test_a_new_budget_begins_anew_and_an_equal_one_goes_on() -> None:
    prices = Prices()
    prices.follow(COSTS, 0.2, None)
    candidates(make_policy("adaptive"), MODELS, KNOWN, QueryView(), 1.0, prices=prices)
    rate = prices.rate
    assert rate > 0
    prices.follow(Costs({"dear": 2.0, "cheap": 0.1}), 0.2, None)
    assert prices.rate == rate
    prices.follow(COSTS, None, 0.9)
    assert prices.rate == 0.0 and prices.is_active
    prices.follow(COSTS, None, None)
    assert not prices.is_active


def test_a_look_at_what_would_be_asked_learns_nothing() -> None:
    prices = Prices()
    prices.follow(COSTS, 0.2, None)
    prices.ration("cheap", {"dear": 0.0}, places_of(dear=1.0), 1.0)
    view = prices.of_money()
    candidates(make_policy("adaptive"), MODELS, KNOWN, QueryView(), 1.0, prices=view)
    assert prices.rate == 0.0 and view.rate > 0.0 and not view.scarcity


# -- scarce models ---------------------------------------------------------------------------------------


def places_of(**per_s: float) -> dict[str, Resource]:
    """Return the places of models that answer so many rows a second."""
    return {name: Resource(rows, {name: 1.0}) for name, rows in per_s.items()}


def scarce(share: float, is_priced: bool, queries: int = 6000) -> tuple[float, Prices]:
    """Return the mean loss if the good model answers this share of the queries at most, and two groups gain unequally.

    A place becomes free with each 1 / share of a query, and at most five wait.
    """
    policy, random, prices, places = make_policy("linear_thompson"), Random(3), Prices(), 5.0
    operator, lost = Operator("linear_thompson", seed=3), 0.0
    losses = {"good": (0.02, 0.05), "quick": (0.05, 0.4)}
    names, features = tuple(losses), [row.tobytes() for row in np.eye(2)]
    for number in range(queries):
        group, totals = random.randrange(2), operator.ledger.totals()
        places = min(places + share, 5.0)
        chances = {"good": 1.0 if places >= 1.0 else 0.0, "quick": 1.0}
        view = QueryView(packed_features=features[group], in_time=chances)
        is_limited = prices.is_active or chances["good"] < 1.0
        used = prices if is_priced and prices.is_active else None
        among = candidates(policy, names, totals, view, 1.0, prices=used) if is_limited else names
        choice = policy.select(among, totals, view, random)
        model = choice.models[0]
        if is_priced:
            prices.ration(model, chances, places_of(good=share, quick=1e6), float(number))
        places -= model == "good"
        lost += losses[model][group] * (number >= queries // 3)
        if number < 200 or number % 5 == 0:
            operator.teach(view, choice, losses[model][group])
    return lost / (queries - queries // 3), prices


def test_a_scarce_model_answers_where_it_gains_most() -> None:
    # All queries of the second group, and no other.
    possible = 0.5 * 0.05 + 0.5 * 0.05
    first_come, _ = scarce(0.5, is_priced=False)
    priced, prices = scarce(0.5, is_priced=True)
    assert first_come > possible + 0.05, "who comes first is served first without prices"
    assert 1 - priced >= 0.985 * (1 - possible)
    # Between what the two groups gain.
    assert 0.03 <= prices.scarcity["good"].value <= 0.36


def test_a_model_with_room_has_no_price() -> None:
    _, prices = scarce(1.5, is_priced=True, queries=500)
    assert not prices.scarcity and not prices.is_active
    prices.ration("good", {"good": 0.5}, places_of(good=1.0), 1.0)
    assert prices.is_active and prices.scarcity["good"].value == LEAST_SCARCITY
    # Nobody asks it for a long while.
    prices.ration("quick", {}, places_of(good=1.0), 1000.0)
    assert not prices.is_active


def test_what_is_no_longer_rationed_loses_its_price() -> None:
    prices = Prices()
    prices.ration("quick", {"good": 0.0, "other": 0.0}, places_of(good=9.0, other=9.0), 1.0)
    prices.ration("quick", {"good": 0.0}, places_of(good=9.0), 2.0)
    assert prices.scarcity.keys() == {"good"} and prices.is_active
    prices.ration("quick", {"good": 0.0}, {}, 3.0)
    assert not prices.scarcity and not prices.is_active


def test_a_model_that_nothing_is_known_to_answer_is_not_scarce() -> None:
    prices = Prices()
    prices.ration("quick", {"good": 0.0}, places_of(good=0.0), 1.0)
    assert not prices.scarcity


# -- a device that models share --------------------------------------------------------------------------

# Each model takes about half as long as the one before, and errs more.
LOSS_BY, USES = (0.03, 0.07, 0.12, 0.2, 0.3), (1.0, 0.5, 0.25, 0.1, 0.025)
FIVE = tuple("abcde")
FIVE_KNOWN = Totals(
    {
        **{(name, "scored"): 10_000.0 for name in FIVE},
        **{(name, "loss"): 10_000.0 * loss for name, loss in zip(FIVE, LOSS_BY)},
    }
)
MOST_WAITING = 5.0


@pytest.mark.parametrize("policy", ["single", "adaptive", "thompson", "ucb1", "epsilon_greedy"])
@pytest.mark.parametrize("units, possible", [(1.1, 0.03), (0.5, 0.07), (0.375, 0.095), (0.1, 0.2)])
def test_the_time_of_a_device_goes_to_the_models_that_gain_most_in_it(
    policy: str, units: float, possible: float
) -> None:
    """``units``: the time that passes between two queries, in rows of the slowest model."""
    made, prices, random, waiting, lost, late = make_policy(policy), Prices(), Random(1), 0.0, 0.0, 0
    device = {"GPU 0": Resource(1.0, dict(zip(FIVE, USES)))}
    for number in range(4000):
        chances = {name: 1.0 if waiting + used <= MOST_WAITING else 0.0 for name, used in zip(FIVE, USES)}
        view, prices.filled = QueryView(in_time=chances), {"GPU 0": waiting / MOST_WAITING}
        among = candidates(made, FIVE, FIVE_KNOWN, view, 1.0, prices=prices if prices.is_active else None)
        model = made.select(among, FIVE_KNOWN, view, random).models[0]
        late += not chances[model]
        prices.ration(model, chances, device, units * number)
        waiting = max(0.0, waiting + USES[FIVE.index(model)] - units)
        lost += LOSS_BY[FIVE.index(model)] * (number >= 1000)
    assert lost / 3000 <= possible + 0.01 and not late


def test_no_query_risks_to_be_late_on_a_device_that_gets_full() -> None:
    prices, view = Prices(), QueryView(in_time={"a": 0.6})
    policy, device = make_policy("adaptive"), {"GPU 0": Resource(1.0, dict(zip(FIVE, USES)))}
    prices.foresee({"a": 1.0}, device)
    assert not prices.is_active
    assert "a" in candidates(policy, FIVE, FIVE_KNOWN, view, 1.0), "by itself it would be worth it"
    prices.foresee({"a": 0.6}, device)
    assert candidates(policy, FIVE, FIVE_KNOWN, view, 1.0, prices=prices) == ("b",)


def test_a_model_that_nothing_is_known_of_is_tried_on_a_full_device() -> None:
    prices = Prices()
    device = {"GPU 0": Resource(1.0, dict(zip(FIVE, USES)))}
    prices.ration("c", {"a": 0.0}, device, 1.0)
    prices.scarcity["GPU 0"].value = 0.15
    known = {key: number for key, number in FIVE_KNOWN.numbers.items() if key[0] != "b"}
    view = QueryView()
    policy = make_policy("adaptive")
    assert candidates(policy, FIVE, FIVE_KNOWN, view, 1.0, prices=prices) == ("b",)
    # By the mean of five answers it would not be asked.
    unlucky = Totals(known | {("b", "scored"): 5.0, ("b", "loss"): 1.0})
    assert candidates(policy, FIVE, unlucky, view, 1.0, prices=prices) == ("b",)


@pytest.mark.parametrize("totals", [FIVE_KNOWN, Totals()])
def test_the_more_waits_for_a_device_the_quicker_the_model(totals: Totals) -> None:
    prices, policy = Prices(), make_policy("adaptive")
    prices.ration("c", {"a": 0.0}, {"GPU 0": Resource(1.0, dict(zip(FIVE, USES)))}, 1.0)
    prices.scarcity["GPU 0"].value = 0.3
    asked = []
    for filled in (0.0, 0.25, 0.6, 1.0):
        prices.filled = {"GPU 0": filled}
        asked.append(candidates(policy, FIVE, totals, QueryView(), 1.0, prices=prices)[0])
    # Nothing has taught a price since: a burst has its own before.
    assert asked[0] == "a" and asked == sorted(asked) and len(set(asked)) >= 3


@pytest.mark.parametrize("price", [0.1, 0.3, 0.5, 1.0])
def test_without_feedback_the_order_of_links_is_believed(price: float) -> None:
    prices = Prices()
    prices.ration("c", {"a": 0.0}, {"GPU 0": Resource(1.0, dict(zip(FIVE, USES)))}, 1.0)
    prices.scarcity["GPU 0"].value = price
    learns, fixed = (
        candidates(make_policy(name), FIVE, Totals(), QueryView(), 1.0, prices=prices)
        for name in ("adaptive", "single")
    )
    assert learns == fixed


def test_prices_are_told_in_words() -> None:
    prices = Prices()
    assert prices.in_words(MODELS) == []
    prices.follow(COSTS, 0.2, None)
    prices._rate = Price(0.5)
    assert prices.in_words(MODELS) == [
        "at the budget's present rate a query asks a model if it loses less than cheap: dear by at least 0.49, "
        "middling by at least 0.095"
    ]
    prices.follow(COSTS, None, None)
    prices.ration("d", {"a": 0.0}, places_of(a=1.0) | {"GPU 0": Resource(1.0, {"b": 1.0, "c": 0.5})}, 1.0)
    prices.ration("d", {"a": 0.0, "b": 0.0}, places_of(a=1.0) | {"GPU 0": Resource(1.0, {"b": 1.0, "c": 0.5})}, 1.0)
    for price in prices.scarcity.values():
        price.value = 0.2
    assert prices.in_words(FIVE) == [
        "a is full: a query asks a model if it loses less than the others: a by at least 0.2",
        "GPU 0 has no time for all: a query asks a model if it loses less than the others: b by at least 0.2, "
        "c by at least 0.1",
    ]
