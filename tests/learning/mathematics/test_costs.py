"""Costs weigh beside losses, stay within what policies learn from, and change no order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.costs import NO_COSTS, Costs
from clipper.learning.mathematics.totals import Totals

amounts = st.floats(0, 1e6)


@given(
    by_model=st.dictionaries(st.sampled_from("abc"), amounts, min_size=1),
    weight=amounts,
    losses=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_priced_loss_is_in_range_and_ordered_as_loss_and_cost(by_model, weight: float, losses) -> None:
    costs = Costs(by_model, weight)
    priced = [costs.priced(model, loss) for model, loss in zip("ab", losses)]
    assert all(0.0 <= each <= 1.0 for each in priced)
    plain = [loss + weight * costs.of(model) for model, loss in zip("ab", losses)]
    if abs(plain[0] - plain[1]) > 1e-9 * max(plain):
        assert (plain[0] < plain[1]) == (priced[0] < priced[1]) or priced[0] == pytest.approx(priced[1])
    # Without a loss, the price alone is left.
    assert costs.priced("a", 0.0) == pytest.approx(costs.price("a"))


def test_without_costs_or_weight_a_loss_is_what_it_was() -> None:
    for costs in (NO_COSTS, Costs({"a": 7.0}), Costs({}, 3.0)):
        assert (costs.priced("a", 0.3), costs.price("a"), costs.of("b")) == (0.3, 0.0, 0.0)


def test_totals_know_the_costs_of_their_arms_also_in_a_context() -> None:
    costs = Costs({"a": 2.0}, 0.5)
    arms = Arms({"a": [("a:1", 1.0)]}, costs)
    prior = arms.view(Totals({("", "observations"): 9.0}))
    own = arms.view(Totals({("", "observations"): 1.0}))
    assert own.with_prior(prior).costs is costs and prior.costs is costs
    assert arms != Arms({"a": [("a:1", 1.0)]}) and arms == Arms({"a": [("a:1", 1.0)]}, Costs({"a": 2.0}, 0.5))
    assert arms.with_key("a", "a:2").costs is costs


def test_a_price_is_on_the_scale_of_the_dearest_model() -> None:
    costs = Costs({"a": 2.0, "b": 1.0}, 0.5)
    assert (costs.price("a"), costs.price("b"), costs.price("c")) == (0.5, 0.25, 0.0)
    assert (costs.priced("a", 1.0), costs.priced("a", 0.5), costs.priced("c", 1.0)) == (1.0, 0.75, 0.5)
    assert costs != Costs({"a": 2.0, "b": 1.0}, 0.25)
    assert costs != Costs({"a": 2.0}, 0.5)
    assert costs != {"a": 2.0, "b": 1.0}
