"""The description of the query port, held against the code that it describes and against the server itself."""

import json
from hashlib import sha256
from typing import Any

import jsonschema_rs
import pytest
from msgspec.structs import replace

from clipper.control.feedback import Outcome
from clipper.control.snapshot import KeySnapshot, Snapshot
from clipper.settings.application import Selection
from clipper.values.types import InputType
from clipper.worker.frontend.http import openapi, responses
from clipper.worker.frontend.observe_body import ObserveBody
from clipper.worker.frontend.predict_request import PredictBody
from clipper.worker.selection.query import make_source
from tests.serving import Client, application, model, serving, version

TYPES = ["float64[*]", "float32[2,3]", "int32[]", "int64[2]", "uint8[4]", "bool[2]", "string", "bytes", "float64[2000]"]


def described(name: str, features_size: int | None = None) -> Any:
    of = openapi.Described("app", InputType.parse(name), 0.1, features_size, needs_key=False)
    return openapi.frame() | {"paths": openapi.paths_of(of)}


def schema_of(description: Any, path: str) -> Any:
    body = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return {**body["schema"], "components": description["components"]}, body.get("example")


@pytest.mark.parametrize("features_size", [None, 2])
def test_every_field_of_a_request_is_described(features_size: int | None) -> None:
    description = described("float64[*]", features_size)
    hidden = {"input_columns"} if features_size else {"features", "input_columns"}
    predict, _ = schema_of(description, "/app/predict")
    assert set(predict["properties"]) == set(PredictBody.__struct_fields__) - hidden
    observe, _ = schema_of(description, "/app/observe")
    assert set(observe["properties"]) == {*ObserveBody.__struct_fields__, "observations"} - hidden


def test_every_field_of_an_answer_is_described() -> None:
    schemas = openapi.frame()["components"]["schemas"]
    answers = [
        responses.prediction_json(1, b"1", 0.5, make_source(["m:1"])),
        responses.prediction_json(1, b"1", 0.5, make_source(["m:1", "n:2"])),
        responses.default_json(1, b"1", "timeout", "late"),
        responses.unsure_json(1, b"1", b"2", 0.1),
    ]
    fields = set().union(*map(json.loads, answers))
    assert fields == set(schemas["Prediction"]["properties"])
    assert set(json.loads(responses.batch_json(answers))) == set(schemas["Batch"]["properties"])
    assert set(json.loads(responses.error_json("timeout", "late"))) == set(schemas["Error"]["properties"])
    assert set(json.loads(responses.outcome_json(Outcome()))) == set(schemas["Observed"]["properties"])
    assert set(json.loads(responses.outcomes_json([]))) == set(schemas["ObservedAll"]["properties"])


def lists_in(schema: Any) -> list[Any]:
    found = [schema] if isinstance(schema, dict) and schema.get("type") == "array" else []
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []
    return found + [each for part in parts for each in lists_in(part)]


@pytest.mark.parametrize("name", TYPES)
def test_lists_say_what_is_in_them(name: str) -> None:
    """openapi-python-client leaves out each path whose schema has a list without ``items``."""
    lists = lists_in(described(name, features_size=2))
    assert len(lists) > 10 and [each for each in lists if "items" not in each] == []


def test_each_operation_has_an_id_of_its_own() -> None:
    """Generators name methods by it, whatever the names of applications are."""
    paths = openapi.frame()["paths"]
    for name in ("app", "v2_app", "tensors", "metadata", "live"):
        paths |= openapi.paths_of(openapi.Described(name, InputType.parse("float64[2]"), 0.1, None, needs_key=False))
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == 3 + 5 * 5 and {"predict_app", "observe_app", "infer_app"} <= set(ids)


@pytest.mark.parametrize("name", TYPES)
def test_examples_are_of_the_schema(name: str) -> None:
    schema, example = schema_of(described(name), "/app/predict")
    if example is None:
        assert name == "float64[2000]"
    else:
        jsonschema_rs.validate(schema, example)
        assert not jsonschema_rs.is_valid(schema, {"input": {"wrong": 1}})


def get(client: Client, path: str, *headers: str) -> Any:
    lines = "".join(f"{header}\r\n" for header in headers)
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
    return client.read("GET")


def test_the_server_takes_what_it_gives_as_examples() -> None:
    with serving() as system:
        worker = system.start_worker()
        system.apply([application(f"app{number}", input_type=name) for number, name in enumerate(TYPES)], [])
        with worker.connect() as client:
            description = get(client, "/openapi.json").json
            assert len(description["paths"]) == 3 + 5 * len(TYPES)
            for number in range(len(TYPES)):
                path = f"/app{number}/predict"
                _, example = schema_of(description, path)
                if example is not None:
                    answer = client.ask(path, example)
                    assert (answer.status, answer.json["error"]) == (503, "no_replica"), answer.body
            assert client.ask("/openapi.json", {}).status == 405


# Answers a record, of which the scores may be NaN and the note may be missing.
NAMED = """
import numpy as np

class predict:
    input_type = "float64[2]"
    output_type = 'label: string{"low","high"}, scores: float32[2], raw: bytes, note: string?'

    def __init__(self, data):
        pass

    def predict_batch(self, inputs):
        if inputs[0, 1] < 0:
            raise ValueError("below 0")
        scores = np.where(inputs > 5, np.nan, inputs).astype(np.float32)
        return [
            {"label": "high" if row[0] > 1 else "low", "scores": each, "raw": b"\\0", "note": "n" if row[0] else None}
            for row, each in zip(inputs, scores)
        ]
"""


def test_answers_are_of_the_schema_that_names_their_fields() -> None:
    """Also NaN, a value that is missing, a default, and an input that fails."""
    with serving() as system:
        worker = system.start_worker()
        container = system.start_container(NAMED, "m", "1", "float64[2]")
        of_model = version(container, input_type="float64[2]")
        declared = NAMED.split("output_type = '")[1].split("'")[0]
        of_model = replace(of_model, output_type=declared, output_is_declared=True)
        typed = {"input_type": "float64[2]"}
        applications = [application("plain", **typed), application("texts", **typed, nan_as_text=True)]
        applications.append(application("defaults", **typed, default_output="null"))
        mean = Selection("ensemble", {"answer": "mean"}, loss="absolute")
        applications.append(application("combined", **typed, selection=mean))
        system.apply(applications, [model(of_model)])
        with worker.connect() as client:
            description = get(client, "/openapi.json").json
            for name in ("plain", "texts", "defaults"):
                answers = description["paths"][f"/{name}/predict"]["post"]["responses"]["200"]
                schema = answers["content"]["application/json"]["schema"]
                output = schema["anyOf"][0]["properties"]["output"]
                fields = (output["anyOf"][0] if name == "defaults" else output)["properties"]
                assert list(fields) == ["label", "scores", "raw", "note"]
                assert fields["raw"] == {"type": "string", "contentEncoding": "base64"}
                schema["components"] = description["components"]
                for inputs in ([0, 1], [2, 9], [0, -1]):
                    one = client.ask(f"/{name}/predict", {"input": inputs})
                    if one.status == 200:
                        jsonschema_rs.validate(schema["anyOf"][0] | {"components": description["components"]}, one.json)
                        wrong = one.json | {"output": {"label": "low"}}
                        assert not jsonschema_rs.is_valid(schema, wrong)
                several = client.ask(f"/{name}/predict", {"input_batch": [[0, 1], [2, 9], [0, -1]]})
                jsonschema_rs.validate(schema, several.json)
            told = get(client, "/v2/models/plain").json["outputs"]
            assert [each.get("parameters") for each in told] == [
                {"categories": '["low","high"]'},
                None,
                {"content_type": "base64"},
                None,
            ]
            assert client.ask("/texts/predict", {"input": [2, 9]}).json["output"]["scores"] == [2.0, "NaN"]
            answers = description["paths"]["/combined/predict"]["post"]["responses"]["200"]
            assert answers["content"]["application/json"]["schema"]["anyOf"][0] == {
                "$ref": "#/components/schemas/Prediction"
            }


def test_who_may_not_ask_an_application_does_not_see_it() -> None:
    key = "k" * 43
    digest = sha256(key.encode()).hexdigest()
    with serving() as system:
        worker = system.start_worker()
        applications = (application("open"), application("closed", needs_key=True))
        worker.apply(Snapshot(5, applications, keys=(KeySnapshot("k", digest, ("closed",)),)))
        bearer = f"Authorization: Bearer {key}"
        with worker.connect() as client:
            assert "/closed/predict" not in get(client, "/openapi.json").json["paths"]
            assert "/closed/predict" in get(client, "/openapi.json", bearer).json["paths"]
            refused = client.ask("/v2/models/closed/infer", {})
            assert (refused.status, refused.json["code"]) == (401, "unauthorized")
        with worker.connect() as client:
            refused = get(client, "/v2/models/closed")
            assert (refused.status, refused.json["code"]) == (401, "unauthorized")
        with worker.connect() as client:
            assert get(client, "/v2/models/closed", bearer).json["name"] == "closed"
            refused = client.ask("/v2/models/closed/infer", {}, Authorization=f"Bearer {key}")
            assert (refused.status, refused.json["code"]) == (400, "malformed_request")
