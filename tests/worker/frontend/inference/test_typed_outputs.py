"""Outputs that are arrays: numbers for who takes binary tensors, and for all others the texts that they always were."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from clipper.settings.application import Selection
from clipper.values.inputs.numbers import NUMPY
from clipper.values.types import InputType
from clipper.worker.frontend.inference.tensors import datatype_of
from tests.serving import TELLS_APART, Client, Serving, application, model, serving, version

# Answers its inputs, as one array.
ECHO = "def predict(inputs):\n    return inputs\n"
# Fails for the inputs that begin with a number below 0: alone, as NaN, or with an exception.
FAILS = """
def predict(inputs):
    if (inputs[:, 0] == -2).any():
        raise ValueError("no such user")
    inputs[inputs[:, 0] == -1] = float("nan")
    return inputs
"""
# Answers several outputs by name, or bytes alone.
NAMED = """
def predict(inputs):
    return {"raw": [bytes([0, 255]) for _ in inputs], "twice": 2 * inputs, "text": [str(row[0]) for row in inputs]}
"""
RAW = """
class predict:
    input_type, output_type = "float32[3]", "bytes"

    def __init__(self, data):
        pass

    def predict_batch(self, inputs):
        return [bytes([0, 255]) for _ in inputs]
"""
TYPES = ["float32[3]", "float64[2,2]", "int32[3]", "int64[2]", "uint8[2,1,2]", "bool[4]"]
APPLICATIONS = {f"app{number}": name for number, name in enumerate(TYPES)}
FLOATS = "float32[3]"


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as started:
        started.start_worker()
        applications, models = [], []
        for name, input_type in APPLICATIONS.items():
            container = started.start_container(ECHO, name, "1", input_type)
            applications.append(application(name, name, input_type=input_type))
            models.append(model(version(container, input_type=input_type, cache=True), name=name))
        failing = started.start_container(TELLS_APART + FAILS, "f", "1", FLOATS)
        models.append(model(version(failing, input_type=FLOATS), name="f"))
        applications.append(application("fails", "f", input_type=FLOATS))
        applications.append(application("texts", "f", input_type=FLOATS, nan_as_text=True))
        for name, source in (("named", NAMED), ("raw", RAW)):
            container = started.start_container(source, name, "1", FLOATS)
            models.append(model(version(container, input_type=FLOATS), name=name))
            applications.append(application(name, name, input_type=FLOATS))
        for policy in ("epsilon_greedy", "majority"):
            chosen = Selection(policy="ensemble" if policy == "majority" else policy)
            applications.append(application(policy, "app0", "f", input_type=FLOATS, selection=chosen))
        started.apply(applications, models)
        yield started


@pytest.fixture(scope="module")
def client(system: Serving) -> Iterator[Client]:
    with system.worker.connect() as connected:
        yield connected


def infer(client: Client, name: str, rows: "np.ndarray[Any, Any]", datatype: str, *, is_binary: bool) -> Any:
    """Return the answer's output as the client has it, and the bytes of a binary one."""
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": datatype, "data": rows.tolist()}
    answer = client.ask(
        f"/v2/models/{name}/infer", {"inputs": [tensor], "parameters": {"binary_data_output": is_binary}}
    )
    assert answer.status == 200, answer.body
    if not is_binary:
        return answer.json["outputs"][0], b""
    size = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.body[:size])["outputs"]
    assert output.pop("parameters") == {"binary_data_size": len(answer.body) - size}
    return output, answer.body[size:]


def rows_of(input_type: InputType, count: int, seed: int) -> "np.ndarray[Any, Any]":
    random = np.random.default_rng(seed)
    sizes = [1 if size is None else size for size in input_type.shape]
    numbers = random.standard_normal((count, *sizes)) * 10.0 ** random.integers(-7, 2)
    return (numbers if "float" in input_type.dtype.label else np.abs(numbers * 100) % 100).astype(
        NUMPY[input_type.dtype]
    )


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_numbers_are_the_same_in_every_form_of_an_answer(client: Client, name: str, count: int) -> None:
    input_type = InputType.parse(APPLICATIONS[name])
    datatype = datatype_of(input_type.dtype).name
    for seed in range(5):
        rows = rows_of(input_type, count, seed)
        texts = [json.dumps(row.tolist(), separators=(",", ":")) for row in rows]
        for _ in range(2):  # the second time from the cache
            head, data = infer(client, name, rows, datatype, is_binary=True)
            assert data == rows.tobytes()
            assert head == {"name": "output", "datatype": datatype, "shape": list(rows.shape)}
            for row, text in zip(rows, texts):
                assert b'"output":%b,' % text.encode() in client.ask(f"/{name}/predict", {"input": row.tolist()}).body
        head, _ = infer(client, name, rows, datatype, is_binary=False)
        assert np.array_equal(np.array(head["data"], rows.dtype).reshape(head["shape"]), rows)
    client.send(b"GET /v2/models/%b HTTP/1.1\r\nHost: x\r\n\r\n" % name.encode())
    told = client.read("GET").json["outputs"]
    # Nothing has declared the lengths.
    assert told == [{"name": "output", "datatype": datatype, "shape": [-1] * rows.ndim}]


@pytest.mark.parametrize("is_binary", [True, False])
def test_nan_is_a_number_in_bytes_and_null_in_json(client: Client, is_binary: bool) -> None:
    rows = np.array([[1.0, 2.0, 3.0], [-1.0, 2.0, 3.0]], np.float32)
    head, data = infer(client, "fails", rows, "FP32", is_binary=is_binary)
    assert (head["datatype"], head["shape"]) == ("FP32", [2, 3])
    if is_binary:
        assert data == np.array([[1, 2, 3], [np.nan] * 3], np.float32).tobytes()
    else:
        assert head["data"] == [1.0, 2.0, 3.0, None, None, None]


def test_nan_is_a_text_in_json_if_the_application_says_so(client: Client) -> None:
    rows = np.array([[-1.0, 2.0, 3.0], [np.inf, -np.inf, 3.0]], np.float32)
    for_infinity = {"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": rows.nbytes}}
    names = [["NaN"] * 3, ["Infinity", "-Infinity", 3.0]]
    for path, found in (("infer", [*names[0], *names[1]]), ("predict", names)):
        head = json.dumps({"inputs": [for_infinity]}).encode()
        client.send(
            b"POST /v2/models/texts/%b HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %d\r\n"
            b"Content-Length: %d\r\n\r\n%b%b"
            % (path.encode(), len(head), len(head) + rows.nbytes, head, rows.tobytes())
        )
        answer = client.read().json
        if path == "infer":
            assert answer["outputs"][0]["datatype"] == "FP32" and answer["outputs"][0]["data"] == found
        else:
            assert [part["output"] for part in answer["batch_predictions"]] == found
    assert client.ask("/texts/predict", {"input": [-1, 2, 3]}).json["output"] == names[0]
    instances = {"instances": [[-1, 2, 3]]}
    assert client.ask("/texts/invocations", instances).json == {"predictions": [names[0]]}
    _, data = infer(client, "texts", rows[:1], "FP32", is_binary=True)
    assert data == np.array([np.nan] * 3, np.float32).tobytes()


def test_a_failed_row_fails_alone(client: Client) -> None:
    inputs = [[1.0, 2.0, 3.0], [-1.0, 2.0, 3.0], [-2.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    parts = client.ask("/fails/predict", {"input_batch": inputs}).json["batch_predictions"]
    assert [part.get("output") for part in parts] == [inputs[0], [None, None, None], None, inputs[3]]
    assert "no such user" in parts[2]["cause"]


def test_feedback_compares_texts(client: Client) -> None:
    for inputs in ([0.5, 1.0, 1.5], [0.1, 0.2, 0.3]):
        answer = client.ask("/epsilon_greedy/predict", {"input": inputs}).json
        label = answer["output"]
        observed = client.ask("/epsilon_greedy/observe", {"query_id": answer["query_id"], "label": label})
        assert observed.json["observed"]
        assert client.ask("/epsilon_greedy/observe", {"input": inputs, "label": label}).json["observed"]


def test_an_answer_that_several_models_agree_on_keeps_its_numbers(client: Client) -> None:
    rows = np.array([[0.5, 0.25, 1.1]], np.float32)
    head, data = infer(client, "majority", rows, "FP32", is_binary=True)
    assert (head["datatype"], data) == ("FP32", rows.tobytes())


@pytest.mark.parametrize("name", ["named", "raw"])
def test_bytes_are_raw_in_tensors_and_base64_in_json(client: Client, name: str) -> None:
    """From the first answer on: nothing has told the type of outputs with names before."""
    inputs = [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]
    body = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    answer = client.ask(f"/v2/models/{name}/infer", body)
    size = int(answer.headers["inference-header-content-length"])
    first, *others = json.loads(answer.body[:size])["outputs"]
    assert (first["name"], first["datatype"]) == ("raw" if name == "named" else "output", "BYTES")
    raw = answer.body[size : size + first["parameters"]["binary_data_size"]]
    assert raw == 2 * b"\2\0\0\0\0\xff"
    assert [(each["name"], each["datatype"]) for each in others] == [("twice", "FP32"), ("text", "BYTES")][
        : len(others)
    ]
    plain = client.ask(f"/{name}/predict", {"input": [1, 2, 3]}).json["output"]
    expected = {"raw": "AP8=", "twice": [2.0, 4.0, 6.0], "text": "1.0"} if name == "named" else "AP8="
    assert plain == expected
