"""Comparisons of models that were picked by what came with a query."""

import math
from itertools import product
from random import Random

import pytest

from clipper.learning.mathematics.comparison import compare
from clipper.learning.mathematics.confidence_sequences import MIXTURE
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import Totals
from clipper.learning.mathematics.weighing import (
    MAX_LINEUPS,
    MAX_WEIGHT,
    WeighedEvidence,
    evidence_of,
    has_begun,
    lineup_id,
    prefix_of,
    surplus,
    weighed,
)

MODELS = ("a", "b")


class Sums:
    """A state that learns from queries on which one model, or several, were chosen."""

    def __init__(self) -> None:
        self.ledger = Ledger(None)

    def add(
        self, losses: dict[str, float], weights: dict[str, float], lineup: str = "x", members: tuple[str, ...] = MODELS
    ) -> None:
        self.ledger.add(self.ledger.entries(weighed(losses, weights, lineup, members, self.ledger.totals())))

    def evidence(self, *models: str) -> WeighedEvidence:
        return evidence_of(self.ledger.totals().numbers, {model: model for model in models or MODELS})


def capital(sums: Sums, first: str = "a", second: str = "b", margin: float = 0.0) -> float:
    return sums.evidence(first, second).log_capital_less(first, second, margin)


def test_a_rare_choice_counts_for_as_many_queries_as_it_stands_for() -> None:
    sums = Sums()
    sums.add({"a": 1.0}, {"a": 1.25})
    sums.add({"b": 0.25}, {"b": 5.0})
    for _ in range(3):
        sums.add({"a": 0.0}, {"a": 1.25})
    found = sums.evidence()
    assert (found.feedback, found.count("a"), found.count("b")) == (5.0, 5.0, 5.0)
    assert (found.mean("a"), found.mean("b")) == (0.25, 0.25)
    numbers = sums.ledger.totals().numbers
    assert numbers["b", "weighed.x.lost_squares~never"] == 1.25**2
    assert numbers["b", "weighed.x.won_squares~never"] == 3.75**2
    assert numbers["a", "weighed.x.member~never"] == 1.0, "written once"


def test_a_loss_without_a_weight_does_not_count_and_weights_are_bounded() -> None:
    counted = weighed({"a": 1.0, "b": 1.0}, {"b": 1e9}, "x", (), Totals())
    assert counted == {
        ("", "weighed.x.count~never"): 1.0,
        ("b", "weighed.x.lost~never"): MAX_WEIGHT,
        ("b", "weighed.x.lost_squares~never"): MAX_WEIGHT**2,
    }


@pytest.mark.parametrize("weight_of_error", [1.0, 0.5])
def test_each_bet_is_no_better_than_fair(weight_of_error: float) -> None:
    """One query, whatever chances and losses it has; weights may be too small, and a model may have no chance."""
    chances = (0.0, 0.001, 0.1, 0.5, 0.9, 1.0)
    for of_a, of_b in product(chances, chances):
        if of_a + of_b > 1:
            continue
        for mean_a, mean_b in product((0.0, 0.1, 0.5, 1.0), repeat=2):
            for rate, _, cost in MIXTURE:
                outcomes = [(1 - of_a - of_b, 0.0)]
                for chance, gain in ((of_a, 1 - mean_a), (of_b, mean_b)):
                    if chance:
                        outcomes += [(chance * gain, weight_of_error / chance), (chance * (1 - gain), 0.0)]
                expected = sum(
                    probability * math.exp(rate * (z - 1 - (mean_b - mean_a)) - cost * (z - 1) ** 2)
                    for probability, z in outcomes
                )
                assert expected <= 1 + 1e-12, (of_a, of_b, mean_a, mean_b, rate)


def test_sums_of_squares_of_losses_of_one_query_are_bounded() -> None:
    """One query's evidence on both counts as the worst that sums allow: never more than it is worth."""
    random, sums = Random(1), Sums()
    total = squares = 0.0
    for _ in range(200):
        losses, weights = {"a": random.random(), "b": random.random()}, {"a": 1.0, "b": 1 / random.uniform(0.1, 1)}
        sums.add(losses, weights)
        z = losses["b"] * weights["b"] + 1 - losses["a"]
        total, squares = total + z - 1, squares + (z - 1) ** 2
    exact = max(share + rate * total - cost * squares for rate, share, cost in MIXTURE)
    assert capital(sums) <= exact + math.log(len(MIXTURE))


def test_models_are_compared_on_the_queries_of_their_common_lineups() -> None:
    sums = Sums()
    for _ in range(400):
        sums.add({"a": 1.0}, {"a": 1.0}, "before", ("a", "c"))
    for index in range(400):
        model, loss = (("a", 0.0), ("b", 1.0))[index % 2]
        sums.add({model: loss}, {model: 2.0}, "now", ("a", "b"))
    assert capital(sums) > math.log(100) > 0 > capital(sums, "b", "a")
    assert sums.evidence().count("b") == 400
    assert capital(sums, "b", "c") == 0.0, "they never had the same chance"
    found = compare(["a", "b", "c"], sums.evidence("a", "b", "c"), 0.95, 0.01)
    assert found.verdict == "open" and found.models["c"].sureness == 0.0


def test_a_difference_that_is_known_is_told_and_bounded() -> None:
    random, sums = Random(3), Sums()
    for _ in range(6000):
        model = "a" if random.random() < 0.8 else "b"
        sums.add({model: float(random.random() < {"a": 0.1, "b": 0.4}[model])}, {model: {"a": 1.25, "b": 5.0}[model]})
    found = compare(MODELS, sums.evidence(), 0.95, 0.01)
    assert (found.verdict, found.best, found.more_feedback) == ("best", "a", 0.0)
    for model, mean in (("a", 0.1), ("b", 0.4)):
        interval = found.models[model].interval
        assert interval.low < mean < interval.high and interval.high - interval.low < 0.2
    worse = found.models["b"].worse_by
    assert worse is not None and 0 < worse.low < 0.3 < worse.high < 0.5
    # A hundredth of it is not enough, and it says how much is.
    early = compare(MODELS, sums.evidence().times(0.01), 0.95, 0.01)
    assert early.verdict == "open" and early.more_feedback is not None and 0 < early.more_feedback < 5940


def test_a_model_that_is_never_chosen_is_not_known() -> None:
    sums = Sums()
    for _ in range(1000):
        sums.add({"a": 0.0}, {"a": 1.0})
    found = compare(MODELS, sums.evidence(), 0.95, 0.01)
    assert (found.verdict, found.best, found.models["b"].mean) == ("open", "a", None)
    assert found.models["b"].interval.low == 0.0 and found.models["b"].interval.high == 1.0


def test_a_lineup_is_its_versions_in_any_order() -> None:
    assert lineup_id(("a:1", "b:2")) == lineup_id(("b:2", "a:1")) != lineup_id(("a:1", "b:3"))
    sums = Sums()
    assert not has_begun(sums.ledger.totals(), "x")
    sums.add({"a": 1.0}, {"a": 1.0})
    assert has_begun(sums.ledger.totals(), "x") and not has_begun(sums.ledger.totals(), "y")


def test_lineups_with_least_feedback_are_forgotten_and_never_the_present() -> None:
    sums = Sums()
    for index in range(MAX_LINEUPS + 2):
        for _ in range(index + 1):
            sums.add({"a": 1.0}, {"a": 1.0}, f"n{index}")
    numbers = sums.ledger.totals().numbers
    assert surplus(numbers, "n0") == {"n1", "n2"} and surplus(numbers, "other") == {"n0", "n1", "n2"}
    keys = sums.ledger.keys_of(prefix_of("n1"))
    assert len(keys) == 5 and all("/weighed.n1." in key for key in keys)
    sums.ledger.drop(keys)
    assert surplus(sums.ledger.totals().numbers, "n0") == {"n2"}
