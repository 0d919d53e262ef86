"""Declared types are kept through a real server: whatever form a model answers in, whatever is in its batches, which of
its rows get the default, and in which protocol clients ask, all at the same time."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest

from clipper.settings.version import Batching
from clipper.values.records import Field, RecordType, parse_type
from tests.serving import TELLS_APART, application, model, version
from tests.waiting import TIMEOUT_S
from tests.worker.frontend.inference.test_output_types import as_bytes, expected
from tests.worker.frontend.rpc.rpc_messages import INFER, InferResponse, message_class, raw_request
from tests.worker.frontend.rpc.rpc_system import RpcSystem, rpc_serving

INPUT = "float64[1]"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
StreamResponse = message_class("inference.ModelStreamInferResponse")
# Answers a row by its number: a value in one of several forms, or an error. Numbers may be NaN or infinite.
CODE = """
import numpy as np

NAME = {name!r}
# Divisions of zero by zero make a NaN with a sign.
ODD = [0.5, -float("nan"), float("inf"), -1.5, float("nan"), float("-inf")]

def floats(number):
    return np.array([ODD[(number + place) % 6] for place in range(number % 5)], np.float32)

def value(number):
    return {{
        "number": lambda: ODD[number % 6],
        "lengths": lambda: floats(number),
        "pairs": lambda: np.array([[number, 2**40], [0, -number]], np.int64),
        "truth": lambda: number % 2 == 0,
        "text": lambda: "\\u00e9" * (number % 4),
        "raw": lambda: bytes([0, 255, number % 256]),
        "record": lambda: {{"label": "abc"[number % 3], "scores": floats(number), "n": number, "raw": b"\\0"}},
    }}[NAME]()

def form(found, number):
    if isinstance(found, dict):
        return {{name: form(each, number) for name, each in found.items()}}
    if not isinstance(found, np.ndarray):
        return np.float32(found) if isinstance(found, float) and number % 3 else found
    forms = [found, found.tolist(), found.astype(np.float64) if found.dtype == np.float32 else found]
    forms += [found[0]] if found.shape == (1,) else [found[None]] if found.size else []
    return forms[number // 5 % len(forms)]

def predict(inputs):
    numbers = inputs[:, 0].astype(int).tolist()
    if any(number % 7 == 6 for number in numbers):
        raise ValueError("not that one")
    return [form(value(number), number) for number in numbers]
"""
# The type of each model, and its application's default.
TYPES = {
    "number": ("float64[]", 2),
    "lengths": ("float32[*]", [1, 2, 3, 4, 5, 6]),
    "pairs": ("int64[2,2]", [[1, 2], [3, 4]]),
    "truth": ("bool[]", True),
    "text": ("string", "none"),
    "raw": ("bytes", "AAE="),
    "record": (
        "label: string, scores: float32[*], n: int32, raw: bytes",
        {"label": "", "scores": [], "n": 0, "raw": ""},
    ),
}
DEFAULTS: dict[str, Any] = {name: default for name, (_, default) in TYPES.items()} | {
    "lengths": np.array([1, 2, 3, 4, 5, 6], np.float32),
    "pairs": np.array([[1, 2], [3, 4]]),
    "raw": b"\0\1",
    "record": {"label": "", "scores": np.zeros(0, np.float32), "n": 0, "raw": b""},
}


@pytest.fixture(scope="module")
def system() -> Iterator[RpcSystem]:
    with rpc_serving() as started:
        behind = started.serving
        behind.start_worker(grpc_port=started.port)
        applications, models = [], []
        for name, (of_type, default) in TYPES.items():
            container = behind.start_container(TELLS_APART + CODE.format(name=name), name, "1", INPUT)
            # A delay, so that requests of all protocols meet in a batch.
            typed = {"input_type": INPUT, "output_type": of_type, "output_is_declared": True}
            models.append(model(version(container, batching=Batching(delay_ms=2.0), **typed), name=name))
            applications.append(application(name, name, input_type=INPUT, default_output=json.dumps(default)))
        behind.apply(applications, models)
        yield started


def fields_of(name: str) -> Sequence[Field]:
    of_type = parse_type(TYPES[name][0])
    return of_type.fields if isinstance(of_type, RecordType) else (Field("output", of_type),)


def tensors_of(name: str, numbers: Sequence[int]) -> dict[str, tuple[str, list[int], Any]]:
    """The tensors of these rows, by name."""
    space: dict[str, Any] = {}
    exec(CODE.format(name=name), space)
    rows = [DEFAULTS[name] if number % 7 == 6 else space["value"](number) for number in numbers]
    found = {}
    for field in fields_of(name):
        values = [row[field.name] if isinstance(row, dict) else row for row in rows]
        if field.type.dtype.is_numeric:
            values = [np.asarray(value) for value in values]
        found[field.name] = expected(field.type, values)
    return found


def by_json(system: RpcSystem, name: str, asked: Sequence[list[int]]) -> None:
    with system.serving.worker.connect() as client:
        for numbers in asked:
            tensor = {"name": "x", "shape": [len(numbers), 1], "datatype": "FP64", "data": numbers}
            answer = client.ask(f"/v2/models/{name}/infer", {"inputs": [tensor]})
            assert answer.status == 200, answer.body
            wanted = tensors_of(name, numbers)
            assert [each["name"] for each in answer.json["outputs"]] == list(wanted)
            for each in answer.json["outputs"]:
                datatype, shape, values = wanted[each["name"]]
                assert (each["datatype"], each["shape"]) == (datatype, shape)
                if isinstance(values, np.ndarray):
                    flat = [np.nan if value is None else value for value in each["data"]]
                    whole = np.where(np.isfinite(values), values, np.nan) if values.dtype.kind == "f" else values
                    is_float = values.dtype.kind == "f"
                    assert np.array_equal(np.array(flat, values.dtype), whole.ravel(), equal_nan=is_float)


def by_binary(system: RpcSystem, name: str, asked: Sequence[list[int]]) -> None:
    with system.serving.worker.connect() as client:
        for numbers in asked:
            tensor = {"name": "x", "shape": [len(numbers), 1], "datatype": "FP64", "data": numbers}
            answer = client.ask(
                f"/v2/models/{name}/infer", {"inputs": [tensor], "parameters": {"binary_data_output": True}}
            )
            assert answer.status == 200, answer.body
            at = int(answer.headers["inference-header-content-length"])
            outputs = json.loads(answer.body[:at])["outputs"]
            for each, (key, (datatype, shape, values)) in zip(outputs, tensors_of(name, numbers).items(), strict=True):
                assert (each["name"], each["datatype"], each["shape"]) == (key, datatype, shape)
                size = each["parameters"]["binary_data_size"]
                assert answer.body[at : at + size] == as_bytes(values)
                at += size


def check_message(message: Any, name: str, numbers: Sequence[int]) -> None:
    wanted = tensors_of(name, numbers)
    found = zip(message.outputs, message.raw_output_contents, wanted.items(), strict=True)
    for output, raw, (key, (datatype, shape, values)) in found:
        assert (output.name, output.datatype, list(output.shape)) == (key, datatype, shape)
        assert raw == as_bytes(values)


def request(name: str, numbers: Sequence[int], **fields: Any) -> bytes:
    data = np.array(numbers, "<f8").tobytes()
    message: bytes = raw_request(data, [len(numbers), 1], "FP64", name, **fields).SerializeToString()
    return message


def by_call(system: RpcSystem, name: str, asked: Sequence[list[int]]) -> None:
    with grpc.insecure_channel(system.address) as channel:
        infer = channel.unary_unary(INFER)
        for numbers in asked:
            check_message(InferResponse.FromString(infer(request(name, numbers), timeout=TIMEOUT_S)), name, numbers)


def by_stream(system: RpcSystem, name: str, asked: Sequence[list[int]]) -> None:
    """All requests are under way together, and answers come as they are ready."""
    with grpc.insecure_channel(system.address) as channel:
        requests = iter([request(name, numbers, id=str(place)) for place, numbers in enumerate(asked)])
        found = list(map(StreamResponse.FromString, channel.stream_stream(STREAM)(requests, timeout=TIMEOUT_S)))
        assert sorted(int(each.infer_response.id) for each in found) == list(range(len(asked)))
        for each in found:
            assert not each.error_message
            check_message(each.infer_response, name, asked[int(each.infer_response.id)])


@pytest.mark.parametrize("name", TYPES)
def test_a_declared_type_is_kept_whatever_comes_together(system: RpcSystem, name: str) -> None:
    random = Random(name)
    protocols = (by_json, by_binary, by_call, by_stream)
    with ThreadPoolExecutor(len(protocols)) as pool:
        running = [
            pool.submit(ask, system, name, [random.choices(range(40), k=random.randint(1, 4)) for _ in range(40)])
            for ask in protocols
        ]
    for each in running:
        each.result()
    with system.serving.worker.connect() as client:
        client.send(f"GET /v2/models/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        told = {each["name"]: (each["datatype"], each["shape"]) for each in client.read("GET").json["outputs"]}
    for key, (datatype, shape, _) in tensors_of(name, [0]).items():
        field = next(field for field in fields_of(name) if field.name == key)
        lengths = [-1, *(-1 if size is None else size for size in field.type.shape or (1,))]
        assert told[key] == (datatype, lengths) and len(shape) == len(lengths)
