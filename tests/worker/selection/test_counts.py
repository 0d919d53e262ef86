"""The counters of one application, as they are read."""

import msgspec

from clipper.worker.selection.counts import MAX_EXPLANATION, MAX_SETS, ApplicationCounts


def test_a_reading_can_be_sent_whatever_an_explanation_says() -> None:
    """One that could not would take the readings of all applications with it."""
    counts = ApplicationCounts()
    counts.explanations = {"policy_error": "half of a pair: \ud800", "model_error": "x" * 1000}
    told = counts.told_explanations()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told))
    assert told == {"policy_error": "half of a pair: \\ud800", "model_error": "x" * MAX_EXPLANATION}


def test_the_only_models_are_counted_beside_others_and_after_them() -> None:
    counts = ApplicationCounts()
    counts.follow_only(("a",))
    counts.only_times += 3
    counts.go_on(2, ("a", "b"))
    counts.follow_only(("b",))
    counts.only_times += 5
    asked = counts.statistics("app", 0, {}).selection.models
    assert {name: each.selected for name, each in asked.items()} == {"a": 4, "b": 6}


def test_the_only_models_are_counted_once_when_there_are_too_many_sets() -> None:
    counts = ApplicationCounts()
    counts.follow_only(("a",))
    counts.only_times += 3
    for number in range(MAX_SETS + 1):
        counts.go_on(2, ("b", f"m{number}"))
    counts.bound_sets()
    counts.bound_sets()
    asked = counts.statistics("app", 0, {}).selection.models
    assert (asked["a"].selected, asked["b"].selected) == (3, MAX_SETS + 1)
