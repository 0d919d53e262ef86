"""The body of a PREDICT to what ``predict_batch`` takes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from clipper.containers.protocol.messages import Predict
from clipper.errors import WrongInput
from clipper.runtime.model import Array, Inputs
from clipper.types import DType, InputType, Shape

_NUMPY_DTYPES: dict[DType, np.dtype[Any]] = {
    DType.INT32: np.dtype("<i4"),
    DType.INT64: np.dtype("<i8"),
    DType.FLOAT32: np.dtype("<f4"),
    DType.FLOAT64: np.dtype("<f8"),
    DType.UINT8: np.dtype("u1"),
    DType.BOOL: np.dtype("?"),
}
_DIMENSION = np.dtype("<u4")


def input_reader(input_type: InputType) -> Callable[[Predict], Inputs]:
    """Return what makes a batch of ``input_type`` into the model's inputs.

    It raises WrongInput for a batch that is not of that type: a fault of the caller, not of the model.
    """
    read = _reader(input_type)
    dtype = input_type.dtype
    dimensions = _dimensions_on_wire(input_type)

    def checked(batch: Predict) -> Inputs:
        if batch.dtype is not dtype or batch.dimensions != dimensions:
            raise WrongInput(
                f"model takes {input_type} with {dimensions} dimensions before each row, "
                f"got {batch.dtype.label} with {batch.dimensions}"
            )
        return read(batch)

    return checked


def _reader(input_type: InputType) -> Callable[[Predict], Inputs]:
    if input_type.dtype is DType.STRING:
        return _texts
    if input_type.dtype is DType.BYTES:
        return _byte_strings
    if input_type.row_bytes is not None:
        return lambda batch: _fixed(batch, input_type)
    if len(input_type.shape) == 1:
        return lambda batch: _flat(batch, input_type)
    return lambda batch: _shaped(batch, input_type)


def _dimensions_on_wire(input_type: InputType) -> int:
    # A list's only dimension follows from its size.
    return len(input_type.shape) if None in input_type.shape and len(input_type.shape) > 1 else 0


def _texts(batch: Predict) -> list[str]:
    try:
        return [str(row, "utf-8") for row in _rows(batch)]
    except UnicodeDecodeError as error:
        raise WrongInput(f"a string input is not UTF-8: {error}") from error


def _byte_strings(batch: Predict) -> list[bytes]:
    return [bytes(row) for row in _rows(batch)]


def _fixed(batch: Predict, input_type: InputType) -> Array:
    if batch.row_bytes != input_type.row_bytes:
        raise WrongInput(f"model takes {input_type}, rows of {input_type.row_bytes} bytes: got {_sizes(batch)}")
    return _array(batch.payload, input_type.dtype).reshape(batch.rows, *input_type.shape)


def _flat(batch: Predict, input_type: InputType) -> Array | list[Array]:
    size_bytes = input_type.dtype.size_bytes
    if any(length % size_bytes for length in batch.lengths or (batch.row_bytes or 0,)):
        raise WrongInput(f"model takes {input_type}, elements of {size_bytes} bytes: got {_sizes(batch)}")
    # Rows are empty where all have one length and it is not in row_bytes.
    if batch.row_bytes or not any(batch.lengths or ()):
        return _array(batch.payload, input_type.dtype).reshape(batch.rows, -1 if batch.row_bytes else 0)
    return [_array(row, input_type.dtype) for row in _rows(batch)]


def _shaped(batch: Predict, input_type: InputType) -> Array | list[Array]:
    arrays = [_with_own_shape(row, input_type) for row in _rows(batch)]
    first = arrays[0].shape
    return np.stack(arrays) if all(array.shape == first for array in arrays) else arrays


def _with_own_shape(row: memoryview, input_type: InputType) -> Array:
    head_bytes = 4 * len(input_type.shape)
    if len(row) < head_bytes:
        raise WrongInput(f"a row of {len(row)} bytes ends inside its dimensions")
    shape: tuple[int, ...] = tuple(np.frombuffer(row[:head_bytes], _DIMENSION).tolist())
    if not _fits(shape, input_type.shape):
        raise WrongInput(f"model takes {input_type}, got a row of shape {list(shape)}")
    if math.prod(shape) * input_type.dtype.size_bytes != len(row) - head_bytes:
        raise WrongInput(f"a row of shape {list(shape)} has {len(row) - head_bytes} bytes")
    return _array(row[head_bytes:], input_type.dtype).reshape(shape)


def _fits(shape: tuple[int, ...], declared: Shape) -> bool:
    return all(want is None or want == got for want, got in zip(declared, shape))


def _array(data: memoryview, dtype: DType) -> Array:
    # A copy: aligned, which the frame need not be behind another in one read, and the model's to change, while the
    # frame stays as it came for a second try in parts.
    return np.frombuffer(data, _NUMPY_DTYPES[dtype]).copy()


def _rows(batch: Predict) -> Iterator[memoryview]:
    start = 0
    for length in batch.lengths or (batch.row_bytes or 0,) * batch.rows:
        yield batch.payload[start : start + length]
        start += length


def _sizes(batch: Predict) -> str:
    return (
        f"rows of {batch.row_bytes} bytes"
        if batch.row_bytes
        else f"rows of {sorted(set(batch.lengths or ()))[:8]} bytes"
    )
