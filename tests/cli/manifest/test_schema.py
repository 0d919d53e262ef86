"""The schema for editors, and the page of the file: made from the settings, and of one mind with what apply reads."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from clipper.cli.manifest import keys
from clipper.cli.manifest.keys import SCHEMA
from clipper.cli.manifest.manifest import read_manifest
from clipper.settings.fields import settings_of
from clipper.settings.version import Deployment
from scripts.manifest_pages import PAGE, make_schema, schema_text, with_tables

EXAMPLES = Path(__file__).parents[3] / "examples"
VALIDATOR = jsonschema_rs.Draft7Validator(make_schema())


def test_schema_and_page_are_current() -> None:
    again = "run python scripts/manifest_pages.py"
    assert SCHEMA.read_text() == schema_text(), again
    assert PAGE.read_text() == with_tables(PAGE.read_text()), again


def test_a_setting_of_a_deployment_is_a_key_of_a_version() -> None:
    lacking = {one.keyword for one in settings_of(Deployment)} - keys.VERSION.keys()
    assert lacking == {"make_current"}
    assert json.loads(SCHEMA.read_text())["$defs"]["version"]["properties"].keys() == keys.VERSION.keys() | {"artifact"}


def texts_of_page() -> list[str]:
    return [block.split("```")[0] for block in PAGE.read_text().split("```yaml\n")[1:]]


@pytest.mark.parametrize("text", [(EXAMPLES / "configuration" / "clipper.yaml").read_text(), *texts_of_page()])
def test_examples_are_right_for_both(text: str) -> None:
    assert read_manifest(text.encode(), EXAMPLES, {"SHOP_KEY": "k" * 40, "REDIS_PASSWORD": "x"})[1] == []
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == []


VERSION_WITH = "models: {{m: {{model: a, {}}}}}"
APPLICATION_WITH = "applications: {{a: {{links: [m], {}}}}}"
# Right, or wrong, for both. A range within a text is for apply alone.
BOTH: list[tuple[str, bool]] = [
    (VERSION_WITH.format("replicas: 3"), True),
    (VERSION_WITH.format("replicas: 1..3"), True),
    (VERSION_WITH.format("max_batch: 0"), False),
    (VERSION_WITH.format("max_batch: many"), False),
    (VERSION_WITH.format("memory_bytes: 2g"), True),
    (VERSION_WITH.format("python: 3.12"), True),
    (VERSION_WITH.format("cache: 1"), False),
    (VERSION_WITH.format("sample: [1, {a: null}]"), True),
    (VERSION_WITH.format("requirements: [numpy, scipy]"), True),
    (VERSION_WITH.format("requirements: {a: 1}"), False),
    (VERSION_WITH.format("manager: podman"), False),
    (VERSION_WITH.format("nothing: 1"), False),
    ("models: {m: {}}", False),
    ("models: {m: {versions: {one: {model: a}}}}", True),
    ("models: {m: {versions: {}}}", False),
    ("models: {m-: {model: a}}", False),
    (APPLICATION_WITH.format("slo_ms: 0"), False),
    (APPLICATION_WITH.format("half_life: none"), True),
    (APPLICATION_WITH.format("half_life: null"), True),
    (APPLICATION_WITH.format("features: input"), True),
    (APPLICATION_WITH.format("max_per_second: 0.5"), True),
    (APPLICATION_WITH.format("calibrate: 'yes'"), False),
    ("applications: {a: {links: [{model: m, cost: auto}]}}", True),
    ("applications: {a: {links: [{shadow: true}]}}", False),
    ("server: {grpc_port: 1339}", True),
    ("server: {workers: 65}", False),
    ("keys: {web: {}}", False),
    ("other: {}", False),
]


@pytest.mark.parametrize(("text", "is_right"), BOTH, ids=[text for text, _ in BOTH])
def test_the_schema_and_apply_agree(text: str, is_right: bool) -> None:
    faults = read_manifest(text.encode(), EXAMPLES, {})[1]
    value: Any = yaml.safe_load(text)
    assert (not faults, VALIDATOR.is_valid(value)) == (is_right, is_right)
