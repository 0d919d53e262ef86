"""The outcomes of the queries of the last minute."""

from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from clipper.api.recent import LastMinute
from clipper.control.statistics import ModelSelectionStatistics
from clipper.supervisor.history.recent import RECENT_S, Recent, Rows, Window, answers_of
from clipper.values.types import ModelId
from tests.supervisor.history.readings import reading, version_reading

S = TypeVar("S", bound=Struct)


def test_a_step_has_the_explanations_of_what_was_counted_in_it() -> None:
    counted = reading(
        5,
        late=2,
        defaults={"low_confidence": 1, "overloaded": 0},
        errors={"timeout": 2, "model_error": 0},
        explanations={"timeout": "m:1 did not answer", "model_error": "of an hour ago"},
    )
    assert answers_of(counted) == LastMinute(
        5, 2, {"low_confidence": 1}, {"timeout": 2}, {"timeout": "m:1 did not answer"}
    )


def test_models_answered_where_they_were_chosen_and_not_missing() -> None:
    counts = {"m": ModelSelectionStatistics(9, 2, 0, 0.0), "late": ModelSelectionStatistics(3, 3, 0, 0.0)}
    assert answers_of(reading(9, models=counts)).answered == {"m": 7}


def test_a_wanted_default_is_no_failure_and_a_time_out_no_late_output() -> None:
    answers = LastMinute(10, 5, {"low_confidence": 4, "timeout": 1}, {"timeout": 2, "model_error": 1})
    assert answers.failures == {"timeout": 3, "model_error": 1}
    assert answers.late_outputs == 2


small = st.integers(0, 9)
reasons = st.dictionaries(st.sampled_from(["timeout", "model_error", "low_confidence"]), small)
models = st.dictionaries(st.sampled_from(["m", "n:1"]), small)
answers = st.builds(LastMinute, small, small, reasons, reasons, st.just({}), models)


def sum_of(nothing: S, *steps: S) -> S:
    window = Window[str, S](nothing)
    for step in steps:
        window.add(1.0, {"it": step})
    return window.since("it", 0.0)


@given(st.lists(answers))
def test_a_sum_has_each_count_once(steps: list[LastMinute]) -> None:
    total = sum_of(LastMinute(), *steps)
    assert (total.queries, total.late) == (sum(one.queries for one in steps), sum(one.late for one in steps))
    assert sum(total.defaults.values()) == sum(sum(one.defaults.values()) for one in steps)
    assert sum(total.errors.values()) == sum(sum(one.errors.values()) for one in steps)
    assert sum(total.answered.values()) == sum(sum(one.answered.values()) for one in steps)


def test_the_latest_explanations_are_told() -> None:
    first, last = LastMinute(explanations={"a": "1", "b": "1"}), LastMinute(explanations={"a": "2"})
    assert sum_of(LastMinute(), first, last).explanations == {"a": "2", "b": "1"}
    assert sum_of(Rows(), Rows(1, 1, "old"), Rows(0, 2, "new"), Rows(3)) == Rows(4, 3, "new")


def test_steps_leave_after_a_minute_and_what_has_none_is_forgotten() -> None:
    recent = Recent(0.0)
    recent.add(1.0, {"app": reading(5)}, {ModelId("m", "1"): version_reading(4, 1, "boom")})
    recent.add(31.0, {"app": reading(7)}, {})
    assert recent.answers("app").queries == 12 and recent.answers("other") == LastMinute()
    assert recent.applications.since("app", 1.0).queries == 7
    assert recent.versions.since(ModelId("m", "1"), 0.0) == Rows(4, 1, "boom")
    recent.add(1.0 + RECENT_S, {}, {})
    assert recent.answers("app").queries == 7 and list(recent.versions) == []
    recent.add(31.0 + RECENT_S, {}, {})
    assert recent.answers("app") == LastMinute() and list(recent.applications) == []


def test_what_is_forgotten_is_not_told_again() -> None:
    recent = Recent(0.0)
    recent.add(1.0, {"app": reading(5)}, {})
    recent.applications.forget("app")
    recent.applications.forget("app")
    assert recent.answers("app") == LastMinute()
