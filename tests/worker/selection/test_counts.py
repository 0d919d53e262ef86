"""The counters of one application, as they are read."""

import msgspec

from clipper.control.statistics import MAX_FORMER_MODELS
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
    for _ in range(2):
        asked = counts.statistics("app", 0, {}).selection.models
        assert (asked["a"].selected, asked["b"].selected) == (3, MAX_SETS + 1)
        assert max(map(len, counts.selected)) == 1, "not only users' policies vary the sets"


def test_counts_of_former_models_are_bounded_and_the_latest_stay() -> None:
    """Each deployment with a ramp has a name of its own, and each took a kilobyte for as long as the worker lived."""
    counts = ApplicationCounts()
    most = MAX_FORMER_MODELS + 50
    for number in range(most):
        name = f"m:{number}"
        counts.keep(["m", name])
        counts.go_on(2, ("m", name))
        counts.learn({"m": 0.5, name: 1.0}, 0.5)
        counts.missing[name] += 1
    # Feedback that came late brings counts of a model that is forgotten already.
    counts.learn({"m:0": 1.0}, None)
    counts.keep(["m"])
    counts.charge({"m": 2.0})
    told = counts.statistics("app", 0, {}).selection
    assert told is not None
    assert set(told.models) == {"m", "m:0", *(f"m:{number}" for number in range(51, most))}
    assert told.models["m"].selected == told.models["m"].scored == most
    assert told.models[f"m:{most - 1}"].missing == told.models[f"m:{most - 1}"].scored == 1
    for each in (counts.selected, counts.missing, counts.scored, counts.loss, counts.weight, counts.weighted_loss):
        assert len(each) <= MAX_FORMER_MODELS + 1
    # A model that is asked again is no former one.
    for number in range(most, most + 2 * MAX_FORMER_MODELS):
        counts.keep(["m", "m:0", f"m:{number}"])
        counts.go_on(2, ("m", f"m:{number}"))
    assert counts.statistics("app", 0, {}).selection.models["m:0"].scored == 1  # type: ignore[union-attr]
