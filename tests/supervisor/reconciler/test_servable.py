"""The records that workers can be told of: each record by itself, and all together."""

from typing import Any

import pytest
from msgspec.structs import replace

from clipper.errors import InvalidArgument, TooLarge
from clipper.settings.application import Link, Selection
from clipper.supervisor.reconciler import servable
from clipper.supervisor.reconciler.servable import MAX_DEPTH, Servable, check_json
from clipper.supervisor.registry.records import ApplicationRecord

GOOD = ApplicationRecord("good", "float64[2]", 20.0, "0", Selection("exp3", {"eta": 0.5}), (Link("m"),), "good#1")


def nested(levels: int) -> Any:
    value: Any = 1
    for number in range(levels):
        value = [value] if number % 2 else {"a": value}
    return value


@pytest.mark.parametrize(
    "value", [None, True, "x" * 1000, 2**63 - 1, -(2**63) + 1, 1e300, [{"a": [1, 2.5]}], nested(MAX_DEPTH - 1)]
)
def test_json_that_can_go_anywhere(value: Any) -> None:
    check_json("it", value)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, [{"a": [10**400]}], nested(MAX_DEPTH), nested(900)])
def test_json_that_cannot(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^it: (there is a whole number of over 64 bits|nested over 64)"):
        check_json("it", value)


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, name="bad", selection=Selection(half_life=10**20)),
        replace(GOOD, name="bad", selection=Selection(half_life=10**12)),
        replace(GOOD, name="bad", selection=Selection(loss="absolute", loss_parameters={"range": 10**20})),
        replace(GOOD, name="bad", selection=Selection(parameters={"a": "\ud800"})),
        replace(GOOD, name="bad", selection=Selection(parameters={"a": nested(2000)})),
        replace(GOOD, name="bad", default_output="\ud800"),
        replace(GOOD, name="bad", input_type="float65[2]"),
        replace(GOOD, name="bad", input_type="float64[9999999999]"),
        replace(GOOD, name="bad", code="no digest"),
    ],
)
def test_one_that_cannot_be_told_costs_no_other_its_place(bad: ApplicationRecord) -> None:
    def code_folder(digest: str) -> str:
        raise InvalidArgument(f"{digest} is none")

    known = Servable(code_folder)
    (told,) = known.snapshots({"bad": bad, "good": GOOD})
    assert told.name == "good" and list(known.left_out) == ["bad"]
    with pytest.raises(InvalidArgument, match="'bad' cannot be served"):
        known.check(bad, {"good": GOOD})
    known.check(GOOD, {"bad": bad})
    # Mended, it is told of.
    assert len(known.snapshots({"bad": replace(GOOD, name="bad"), "good": GOOD})) == 2 and known.left_out == {}


def test_together_they_fit_into_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servable, "MAX_APPLICATIONS_BYTES", 4000)
    known, large = Servable(str), replace(GOOD, default_output="0" * 1000)
    records = {name: replace(large, name=name) for name in "abc"}
    two = {name: records[name] for name in "ab"}
    known.check(records["b"], {"a": records["a"]})
    with pytest.raises(TooLarge, match="the others 3"):
        known.check(records["c"], two)
    # In place of itself it counts once.
    known.check(replace(records["b"], slo_ms=5.0), two)
    # Of a home that an older Clipper filled, what does not fit is left out.
    assert [one.name for one in known.snapshots(records)] == ["a", "b"] and list(known.left_out) == ["c"]


def test_a_record_is_looked_at_once() -> None:
    calls: list[str] = []
    known, record = Servable(lambda digest: calls.append(digest) or "x"), replace(GOOD, code="ab" * 32)  # type: ignore[func-returns-value]
    first = known.snapshots({"good": record})
    assert known.snapshots({"good": record}) == first
    known.check(record, {"good": record})
    assert len(calls) == 1
