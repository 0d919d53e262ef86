"""Inputs that are read in pieces, against a slow reading of the same text; with pieces so small that all is cut."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipper.errors import MalformedRequest, RequestError, WrongInput
from clipper.values.inputs import long_text
from clipper.values.inputs.reader import make_reader
from clipper.values.types import DType, InputType
from tests.example_counts import share_of
from tests.values.inputs.input_reference import Refused, inputs, reference
from tests.worker.frontend.steps import finish

# At most fourteen characters of a piece are left to the next, so that smaller ones would not come to an end.
PIECES = st.sampled_from([16, 19, 24, 40])


def read(input_type: InputType, text: bytes, piece_bytes: int, around: bytes = b"") -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "PIECE_BYTES", piece_bytes)
        whole = around + text + around
        return finish(make_reader(input_type).read_long(bytearray(whole), len(around), len(around) + len(text)))


def assert_like_reference(input_type: InputType, text: bytes, piece_bytes: int) -> None:
    try:
        expected = reference(input_type, text)
    except (Refused, RecursionError, UnicodeDecodeError):
        with pytest.raises(RequestError) as caught:
            read(input_type, text, piece_bytes)
        assert isinstance(caught.value, MalformedRequest | WrongInput)
        assert 0 < len(str(caught.value)) < 500
        return
    try:
        assert read(input_type, text, piece_bytes) == expected, text
    except (MalformedRequest, WrongInput) as error:
        # Only the reader of pieces refuses forms that no long input needs: a number, or whitespace, as long as a piece;
        # lists of no number; base64 with more padding than it takes.
        is_padded = "base64" in str(error) and base64.b64encode(expected) != text.strip(b'"')
        assert "without a comma" in str(error) or b"[]" in b"".join(text.split()) or is_padded, (error, text)


@settings(max_examples=share_of(1500), deadline=None)
@given(inputs(), PIECES)
@example((InputType(DType.FLOAT64, (None, None)), b"1[[,2],[3,4]]"), 40)
@example((InputType(DType.FLOAT64, (None, None)), b"[[1,2],[3,4],]"), 16)
@example((InputType(DType.FLOAT64, (2, 2)), b"[[1,2],[3,4]"), 16)
@example((InputType(DType.FLOAT64, ()), b"[7]"), 40)
@example((InputType(DType.INT64, (None,)), b"[1,9007199254740993,1.0]"), 40)
def test_numbers_of_any_shape(case: tuple[InputType, bytes], piece_bytes: int) -> None:
    assert_like_reference(*case, piece_bytes)


@settings(max_examples=share_of(500), deadline=None)
@given(
    st.builds(
        InputType,
        st.sampled_from([dtype for dtype in DType if dtype.is_numeric]),
        st.lists(st.none() | st.integers(1, 3), max_size=3).map(tuple),
    ),
    st.text(alphabet='[]{},:. 0123eE+-"nulltrfas\n', max_size=40),
    PIECES,
)
def test_near_json(input_type: InputType, text: str, piece_bytes: int) -> None:
    assert_like_reference(input_type, text.encode(), piece_bytes)


CHARACTERS = st.text() | st.text(alphabet='\\"/u0d8éab😀\n\x00', max_size=60)


@settings(max_examples=share_of(500), deadline=None)
@given(CHARACTERS, st.booleans(), PIECES)
def test_strings(text: str, as_escapes: bool, piece_bytes: int) -> None:
    raw = json.dumps(text, ensure_ascii=as_escapes).encode()
    for input_type in (InputType(DType.STRING), InputType(DType.BYTES)):
        assert_like_reference(input_type, raw, piece_bytes)


@settings(max_examples=share_of(500), deadline=None)
@given(st.lists(st.sampled_from([*b'\\"u/dD89abBcfF0n\xf0\x9f\x98\x80\xc3 ']), max_size=40).map(bytes), PIECES)
def test_near_strings(inside: bytes, piece_bytes: int) -> None:
    assert_like_reference(InputType(DType.STRING), b'"' + inside + b'"', piece_bytes)


@settings(max_examples=share_of(300), deadline=None)
@given(st.binary(max_size=100), st.lists(st.sampled_from([*b"A=/+_ "]), max_size=3).map(bytes), PIECES)
def test_base64(data: bytes, junk: bytes, piece_bytes: int) -> None:
    text = base64.b64encode(data)
    for each in (text, text + junk, text[:8] + junk + text[8:]):
        assert_like_reference(InputType(DType.BYTES), b'"%b"' % each, piece_bytes)


@pytest.mark.parametrize("input_type", ["float64[*]", "string", "bytes", "uint8[2,2]", "bool[*]"])
def test_what_stands_around_is_left_alone(input_type: str) -> None:
    texts: dict[str, Any] = {"string": "ab", "bytes": "QUJD", "uint8[2,2]": [[1, 2], [3, 4]]}
    text = json.dumps(texts.get(input_type, [1, 0, 1])).encode()
    found = read(InputType.parse(input_type), b" \n" * 7 + text + b"\t " * 7, 16, around=b'"],[')
    assert found == make_reader(InputType.parse(input_type)).read(text)


@pytest.mark.parametrize(
    ("input_type", "text", "says"),
    [
        ("int32[*]", b"[" + b"1," * 50_000 + b"1.5]", "1.5 at position 50000: expected int32"),
        ("float64[3]", b"[" + b"1," * 50_000 + b"1]", "over 3 numbers: expected float64[3]"),
        ("float64[*,*]", b"[" + b"[1,2]," * 20_000 + b"[1]]", "ragged"),
        ("float64[*,*]", b"[" + b"1," * 50_000 + b"1]", "ragged"),
        ("float64[*,3]", b"[" + b"[1,2]," * 20_000 + b"[1,2]]", "shape [20001,2]: expected float64[*,3]"),
        ("float64[*]", b"[" + b"1" * 100_000 + b"]", "without a comma"),
        ("float64[*]", b"[1," + b" " * 100_000 + b"]", "without a comma"),
        ("float64[*]", b"[" * 100_000 + b"]" * 100_000, "without a comma"),
        ("float64[*]", b"[[1]," * 50_000 + b"1" + b"]" * 9000, "ragged"),
        ("string", b"[" + b"1," * 50_000 + b"1]", "expected a JSON string"),
        ("bytes", b'"' + b"A===" * 50_000 + b'"', "base64"),
        ("uint8[2,2]", b'"' + b"AAAA" * 50_000 + b'"', "base64 of 150000 bytes: expected 4 bytes, of uint8[2,2]"),
    ],
)
def test_what_is_wrong_is_told(input_type: str, text: bytes, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        finish(make_reader(InputType.parse(input_type)).read_long(bytearray(text), 0, len(text)))
    assert says in str(caught.value)


def test_shape_of_many_dimensions() -> None:
    array = np.arange(2 * 3 * 4 * 5000).reshape(2, 3, 4, 5000)
    text = json.dumps(array.tolist()).encode()
    row = finish(make_reader(InputType.parse("int64[2,*,*,*]")).read_long(bytearray(text), 0, len(text)))
    assert row == np.array(array.shape, "<u4").tobytes() + array.astype("<i8").tobytes()
