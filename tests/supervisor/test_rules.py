from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from clipper.errors import InvalidArgument
from clipper.registry.records import ApplicationRecord, ModelRecord, VersionRecord, VersionSpec
from clipper.registry.store import Contents
from clipper.scaling import ReplicaRange
from clipper.snapshot import Batching, Link, Peer, ReplicaAddress, Selection
from clipper.supervisor import rules
from clipper.supervisor.catalog import Catalog
from clipper.types import ModelId


class Stored:
    """A registry that holds what it was made with, and takes no changes: the rules make none."""

    def __init__(self, *records: ApplicationRecord | ModelRecord | VersionRecord) -> None:
        self.records = records

    def load(self) -> Contents:
        return Contents(
            tuple(record for record in self.records if isinstance(record, ApplicationRecord)),
            tuple(record for record in self.records if isinstance(record, ModelRecord)),
            tuple(record for record in self.records if isinstance(record, VersionRecord)),
        )

    def write(self, *changes: object) -> None:
        raise AssertionError("the rules change nothing")

    def reserve(self, counter: str, count: int) -> int:
        raise AssertionError("the rules change nothing")

    def close(self) -> None:
        raise AssertionError("the rules change nothing")


def version(name: str, **fields: object) -> VersionRecord:
    spec = VersionSpec("a", "import", "m:f")
    given = {"state": "ready", "input_type": "float64[2]", "replicas_wanted": int(name), **fields}
    return VersionRecord("m", name, spec, Batching(), True, created_at=float(name), **given)  # type: ignore[arg-type]


def app(name: str, *links: Link, input_type: str = "float64[2]", slo_ms: float = 20.0) -> ApplicationRecord:
    return ApplicationRecord(name, input_type, slo_ms, links=links)


PEERS = (Peer(4, "w4.sock"), Peer(9, "w9.sock"))
MODEL = ModelRecord("m", current="3", previous="2")


def test_which_versions_run() -> None:
    catalog = Catalog(
        Stored(
            MODEL,
            *map(version, "123"),
            version("4", kept=True),
            version("5", promotion=1, state="starting"),
            version("6", kept=True, state="failed"),
            version("7", state="sleeping"),
            app("a", Link("m"), Link("other")),
            app("b", Link("m", "7")),
        )
    )
    assert rules.running(catalog) == {ModelId("m", name): int(name) for name in "23457"}


def content(catalog: Catalog, replicas: Mapping[ModelId, tuple[ReplicaAddress, ...]]) -> rules.Content:
    records = catalog.applications.values()
    applications = tuple(rules.application_snapshot(one, lambda digest: f"/artifacts/{digest}/code") for one in records)
    return rules.content(catalog, applications, replicas, PEERS)


def test_workers_are_told_how_applications_select_and_of_each_other() -> None:
    selection = Selection("own:Policy", {"a": 1}, half_life=None)
    catalog = Catalog(
        Stored(
            ApplicationRecord("a", "float64[2]", 20.0, selection=selection, id="a#7", code="ab"),
            app("old", Link("m", shadow=True)),
        )
    )
    own, old = content(catalog, {}).applications
    assert (own.id, own.selection) == ("a#7", replace(selection, code="/artifacts/ab/code"))
    assert (old.id, old.selection, old.links) == ("old", Selection(), (Link("m", shadow=True),))
    assert content(catalog, {}).peers == PEERS


def test_workers_are_told_of_versions_that_run_or_still_have_replicas() -> None:
    catalog = Catalog(Stored(MODEL, *map(version, "123"), version("4", kept=True, input_type=None, state="starting")))
    address = ReplicaAddress("m:1#1.g1", "unix:x")
    assert [one.version for one in content(catalog, {}).models[0].versions] == ["2", "3"]
    (model,) = content(catalog, {ModelId("m", "1"): (address,)}).models
    assert model.current == "3"
    assert {one.version: one.replicas for one in model.versions} == {"1": (address,), "2": (), "3": ()}


def test_a_batch_may_run_for_ten_times_the_largest_slo_that_may_wait_for_it() -> None:
    catalog = Catalog(Stored(MODEL, app("a", Link("m"), slo_ms=20), app("b", Link("m", "2"), slo_ms=9000)))
    assert rules.batch_timeout_s(catalog, "m") == 90.0
    assert rules.batch_timeout_s(catalog, "other") == 30.0


def test_a_range_keeps_as_many_replicas_as_are_in_use() -> None:
    assert rules.within(3, 8) == 3
    assert [rules.within(ReplicaRange(2, 4), in_use) for in_use in (0, 2, 3, 9)] == [2, 2, 3, 4]


def test_the_next_version_and_the_next_promotion() -> None:
    assert rules.next_version([]) == "1"
    assert rules.next_version(["9", "10", "2024-01-05", "v99"]) == "11"
    assert rules.next_promotion([version("1"), version("2", promotion=4)]) == 5


@pytest.mark.parametrize(
    ("application", "model", "fit"),
    [
        ("float64[4]", "float64[4]", True),
        ("float64[*]", "float64[4]", True),
        ("float64[4]", "float64[*]", True),
        ("float64[4]", "float64[5]", False),
        ("float64[*,*]", "float64[2,*]", True),
        ("float64[3,*]", "float64[2,*]", False),
        ("float64[4]", "float32[4]", False),
        ("float64[2,2]", "float64[4]", False),
        ("float64[*,2]", "float64[2,2]", True),
        ("float64[2,2]", "float64[*,2]", False),  # the model wants each row's dimensions before its data
        ("string", "string", True),
        ("string", "bytes", False),
    ],
)
def test_which_input_types_fit(application: str, model: str, fit: bool) -> None:
    assert rules.fits(application, model) is fit
    try:
        rules.check_fits(app("a", input_type=application), version("1", input_type=model))
    except InvalidArgument as error:
        assert not fit and application in str(error) and model in str(error)
    else:
        assert fit


def test_an_input_type_whose_rows_no_request_can_hold() -> None:
    assert rules.checked_type("float64[1024,1024,32]").row_bytes == 1 << 28
    assert rules.checked_type("string").row_bytes is None
    for text in ("uint8[33554433]", "float64[1024,1024,33]", "float64[" + ",".join(["9999999999"] * 8) + "]"):
        with pytest.raises(InvalidArgument, match="bytes as JSON, and a request has 67108864 at most"):
            rules.checked_type(text)


def test_a_version_whose_type_is_not_known_yet_fits() -> None:
    rules.check_fits(app("a"), version("1", input_type=None))


def test_versions_that_nothing_needs_are_removed_beyond_a_number() -> None:
    states = [
        "sleeping",
        "failed",
        "sleeping",
        "sleeping",
        "failed",
        "ready",
        "sleeping",
        "ready",
        "starting",
        "sleeping",
    ]
    records = [version(str(number), state=state) for number, state in enumerate(states)]
    pinning = ApplicationRecord("app", "string", 20.0, links=(Link("m", "0"),))
    model = ModelRecord("m", current="5", previous="6")
    catalog = Catalog(Stored(pinning, model, *records))
    # Of 1, 2, 3, 4 and 9: 0 is pinned, 5 and 6 are current and previous, 7 and 8 are about to sleep or to come up.
    removed = [[id_.version for id_ in rules.to_remove(catalog, keep)] for keep in (1, 3, 5, 10)]
    assert removed == [["1", "2", "3", "4"], ["1", "2"], [], []]
