"""The contents of an infer request, and the parts that are refused."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import MalformedRequest, RequestError, WrongInput
from clipper.values.outputs.conversion import Conversion
from clipper.values.records import RecordType, parse_type
from clipper.values.types import InputType
from clipper.worker.frontend.inference import json_data
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.requests import AnswerForm, InferRequest, Plan, RequestReader, read_long_json
from tests.worker.frontend.steps import finish

RAW = np.arange(4, dtype="<f4").tobytes()
INPUT: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
BINARY = INPUT | {"parameters": {"binary_data_size": 16}}


def reader(name: str = "float32[4]", features_size: int | None = None) -> RequestReader:
    outputs = OutputTensors(Conversion(parse_type("float64[]")))
    return RequestReader(InputType.parse(name), features_size, check_output=outputs.check)


def plan_long(found: RequestReader, body: bytearray, json_bytes: int) -> Plan:
    return found.plan_of(*finish(read_long_json(body, json_bytes)))


def plan_of(found: RequestReader, head: object, *, is_long: bool = False) -> Plan:
    text = json.dumps(head).encode()
    return plan_long(found, bytearray(text), len(text)) if is_long else found.plan(text)


def read(found: RequestReader, head: object, tensors: bytes = b"", *, is_long: bool = False) -> InferRequest:
    text = json.dumps(head).encode()
    body = bytearray(text + tensors)
    plan = plan_long(found, body, len(text)) if is_long else found.plan(text)
    return finish(found.read(plan, body, len(text)))


@pytest.mark.parametrize("is_long", [False, True])
def test_data_is_in_the_json_or_behind_it(is_long: bool) -> None:
    found = reader()
    assert read(found, {"inputs": [INPUT | {"data": [0, 1, 2, 3]}]}, is_long=is_long).rows == [RAW]
    assert read(found, {"inputs": [INPUT | {"data": [[0, 1, 2, 3]]}]}, is_long=is_long).rows == [RAW]
    assert read(found, {"inputs": [BINARY], "more": {"inputs": 1}}, RAW, is_long=is_long).rows == [RAW]


@pytest.mark.parametrize("is_long", [False, True])
def test_features_come_beside_the_input_in_either_form_and_order(is_long: bool) -> None:
    found = reader(features_size=2)
    features = {"name": "features", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 2]}
    expected = np.array([0.5, 2]).tobytes()
    for inputs in ([BINARY, features], [features, BINARY]):
        request = read(found, {"inputs": inputs}, RAW, is_long=is_long)
        assert (request.rows, request.features) == ([RAW], [expected])
    binary = features | {"parameters": {"binary_data_size": 8}}
    del binary["data"]
    request = read(found, {"inputs": [binary, BINARY]}, np.array([0.5, 2], "<f4").tobytes() + RAW, is_long=is_long)
    assert (request.rows, request.features) == ([RAW], [expected])


def test_what_comes_with_the_tensors() -> None:
    head = {
        "inputs": [BINARY],
        "id": "mine",
        "parameters": {"timeout": 1500, "context": 7, "priority": 3, "sequence_id": 0, "binary_data_output": True},
        "outputs": [{"name": "output", "parameters": {"binary_data": False}}, {"name": "confidence"}],
    }
    for is_long in (False, True):
        plan = plan_of(reader(), head, is_long=is_long)
        assert (plan.timeout_s, plan.context, plan.form.id) == (0.0015, "7", "mine")
        assert plan.form.outputs == (("output", False), ("confidence", True))


def test_a_row_that_is_a_part_of_the_body_is_known_by_its_plan() -> None:
    assert plan_of(reader(), {"inputs": [BINARY]}).row_bytes == 16
    assert plan_of(reader("float64[4]"), {"inputs": [BINARY]}).row_bytes is None
    two = INPUT | {"shape": [2, 4], "parameters": {"binary_data_size": 32}}
    assert plan_of(reader(), {"inputs": [two]}).row_bytes is None


def test_a_request_without_json_is_the_one_input() -> None:
    for name, body, row in [
        ("float32[4]", RAW, RAW),
        ("float32[*]", RAW, RAW),
        ("float32[2,*]", RAW, np.array([2, 2], "<u4").tobytes() + RAW),
        ("string", "grün".encode(), "grün".encode()),
        ("string", b"", b""),
    ]:
        found = reader(name)
        plan = found.plan_raw(len(body))
        assert (finish(found.read(plan, body, 0)).rows, plan.form) == ([row], AnswerForm(is_binary=True))
    with pytest.raises(RequestError, match="17 bytes"):
        reader().plan_raw(17)
    with pytest.raises(RequestError, match="does not tell its shape"):
        reader("float32[*,*]").plan_raw(16)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (5, "not an infer request"),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [INPUT | {"name": f"x{n}", "data": []} for n in range(17)]}, "inputs"),
        ({"inputs": [INPUT | {"name": "a", "data": []}, INPUT | {"name": "b", "data": []}]}, "expected one"),
        ({"inputs": [INPUT | {"data": []}] * 2}, "twice"),
        ({"inputs": [INPUT]}, "neither data nor binary_data_size"),
        ({"inputs": [BINARY | {"data": []}]}, "both data and"),
        ({"inputs": [INPUT | {"parameters": {"binary_data_size": -1}}]}, "expected a number of bytes"),
        ({"inputs": [INPUT | {"parameters": {"binary_data_size": True}}]}, "expected a number of bytes"),
        ({"inputs": [INPUT | {"parameters": {"binary_data_size": 17}}]}, "expected 16"),
        ({"inputs": [INPUT | {"parameters": {"shared_memory_region": "r"}}]}, "not supported"),
        ({"inputs": [BINARY | {"shape": []}]}, "0 dimensions"),
        ({"inputs": [BINARY | {"shape": [1] * 3000}]}, "3000 dimensions"),
        ({"inputs": [BINARY | {"shape": [1, 2**63]}]}, "shape"),
        ({"inputs": [BINARY | {"shape": [1, 2**70]}]}, ""),
        ({"inputs": [BINARY | {"shape": [1.5, 4]}]}, "not an infer request"),
        ({"inputs": [BINARY], "id": 5}, "not an infer request"),
        ({"inputs": [BINARY], "id": "i" * 201}, "id has 201"),
        ({"inputs": [BINARY], "parameters": {"timeout": "1"}}, "timeout"),
        ({"inputs": [BINARY], "parameters": {"timeout": -1}}, "timeout"),
        ({"inputs": [BINARY], "parameters": {"context": [1]}}, "context"),
        ({"inputs": [BINARY], "parameters": {"context": "c" * 1001}}, "context has 1001"),
        ({"inputs": [BINARY], "parameters": {"sequence_id": 1}}, "sequence"),
        ({"inputs": [BINARY], "parameters": {"sequence_start": True}}, "sequence"),
        ({"inputs": [BINARY], "parameters": {"binary_data_output": 1}}, "neither true nor false"),
        ({"inputs": [BINARY], "outputs": [{"name": "none"}]}, "expected one of output"),
        ({"inputs": [BINARY], "outputs": [{"name": "output"}] * 2}, "twice"),
        ({"inputs": [BINARY], "outputs": [{"name": "output", "parameters": {"classification": 2}}]}, "classification"),
    ],
)
@pytest.mark.parametrize("is_long", [False, True])
def test_what_is_wrong_is_told(head: Any, told: str, is_long: bool) -> None:
    with pytest.raises(RequestError) as error:
        plan_of(reader(), head, is_long=is_long)
    assert told in str(error.value) or (is_long and isinstance(error.value, MalformedRequest))


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_bytes_behind_the_json_have_to_add_up(size: int) -> None:
    with pytest.raises(MalformedRequest, match=f"{size} bytes after its JSON: expected 16"):
        read(reader(), {"inputs": [BINARY]}, bytes(size))


def test_features_have_to_come_where_a_policy_takes_them_and_only_there() -> None:
    features = {"name": "features", "shape": [2, 2], "datatype": "FP64", "data": [0, 1, 2, 3]}
    for found, inputs in [
        (reader(features_size=2), [BINARY]),
        (reader(features_size=2), [BINARY, features]),
        (reader(features_size=3), [BINARY, features]),
        (reader(), [BINARY, features]),
        (reader(features_size=2), [features, features | {"name": "other"}]),
    ]:
        with pytest.raises(RequestError):
            plan_of(found, {"inputs": inputs})


def test_long_json_is_read_as_short_json_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(4000, dtype="<f4").reshape(1000, 4)
    for data in (rows.tolist(), rows.flatten().tolist()):
        head = {"inputs": [INPUT | {"shape": [1000, 4], "data": data}], "id": "x"}
        at_once = read(reader(), head).rows
        assert at_once == [row.tobytes() for row in rows] == read(reader(), head, is_long=True).rows
        monkeypatch.setattr(json_data, "SHORT_TEXT_BYTES", 10)
        assert read(reader(), head).rows == at_once


def test_a_request_has_a_tensor_of_a_field_even_if_all_may_be_missing() -> None:
    reader = RequestReader(RecordType.parse("a: float64?, b: string?"), ignores_unknown=True)
    other = {"name": "c", "shape": [2], "datatype": "FP64", "data": [1, 2]}
    with pytest.raises(WrongInput, match="no tensor of an input"):
        reader.plan(json.dumps({"inputs": [other]}).encode())
    one = {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    assert reader.plan(json.dumps({"inputs": [other, one]}).encode()).rows == 1


PERSON = RequestReader(
    parse_type(
        'a: float64, b: float64?, c: int64?, d: string, e: bytes?, f: string{"x","yy"}, g: int64{1,2}, h: float64'
    )
)
NUMBERS = st.sampled_from([0.0, -1.5, np.nan, np.inf])
TEXTS = st.sampled_from([b"t", b"text", "ä".encode(), b"", b"\0\0\0\x01\0\0\0z", b"x" * 255, b"x" * 256, b"\xff"])
ELEMENTS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "a": ("FP64", NUMBERS),
    "b": ("FP64", NUMBERS),
    "c": ("INT64", st.sampled_from([0, 2**63 - 1])),
    "d": ("BYTES", TEXTS),
    "e": ("BYTES", TEXTS),
    "f": ("BYTES", st.sampled_from([b"x", b"yy", b"z"])),
    "g": ("INT64", st.sampled_from([1, 2, 3])),
    "h": ("FP64", NUMBERS),
}
USUAL = {"FP64": st.just(1.5), "BYTES": st.just(b"x"), "INT64": st.just(1)}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The JSON and the data of records as binary tensors, which are good, or not in one place."""
    rows = draw(st.sampled_from([1, 2, 12]))
    odd = draw(st.sets(st.sampled_from(list(ELEMENTS)), max_size=3))
    inputs, parts = [], []
    for name in draw(st.permutations(list(ELEMENTS))):
        datatype, values = ELEMENTS[name]
        column = draw(st.lists(values if name in odd else USUAL[datatype], min_size=rows, max_size=rows))
        data = b"".join(len(value).to_bytes(4, "little") + value for value in column) if datatype == "BYTES" else b""
        parts.append(data or np.array(column, {"FP64": "<f8", "INT64": "<i8"}[datatype]).tobytes())
        inputs.append({"name": name, "shape": [rows], "datatype": datatype, "parameters": {}})
    sizes = list(map(len, parts))
    place, moved = draw(st.integers(0, len(sizes) - 2)), draw(st.sampled_from([0, 0, 0, 1, -5]))
    if inputs[place]["datatype"] == inputs[place + 1]["datatype"] == "BYTES":
        sizes[place], sizes[place + 1] = max(0, sizes[place] + moved), max(0, sizes[place + 1] - moved)
    for each, size in zip(inputs, sizes):
        each["parameters"] = {"binary_data_size": size}
    whole = bytearray(b"".join(parts))
    if draw(st.booleans()):
        whole[draw(st.integers(0, len(whole) - 1))] = draw(st.sampled_from([0, 1, 200]))
    return json.dumps({"inputs": inputs}).encode(), bytes(whole)


@given(bodies())
def test_tensors_read_together_are_those_read_one_by_one(body: tuple[bytes, bytes]) -> None:
    head, data = body
    plan = PERSON.plan(head)
    assert plan.runs[-1].stop == len(ELEMENTS)

    def found(plan: Plan) -> list[bytes] | str:
        try:
            return finish(PERSON.read(plan, head + data, len(head))).rows
        except RequestError as error:
            return str(error)

    assert found(plan) == found(msgspec.structs.replace(plan, runs=()))


def test_numbers_and_texts_that_follow_one_another_are_read_together() -> None:
    fields = {
        "a": "FP64",
        "b": "FP64",
        "h": "FP64",
        "c": "INT64",
        "g": "INT64",
        "d": "BYTES",
        "e": "BYTES",
        "f": "BYTES",
    }
    inputs = [
        {"name": name, "shape": [3], "datatype": datatype, "parameters": {"binary_data_size": 24}}
        for name, datatype in fields.items()
    ]
    runs = PERSON.plan(json.dumps({"inputs": inputs}).encode()).runs
    assert [(run.start, run.stop) for run in runs if run.reads is not None] == [(0, 3), (5, 8)]
    assert runs[-1].stop == len(fields)
