"""Typed contents as raw ones, for each datatype."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ClipperError, MalformedRequest, TooLarge, WrongInput
from clipper.values.outputs.conversion import Conversion
from clipper.values.records import parse_type
from clipper.worker.frontend.inference.output_tensors import OutputTensors, column
from clipper.worker.frontend.inference.tensors import DATATYPES, PIECE_BYTES
from clipper.worker.frontend.long_work import done
from clipper.worker.frontend.rpc.contents import FIELD_OF, as_binary, typed_pieces
from clipper.worker.frontend.rpc.wire import delimited, varint
from tests.worker.frontend.rpc.rpc_messages import message_class

Contents = message_class("inference.InferTensorContents")
MOST = 1 << 20
NUMERIC = [name for name in FIELD_OF if name != "BYTES"]


def binary(datatype: str, shape: list[int], contents: Any, most_bytes: int = MOST) -> bytes:
    text = contents if isinstance(contents, bytes) else contents.SerializeToString()
    return bytes(done(as_binary("x", datatype, shape, memoryview(text), most_bytes)))


def extremes(datatype: str) -> np.ndarray[Any, Any]:
    numpy = DATATYPES[datatype].numpy
    assert numpy is not None
    if numpy.kind == "b":
        return np.array([True, False, True])
    bounds = np.finfo(numpy) if numpy.kind == "f" else np.iinfo(numpy)
    return np.array([bounds.min, 0, 1, bounds.max], numpy)


@pytest.mark.parametrize("datatype", NUMERIC)
def test_numbers_are_their_bytes(datatype: str) -> None:
    numbers = extremes(datatype)
    contents = Contents(**{FIELD_OF[datatype]: numbers.tolist()})
    assert binary(datatype, [len(numbers)], contents) == numbers.tobytes()


@pytest.mark.parametrize("datatype", NUMERIC)
def test_numbers_of_many_pieces(datatype: str) -> None:
    numbers = np.tile(extremes(datatype), PIECE_BYTES // 4)
    contents = Contents(**{FIELD_OF[datatype]: numbers.tolist()})
    assert binary(datatype, [len(numbers)], contents, 1 << 24) == numbers.tobytes()


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.booleans()))
def test_integers_in_one_piece_or_one_by_one(numbers: list[int], cuts: list[bool]) -> None:
    parts, packed = [], b""
    for number, is_apart in zip(numbers, [*cuts, *[False] * len(numbers)]):
        if is_apart:
            parts += [delimited(3, packed), varint(3 << 3) + varint(number)]
            packed = b""
        else:
            packed += varint(number)
    text = b"".join([*parts, delimited(3, packed)])
    assert binary("INT64", [len(numbers)], text) == np.array(numbers, "<i8").tobytes()


def test_texts_get_their_lengths() -> None:
    contents = Contents(bytes_contents=[b"", b"ab"])
    assert binary("BYTES", [2], contents) == struct.pack("<I", 0) + struct.pack("<I", 2) + b"ab"


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "error", "message"),
    [
        ("FP32", [3], {"fp32_contents": [1, 2]}, WrongInput, "2 fp32_contents: expected 3"),
        ("FP32", [2], {"fp64_contents": [1, 2]}, WrongInput, "fp64_contents: expected fp32_contents"),
        ("INT8", [1], {"int_contents": [128]}, WrongInput, "128 in int_contents: expected INT8"),
        ("UINT16", [2], {"uint_contents": [1, 65536]}, WrongInput, "65536"),
        ("BYTES", [3], {"bytes_contents": [b"a"]}, WrongInput, "1 bytes_contents: expected 3"),
        ("BYTES", [1], {"int_contents": [1]}, WrongInput, "expected bytes_contents"),
        ("FP16", [1], {"fp32_contents": [1]}, WrongInput, "raw_input_contents"),
        ("INT64", [2**40, 2**40], {"int64_contents": [1]}, TooLarge, "over"),
        ("INT64", [MOST], {"int64_contents": [1]}, TooLarge, "over"),
        ("INT64", [1], delimited(3, b"\xff" * 11 + b"\x01"), MalformedRequest, "does not end"),
        ("INT64", [1], delimited(3, b"\x01\xff"), MalformedRequest, "does not end"),
        ("FP32", [1], delimited(6, b"\0\0\0"), WrongInput, "0.75 fp32_contents"),
    ],
)
def test_refused(datatype: str, shape: list[int], contents: Any, error: type[ClipperError], message: str) -> None:
    own = contents if isinstance(contents, bytes) else Contents(**contents)
    with pytest.raises(error, match=message):
        binary(datatype, shape, own)


@pytest.mark.parametrize(("datatype", "shape"), [("FP99", [1]), ("FP32", [-1]), ("FP32", [])])
def test_what_nothing_can_be_made_of_is_told_by_who_looks_at_the_tensor(datatype: str, shape: list[int]) -> None:
    assert binary(datatype, shape, Contents(fp32_contents=[1.0])) == b""


@pytest.mark.parametrize(
    ("of_type", "values", "field"),
    [
        ("float64[]", [1.5, -2.0], "fp64_contents"),
        ("int64[]", [-1, 2**62], "int64_contents"),
        ("bool[]", [True, False], "bool_contents"),
        ("string", ["a", "ü"], "bytes_contents"),
    ],
)
def test_outputs_are_typed(of_type: str, values: list[Any], field: str) -> None:
    conversion = Conversion(parse_type(of_type))
    outputs = [conversion.convert(json.dumps(value).encode()) for value in values]
    joined = b"".join(typed_pieces(column(OutputTensors(conversion).tensors[0], outputs)))
    found = list(getattr(Contents.FromString(joined), field))
    assert [each.decode() if isinstance(each, bytes) else each for each in found] == values
