"""The text of raw numbers: as Python writes them, so that it is the same whoever wrote it."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipper.values.inputs.numbers import NUMPY
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs import json_text as module
from clipper.values.outputs.json_text import json_elements, json_pieces, json_text, most_text_bytes
from clipper.values.types import DType


def shapes(least: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(least, 4), max_size=3).map(tuple)


@st.composite
def arrays(draw: st.DrawFn, least: int = 0) -> "np.ndarray[Any, Any]":
    dtype = draw(st.sampled_from([each for each in DType if each.is_numeric]))
    shape = draw(shapes(least))
    floats = st.floats(width=32 if dtype is DType.FLOAT32 else 64)
    match dtype:
        case DType.FLOAT32 | DType.FLOAT64:
            # Numbers of all sizes, and many of those about which the notation changes.
            numbers: st.SearchStrategy[Any] = floats | st.integers(-10, 20).map(lambda digits: 1.5 * 10.0**digits)
        case DType.BOOL:
            numbers = st.booleans()
        case _:
            bounds = np.iinfo(NUMPY[dtype])
            numbers = st.integers(int(bounds.min), int(bounds.max))
    count = math.prod(shape)
    return np.array(draw(st.lists(numbers, min_size=count, max_size=count)), NUMPY[dtype]).reshape(shape)


def dtype_of(array: "np.ndarray[Any, Any]") -> DType:
    return next(dtype for dtype, layout in NUMPY.items() if layout == array.dtype)


def as_json(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, list):
        return [as_json(each) for each in value]
    return value if value is not None and math.isfinite(value) else None


@given(arrays())
def test_the_text_is_the_one_of_python(array: "np.ndarray[Any, Any]") -> None:
    dtype = dtype_of(array)
    form = OutputForm(dtype, array.shape, DType.FLOAT64 if dtype is DType.FLOAT32 else dtype)
    text = json_text(form, array.tobytes())
    assert text == json.dumps(as_json(array.tolist()), separators=(",", ":")).encode()
    assert len(text) <= most_text_bytes(form)


@given(arrays(least=1), st.integers(1, 5), st.booleans(), st.booleans())
def test_pieces_and_elements_are_those_of_the_text(
    array: "np.ndarray[Any, np.dtype[Any]]", most: int, is_wide: bool, nan_as_text: bool
) -> None:
    dtype = dtype_of(array)
    written_as = DType.FLOAT64 if dtype is DType.FLOAT32 and is_wide else dtype
    form = OutputForm(dtype, array.shape, written_as, nan_as_text)
    before, module.PIECE_ELEMENTS = module.PIECE_ELEMENTS, most
    try:
        pieces = list(json_pieces(form, array.tobytes()))
        elements = list(json_elements(form, array.tobytes()))
    finally:
        module.PIECE_ELEMENTS = before
    text = json_text(form, array.tobytes())
    assert b"".join(pieces) == text
    assert len(pieces) >= array.size / most
    flat = text.translate(None, b"[]") if array.shape else text
    assert b",".join(elements) == flat


@given(arrays(), st.booleans())
def test_nan_and_infinity_may_be_texts(array: "np.ndarray[Any, Any]", is_wide: bool) -> None:
    """Each at its place, and all else as without."""
    dtype = dtype_of(array)
    written_as = DType.FLOAT64 if dtype is DType.FLOAT32 and is_wide else dtype
    plain = json_text(OutputForm(dtype, array.shape, written_as), array.tobytes())
    form = OutputForm(dtype, array.shape, written_as, nan_as_text=True)
    named = json_text(form, array.tobytes())
    assert len(named) <= most_text_bytes(form)
    for name in (b'"NaN"', b'"-Infinity"', b'"Infinity"'):
        named = named.replace(name, b"null")
    assert named == plain
    if array.dtype.kind == "f":
        read = json.loads(json_text(form, array.tobytes()))
        assert np.array_equal(np.array(read, array.dtype).reshape(array.shape), array, equal_nan=True)


@given(arrays())
def test_float32_has_the_shortest_text_that_reads_back_as_it(array: "np.ndarray[Any, Any]") -> None:
    array = np.clip(array.astype(np.float64), -3e38, 3e38).astype(np.float32)
    form = OutputForm(DType.FLOAT32, array.shape, DType.FLOAT32)
    text = json_text(form, array.tobytes())
    assert np.array_equal(np.array(json.loads(text), np.float32).reshape(array.shape), array, equal_nan=True)
    assert len(text) <= most_text_bytes(form)


def test_float32_has_the_digits_that_numpy_finds() -> None:
    random = np.random.default_rng(7)
    bits = random.integers(0x38000000, 0x4C000000, 100_000, dtype=np.uint32)  # 3e-5 to 3e7
    powers = (np.arange(0x38, 0x4C, dtype=np.uint32) << 24) + random.integers(-2, 3, (50, 20)).astype(np.uint32)
    whole = random.integers(-(10**8), 10**8, 10_000).astype(np.float32)
    tenths = np.arange(-2000, 2000, dtype=np.float32) / np.float32(10)
    values = np.concatenate([bits.view(np.float32), powers.view(np.float32).ravel(), whole, tenths])
    text = json_text(OutputForm(DType.FLOAT32, values.shape, DType.FLOAT32), values.tobytes())
    assert text == b"[" + b",".join(values.astype("S16").tolist()) + b"]"


def test_a_float32_as_either_type_has_it() -> None:
    data = np.array([1.1, 1e-7, 3e9], np.float32).tobytes()
    assert json_text(OutputForm(DType.FLOAT32, (3,), DType.FLOAT32), data) == b"[1.1,1e-07,3e+09]"
    as_float64 = b"[1.100000023841858,1.0000000116860974e-07,3000000000.0]"
    assert json_text(OutputForm(DType.FLOAT32, (3,), DType.FLOAT64), data) == as_float64
