from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import asdict, fields, replace

from clipper.errors import InvalidArgument
from clipper.learning.policies.exp3 import Exp3
from clipper.learning.policies.thompson import Thompson
from clipper.settings.application import ApplicationChange, Configured, NewApplication, Selection
from clipper.settings.fields import check_ranges
from clipper.supervisor.operations.selections import (
    changed_selection,
    check_budget,
    check_log,
    names_code,
    new_selection,
)
from clipper.values.records import parse_type

OLD = Selection("exp3", {"eta": 0.5}, "absolute", {"range": 2}, half_life=7)
# One new value for each field of a change that is about selection.
NEW = {
    "policy": Configured("ucb1", {"c": 1}),
    "loss": "log",
    "half_life": None,
    "prior_weight": 3.0,
    "inherit": 0.5,
    "ramp": None,
    "max_loss_increase": 0.2,
    "wait": "all",
    "confidence_threshold": 0.5,
    "feedback_ttl_s": 9.0,
    "log_decisions": 0.25,
    "log_inputs": "sampled",
    "redact": "name",
    "cost_weight": 0.5,
    "max_cost_per_query": 0.2,
    "min_quality": 0.9,
    "confidence_from": "probabilities",
    "label_field": "score",
    "calibrate": True,
    "features": 8,
}


def test_a_new_application_selects_by_the_defaults() -> None:
    assert new_selection(NewApplication("a", slo_ms=20.0)) == Selection()


@pytest.mark.parametrize(
    "fields",
    [{"ramp": value} for value in (0, -0.1, 0.51, True)] + [{"max_loss_increase": value} for value in (-0.1, 1.01)],
)
def test_what_is_no_share_or_loss_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match="expected a number"):
        check_ranges(Selection(**fields))
    check_ranges(Selection(ramp=0.5, max_loss_increase=0.0))
    check_ranges(Selection(ramp=None, max_loss_increase=None))


def test_how_long_is_remembered_is_the_policys_own_where_nobody_says() -> None:
    assert new_selection(NewApplication("a", slo_ms=20.0, policy="thompson")).half_life == Thompson.default_half_life
    assert new_selection(NewApplication("a", slo_ms=20.0, policy="m:Own")).half_life == 1000
    assert new_selection(NewApplication("a", slo_ms=20.0, policy="thompson", half_life=None)).half_life is None
    made = new_selection(NewApplication("a", slo_ms=20.0, policy="thompson"))
    assert changed_selection(made, ApplicationChange(policy="exp3")).half_life == Exp3.default_half_life
    assert changed_selection(made, ApplicationChange(policy="exp3", half_life=9)).half_life == 9
    assert changed_selection(OLD, ApplicationChange(policy="thompson")).half_life == OLD.half_life


def test_features_go_with_the_policy_that_they_were_for() -> None:
    made = new_selection(NewApplication("a", 20.0, policy="linucb", features=2))
    assert changed_selection(made, ApplicationChange(policy="exp3")).features is None
    assert changed_selection(made, ApplicationChange(policy="linear_thompson")).features == 2
    assert changed_selection(made, ApplicationChange(policy="exp3", features=3)).features == 3
    # A user's own may go by them; and where the policy before did not, they are there for something else.
    assert changed_selection(made, ApplicationChange(policy="m:Own")).features == 2
    logged = new_selection(NewApplication("a", 20.0, policy="thompson", features=2))
    assert changed_selection(logged, ApplicationChange(policy="exp3")).features == 2


def test_a_name_alone_has_no_parameters() -> None:
    made = new_selection(NewApplication("a", slo_ms=20.0, policy="exp3", loss=Configured("absolute", {"range": 2})))
    assert (made.policy, made.parameters, made.loss, made.loss_parameters) == ("exp3", {}, "absolute", {"range": 2})


@given(st.sets(st.sampled_from(sorted(NEW))))
def test_what_a_change_leaves_out_stays(names: set[str]) -> None:
    changed = changed_selection(OLD, ApplicationChange(**{name: NEW[name] for name in names}))
    expected = {name: NEW[name] for name in names}
    if "policy" in names:
        expected |= {"policy": "ucb1", "parameters": {"c": 1}}
    if "loss" in names:
        expected |= {"loss": "log", "loss_parameters": {}}
    assert asdict(changed) == {**asdict(OLD), **expected}


def test_every_field_of_a_change_is_of_the_selection_or_known_not_to_be() -> None:
    others = {"slo_ms", "waking_slo_ms", "default_output", "code", "require_key", "max_in_flight", "max_per_second"}
    others |= {"show_model", "null_is_nan", "ignore_unknown_fields", "nan_as_text", "max_replicas", "steps", "output"}
    assert {field.name for field in fields(ApplicationChange)} == NEW.keys() | others
    assert all(field.default is UNSET for field in fields(ApplicationChange))


@pytest.mark.parametrize(
    ("selection", "own"),
    [(OLD, False), (Selection("m:P"), True), (Selection(loss="m:f"), True), (Selection("entry_point"), False)],
)
def test_whose_code_it_is(selection: Selection, own: bool) -> None:
    assert names_code(selection) is own


@pytest.mark.parametrize("budget", [{"max_cost_per_query": 0.2}, {"min_quality": 0.9}])
@pytest.mark.parametrize("policy", ["weighted", "best_arm", "ensemble", "exp4", "stacking", "cascade", "m:Own"])
def test_a_policy_that_cannot_keep_a_budget_is_told_so(policy: str, budget: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match=f"{next(iter(budget))} does not go with policy {policy}: .*adaptive"):
        check_budget(replace(Selection(policy), **budget))


def test_a_budget_contradicts_another_one_and_a_weight_of_costs() -> None:
    check_budget(Selection("ensemble", cost_weight=0.5))
    check_budget(Selection("single", max_cost_per_query=0.2))
    check_budget(Selection("thompson", min_quality=1.0))
    with pytest.raises(InvalidArgument, match="both set: expected one"):
        check_budget(Selection("thompson", min_quality=0.9, max_cost_per_query=0.2))
    with pytest.raises(InvalidArgument, match="expected a cost_weight of 0"):
        check_budget(Selection("thompson", min_quality=0.9, cost_weight=0.5))


@pytest.mark.parametrize(
    "wrong", [{"max_cost_per_query": 0.0}, {"max_cost_per_query": -1.0}, {"min_quality": 0.0}, {"min_quality": 1.1}]
)
def test_what_is_no_budget_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument, match="expected a number"):
        check_ranges(replace(Selection("thompson"), **wrong))


def test_inputs_are_kept_only_of_queries_that_are_logged() -> None:
    check_log(Selection(log_decisions=0.1, log_inputs="sampled"), None, parse_type("float64[2]"), ())
    with pytest.raises(InvalidArgument, match=r"no query is logged: expected log_decisions .--log-decisions. above 0"):
        check_log(Selection(log_inputs="sampled"), None, parse_type("float64[2]"), ())


@pytest.mark.parametrize(
    ("redact", "outputs", "cause"),
    [
        ("job", (), ""),
        ('job, "last, first"', (), ""),
        ("score", ("score: float64, label: string",), ""),
        (
            "jbo",
            ("score: float64",),
            "redact names 'jbo', which is no field .*expected some of age, job, last, first, score",
        ),
        ("jbo", ("float64[*]",), "'jbo'"),
        # Outputs that are not known, and bytes, may be objects with any fields; but not with almost those of the input.
        ("jbo", (None,), "'jbo'"),
        ("email", (None,), ""),
        ("jbo", ("bytes",), ""),
        ("jbo", ("score: bytes",), ""),
        ("age,,job", (), "is no list of fields"),
        ("age,age", (), "is no list of fields"),
    ],
)
def test_a_redacted_field_is_one_that_there_may_be(redact: str, outputs: tuple[str | None, ...], cause: str) -> None:
    record = parse_type('age: bytes, job: string?, "last, first": string')
    with pytest.raises(InvalidArgument, match=cause) if cause else nullcontext():
        check_log(Selection(redact=redact), None, record, outputs)
    # A name that is there already is not asked about again: the models may have changed since.
    check_log(Selection(redact=redact, prior_weight=1), Selection(redact=redact), record, outputs)
