"""A file of what a server has: applied to the same server, it changes nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clipper.cli.manifest.document import json_value, lines_of, read_document
from clipper.cli.manifest.export import Exported, exported
from clipper.cli.manifest.manifest import Manifest, read_manifest
from clipper.cli.manifest.plan import Packed, plan
from clipper.cli.manifest.steps import Actual
from tests.cli.manifest.test_plan import FILES, PIPELINE, World, pack, read


def read_back(text: str) -> Manifest:
    wanted, faults = read_manifest(text.encode(), Path("/f"), {})
    assert list(lines_of(faults)) == []
    return wanted


def packed_by_server(wanted: Manifest) -> Packed:
    """The packed artifacts of a manifest that names them by their digests."""
    versions = {}
    for version in (one for model in wanted.models or () for one in model.versions):
        assert version.artifact is not None
        named = {key: value for key, value in version.artifact.items() if key != "sha256"}
        versions[version.path] = {"artifact": version.artifact["sha256"], "manager": "local", **named}
    codes = {one.name: one.settings["code"] for one in wanted.applications or () if "code" in one.settings}
    return Packed(versions, codes)


def with_digests(text: str) -> World:
    """A server whose artifacts are named by 64 hex digits."""
    world = World("models: {}")
    packed = pack(read(text))
    for fields in packed.versions.values():
        fields["artifact"] = fields["target"] * 64  # type: ignore[index]
    code = dict.fromkeys(packed.codes, "c" * 64)
    world.server._packed = Packed(packed.versions, code)
    world.server.run(plan(read(text), world.server._packed, world.server.actual))
    return world


@given(FILES, st.booleans())
def test_an_export_changes_nothing(file: Any, prune: bool) -> None:
    actual = with_digests(repr(file).replace("None", "null")).server.actual
    wanted = read_back(exported(actual).text("schema.json"))
    found = plan(wanted, packed_by_server(wanted), actual, prune=prune)
    assert (found.steps, found.obstacles, wanted.keys) == ((), (), None)


def test_a_pipeline_is_written_with_its_steps_beside_it() -> None:
    actual = with_digests(PIPELINE).server.actual
    document = exported(actual).document["applications"]
    assert set(document) == {"desk", "desk.first", "desk.second", "shared"}
    assert document["desk"]["steps"]["second"] == {"input": "first", "when": "first.confidence > 0.5"}
    wanted = read_back(exported(actual).text("schema.json"))
    found = plan(wanted, packed_by_server(wanted), actual, prune=True)
    assert (found.steps, found.obstacles) == ((), ())


def test_only_what_differs_from_the_default_is_written() -> None:
    text = "models: {m: {model: a, cpus: 2}}\napplications: {app: {links: [m], slo_ms: 100, policy: exp3, ramp: null}}"
    document = exported(with_digests(text).server.actual).document
    assert document == {
        "models": {"m": {"artifact": {"sha256": "a" * 64, "loader": "file", "target": "a"}, "cpus": 2.0}},
        "applications": {"app": {"links": ["m"], "input_type": "float64[4]", "policy": "exp3", "ramp": None}},
    }


def test_a_manager_that_is_not_the_servers_is_written() -> None:
    actual = with_digests("models: {m: {model: a, manager: ray}, n: {model: b}}").server.actual
    assert ["manager" in model for model in exported(actual).document["models"].values()] == [True, False]
    on_ray = replace(actual, manager="ray")
    assert [model.get("manager") for model in exported(on_ray).document["models"].values()] == [None, "local"]


def test_texts_that_look_like_something_else_come_back_as_texts() -> None:
    text = "models: {no: {model: a, description: '010', sample: ['yes', '1', 1.0, null, '2024-01-01', ' x: y', '~']}}"
    actual = with_digests(text).server.actual
    wanted = read_back(exported(actual).text("schema.json"))
    assert wanted.models is not None and wanted.models[0].name == "no"
    assert plan(wanted, packed_by_server(wanted), actual).steps == ()


TEXTS = st.text(max_size=30) | st.from_regex(r"[-+0-9.eExo_:nyYNtTfF~]{1,8}", fullmatch=True)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(VALUES)
def test_any_json_comes_back_from_a_file_as_it_was(value: Any) -> None:
    text = Exported({"models": {}, "applications": {"app": {"default_output": value}}}, ()).text("schema.json")
    root, faults = read_document(text.encode())
    assert root is not None
    back = json_value(root, faults, "")
    assert faults == [] and json.dumps(back["applications"]["app"]["default_output"]) == json.dumps(value)


def test_what_cannot_be_written_is_remarked() -> None:
    text = exported(Actual({}, {}, {"web": None})).text("schema.json")  # type: ignore[dict-item]
    assert text.startswith("# yaml-language-server: $schema=schema.json\n# The keys web are left out")
