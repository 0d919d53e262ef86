"""Outputs with names, from a container of the real runtime to each kind of client, and the types that they keep."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from clipper.settings.application import Selection
from tests.serving import Client, Serving, application, model, serving, version

TYPE = "float64[2]"
# Decides for the larger of two numbers, by an amount of its own.
CLASSIFIER = """
import numpy as np

def predict(inputs):
    scores = np.abs(inputs).astype(np.float32) * {weight} + np.array([0, {bias}], np.float32)
    return {{"label": np.array(["left", "right"])[scores.argmax(1)], "scores": scores}}
"""
# As many numbers as its input says; what it says may also be none, or no number.
RAGGED = """
import numpy as np

def predict(inputs):
    return [np.full((int(row[0]), 2), row[1], np.float32) if row[0] >= 0 else "none" for row in inputs]
"""
NUMBER = "def predict(inputs):\n    return [row[0] if row[0] != 7 else int(row[0]) for row in inputs]\n"
# Outputs that are long as JSON, of which workers keep nothing but what shows their type.
LONG = """
import numpy as np

def predict(inputs):
    scores = np.zeros((len(inputs), 60_000), np.float32) + inputs[:, :1].astype(np.float32)
    return {value}
"""
BYTES = "def predict(inputs):\n    return [bytes([int(row[0]), 0, 255]) for row in inputs]\n"


def declared(text: str) -> dict[str, Any]:
    return {"input_type": TYPE, "output_type": text, "output_is_declared": True}


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        models = []
        container = started.start_container(RAGGED, "learned", "1", TYPE)
        models.append(model(version(container, input_type=TYPE, output_type="float32[3,2]"), name="learned"))
        for name, weight, bias in (("a", 1, 0), ("b", 2, 4)):
            container = started.start_container(CLASSIFIER.format(weight=weight, bias=bias), name, "1", TYPE)
            models.append(model(version(container, input_type=TYPE), name=name))
        typed = {"ragged": (RAGGED, "float32[*,2]"), "number": (NUMBER, "float32[]"), "bytes": (BYTES, "bytes")}
        for name, (code, text) in typed.items():
            container = started.start_container(code, name, "1", TYPE)
            models.append(model(version(container, **declared(text)), name=name))
        for name, value in (
            ("long", "scores"),
            ("long_record", '{"scores": scores, "label": ["x" * 300_000] * len(inputs)}'),
        ):
            container = started.start_container(LONG.format(value=value), name, "1", TYPE)
            models.append(model(version(container, input_type=TYPE), name=name))
        mean = Selection("ensemble", {"answer": "mean", "weighting": "equal"}, label_field="scores", loss="absolute")
        applications = [
            application("one", "a", input_type=TYPE),
            application("learns", "a", "b", input_type=TYPE, selection=Selection("exp3")),
            application("vote", "a", "b", input_type=TYPE, selection=Selection("ensemble", {"weighting": "equal"})),
            application("mean", "a", "b", input_type=TYPE, selection=mean),
            application("ragged", "ragged", input_type=TYPE, default_output="[]"),
            application("strict", "ragged", input_type=TYPE),
            application("learned", "learned", input_type=TYPE),
            application("number", "number", input_type=TYPE, default_output="0"),
            application("bytes", "bytes", input_type=TYPE),
            application("long", "long", input_type=TYPE),
            application("long_record", "long_record", input_type=TYPE),
        ]
        started.apply(applications, models)
        yield started


@pytest.fixture(scope="module")
def client(system: Serving) -> Iterator[Client]:
    with system.worker.connect() as connected:
        yield connected


def infer(client: Client, name: str, rows: list[list[float]], **head: Any) -> Any:
    tensor = {"name": "x", "shape": [len(rows), 2], "datatype": "FP64", "data": rows}
    return client.ask(f"/v2/models/{name}/infer", {"inputs": [tensor], **head})


def tensors(answer: Any) -> list[tuple[str, str, list[int], Any]]:
    assert answer.status == 200, answer.body
    return [(each["name"], each["datatype"], each["shape"], each["data"]) for each in answer.json["outputs"]]


def get(client: Client, path: str) -> Any:
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client.read("GET").json


def test_json_has_an_object_and_the_protocol_a_tensor_for_each_name(client: Client) -> None:
    assert client.ask("/one/predict", {"input": [3, 1]}).json["output"] == {"label": "left", "scores": [3.0, 1.0]}
    rows = [[3.0, 1.0], [0.5, 2.0]]
    label = ("label", "BYTES", [2, 1], ["left", "right"])
    scores = ("scores", "FP32", [2, 2], [3.0, 1.0, 0.5, 2.0])
    assert tensors(infer(client, "one", rows)) == [label, scores]
    assert tensors(infer(client, "one", rows, outputs=[{"name": "scores"}, {"name": "default"}])) == [
        scores,
        ("default", "BOOL", [2], [False, False]),
    ]
    whole = [json.loads(each) for each in tensors(infer(client, "one", rows, outputs=[{"name": "output"}]))[0][3]]
    assert whole[1] == {"label": "right", "scores": [0.5, 2.0]}
    wrong = infer(client, "one", rows, outputs=[{"name": "none"}])
    assert wrong.status == 400 and "expected one of label, scores, output, query_id" in wrong.json["error"]
    told = get(client, "/v2/models/one")["outputs"]
    assert told == [
        {"name": "label", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},  # learned, so its length is open
    ]
    config = get(client, "/v2/models/one/config")["output"]
    assert [(each["name"], each["data_type"], each["dims"]) for each in config] == [
        ("label", "TYPE_STRING", [1]),
        ("scores", "TYPE_FP32", [-1]),
    ]


def test_binary_tensors_follow_in_the_order_that_was_asked(client: Client) -> None:
    answer = infer(client, "one", [[3.0, 1.0]], parameters={"binary_data_output": True})
    size = int(answer.headers["inference-header-content-length"])
    assert answer.body[size:] == b"\4\0\0\0left" + np.array([3, 1], np.float32).tobytes()


def test_a_label_is_compared_with_the_label(client: Client) -> None:
    """Not with the whole output, which is never equal to it."""
    for _ in range(3):
        answer = client.ask("/learns/predict", {"input": [3, 1]}).json
        asked = {"query_id": answer["query_id"], "label": answer["output"]["label"]}
        assert client.ask("/learns/observe", asked).json["observed"]
        assert client.ask("/learns/observe", {"input": [3, 1], "label": "left"}).json["observed"]


def test_a_vote_is_on_labels_and_answers_with_a_models_output(client: Client) -> None:
    agreed = client.ask("/vote/predict", {"input": [9, 1]}).json
    assert agreed["confidence"] == 1.0 and agreed["output"]["label"] == "left"
    assert agreed["output"]["scores"] in ([9.0, 1.0], [18.0, 6.0])
    split = client.ask("/vote/predict", {"input": [2, 1]}).json
    assert split["confidence"] == 0.5 and split["output"] in (
        {"label": "left", "scores": [2.0, 1.0]},
        {"label": "right", "scores": [4.0, 6.0]},
    )


def test_a_mean_is_of_the_field_that_is_named(client: Client) -> None:
    answer = client.ask("/mean/predict", {"input": [9, 1]}).json
    assert answer["output"] == {"label": "left", "scores": [13.5, 3.5]}
    assert client.ask("/mean/observe", {"query_id": answer["query_id"], "label": [13.5, 3.5]}).json["observed"]
    assert tensors(infer(client, "mean", [[9.0, 1.0]])) == [
        ("label", "BYTES", [1, 1], ["left"]),
        ("scores", "FP32", [1, 2], [13.5, 3.5]),
    ]


def test_rows_of_an_open_length_are_padded_and_keep_their_type(client: Client) -> None:
    """Their datatype was FP64 or BYTES, by what else was in the batch."""
    told = ("output", "FP32")
    assert tensors(infer(client, "ragged", [[1, 5]])) == [(*told, [1, 1, 2], [5.0, 5.0])]
    assert tensors(infer(client, "ragged", [[0, 5]])) == [(*told, [1, 0, 2], [])]
    padded = [5.0, 5.0, None, None, 6.0, 6.0, 6.0, 6.0, *[None] * 4]
    assert tensors(infer(client, "ragged", [[1, 5], [2, 6], [0, 7]])) == [(*told, [3, 2, 2], padded)]
    assert [
        part["output"]
        for part in client.ask("/ragged/predict", {"input_batch": [[1, 5], [0, 5]]}).json["batch_predictions"]
    ] == [[[5.0, 5.0]], []]


def test_a_learned_type_refuses_no_length(client: Client) -> None:
    """The version's first answer had three pairs; each other number failed, with the advice to declare a type."""
    shape = [{"name": "output", "datatype": "FP32", "shape": [-1, -1, -1]}]
    assert get(client, "/v2/models/learned")["outputs"] == shape
    for pairs in (1, 3, 5):
        whole = [5.0] * 2 * pairs
        assert tensors(infer(client, "learned", [[pairs, 5]])) == [("output", "FP32", [1, pairs, 2], whole)]
    padded = [5.0, 5.0, None, None, 6.0, 6.0, 6.0, 6.0]
    assert tensors(infer(client, "learned", [[1, 5], [2, 6]])) == [("output", "FP32", [2, 2, 2], padded)]
    assert get(client, "/v2/models/learned")["outputs"] == shape
    wrong = infer(client, "learned", [[-1, 5]])
    assert wrong.status == 502 and "float32[*,*]: deploy it with --output-type" in wrong.json["error"]


def test_a_default_takes_the_type_and_changes_no_other_row(client: Client) -> None:
    rows = [[1.0, 5.0], [-1.0, 5.0]]
    answer = infer(client, "ragged", rows, outputs=[{"name": "output"}, {"name": "default_reason"}])
    output, reason = tensors(answer)
    assert output == ("output", "FP32", [2, 1, 2], [5.0, 5.0, None, None]) and reason[3] == ["", "model_error"]
    failed = infer(client, "strict", rows)
    assert (failed.status, failed.json["code"]) == (502, "model_error")
    assert 'the model answered "none", and its output type, declared, is float32[*,2]' in failed.json["error"]
    parts = client.ask("/strict/predict", {"input_batch": rows}).json["batch_predictions"]
    assert parts[0]["output"] == [[5.0, 5.0]] and parts[1]["error"] == "model_error"


def test_a_number_keeps_its_type_and_is_a_column(client: Client) -> None:
    assert tensors(infer(client, "number", [[0.5, 0], [7, 0]])) == [("output", "FP32", [2, 1], [0.5, 7.0])]
    # 0.1 is no float32, and the default is of the type.
    answer = infer(client, "number", [[0.5, 0], [0.1 + 0.2, 0]], outputs=[{"name": "output"}, {"name": "default"}])
    assert tensors(answer) == [
        ("output", "FP32", [2, 1], [0.5, 0.0]),
        ("default", "BOOL", [2], [False, True]),
    ]
    assert get(client, "/v2/models/number")["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 1]}]


def test_bytes_are_raw_in_bytes_and_base64_in_json(client: Client) -> None:
    answer = infer(client, "bytes", [[1, 0]], parameters={"binary_data_output": True})
    size = int(answer.headers["inference-header-content-length"])
    assert answer.body[size:] == b"\3\0\0\0\1\0\xff"
    assert client.ask("/bytes/predict", {"input": [1, 0]}).json["output"] == "AQD/"
    (told,) = infer(client, "bytes", [[1, 0]]).json["outputs"]
    assert (told["data"], told["parameters"]) == (["AQD/"], {"content_type": "base64"})
    (of_model,) = get(client, "/v2/models/bytes")["outputs"]
    assert of_model["parameters"] == {"content_type": "base64"}


@pytest.mark.parametrize("rows", [[[1.0, 0.0]], [[1.0, 0.0], [2.0, 0.0]]])
def test_long_outputs_have_types_and_names_as_others(client: Client, rows: list[list[float]]) -> None:
    """Also if nothing had told the type before."""
    scores = [row[0] for row in rows for _ in range(60_000)]
    told = [("output", "FP32", [len(rows), 60_000], scores)]
    assert tensors(infer(client, "long", rows)) == told
    label = ("label", "BYTES", [len(rows), 1], ["x" * 300_000] * len(rows))
    assert tensors(infer(client, "long_record", rows)) == [("scores", *told[0][1:]), label]
    assert [each["name"] for each in get(client, "/v2/models/long_record")["outputs"]] == ["scores", "label"]
    asked = client.ask("/long_record/predict", {"input_batch": rows}).json["batch_predictions"]
    assert [each["output"]["scores"][-1] for each in asked] == [row[0] for row in rows]
