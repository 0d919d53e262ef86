"""Tensors become the rows that numpy would make of them, in bytes and in JSON, in pieces and at once."""

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.inputs import long_text
from clipper.values.inputs.numbers import NUMPY
from clipper.values.types import InputType
from clipper.worker.frontend.inference import json_data, tensors
from clipper.worker.frontend.inference.json_data import read_json
from clipper.worker.frontend.inference.tensors import DATATYPES, ONLY_BINARY, TensorReader, batch_shape
from tests.worker.frontend.steps import finish

NUMERIC = [name for name, datatype in DATATYPES.items() if datatype.numpy is not None and name != "BF16"]
SHAPES = [(), (3,), (None,), (2, 2), (2, None), (None, None)]


def reader(name: str, *, must_be_finite: bool = False) -> TensorReader:
    return TensorReader(InputType.parse(name), must_be_finite)


def rows_of(found: TensorReader, datatype: str, shape: Sequence[int], data: bytes) -> list[bytes]:
    return finish(found.rows(found.announce("x", datatype, shape), memoryview(data)))


def rows_of_json(found: TensorReader, datatype: str, shape: Sequence[int], text: bytes) -> list[bytes]:
    body = bytearray(b"  " + text + b" ")
    return finish(read_json(found, found.announce("x", datatype, shape), body, 2, len(body) - 1))


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, "np.ndarray[Any, Any]", InputType]:
    """A datatype, an array of it with a batch's dimension, and a type of inputs, which may not fit."""
    datatype = draw(st.sampled_from(NUMERIC))
    kind = DATATYPES[datatype].numpy
    assert kind is not None
    input_type = InputType(draw(st.sampled_from(list(NUMPY))), draw(st.sampled_from(SHAPES)))
    shape = [draw(st.integers(1, 4)), *(size or draw(st.integers(0, 3)) for size in input_type.shape)]
    elements = (
        st.integers(0, 1) if kind.kind == "b" else st.integers(-100, 100) if kind.kind != "u" else st.integers(0, 200)
    )
    count = int(np.prod(shape))
    values = draw(st.lists(elements, min_size=count, max_size=count))
    return datatype, np.array(values, kind).reshape(shape), input_type


@given(arrays(), st.sampled_from([1, 16, 1 << 18]))
def test_rows_are_what_numpy_makes_of_the_array(made: Any, piece_bytes: int) -> None:
    datatype, array, input_type = made
    found = TensorReader(input_type)
    target = NUMPY[input_type.dtype]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "PIECE_BYTES", max(piece_bytes, array.itemsize) // array.itemsize * array.itemsize)
        try:
            rows = rows_of(found, datatype, array.shape, array.tobytes())
        except WrongInput:
            kinds = {array.dtype.kind, target.kind}
            is_taken = kinds == {"b"} or (array.dtype.kind in "iu" and target.kind in "iuf") or kinds == {"f"}
            fits = target.kind not in "iu" or (array == array.astype(target)).all()
            assert not (is_taken and fits) or (array.dtype.itemsize > target.itemsize and target.kind == "f")
            return
    prefix = np.array(array.shape[1:], "<u4").tobytes() if input_type.leading_dimensions else b""
    assert rows == [prefix + row.astype(target).tobytes() for row in array]
    if datatype not in ONLY_BINARY:
        text = str(array.tolist()).replace("True", "true")
        text = text.replace("False", "false")
        flat = "[" + ",".join(text.replace("[", " ").replace("]", " ").replace(" ", "").split(",")) + "]"
        assert rows_of_json(found, datatype, array.shape, text.encode()) == rows
        if array.size:
            assert rows_of_json(found, datatype, array.shape, flat.encode()) == rows
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(json_data, "SHORT_TEXT_BYTES", 4)
                patch.setattr(long_text, "PIECE_BYTES", 16)  # `[[false]]` and more
                for each in (text, flat):
                    assert rows_of_json(found, datatype, array.shape, each.encode()) == rows


def test_numbers_of_two_bytes_that_numpy_does_not_know() -> None:
    data = np.array([1.5, -2.0, 1e30], "<f4").view("<u2")[1::2].tobytes()
    (row,) = rows_of(reader("float64[3]"), "BF16", [1, 3], data)
    assert np.frombuffer(row, "<f8").tolist() == pytest.approx([1.5, -2.0, 1e30], rel=0.01)


@given(st.lists(st.text(max_size=9), min_size=1, max_size=5), st.booleans(), st.sampled_from([1, 3, 1 << 18]))
def test_texts(texts: list[str], is_column: bool, piece_bytes: int) -> None:
    shape = [len(texts), 1] if is_column else [len(texts)]
    encoded = [text.encode() for text in texts]
    data = b"".join(struct.pack("<I", len(each)) + each for each in encoded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensors, "PIECE_BYTES", piece_bytes)
        assert rows_of(reader("string"), "BYTES", shape, data) == encoded
        assert rows_of(reader("bytes"), "BYTES", shape, data) == encoded


@given(st.lists(st.binary(max_size=9) | st.sampled_from([b"\0\0\0", b"\1\0\0\0", b"x" * 256]), min_size=1, max_size=9))
def test_bytes_with_zeros_and_of_any_length(elements: list[bytes]) -> None:
    data = b"".join(struct.pack("<I", len(each)) + each for each in elements)
    assert rows_of(reader("bytes"), "BYTES", [len(elements)], data) == elements
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(WrongInput, match=r"ends within element|bytes after its"):
            rows_of(reader("bytes"), "BYTES", [len(elements)], wrong)


def test_the_bytes_of_a_character_are_in_one_element() -> None:
    data = b"\1\0\0\0\xc3\1\0\0\0\xa9"
    with pytest.raises(WrongInput, match="not UTF-8"):
        rows_of(reader("string"), "BYTES", [2], data)


def test_a_byte_of_a_bool_is_true_unless_it_is_zero() -> None:
    """perf_analyzer's own data have other bytes, and rows of the same values have to be equal."""
    assert rows_of(reader("bool[4]"), "BOOL", [1, 4], b"\0\1\2\xff") == [b"\0\1\1\1"]


@given(st.lists(st.text(max_size=9), min_size=1, max_size=5), st.booleans())
def test_texts_in_json(texts: list[str], is_long: bool) -> None:
    encoded = [text.encode() for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        if is_long:
            patch.setattr(json_data, "SHORT_TEXT_BYTES", 0)
        for name in ("string", "bytes"):
            found = reader(name)
            column = json.dumps([[text] for text in texts]).encode()
            assert rows_of_json(found, "BYTES", [len(texts), 1], column) == encoded
            flat = json.dumps(texts, ensure_ascii=False).encode()
            assert rows_of_json(found, "BYTES", [len(texts), 1], flat) == encoded
            assert rows_of_json(found, "BYTES", [len(texts)], flat) == encoded


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "data", "told"),
    [
        ("float32[4]", "FP99", [1, 4], b"", "datatype 'FP99': expected one of BOOL"),
        ("float32[4]", "FP64", [1, 4], b"", "datatype FP64: for float32"),
        ("int32[4]", "FP32", [1, 4], b"", "datatype FP32: for int32"),
        ("float32[4]", "FP32", [4], b"", "shape [4]: expected [-1,4]"),
        ("float32[4]", "FP32", [1, 5], b"", "shape [1,5]: expected [-1,4]"),
        ("float32[*]", "FP32", [1, -1], b"", "shape [1,-1]"),
        ("float32[4]", "FP32", [0, 4], b"", "0 rows: expected 1 to 10000"),
        ("float32[4]", "FP32", [10_001, 4], b"", "10001 rows"),
        ("float32[4]", "FP32", [-1, 4], b"", "shape [-1,4]: expected [-1,4]"),
        ("float32[*]", "FP32", [2, 2**62], b"abcd", "has 4 bytes: expected 36893488147419103232"),
        ("float32[4]", "FP32", [1, 4], b"abcd", "has 4 bytes: expected 16"),
        ("int32[]", "INT64", [1], struct.pack("<q", 2**31), "has 2147483648: expected int32"),
        ("int64[]", "UINT64", [1], b"\xff" * 8, "has 18446744073709551615: expected int64"),
        ("uint8[]", "INT8", [1], b"\xff", "has -1: expected uint8"),
        ("string", "BYTES", [1], b"\1\0\0", "ends within element 0 of 1"),
        ("string", "BYTES", [2], b"\1\0\0\0a", "ends within element 1 of 2"),
        ("string", "BYTES", [1], b"\xff\xff\xff\xffa", "ends within element 0"),
        ("string", "BYTES", [1], b"\1\0\0\0ab", "1 bytes after its 1 elements"),
        ("string", "BYTES", [1], b"\1\0\0\0\xff", "not UTF-8"),
    ],
)
def test_wrong_tensors_are_refused(name: str, datatype: str, shape: list[int], data: bytes, told: str) -> None:
    with pytest.raises(WrongInput) as error:
        rows_of(reader(name), datatype, shape, data)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "text", "told"),
    [
        ("float32[2]", "FP16", [1, 2], b"[1,2]", "has FP16 data in JSON"),
        ("float32[2]", "FP32", [1, 2], b"[1,2", "not JSON"),
        ("float32[2]", "FP32", [1, 2], b"5", "has data 5: expected a list"),
        ("float32[2]", "FP32", [1, 2], b"[1,2,3]", "another shape"),
        ("float32[2]", "FP32", [2, 2], b"[[1,2],[3]]", "another shape"),
        ("float32[2]", "FP32", [2, 2], b"[[1,2],3,4]", "another shape"),
        ("float32[2]", "FP32", [1, 2], b'[1,"a"]', 'has "a" at position 1'),
        ("float32[2]", "FP32", [1, 2], b"[1,1e39]", "position 1"),
        ("float32[2]", "FP32", [1, 2], b"[1,NaN]", "not JSON"),
        ("float64[2]", "INT8", [1, 2], b"[1,128]", "has 128: expected INT8"),
        ("float64[2]", "UINT16", [1, 2], b"[1,-1]", "has -1: expected UINT16"),
        ("float64[2]", "INT64", [1, 2], b"[1,1.5]", "has 1.5 at position 1"),
        ("bool[2]", "BOOL", [1, 2], b"[true,2]", "has 2 at position 1"),
        ("string", "BYTES", [1], b"[5]", "has 5: expected a string"),
        ("string", "BYTES", [2], b'["a"]', "another shape"),
        ("string", "BYTES", [1], b'["\\ud800"]', "not JSON"),
    ],
)
@pytest.mark.parametrize("is_long", [False, True])
def test_wrong_json_is_refused(
    monkeypatch: pytest.MonkeyPatch, is_long: bool, name: str, datatype: str, shape: list[int], text: bytes, told: str
) -> None:
    if is_long:
        monkeypatch.setattr(json_data, "SHORT_TEXT_BYTES", 0)
        told = ""  # what it says of a long text is less exact
    with pytest.raises((WrongInput, MalformedRequest)) as error:
        rows_of_json(reader(name), datatype, shape, text)
    assert told in str(error.value)


def test_numbers_that_are_none_pass_unless_a_policy_goes_by_them() -> None:
    data = np.array([1, np.nan], "<f4").tobytes()
    assert rows_of(reader("float32[2]"), "FP32", [1, 2], data) == [data]
    with pytest.raises(WrongInput, match="NaN or infinity"):
        rows_of(reader("float32[2]", must_be_finite=True), "FP32", [1, 2], data)


def test_a_large_tensor_is_read_in_pieces() -> None:
    found = reader("uint8[4000000]")
    tensor = found.announce("x", "UINT8", [1, 4_000_000])
    pieces = sum(1 for _ in found.rows(tensor, memoryview(bytes(4_000_000))))
    assert pieces >= 4_000_000 // tensors.PIECE_BYTES


@pytest.mark.parametrize(
    ("name", "expected"),
    [("float32[3,*]", [-1, 3, -1]), ("float64", [-1, -1]), ("string", [-1, 1]), ("int32[]", [-1, 1])],
)
def test_shapes_that_are_announced(name: str, expected: list[int]) -> None:
    assert batch_shape(InputType.parse(name)) == expected
