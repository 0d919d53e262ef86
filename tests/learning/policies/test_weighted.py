"""The traffic split: its shares, and how few contexts a change of it moves."""

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.policy import QueryView
from clipper.learning.policies.weighted import Weighted
from tests.example_counts import share_of

CONTEXTS = [f"user-{number}" for number in range(4000)]
# Shares are of 4,000 hashes: five standard deviations of a count are at most 0.04 of them.
SLACK = 0.04

splits = st.dictionaries(st.sampled_from("abc"), st.integers(1, 20), min_size=3)


def placed(weights: Mapping[str, float] | None, models: tuple[str, ...] = ("a", "b", "c")) -> list[str]:
    policy, totals, random = Weighted(weights), Totals(), Random(0)
    return [policy.select(models, totals, QueryView(context), random).models[0] for context in CONTEXTS]


def moves(before: list[str], after: list[str]) -> Counter[tuple[str, str]]:
    return Counter((old, new) for old, new in zip(before, after) if old != new)


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    return {model: weight / sum(weights.values()) for model, weight in weights.items()}


def test_from_95_5_to_90_10_moves_five_percent_and_only_to_the_canary() -> None:
    moved = moves(placed({"a": 95, "b": 5}), placed({"a": 90, "b": 10}))
    assert moved.keys() == {("a", "b")}
    assert moved.total() / len(CONTEXTS) == pytest.approx(0.05, abs=0.011)


def test_a_split_is_undone_exactly() -> None:
    assert placed({"a": 95, "b": 5}) == placed({"a": 0.95, "b": 0.05})


def test_a_model_that_comes_takes_its_share_and_moves_nothing_else() -> None:
    before = placed({"a": 50, "b": 30})
    after = placed({"a": 50, "b": 30, "c": 20})
    assert {new for _, new in moves(before, after)} == {"c"}
    assert moves(before, after).total() / len(CONTEXTS) == pytest.approx(0.2, abs=SLACK)


def test_the_order_of_models_moves_nobody() -> None:
    weights = {"a": 1, "b": 2, "c": 3}
    assert placed(weights) == placed(weights, ("c", "a", "b"))


@settings(max_examples=share_of(20), deadline=None)
@given(splits)
def test_contexts_are_split_by_weight(weights: dict[str, int]) -> None:
    found = Counter(placed(weights))
    for model, share in shares(weights).items():
        assert found[model] / len(CONTEXTS) == pytest.approx(share, abs=SLACK)


@settings(max_examples=share_of(20), deadline=None)
@given(splits, splits)
def test_any_change_moves_little_more_than_it_must(before: dict[str, int], after: dict[str, int]) -> None:
    least = sum(abs(shares(before)[model] - shares(after)[model]) for model in "abc") / 2
    moved = moves(placed(before), placed(after)).total() / len(CONTEXTS)
    assert moved <= 2 * least / (1 + least) + SLACK
    assert moved >= least - 2 * SLACK


def test_a_context_keeps_its_model_whatever_the_chance() -> None:
    policy = Weighted({"a": 1, "b": 1})
    drawn = {policy.select(("a", "b"), Totals(), QueryView("user-1"), Random(seed)).models for seed in range(20)}
    assert len(drawn) == 1


def test_queries_without_a_context_are_split_at_random() -> None:
    policy, totals, random = Weighted({"a": 3, "b": 1}), Totals(), Random(0)
    drawn = [policy.select(("a", "b"), totals, QueryView(), random).models[0] for _ in range(4000)]
    assert drawn.count("b") / 4000 == pytest.approx(0.25, abs=SLACK)


def test_a_model_without_a_weight_gets_nothing() -> None:
    assert "b" not in placed({"a": 1, "c": 1})


def test_models_of_which_none_has_a_weight_share_alike() -> None:
    assert Counter(placed({"gone": 1}))["a"] / len(CONTEXTS) == pytest.approx(1 / 3, abs=SLACK)
    assert Counter(placed(None))["a"] / len(CONTEXTS) == pytest.approx(1 / 3, abs=SLACK)


def test_placement_is_the_same_in_every_process_and_release() -> None:
    policy, totals = Weighted({"a": 1, "b": 1, "c": 1}), Totals()
    found = [
        policy.select(("a", "b", "c"), totals, QueryView(f"user-{number}"), Random(0)).models[0] for number in range(12)
    ]
    assert "".join(found) == "bbbcbabbbbca"
