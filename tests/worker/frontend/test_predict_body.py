"""Bodies of predict calls: where the input is, and what is beside it."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import MalformedRequest, RequestError
from clipper.values.inputs.reader import make_reader
from clipper.values.inputs.record_reader import reader_of
from clipper.values.records import parse_type
from clipper.values.types import DType, InputType
from clipper.worker.frontend.predict_body import BodyReader
from tests.example_counts import share_of
from tests.values.inputs.input_reference import (
    ALL_TYPES,
    LEAVES,
    NUMBERS,
    TEXTS,
    Refused,
    assert_like_reference,
    reference,
)
from tests.worker.frontend.steps import finish


@pytest.mark.parametrize("input_type", ALL_TYPES, ids=str)
def test_whole_bodies_are_read_as_the_reference_does(input_type: InputType) -> None:
    reader = BodyReader(make_reader(input_type))

    def read(body: bytes) -> bytes:
        row = reader.read_plain(body)
        return finish(reader.read(body)).rows[0] if row is None else row

    for text in [each.encode() for each in TEXTS if each.strip()] + [b'"\xff"', b"\xff", b"[1,2\xff]"]:
        assert_like_reference(input_type, read, text, b'{"input": ' + text + b"}")


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A JSON body with some of the keys that are known, and others, in any order, perhaps twice."""
    value = st.lists(NUMBERS, max_size=3) | st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=2), max_leaves=4
    )
    pairs = st.tuples(
        st.sampled_from(["input", "input_batch", "context", "uid", "version", "other", "inputs", ""]),
        value | st.dictionaries(st.text(max_size=2), value, max_size=2),
    )
    parts = [f"{json.dumps(key)}: {json.dumps(each)}" for key, each in draw(st.lists(pairs, max_size=4))]
    return ("{" + ", ".join(parts) + "}").encode()


def expected_rows(input_type: InputType, body: bytes) -> list[bytes]:
    """The rows that a body asks for, the last of equal keys counting, or ``Refused``."""
    fields: dict[str, Any] = json.loads(body)
    pairs: tuple[tuple[str, Any], ...] = json.loads(body, object_pairs_hook=tuple)
    for key, value in pairs:
        if key in ("context", "uid", "version"):
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not isinstance(value, str) and not is_number:
                raise Refused(f"{key} is {value!r}")
        if key == "input_batch" and not isinstance(value, list):
            raise Refused("input_batch is no list")
    if ("input" in fields) == ("input_batch" in fields):
        raise Refused("not one of both")
    values = fields["input_batch"] if "input_batch" in fields else [fields["input"]]
    if not values:
        raise Refused("empty batch")
    return [reference(input_type, json.dumps(value).encode()) for value in values]


@settings(max_examples=share_of(400), deadline=None)
@given(bodies(), st.sampled_from(["float64", "float64[2]", "int32", "bool[1]", "string"]))
def test_bodies_are_read_as_the_reference_does(body: bytes, type_name: str) -> None:
    input_type = InputType.parse(type_name)
    reader = BodyReader(make_reader(input_type))
    plain = reader.read_plain(body)
    try:
        rows = expected_rows(input_type, body)
    except Refused:
        assert plain is None
        with pytest.raises(RequestError):
            finish(reader.read(body))
        return
    if plain is not None:
        # The short way sees the input alone, so it must leave every body with more in it to the other.
        assert [plain] == rows
        assert {key for key, _ in json.loads(body, object_pairs_hook=tuple)} == {"input"}
    assert finish(reader.read(body)).rows == rows


@settings(max_examples=share_of(300), deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1), max_size=25))
def test_plain_list_of_numbers_goes_the_short_way(numbers: list[float]) -> None:
    reader = BodyReader(make_reader(InputType(DType.FLOAT64)))
    assert reader.read_plain(json.dumps({"input": numbers}).encode()) == np.array(numbers, "<f8").tobytes()


def test_as_many_numbers_as_a_body_can_hold_go_either_way() -> None:
    reader = BodyReader(make_reader(InputType(DType.FLOAT64)))
    for count in range(60, 100):
        body = b'{"input":[' + b",".join([b"7"] * count) + b"]}"
        assert reader.read_plain(body) == np.full(count, 7.0, "<f8").tobytes()


@pytest.mark.parametrize(
    "text", ['{"version": "2", "input": [1]}', '{"input": [1], "version": "2"}', '{"a": [1]}', "[1]"]
)
def test_body_with_more_than_an_input_does_not_go_the_short_way(text: str) -> None:
    assert BodyReader(make_reader(InputType(DType.FLOAT64))).read_plain(text.encode()) is None


@pytest.mark.parametrize(
    ("fields", "context", "version"),
    [
        ({}, None, None),
        ({"context": "a"}, "a", None),
        ({"context": 5}, "5", None),
        ({"uid": 0, "version": 2}, "0", "2"),
        ({"uid": "b", "context": "a", "version": "v"}, "a", "v"),
        ({"context": None, "uid": "b", "version": None}, "b", None),
        ({"context": "", "version": ""}, None, ""),
    ],
)
def test_context_and_version(fields: dict[str, object], context: str | None, version: str | None) -> None:
    request = finish(
        BodyReader(make_reader(InputType(DType.FLOAT64))).read(json.dumps({"input": [1], **fields}).encode())
    )
    assert (request.context, request.version, request.is_batch) == (context, version, False)


def test_a_body_with_nan_is_told_how_to_write_a_missing_value() -> None:
    reader = BodyReader(reader_of(parse_type("age: float64?")))
    with pytest.raises(MalformedRequest, match="write null for a missing value"):
        reader.read_single(b'{"input": {"age": NaN}}')
