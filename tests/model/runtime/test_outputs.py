import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.model.runtime.outputs import encode_outputs, learn_type

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


@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize(
    ("value", "name"), [(math.nan, "NaN"), (math.inf, "infinity"), (-math.inf, "-infinity")], ids=str
)
def test_nan_fails_its_row_alone(value: float, name: str, as_array: bool) -> None:
    outputs = [1.0, value, 3.0]
    encoded = encode_outputs(np.array(outputs) if as_array else outputs, 3)
    assert encoded.text == b"1.0\n\n3.0"
    assert encoded.failures == {1: f"output is {name}, which JSON cannot carry"}


def test_nan_inside_an_output_fails_its_row_alone() -> None:
    encoded = encode_outputs(np.array([[1.0, 2.0], [math.nan, 2.0]]), 2)
    assert encoded.lines() == b"[1.0,2.0]\n"
    assert encoded.failures == {1: "output contains NaN or infinity, which JSON cannot carry"}


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
        (10**5000, "int"),
    ],
    ids=["object", "set", "complex", "key", "longdouble", "datetime", "circular", "deep", "huge"],
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
        ({0: 1, 1: 2}, "a dict"),
        ({1, 2}, "a set"),
        (iter([1, 2]), "a list_iterator"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_one_output_an_input_fails_the_batch(returned: object, cause: str) -> None:
    with pytest.raises(ModelFailed, match=cause):
        encode_outputs(returned, 2)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([1, 2.5], "int64[]"),
        ([2.5], "float64[]"),
        (np.ones((2, 3)), "float64[3]"),
        (np.ones((2, 3, 1), int), "int64[3,1]"),
        ([[1, 2.5]], "float64[2]"),
        ([True], "bool[]"),
        (["a"], "string"),
        ([["a"]], None),
        ([[[1, 2], [3]]], None),
        ([[]], None),
        ([None], None),
        ([{"a": 1}], None),
        ([float("nan"), 1.0], None),
    ],
)
def test_what_outputs_are_is_learned_from_the_first(outputs: Any, expected: str | None) -> None:
    learned = learn_type(encode_outputs(outputs, len(outputs)))
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
        [np.array([1.0]), np.array([1.0, 2.0])],
        [np.array([1.0]), np.array([1])],
        [np.array([1.0]), 2],
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
