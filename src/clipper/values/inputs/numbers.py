"""Turns numbers that are Python objects into a buffer: exactly, and in a single step, since a body has many."""

from types import NoneType
from typing import Any

import msgspec
import numpy as np

from clipper.errors import WrongInput
from clipper.values.types import DType

NUMPY: dict[DType, np.dtype[Any]] = {dtype: np.dtype(dtype.numpy_code) for dtype in DType if dtype.is_numeric}
FLOATS = frozenset({DType.FLOAT32, DType.FLOAT64})
_NUMBERS = frozenset({int, float})
_BOOLEANS = frozenset({bool, int, float})
# A message shows this much of a value, enough to recognise it.
_SHOWN_CHARACTERS = 40


def pack(dtype: DType, values: list[Any], first: int = 0, null_is_nan: bool = False) -> bytes:
    """Return the buffer of these values. ``1`` and ``1.0`` are the same number in any dtype.

    Args:
        values: numbers, or any other JSON values, which are refused.
        first: the position of the first value in the input, for messages.

    Raises:
        WrongInput: a value is not of the dtype; the message says which.
    """
    buffer = _packed(dtype, values, null_is_nan)
    if buffer is None:
        # Bisect, so that finding the wrong value costs no more than reading all.
        while len(values) > 1:
            middle = len(values) // 2
            is_later = _packed(dtype, values[:middle], null_is_nan) is not None
            first, values = (first + middle, values[middle:]) if is_later else (first, values[:middle])
        raise WrongInput(f"input has {show(values[0])} at position {first}: expected {dtype.label}")
    return buffer


def show(value: Any) -> str:
    """Return a short text for a value of a request, for messages."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return msgspec.json.encode(value).decode()[:_SHOWN_CHARACTERS]


def _packed(dtype: DType, values: list[Any], null_is_nan: bool) -> bytes | None:
    """Return the buffer, or None if a value is not of the dtype."""
    kinds = set(map(type, values))
    if null_is_nan and dtype in FLOATS and NoneType in kinds:
        are_null = [value is None for value in values]
        buffer = _packed(dtype, [0.0 if value is None else value for value in values], null_is_nan=False)
        if buffer is None:
            return None
        numbers = np.frombuffer(buffer, NUMPY[dtype]).copy()
        numbers[are_null] = np.nan
        return numbers.tobytes()
    if dtype == DType.BOOL:
        is_right = kinds <= _BOOLEANS and set(values) <= {0, 1}
        return np.array(values, NUMPY[dtype]).tobytes() if is_right else None
    if not kinds <= _NUMBERS:
        return None
    return _packed_floats(dtype, values) if dtype in FLOATS else _packed_integers(dtype, values, float in kinds)


def _packed_floats(dtype: DType, values: list[Any]) -> bytes | None:
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, NUMPY[dtype])
    except OverflowError:
        return None
    return array.tobytes() if np.isfinite(array).all() else None


def _packed_integers(dtype: DType, values: list[Any], has_floats: bool) -> bytes | None:
    if has_floats:
        if not all(float(value).is_integer() for value in values if type(value) is float):
            return None
        values = list(map(int, values))
    try:
        wide = np.array(values, "<i8")
    except OverflowError:
        return None
    narrow = wide.astype(NUMPY[dtype])
    return narrow.tobytes() if (narrow == wide).all() else None
