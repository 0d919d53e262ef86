"""Turns the body of a PREDICT or a PREDICT_COLUMNS into the inputs of ``predict_batch``."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from clipper.errors import WrongInput
from clipper.model.model import Array, Columns, Inputs, Values
from clipper.model.protocol.columns import PredictColumns
from clipper.model.protocol.messages import Predict
from clipper.model.runtime.kept import KeptMemory
from clipper.values.columns import Column
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType

# The rows of a batch, or the values of a field: both have ``dtype``, ``dimensions``, ``rows`` and their bytes.
Rows = Predict | Column

NUMPY_DTYPES: dict[DType, np.dtype[Any]] = {dtype: np.dtype(dtype.numpy_code) for dtype in DType if dtype.is_numeric}
_DIMENSION = np.dtype("<u4")
# Smaller arrays come from memory that malloc keeps.
_LARGE_BYTES = 1024 * 1024
_COPIES = KeptMemory()


def input_reader(input_type: ValueType) -> Callable[[Predict | PredictColumns], Inputs]:
    """Return a function that turns a batch of ``input_type`` into the model's inputs.

    It raises WrongInput for a batch of another type. That is a fault of the caller, not of the model.
    """
    if isinstance(input_type, RecordType):
        return _record_reader(input_type)
    read = _reader(input_type)
    dtype, dimensions = input_type.dtype, input_type.leading_dimensions

    def checked(batch: Predict | PredictColumns) -> Inputs:
        if isinstance(batch, PredictColumns):
            raise WrongInput(f"model takes {input_type}, got columns: {', '.join(one.name for one in batch.columns)}")
        if batch.dtype is not dtype or batch.dimensions != dimensions:
            raise WrongInput(
                f"model takes {input_type} with {dimensions} dimensions before each row, "
                f"got {batch.dtype.label} with {batch.dimensions}"
            )
        inputs: Inputs = read(batch)
        return inputs

    return checked


def _record_reader(record: RecordType) -> Callable[[Predict | PredictColumns], Columns]:
    readers = [_optional(field) if field.is_nullable else _required(field) for field in record.fields]
    names, types = record.names, [field.type for field in record.fields]

    def read(batch: Predict | PredictColumns) -> Columns:
        if isinstance(batch, Predict):
            raise WrongInput(f"model takes a record ({record}), got rows of {batch.dtype.label}")
        if [column.type for column in batch.columns] != types or tuple(one.name for one in batch.columns) != names:
            got = RecordType(tuple(Field(column.name, column.type) for column in batch.columns))
            raise WrongInput(f"model takes a record ({record}), got the columns {got}")
        return {name: reader(column) for name, reader, column in zip(names, readers, batch.columns)}

    return read


def _required(field: Field) -> Callable[[Column], Values]:
    read = _reader(field.type)

    def read_all(column: Column) -> Values:
        if column.present is not None:
            raise WrongInput(f"the field {field.name} has missing values, but is not nullable")
        values: Values = read(column)
        return values

    return read_all


def _optional(field: Field) -> Callable[[Column], Values]:
    """Return a reader of a field whose values may be missing. The result's type is the same if none is missing.

    Numbers become floats, and a missing number NaN, as when pandas reads a table. Another missing value is None.
    """
    read, dtype = _reader(field.type), field.type.dtype
    is_number = dtype.is_numeric and dtype is not DType.BOOL and not field.type.shape
    as_float = np.dtype(np.float32 if dtype is DType.FLOAT32 else np.float64)

    def read_numbers(column: Column) -> Values:
        numbers = np.asarray(read(column)).astype(as_float, copy=False)
        if column.present is not None:
            numbers[~_flags(column)] = np.nan
        return numbers

    def read_others(column: Column) -> Values:
        # Arrays come in an array of objects, since a list of arrays means a batch of several shapes.
        values = np.full(column.rows, None, object)
        rows = np.flatnonzero(_flags(column)).tolist() if column.present is not None else range(column.rows)
        if rows:
            found = read(column if len(rows) == column.rows else _present(column, rows))
            for row, value in zip(rows, found.tolist() if dtype is DType.BOOL and not field.type.shape else found):
                values[row] = value
        return values if field.type.shape else values.tolist()

    return read_numbers if is_number else read_others


def _flags(column: Column) -> Array:
    flags: Array = (
        np.unpackbits(np.frombuffer(column.present or b"", np.uint8), count=column.rows, bitorder="little") == 1
    )
    return flags


def _present(column: Column, rows: Sequence[int]) -> Column:
    """Return a column with only the rows that are present."""
    values = list(_rows(column))
    lengths = None if column.lengths is None else tuple(column.lengths[row] for row in rows)
    payload = memoryview(b"".join([values[row] for row in rows]))
    return column._replace(rows=len(rows), payload=payload, lengths=lengths, present=None)


def _reader(input_type: InputType) -> Callable[[Rows], Any]:
    if input_type.dtype is DType.STRING:
        return _texts
    if input_type.dtype is DType.BYTES:
        return lambda batch: [bytes(row) for row in _rows(batch)]
    if input_type.row_bytes is not None:
        return _Fixed(input_type)
    return _Flat(input_type) if len(input_type.shape) == 1 else _Shaped(input_type)


def _texts(batch: Rows) -> list[str]:
    try:
        return [str(row, "utf-8") for row in _rows(batch)]
    except UnicodeDecodeError as error:
        raise WrongInput(f"a string input is not UTF-8: {error}") from error


class _Numbers:
    """Lookups that are made once for a model, and not for each batch."""

    __slots__ = ("_dtype", "_element_bytes", "_input_type")

    def __init__(self, input_type: InputType) -> None:
        self._input_type = input_type
        self._dtype = NUMPY_DTYPES[input_type.dtype]
        self._element_bytes = input_type.dtype.size_bytes

    def _array(self, data: bytes | memoryview) -> Array:
        # A copy is aligned, while a frame behind another frame in the same read may not be. And the model may change
        # the copy, while the frame stays unchanged for a second try in halves.
        numbers = np.frombuffer(data, self._dtype)
        if len(data) < _LARGE_BYTES:
            return numbers.copy()
        copied: Array = np.frombuffer(_COPIES.lend(len(data)), self._dtype)
        copied[:] = numbers
        return copied


class _Fixed(_Numbers):
    """Reads rows of the same shape."""

    __slots__ = ("_row_bytes", "_shape")

    def __init__(self, input_type: InputType) -> None:
        super().__init__(input_type)
        self._row_bytes, self._shape = input_type.row_bytes, input_type.shape

    def __call__(self, batch: Rows) -> Array:
        if batch.row_bytes != self._row_bytes:
            raise WrongInput(f"model takes {self._input_type}, rows of {self._row_bytes} bytes: got {_sizes(batch)}")
        return self._array(batch.payload).reshape(batch.rows, *self._shape)


class _Flat(_Numbers):
    """Reads lists, each of any length."""

    __slots__ = ()

    def __call__(self, batch: Rows) -> Array | list[Array]:
        row_bytes, element_bytes = batch.row_bytes, self._element_bytes
        if row_bytes and row_bytes % element_bytes == 0:
            return self._array(batch.payload).reshape(batch.rows, -1)
        lengths = batch.lengths or (row_bytes or 0,)
        if any(length % element_bytes for length in lengths):
            raise WrongInput(f"model takes {self._input_type}, elements of {element_bytes} bytes: got {_sizes(batch)}")
        # row_bytes is 0 for rows of several lengths, and for rows that are all empty.
        if not any(lengths):
            return self._array(batch.payload).reshape(batch.rows, 0)
        return [self._array(row) for row in _rows(batch)]


class _Shaped(_Numbers):
    """Reads rows that begin with their own shape."""

    __slots__ = ()

    def __call__(self, batch: Rows) -> Array | list[Array]:
        arrays = [self._with_own_shape(row) for row in _rows(batch)]
        first = arrays[0].shape
        return np.stack(arrays) if all(array.shape == first for array in arrays) else arrays

    def _with_own_shape(self, row: bytes | memoryview) -> Array:
        declared = self._input_type.shape
        head_bytes = 4 * len(declared)
        if len(row) < head_bytes:
            raise WrongInput(f"a row of {len(row)} bytes ends inside its dimensions")
        shape: tuple[int, ...] = tuple(np.frombuffer(row[:head_bytes], _DIMENSION).tolist())
        if not all(want is None or want == got for want, got in zip(declared, shape)):
            raise WrongInput(f"model takes {self._input_type}, got a row of shape {list(shape)}")
        if math.prod(shape) * self._element_bytes != len(row) - head_bytes:
            raise WrongInput(f"a row of shape {list(shape)} has {len(row) - head_bytes} bytes")
        return self._array(row[head_bytes:]).reshape(shape)


def _rows(batch: Rows) -> Iterator[bytes | memoryview]:
    start = 0
    for length in batch.lengths or (batch.row_bytes or 0,) * batch.rows:
        yield batch.payload[start : start + length]
        start += length


def _sizes(batch: Rows) -> str:
    return (
        f"rows of {batch.row_bytes} bytes"
        if batch.row_bytes
        else f"rows of {sorted(set(batch.lengths or ()))[:8]} bytes"
    )
