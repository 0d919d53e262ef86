"""A slow reading of an input with the json module and numpy, and texts that are inputs or nearly so."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from clipper.errors import MalformedRequest, RequestError, WrongInput
from clipper.values.types import DType, InputType

NUMPY = {
    DType.INT32: "<i4",
    DType.INT64: "<i8",
    DType.FLOAT32: "<f4",
    DType.FLOAT64: "<f8",
    DType.UINT8: "u1",
    DType.BOOL: "?",
}


class Refused(Exception):
    """The reference has no row for this text."""


def reference(input_type: InputType, text: bytes) -> bytes:
    """The row of an input, by the plainest means."""
    try:
        value = json.loads(text.decode(), parse_constant=_refuse)
    except ValueError:
        raise Refused("not JSON") from None
    if input_type.dtype in (DType.STRING, DType.BYTES):
        return _text_row(input_type.dtype, value)
    if input_type.dtype is DType.UINT8 and isinstance(value, str) and input_type.row_bytes is not None:
        row = _text_row(DType.BYTES, value)
        if len(row) != input_type.row_bytes:
            raise Refused("another length")
        return row
    shape = _shape(value)
    wanted = input_type.shape
    if len(shape) != len(wanted) or any(want not in (None, got) for want, got in zip(wanted, shape)):
        raise Refused(f"shape {shape}")
    numbers = [_number(input_type.dtype, each) for each in _leaves(value)]
    prefix = np.array(shape, "<u4").tobytes() if input_type.leading_dimensions else b""
    return prefix + np.array(numbers, NUMPY[input_type.dtype]).tobytes()


def assert_like_reference(input_type: InputType, read: Any, text: bytes, given_text: bytes) -> None:
    """``read`` has of ``given_text`` the row that the reference has of ``text``, or both refuse."""
    try:
        expected = reference(input_type, text)
    except (Refused, RecursionError, UnicodeDecodeError):
        with pytest.raises(RequestError) as caught:
            read(given_text)
        assert isinstance(caught.value, MalformedRequest | WrongInput)
        assert 0 < len(str(caught.value)) < 500
    else:
        assert read(given_text) == expected, text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _text_row(dtype: DType, value: object) -> bytes:
    if not isinstance(value, str):
        raise Refused("not a string")
    try:
        return value.encode() if dtype == DType.STRING else base64.b64decode(value, validate=True)
    except ValueError:
        raise Refused("not text, or not base64") from None


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    shapes = {_shape(part) for part in value}
    if len(shapes) > 1:
        raise Refused("ragged")
    return (len(value), *(shapes.pop() if shapes else ()))


def _leaves(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in _leaves(part)] if isinstance(value, list) else [value]


def _number(dtype: DType, value: Any) -> Any:
    if dtype == DType.BOOL:
        if value not in (0, 1) or not isinstance(value, (bool, int, float)):
            raise Refused(f"{value!r} is no bool")
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(f"{value!r} is no number")
    if dtype in (DType.FLOAT32, DType.FLOAT64):
        largest = np.finfo(NUMPY[dtype]).max
        try:
            with np.errstate(over="ignore"):
                fits = math.isfinite(float(value)) and bool(np.abs(np.array(value, NUMPY[dtype])) <= largest)
        except OverflowError:
            fits = False
        if not fits:
            raise Refused(f"{value!r} is too large")
        return value
    info = np.iinfo(NUMPY[dtype])
    if not info.min <= value <= info.max or value != int(value):
        raise Refused(f"{value!r} is no {dtype.label}")
    return int(value)


NUMBERS = (
    st.integers()
    | st.integers(-300, 300)
    | st.integers(-(2**63) - 2, 2**64 + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-5, 5).map(float)
    | st.booleans()
)
LEAVES = NUMBERS | st.none() | st.text(max_size=3)


def nested(shape: tuple[int, ...], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if not shape:
        return leaves
    return st.lists(nested(shape[1:], leaves), min_size=shape[0], max_size=shape[0])


NUMERIC_TYPES = st.builds(
    InputType,
    st.sampled_from([dtype for dtype in DType if dtype.is_numeric]),
    st.lists(st.none() | st.integers(1, 3), max_size=3).map(tuple),
)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[InputType, bytes]:
    """A type, and a text that is of it, or nearly."""
    input_type = draw(NUMERIC_TYPES)
    shape = [draw(st.integers(0, 3)) if length is None else length for length in input_type.shape]
    if draw(st.booleans()) and shape:
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.integers(0, 3))
    info = np.iinfo(NUMPY[input_type.dtype]) if input_type.dtype in (DType.INT32, DType.INT64, DType.UINT8) else None
    fitting = st.integers(int(info.min), int(info.max)) if info else st.integers(0, 1)
    value = draw(nested(tuple(shape), draw(st.sampled_from([fitting, fitting, NUMBERS, LEAVES]))))
    text = json.dumps(value, separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ":")])))
    return input_type, text.encode()


TYPES = ["int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes"]
SHAPES = ["", "[]", "[1]", "[2]", "[1,1]", "[2,2]", "[2,3]", "[2,*]", "[*,*]", "[*,2,1]"]
ALL_TYPES = [InputType.parse(name + shape) for name in TYPES for shape in SHAPES if name not in TYPES[6:] or not shape]

TEXTS = [
    "", " ", "null", "true", "false", "{}", '{"a": [1, 2]}', "nan", "NaN", "[NaN]", "Infinity", "[-Infinity]", "[",
    "1", "0", "-1", "1.0", "1.5", "-0", "-0.0", "1e0", "1E+2", "1e-400", "1e308", "1e309", "1e400", "01", "+1",
    ".5", "1.", "[]", "[[]]", "[[],[]]", "[1]", "[1,2]", "[ 1 , 2 ]", "\n[\t1\r,2 ]\n", "[1,2,3]", "[1,]", "[,1]",
    "[1 2]", "[1,,2]", "[1][2]", "[1] [2]", "[1,2]]", "[[1,2]", "[1,2", "[0,1]", "[true,false]", "[true,1]",
    "[1,null]", '[1,"2"]', "[1,[2]]", "[[1],2]", "[[1]]", "[[1],[2]]", "[[1,2,3],[4,5,6]]", "[[1,2,3],[4,5]]",
    "[[1,2],[3,4,5]]", "[[1,2,3],[]]", "[[1,2,3],[4]]",
    "[[1,2],[3,4,5,6]]", "[[],[1]]", "[[1,2],[3]]", "[[[1],[2]],[[3],[4]]]", "[[[1],[2]],[[3],4]]",
    "[[[]]]", "[[1.5,2,3],[4,5,6]]", "[1,{}]", "[255]", "[256]", "[-1]", "[255,0]", "[1.0,2.0]", "[1.5,2]",
    "[1e2,3]", "[2147483647,-2147483648]", "[2147483648,0]", "[9223372036854775807,-9223372036854775808]",
    "[9223372036854775808,1]", "[18446744073709551615,1]", "[18446744073709551616,1]", "[1e18,1]", "[1e19,1]",
    "[1" + "0" * 400 + "]", "[1" + "0" * 30 + ",1]", "[3.4028235e38,1]", "[3.5e38,1]", "[1e-46,1]",
    "[1e308,1e-308]", "[1e400,1]", "[4.9e-324,2.2250738585072014e-308]", "[0.1,0.30000000000000004]", '""', '"a"',
    '"\\u00e9\\ud83d\\ude00"', '"\\ud800"', '"é"', '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000"', '"a\nb"', '"\\x"', '"',
    '"AA=="', '"AAA="', '"AAAA"', '"AA"', '"A A="', '"_-8="', '"/+8="', '"QUJD\\n"', '"[1,2]"', '["a"]', '"a" "b"',
    "[" * 2000 + "]" * 2000, "[" * 50_000, "[1,2] x", "[1,2]\0", "// 1\n[1,2]", "'a'", "[1_0,2]", "[0x1,2]",
    "[１,2]",
]  # fmt: skip
