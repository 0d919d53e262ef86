"""Tensors of BYTES whose elements are encoded, as MLServer's codecs send base64 and columns of a DataFrame."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from clipper.errors import RequestError
from clipper.values.records import parse_type
from clipper.worker.frontend.inference.requests import RequestReader, read_long_json
from clipper.worker.frontend.rpc.requests import read_request
from tests.serving import Client, Serving, application, model, serving, version
from tests.worker.frontend.rpc.rpc_messages import InferRequest
from tests.worker.frontend.steps import finish

PERSON = 'age: int64?, colour: string{"red","green"}?, note: string?, face: bytes?, pair: float32[2]?, on: bool?'
RAW = bytes(range(256))
ECHO = "def predict(inputs):\n    return [bytes(each) for each in inputs]\n"


def encoded(*values: object) -> list[str]:
    """A column of a DataFrame with values of several kinds, as ``mlserver.codecs.PandasCodec`` writes it."""
    return [json.dumps(value) for value in values]


def tensor(name: str, data: list[str], content_type: str, *, is_column: bool = True) -> dict[str, Any]:
    shape = [len(data), 1] if is_column else [len(data)]
    return {
        "name": name,
        "shape": shape,
        "datatype": "BYTES",
        "data": data,
        "parameters": {"content_type": content_type},
    }


def as_bytes(of: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The same tensor with its elements after the JSON."""
    data = b"".join(len(each.encode()).to_bytes(4, "little") + each.encode() for each in of["data"])
    parameters = of["parameters"] | {"binary_data_size": len(data)}
    return {name: value for name, value in of.items() if name != "data"} | {"parameters": parameters}, data


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving() as started:
        started.start_worker()
        with served(started) as client:
            yield client


def served(started: Serving) -> Client:
    people = started.start_record_container("people", PERSON)
    echo = started.start_container(ECHO, "echo", "1", "bytes")
    started.apply(
        [
            application("people", "people", input_type=PERSON),
            application("echo", "echo", input_type="bytes"),
        ],
        [
            model(version(people, input_type=PERSON), name="people"),
            model(version(echo, input_type="bytes", output_type="bytes", output_is_declared=True), name="echo"),
        ],
    )
    return Client(started.port)


COLUMNS = [
    tensor("age", encoded(31, None), "pd_json"),
    tensor("colour", encoded("red", None), "pd_json"),
    tensor("note", encoded('a "quoted" text', None), "pd_json", is_column=False),
    tensor("pair", encoded([1.5, 2], None), "pd_json"),
    tensor("on", encoded(True, None), "pd_json"),
    tensor("face", [base64.b64encode(RAW).decode(), ""], "base64"),
]


@pytest.mark.parametrize("is_binary", [False, True])
def test_a_dataframe_with_missing_values(client: Client, is_binary: bool) -> None:
    inputs, behind = COLUMNS, b""
    if is_binary:
        parts = [as_bytes(each) for each in COLUMNS]
        inputs, behind = [head for head, _ in parts], b"".join(data for _, data in parts)
    text = json.dumps({"inputs": inputs, "parameters": {"content_type": "pd"}}).encode()
    lines = {"Inference-Header-Content-Length": str(len(text))} if is_binary else {}
    answer = client.ask("/v2/models/people/infer", text + behind, **lines)
    assert answer.status == 200, answer
    (output,) = answer.json["outputs"]
    assert [json.loads(each) for each in output["data"]] == [
        {
            "age": 31,
            "colour": "red",
            "note": 'a "quoted" text',
            "face": RAW.hex(),
            "pair": [1.5, 2.0],
            "on": True,
        },
        {"age": None, "colour": None, "note": None, "face": "", "pair": None, "on": None},
    ]


def test_an_answer_of_bytes_may_be_sent_back(client: Client) -> None:
    asked = tensor("x", [base64.b64encode(RAW).decode()], "base64")
    for _ in range(2):
        answer = client.ask("/v2/models/echo/infer", {"inputs": [asked]}).json
        (asked,) = answer["outputs"]
    assert asked["parameters"] == {"content_type": "base64"}
    assert base64.b64decode(asked["data"][0]) == RAW


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (tensor("age", encoded("old"), "pd_json"), "field 'age' is \"old\": expected int64"),
        (tensor("age", ["{"], "pd_json"), "JSON"),
        (tensor("colour", encoded("blue"), "pd_json"), 'expected one of "red", "green"'),
        (tensor("face", ["no base64!"], "base64"), "base64"),
        (tensor("face", ['"'], "base64"), "JSON"),
        (tensor("note", [base64.b64encode(b"\xff").decode()], "base64"), "not UTF-8"),
        (tensor("age", ["MzE="], "base64"), "datatype BYTES"),
        (tensor("age", encoded(1, 2), "pd_json") | {"shape": [1, 2]}, "shape"),
    ],
)
def test_what_is_wrong_is_told(client: Client, column: dict[str, Any], told: str) -> None:
    answer = client.ask("/v2/models/people/infer", {"inputs": [column]})
    assert (answer.status, told in answer.json["error"]) == (400, True), answer.json


@pytest.mark.parametrize("content_type", ["str", "np", "pd", "datetime", "base64 ", 5, None])
def test_other_content_types_are_the_texts_themselves(content_type: Any) -> None:
    reader = RequestReader(parse_type("string"))
    found = tensor("x", ["aGk="], "") | {"parameters": {"content_type": content_type}}
    text = json.dumps({"inputs": [found]}).encode()
    assert finish(reader.read(reader.plan(text), text, len(text))).rows == [b"aGk="]


@pytest.mark.parametrize("size", [3, 300_000])
@pytest.mark.parametrize("of_type", ["bytes", "string"])
def test_long_texts_are_read_in_steps(of_type: str, size: int) -> None:
    reader = RequestReader(parse_type(of_type))
    own = b"ab\n" * (size // 3)
    text = bytearray(json.dumps({"inputs": [tensor("x", [base64.b64encode(own).decode()], "base64")]}).encode())
    plan = reader.plan_of(*finish(read_long_json(text, len(text))))
    assert finish(reader.read(plan, text, len(text))).rows == [own]


def test_a_number_in_base64_is_no_row_of_a_tensor() -> None:
    reader = RequestReader(parse_type("float64[]"))
    text = json.dumps({"inputs": [tensor("x", encoded(5), "pd_json")]}).encode()
    with pytest.raises(RequestError, match="datatype BYTES"):
        reader.plan(text)


@pytest.mark.parametrize("is_raw", [False, True])
def test_messages_of_grpc(is_raw: bool) -> None:
    reader = RequestReader(parse_type(PERSON))
    request = InferRequest(model_name="people")
    for column in COLUMNS:
        sent = request.inputs.add(name=column["name"], datatype="BYTES", shape=column["shape"])
        sent.parameters["content_type"].string_param = column["parameters"]["content_type"]
        elements = [each.encode() for each in column["data"]]
        if is_raw:
            request.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in elements))
        else:
            sent.contents.bytes_contents.extend(elements)
    _, by_grpc = finish(read_request(reader, memoryview(request.SerializeToString()), 1 << 20))
    text = json.dumps({"inputs": COLUMNS}).encode()
    assert by_grpc.rows == finish(reader.read(reader.plan(text), text, len(text))).rows
