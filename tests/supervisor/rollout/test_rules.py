from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from clipper.control.snapshot import Peer, ReplicaAddress, Snapshot
from clipper.errors import InvalidArgument
from clipper.settings.application import Link, Selection
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.store import Contents
from clipper.supervisor.rollout import rules, wanted
from clipper.values.types import ModelId


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

    async def sync(self) -> None:
        raise AssertionError("the rules change nothing")

    def reserve(self, counter: str, count: int) -> int:
        raise AssertionError("the rules change nothing")

    def close(self) -> None:
        raise AssertionError("the rules change nothing")


def version(name: str, **fields: object) -> VersionRecord:
    spec = fields.pop("spec", VersionSpec("a", "import", "m:f"))
    given = {"state": "ready", "input_type": "float64[2]", "replicas_wanted": int(name), **fields}
    return VersionRecord("m", name, spec, Batching(), True, created_at=float(name), **given)  # type: ignore[arg-type]


def app(name: str, *links: Link, input_type: str = "float64[2]", slo_ms: float = 20.0) -> ApplicationRecord:
    return ApplicationRecord(name, input_type, slo_ms, links=links)


PEERS = (Peer(4, "w4.sock"), Peer(9, "w9.sock"))
MODEL = ModelRecord("m", current="3", previous="2")


def content(catalog: Catalog, replicas: Mapping[ModelId, tuple[ReplicaAddress, ...]]) -> Snapshot:
    records = catalog.applications.values()
    applications = tuple(rules.application_snapshot(one, lambda digest: f"/artifacts/{digest}/code") for one in records)
    return wanted.Contents().make(catalog, catalog.running(), applications, replicas, PEERS)


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


def test_a_range_keeps_as_many_replicas_as_are_in_use() -> None:
    assert rules.within(3, 8) == 3
    assert [rules.within(ReplicaRange(2, 4), in_use) for in_use in (0, 2, 3, 9)] == [2, 2, 3, 4]


def test_the_next_version_and_the_next_promotion() -> None:
    assert rules.next_version([]) == "1"
    assert rules.next_version(["9", "10", "2024-01-05", "v99"]) == "11"
    assert rules.next_promotion([version("1"), version("2", promotion=4)]) == 5


@pytest.mark.parametrize("context", ["", "x" * 1001])
def test_a_context_that_no_query_can_be_in(context: str) -> None:
    """The empty one's state is that of all, which a context's own would be added to."""
    with pytest.raises(InvalidArgument, match="expected 1 to 1000"):
        rules.check_context(context)
    rules.check_context(None)
    rules.check_context("x" * 1000)


def test_an_input_type_whose_rows_no_request_can_hold() -> None:
    assert rules.checked_type("float64[1024,1024,32]").row_bytes == 1 << 28
    assert rules.checked_type("string").row_bytes is None
    for text in ("uint8[33554433]", "float64[1024,1024,33]", "float64[" + ",".join(["9999999999"] * 8) + "]"):
        with pytest.raises(InvalidArgument, match="bytes as JSON, and a request has 67108864 at most"):
            rules.checked_type(text)


def test_a_state_key_is_that_of_what_decides_the_outputs() -> None:
    spec = VersionSpec("a", "import", "m:f")
    key = rules.state_key("m", "1", spec, ())
    assert key.startswith("m:@") and rules.state_key("m", "7", spec, ()) == key
    assert rules.state_key("m", "1", replace(spec, sample="[1]", memory_bytes=1 << 30, gpus="1", cpus=2.0), ()) == key
    others = [
        replace(spec, **{name: value})
        for name, value in {
            "artifact": "b", "loader": "file", "target": "m:g", "data": "d", "framework": "onnx", "output": "labels",
            "precision": "fp16", "env": {"A": "b"},
        }.items()
    ]  # fmt: skip
    assert len({rules.state_key("m", "1", each, ()) for each in others} | {key}) == 9
    assert rules.state_key("m", "7", spec, [key]) == f"{key}.7"


def test_old_records_get_state_keys_which_stay() -> None:
    newest = version("3", predecessor="2", spec=VersionSpec("b", "import", "m:f"))
    catalog = Catalog(Stored(MODEL, newest, version("2", predecessor="1"), version("1")))
    first = rules.state_key("m", "1", VersionSpec("a", "import", "m:f"), ())
    assert catalog.state_keys(["m"]) == {"m:1": first, "m:2": f"{first}.2", "m:3": newest_key(catalog)}
    assert [each.predecessor_state_key for each in catalog.versions_of("m")] == ["", first, f"{first}.2"]
    told = {
        each.version: (each.state_key, each.predecessor_state_key) for each in content(catalog, {}).models[0].versions
    }
    assert told == {"2": (f"{first}.2", first), "3": (newest_key(catalog), f"{first}.2")}
    again = Catalog(Stored(MODEL, *(each for each in catalog.versions_of("m") if each.version != "1")))
    assert again.state_keys(["m"])["m:2"] == f"{first}.2"


def newest_key(catalog: Catalog) -> str:
    return rules.state_key("m", "3", catalog.versions[ModelId("m", "3")].spec, ())
