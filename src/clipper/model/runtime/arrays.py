"""Reads models' return values as arrays of the protocol's types, or as lists."""

from collections.abc import Mapping, Sequence

import numpy as np

from clipper.model.model import Array
from clipper.model.runtime.inputs import NUMPY_DTYPES
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

NUMERIC_KINDS = "biuf"
# The protocol's type for each type of an array, by numpy's code: the narrowest type with all its numbers.
DTYPES = {"f2": DType.FLOAT32, "f4": DType.FLOAT32, "f8": DType.FLOAT64, "u1": DType.UINT8, "b1": DType.BOOL}
DTYPES |= dict.fromkeys(("i1", "i2", "i4", "u2"), DType.INT32) | dict.fromkeys(("i8", "u4", "u8"), DType.INT64)
_MAX_INT64 = 2**63 - 1


def as_array(outputs: object, least_dimensions: int = 2) -> Array | None:
    """Return values as an array of a type of the protocol; None if their types or shapes differ, or do not fit."""
    if isinstance(outputs, list):
        first = outputs[0] if outputs else None
        if type(first) is not np.ndarray or not first.ndim:
            return None
        if any(
            type(each) is not np.ndarray or each.shape != first.shape or each.dtype != first.dtype for each in outputs
        ):
            return None
        array = np.stack(outputs)
    else:
        converted = unwrapped(outputs)
        if type(converted) is not np.ndarray:
            return None
        array = converted
    dtype = dtype_of(array)
    if dtype is None or not least_dimensions <= array.ndim <= MAX_DIMENSIONS + 1 or not array.size:
        return None
    return np.ascontiguousarray(array, NUMPY_DTYPES[dtype])


def dtype_of(array: Array) -> DType | None:
    """Return the protocol's type of an array; None if it has none with all the numbers."""
    if array.dtype == np.uint64 and array.size and array.max() > _MAX_INT64:
        return None
    return DTYPES.get(array.dtype.str[1:])


def type_of_arrays(arrays: Sequence[Array]) -> InputType | None:
    """Return the type of arrays, whose lengths may differ; None if their types or numbers of dimensions differ."""
    first = arrays[0]
    dtypes = set(map(dtype_of, arrays))
    dtype = dtypes.pop()
    if dtypes or dtype is None or first.ndim > MAX_DIMENSIONS:
        return None
    if any(array.ndim != first.ndim for array in arrays):
        return None
    lengths = [set(axis) for axis in zip(*(array.shape for array in arrays))]
    return InputType(dtype, tuple(min(axis) if len(axis) == 1 and min(axis) else None for axis in lengths))


def unwrapped(outputs: object) -> object:
    """Return the array in a tensor or a frame's column; return other outputs unchanged."""
    if isinstance(outputs, (np.ndarray, np.generic, list)):
        return outputs
    for name in ("to_numpy", "numpy"):
        try:
            convert = getattr(outputs, name, None)
            converted = convert() if callable(convert) else None
        except Exception:  # noqa: BLE001  as a tensor that has a gradient does; ``as_list`` knows more ways
            continue
        if type(converted) is np.ndarray and converted.dtype.kind in NUMERIC_KINDS:
            return converted
    return outputs


def as_list(outputs: object) -> object:
    """Return the outputs as a list if they are a sequence of some kind, else None or the outputs unchanged."""
    if isinstance(outputs, list):
        return outputs
    if isinstance(outputs, (str, bytes, bytearray, memoryview, Mapping)):
        return None
    # pandas Series and frames, torch and TensorFlow tensors, and array.array each have one of these methods.
    if not isinstance(outputs, np.generic):
        for name in ("tolist", "to_numpy", "numpy"):
            convert = getattr(outputs, name, None)
            if callable(convert):
                return as_list(converted.tolist() if isinstance(converted := convert(), np.ndarray) else converted)
    return list(outputs) if isinstance(outputs, Sequence) else None


def described(outputs: object) -> str:
    """Return the type of a value with its article, for messages."""
    name = type(outputs).__name__
    return "None" if outputs is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
