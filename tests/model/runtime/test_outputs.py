import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.model.runtime.outputs import encode_outputs, learn_type
from clipper.values.json_types import NoType

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
homogeneous = st.one_of(*(st.lists(each, min_size=1) for each in (st.integers(), finite, st.text(), st.booleans())))


def outputs_of(returned: Any) -> list[Any]:
    encoded = encode_outputs(returned, len(returned))
    assert encoded.failures == {}
    return [json.loads(line) for line in encoded.lines().split(b"\n")]


@given(homogeneous | st.lists(json_values, min_size=1))
def test_json_values_come_back_one_a_line(values: list[Any]) -> None:
    assert outputs_of(values) == values
    assert outputs_of(tuple(values)) == values


@pytest.mark.parametrize("dtype", ["i1", "u8", "i4", "f2", "f4", "f8", "?", "U3", "O"])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2), (3, 0)])
def test_numpy_arrays(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    assert outputs_of(array) == array.tolist()


def test_numpy_scalars_and_what_json_does_not_know() -> None:
    assert outputs_of([np.float32(0.5), np.float32(2)]) == [0.5, 2.0]
    assert outputs_of([np.int64(1), np.float64(2.5), np.bool_(True), np.str_("a")]) == [1, 2.5, True, "a"]
    assert outputs_of([{"p": np.array([[1, 2]])}, {"raw": b"\x00\xff"}]) == [{"p": [[1, 2]]}, {"raw": "AP8="}]
    assert outputs_of([b"ab", b""]) == ["YWI=", ""]
    assert outputs_of([np.bool_(True), np.bool_(False)]) == [True, False]


class Tensor:
    """Has what torch's tensors and pandas' series have."""

    def __len__(self) -> int:
        return 2

    def tolist(self) -> list[float]:
        return [1.0, 2.0]


class Frame:
    """Has what pandas' frames have: its iterator gives columns, not rows."""

    def __len__(self) -> int:
        return 2

    def to_numpy(self) -> Any:
        return np.array([[1, 2], [3, 4]])


def test_tensors_and_frames() -> None:
    assert outputs_of(Tensor()) == [1.0, 2.0]
    assert outputs_of(Frame()) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("returned", "dtype", "raw"),
    [
        (np.array([1.0, math.nan, -math.inf], np.float32), "float32[]", [1.0, math.nan, -math.inf]),
        ([1.0, math.nan, math.inf], "float64[]", [1.0, math.nan, math.inf]),
        ([1, math.nan, 2**40], "float64[]", [1.0, math.nan, 2.0**40]),
        ([np.float32(0.5), np.float32("nan")], "float32[]", [0.5, math.nan]),
        (np.array([[1.0, 2.0], [math.inf, 2.0]]), "float64[2]", [[1.0, 2.0], [math.inf, 2.0]]),
        ([[1.0, 2], [math.nan, 2.0]], "float64[2]", [[1.0, 2.0], [math.nan, 2.0]]),
    ],
)
def test_nan_and_infinity_stay_numbers_and_are_null_in_json(returned: Any, dtype: str, raw: list[Any]) -> None:
    encoded = encode_outputs(returned, len(returned))
    assert encoded.failures == {} and encoded.array is not None
    assert str(encoded.form) == dtype
    assert np.array_equal(encoded.array, raw, equal_nan=True)
    assert str(learn_type(encoded)) == dtype
    nulls = [[number if math.isfinite(number) else None for number in np.ravel(row).tolist()] for row in raw]
    shown = [json.loads(line) for line in encoded.lines().split(b"\n")]
    assert [each if isinstance(each, list) else [each] for each in shown] == nulls


def test_nan_is_null_wherever_else_it_is() -> None:
    ragged = [[1.0, math.nan], [math.inf]]
    assert outputs_of(ragged) == [[1.0, None], [None]]
    assert outputs_of([{"a": (1, math.nan)}, {"b": np.array([math.inf])}]) == [{"a": [1, None]}, {"b": [None]}]
    assert outputs_of([math.nan, "a", None]) == [None, "a", None]


def circular() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (1j, "complex"),
        ({(1, 2): 3}, "tuple"),
        (np.longdouble(1), "longdouble"),
        (np.datetime64("2020-01-01"), "date"),
        (circular(), "Circular"),
        (deep(), "nested"),
        ({math.nan: 1}, "dict"),
        (10**5000, "int"),
    ],
    ids=["object", "set", "complex", "key", "longdouble", "datetime", "circular", "deep", "nan key", "huge"],
)
def test_what_json_cannot_carry_fails_its_row_and_names_the_type(value: object, named: str) -> None:
    encoded = encode_outputs([1, value, "b"], 3)
    assert encoded.text == b'1\n\n"b"'
    assert list(encoded.failures) == [1]
    assert named in encoded.failures[1]


@pytest.mark.parametrize(
    ("returned", "cause"),
    [
        ([1], "returned 1 outputs for 2 inputs"),
        (np.arange(3), "returned 3 outputs for 2 inputs"),
        (None, "returned None: expected a sequence of 2 outputs"),
        (7, "an int"),
        (np.float64(7), "a float64"),
        (np.array(7), "a ndarray|an ndarray"),
        ("ab", "a str"),
        (b"ab", "a bytes"),
        ({0: 1, 1: 2}, "output 0 is an int: expected a sequence of 2 values"),
        ({"a": [1, 2], "b": [1]}, "output 'b' has 1 values for 2 inputs: expected one for each"),
        ({"a": "xy"}, "output 'a' is a str"),
        ({"a": None}, "output 'a' is None"),
        ({}, "returned no output"),
        ({1: [1, 2], "1": [1, 2]}, "two outputs of one name"),
        ({1, 2}, "a set"),
        (iter([1, 2]), "a list_iterator"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_one_output_an_input_fails_the_batch(returned: object, cause: str) -> None:
    with pytest.raises(ModelFailed, match=cause):
        encode_outputs(returned, 2)


NO_TYPE = "no type"


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([1, 2.5], "float64[]"),
        ([1, 2], "float64[]"),
        (np.array([1, 2], np.int32), "int32[]"),
        (np.array([0.5], np.float32), "float32[]"),
        ([np.uint8(1)], "uint8[]"),
        ([b"a"], "bytes"),
        ([memoryview(b"a")], "bytes"),
        ([{"\ud800": 1}], NO_TYPE),
        ([np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32)], "float32[*,4]"),
        ([2.5], "float64[]"),
        (np.ones((2, 3)), "float64[3]"),
        (np.ones((2, 3, 1), int), "int64[3,1]"),
        ([[1, 2.5]], "float64[2]"),
        ([True], "bool[]"),
        (["a"], "string"),
        ([["a"]], NO_TYPE),
        ([[[1, 2], [3]]], NO_TYPE),
        ([[]], None),
        ([None], None),
        ([{"a": 1, "b c": "x", "d": [[0.5]], "e": True}], 'a: float64, "b c": string, d: float64[1,1], e: bool'),
        ([{"a": 1}, {"a": 0.5}], "a: float64"),
        ([{"a": None}], NO_TYPE),
        ([{"a": {}}], NO_TYPE),
        ([{}], NO_TYPE),
        ([{"a": []}], None),
        ([{"a": [], "b": np.ones(2)}], None),
        ([{"a": [], "b": {}}], NO_TYPE),
        # The first decides for all.
        ([{"a": {"b": 1}}, "text"], NO_TYPE),
        (["text", {"a": {"b": 1}}], "string"),
        ([None, {"a": {"b": 1}}], None),
        ([None, np.ones(2, np.float32), "text"], None),
        ([[0.5, None]], "float64[2]"),
        ([{"a": 0.5, "b": np.ones(2)}, {"a": "x", "b": np.ones(3)}], "a: float64, b: float64[2]"),
        ([{"a": ["x"], "b": np.inf}, {"a": 1, "b": 1.0}], NO_TYPE),
        (
            {"a": np.zeros((2, 3), np.float32), "b": np.array([1, 2], np.int16), "c": [b"x", None]},
            "a: float32[3], b: int32, c: bytes?",
        ),
        ({"a": [np.zeros(2, np.float32), np.zeros(0, np.float32)]}, "a: float32[*]"),
        ([{"x" * 256: 1}], NO_TYPE),
        ([2**63], NO_TYPE),
        ([[-(2**63), 2**63 - 1]], "float64[2]"),
        (np.array([2**63], np.uint64), NO_TYPE),
        (np.array([2**63 - 1], np.uint64), "int64[]"),
    ],
)
def test_what_outputs_are_is_learned_from_the_first(outputs: Any, expected: str | None) -> None:
    rows = len(next(iter(outputs.values()))) if isinstance(outputs, dict) else len(outputs)
    try:
        learned = learn_type(encode_outputs(outputs, rows))
    except NoType:
        assert expected == NO_TYPE
    else:
        assert (None if learned is None else str(learned)) == expected


class Gradient:
    """A tensor that refuses to be an array, as those of torch do that have a gradient."""

    def numpy(self) -> Any:
        raise RuntimeError("use detach()")

    def tolist(self) -> list[list[float]]:
        return [[1.0], [2.0]]


ARRAYS = {
    "f2": ("float32", "float64"),
    "f4": ("float32", "float64"),
    ">f4": ("float32", "float64"),
    "f8": ("float64", "float64"),
    "i1": ("int32", "int32"),
    "u2": ("int32", "int32"),
    "i4": ("int32", "int32"),
    "u4": ("int64", "int64"),
    "i8": ("int64", "int64"),
    "u8": ("int64", "int64"),
    "u1": ("uint8", "uint8"),
    "?": ("bool", "bool"),
}


@pytest.mark.parametrize("dtype", ARRAYS)
def test_arrays_stay_arrays(dtype: str) -> None:
    array = (np.arange(12) % 2).reshape(2, 3, 2).astype(dtype)
    for returned in (array, list(array), array[::-1][::-1]):
        encoded = encode_outputs(returned, 2)
        assert encoded.array is not None and encoded.form is not None and encoded.text == b""
        assert np.array_equal(encoded.array, array) and encoded.array.flags.c_contiguous
        assert (encoded.form.dtype.label, encoded.form.written_as.label) == ARRAYS[dtype]
        assert encoded.form.shape == (3, 2)
        assert encoded.array.dtype.byteorder in "=|<"


@pytest.mark.parametrize(
    "returned",
    [
        np.array([1.0, 2.0]),
        [[1.0, 2.0], [3.0, 4.0]],
        np.zeros((2, 0)),
        np.array([["a"], ["b"]]),
        np.array([[2**63], [1]], np.uint64),
        np.ma.masked_array([[1.0], [2.0]], [[True], [False]]),
        np.zeros((2,) + (1,) * 9),
        Gradient(),
    ],
    ids=lambda returned: type(returned).__name__,
)
def test_what_is_no_array_of_a_type_is_text(returned: Any) -> None:
    encoded = encode_outputs(returned, 2)
    assert encoded.array is None and encoded.text.count(b"\n") == 1


def test_an_array_of_too_few_outputs_is_still_a_fault() -> None:
    with pytest.raises(ModelFailed, match="1 outputs for 2 inputs"):
        encode_outputs(np.zeros((1, 3)), 2)


def test_callers_without_types_get_the_texts_of_before() -> None:
    encoded = encode_outputs(np.array([[1.1, 1e-7], [1e20, -0.0]], np.float32), 2)
    assert encoded.lines() == b"[1.100000023841858,1.0000000116860974e-07]\n[1.0000000200408773e+20,-0.0]"
