"""docs/http-api.md and docs/open-inference.md against the code: every field, every error, every bound."""

import json
import re
from pathlib import Path

import pytest

from clipper.values.types import MAX_CONTEXT_LENGTH
from clipper.worker.frontend import observe_body, predict_body
from clipper.worker.frontend.http import openapi
from clipper.worker.frontend.http.statuses import STATUSES
from clipper.worker.frontend.inference import feedback, requests
from clipper.worker.frontend.inference.paths import read_path
from clipper.worker.frontend.inference.tensors import DATATYPES, MAX_ROWS
from clipper.worker.frontend.limits import REQUEST_TIMEOUT_SWEEPS
from clipper.worker.frontend.predict_request import PredictBody

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "http-api.md").read_text()
PROTOCOL = (DOCS / "open-inference.md").read_text()
FIELDS = {*PredictBody.__struct_fields__, *observe_body.ObserveBody.__struct_fields__, "observations"}
ANSWERS = {
    field
    for name, schema in openapi.frame()["components"]["schemas"].items()
    if not name.startswith(("Infer", "Tensor"))
    for field in schema["properties"]
}


@pytest.mark.parametrize("field", sorted(FIELDS | ANSWERS))
def test_every_field_is_named(field: str) -> None:
    assert f"`{field}`" in PAGE or f'"{field}"' in PAGE


def test_every_error_is_in_the_table_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \| (.*) \|$", PAGE, re.MULTILINE)
    told = {code: statuses.split(", ") for statuses, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert told.keys() == STATUSES.keys()
    assert [code for code, status in STATUSES.items() if str(status) not in told[code]] == []


def test_bounds() -> None:
    assert f"a list of 1 to {predict_body.MAX_CLIENT_BATCH:,} inputs" in PAGE
    assert f"a list of 1 to {observe_body.MAX_OBSERVATIONS:,} of them" in PAGE
    assert f"at most {MAX_CONTEXT_LENGTH:,} characters" in PAGE
    assert f"at most {observe_body.MAX_ID_LENGTH} characters" in PAGE
    assert f"at most {observe_body.MAX_LABEL_BYTES // 1024} KiB" in PAGE
    assert f"within {REQUEST_TIMEOUT_SWEEPS} s" in PAGE
    assert f"1 to {MAX_ROWS:,}" in PROTOCOL


def test_paths_of_the_protocol_exist() -> None:
    paths = re.findall(r"`(?:GET|POST) (/v2[\w/]*)`", PROTOCOL)
    assert len(paths) > 10
    assert [path for path in paths if read_path(path.replace("MODEL", "m").encode()) is None] == []


def test_what_may_be_asked_by_name_and_sent_is_told() -> None:
    for name in (*requests.COLUMNS, *feedback.COLUMNS, requests.OUTPUT, requests.FEATURES):
        assert f"`{name}`" in PROTOCOL
    for name in DATATYPES:
        assert f"`{name}`" in PROTOCOL or "INT" in name


def test_examples_are_json() -> None:
    for text in re.findall(r"```json\n(.*?)```", PROTOCOL, re.DOTALL):
        json.loads(text)
