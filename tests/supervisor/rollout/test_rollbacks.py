"""Which version a rollback returns to, and what a stop changes."""

from typing import Any

import pytest
from msgspec.structs import replace

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import Newcomer
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.rollout import rollbacks
from tests.supervisor.rollout.fake_records import Records, records_of
from tests.supervisor.rollout.rules_bench import SPEC

NEWCOMER = Newcomer(1, "m", "3", "2", promoted=True)


def version(name: str, before: str | None = None, **fields: Any) -> VersionRecord:
    """A version that was deployed after ``before``, later than all with a smaller name."""
    fields.setdefault("state", "ready")
    return VersionRecord("m", name, SPEC, Batching(), True, 1, float(name), predecessor=before, **fields)


def follower(name: str = "app", **fields: Any) -> ApplicationRecord:
    return ApplicationRecord(name, "float64[2]", 20.0, selection=Selection("thompson"), links=(Link("m"),), **fields)


THREE = version("1"), version("2", "1"), version("3", "2")


@pytest.mark.parametrize(
    ("model", "versions", "target"),
    [
        (("3", "2"), THREE, "2"),
        (("2", "3"), THREE, "3"),  # it was rolled back by hand, which a second rollback undoes
        (("3", None), THREE, "2"),
        (("3", "2"), (version("1"), version("2", "1", stopped="it lost more"), version("3", "2")), "1"),
        (("3", "2"), (version("1"), version("2", "1", state="failed"), version("3", "2")), "1"),
        (("3", "2"), (version("2", "1"), version("3", "2")), "2"),
        (("3", None), (version("2", "1", stopped="it lost more"), version("3", "2")), None),
        (("2", "2"), (version("1"), version("2", "1")), "1"),  # as a registry of before may have it
        (("1", "1"), (version("1"), version("2", "1")), None),
        (("1", None), (version("1"), version("2", "1")), None),
        ((None, None), (version("1"),), None),
        (("3", "9"), THREE, None),
    ],
)
def test_a_rollback_returns_to_the_latest_sound_version_before(
    model: tuple[str | None, str | None], versions: tuple[VersionRecord, ...], target: str | None
) -> None:
    owner = ModelRecord("m", *model)
    assert rollbacks.target(records_of(owner, *versions), owner) == target


def test_a_name_that_a_later_version_has_now_ends_the_search() -> None:
    later = VersionRecord("m", "1", SPEC, Batching(), True, 1, 9.0, "ready")
    model = ModelRecord("m", "2", None)
    assert rollbacks.target(records_of(model, later, version("2", "1")), model) is None


def test_a_rollback_during_a_ramp_has_nothing_to_undo() -> None:
    model = ModelRecord("m", "3", "2")
    ramped = records_of(model, *THREE, follower(newcomers=(NEWCOMER,)))
    assert rollbacks.after(ramped, model, "2") == ModelRecord("m", "2", "1")
    assert rollbacks.after(records_of(model, *THREE[1:]), model, "2") == ModelRecord("m", "2", "3")
    alone = records_of(model, version("2"), version("3", "2"), follower(newcomers=(NEWCOMER,)))
    assert rollbacks.after(alone, model, "2") == ModelRecord("m", "2", None)


def apply_stop(records: Records, newcomer: Newcomer) -> Records:
    changes = rollbacks.stop(records, records.applications["app"], newcomer, "it lost more")
    assert changes is not None
    changed = records.copy()
    changed.put(changes)
    return changed


def test_a_stop_rolls_the_model_back_and_marks_the_version() -> None:
    others = follower("ramps too", newcomers=(NEWCOMER,)), ApplicationRecord("plain", "float64[2]", 20.0)
    records = records_of(ModelRecord("m", "3", "2"), *THREE, follower(newcomers=(NEWCOMER,)), *others)
    changed = apply_stop(records, NEWCOMER)
    assert changed.models["m"] == ModelRecord("m", "2", "1")
    assert changed.versions[THREE[2].id].stopped == "application 'app': it lost more"
    assert changed.applications["app"].newcomers == (replace(NEWCOMER, stopped="it lost more"),)
    assert changed.applications["ramps too"].newcomers == ()
    assert changed.applications["plain"] is records.applications["plain"]


def test_a_stopped_link_leaves_the_model_and_is_no_version_to_return_to() -> None:
    linked = Newcomer(1, "m", "2")
    pinning = replace(follower(newcomers=(linked,)), links=(Link("m"), Link("m", "2")))
    changed = apply_stop(records_of(ModelRecord("m", "3", "2"), *THREE, pinning), linked)
    assert changed.models["m"] == ModelRecord("m", "3", "1")
    assert changed.versions[THREE[1].id].stopped is not None


def test_no_model_is_rolled_back_to_what_does_not_run() -> None:
    down = version("2", "1", state="starting")
    records = records_of(ModelRecord("m", "3", "2"), down, THREE[2], follower(newcomers=(NEWCOMER,)))
    assert rollbacks.stop(records, records.applications["app"], NEWCOMER, "it lost more") is None


def test_a_version_that_is_let_through_counts_as_stopped_no_more() -> None:
    tried_again = Newcomer(2, "m", "2")
    linking = follower(newcomers=(tried_again,))
    records = records_of(ModelRecord("m", "3", "1"), version("2", "1", stopped="it lost more"), linking)
    ended = EndedRamp("m", "2", 0.0, 200, 3800, 0.1, 0.1)
    records.put(rollbacks.let_through(records, linking, tried_again, ended))
    assert records.versions[THREE[1].id].stopped is None
    assert records.applications["app"].newcomers == ()
