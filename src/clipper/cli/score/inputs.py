"""Makes blocks of inputs, as the container protocol has them, of the columns or rows of a table."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clipper.errors import ClipperError, RequestError
from clipper.model.protocol.columns import encode_predict_columns
from clipper.model.protocol.cutting import encode_predict_payload
from clipper.model.protocol.messages import Buffer, encode_predict
from clipper.values.columns import Column
from clipper.values.inputs.cells import input_of_texts, list_of
from clipper.values.inputs.record_reader import RecordReader, reader_of
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType

_NUMPY = {dtype: np.dtype(dtype.numpy_code) for dtype in DType if dtype.is_numeric}


class Inputs(NamedTuple):
    """The inputs of some rows of a table.

    Attributes:
        frame: a batch of the rows that can be read; empty if none can.
        errors: row to the error of a row that cannot be read.
    """

    frame: bytes
    errors: Mapping[int, str] = {}


class InputMaker:
    """Makes inputs of one type."""

    def __init__(self, input_type: ValueType) -> None:
        self.type = input_type
        self._reader = reader_of(input_type, ignores_unknown=True)
        self._rows = RecordRows(input_type) if isinstance(input_type, RecordType) else None
        # The reader's buffers serve one call at a time. A reader for each thread would gain nothing: threads would take
        # turns.
        self._one_at_a_time = threading.Lock()

    def of_lines(self, lines: Sequence[bytes]) -> Inputs:
        """Return the inputs of lines, each of which is JSON."""
        return self._of_each(lines, self._reader.read)

    def of_texts(self, rows: Sequence[Mapping[str, str]]) -> Inputs:
        """Return the inputs of rows of CSV. ``rows``: the texts of each row by the names of its columns."""
        return self._of_each(rows, lambda texts: self._row_of(input_of_texts(texts, self.type)))

    def of_values(self, rows: Sequence[Mapping[str, Any]]) -> Inputs:
        """Return the inputs of rows as Python has them."""
        is_record = isinstance(self.type, RecordType)
        return self._of_each(
            rows, lambda row: self._row_of(row if is_record else list_of(list(row.values()), self.type))
        )

    def of_batch(self, batch: Any) -> Inputs | None:
        """Return the inputs of a batch of pyarrow, in the table's order; None if each row needs a step of its own."""
        try:
            if isinstance(self.type, RecordType):
                columns = dict(zip(batch.schema.names, batch.columns))
                if any(field.name not in columns for field in self.type.fields):
                    return None
                made = [_column(field, columns[field.name]) for field in self.type.fields]
                return Inputs(b"".join(encode_predict_columns(0, made)))
            payload, rows = _matrix(self.type, batch)
            size = self.type.row_bytes or 0
            return Inputs(b"".join(encode_predict_payload(0, self.type.dtype, 0, rows, size, (), payload)))
        except (_NeedsEachRow, ValueError, TypeError, OverflowError):  # pyarrow's errors are ValueErrors or TypeErrors
            return None

    def _row_of(self, value: Any) -> bytes:
        if isinstance(self._reader, RecordReader):
            return self._reader.row_of(value)
        return self._reader.read(msgspec.json.encode(value))

    def _of_each(self, rows: Sequence[Any], read: Any) -> Inputs:
        found: list[bytes] = []
        errors: dict[int, str] = {}
        with self._one_at_a_time:
            for number, row in enumerate(rows):
                try:
                    found.append(read(row))
                except (ClipperError, ValueError, TypeError, OverflowError) as error:
                    code = error.code if isinstance(error, ClipperError) else RequestError.code
                    errors[number] = f"{code}: {error}"
        if not found:
            return Inputs(b"", errors)
        frame: Sequence[Buffer]
        if self._rows is not None:
            frame = encode_predict_columns(0, self._rows.columns(found))
        else:
            assert isinstance(self.type, InputType)
            frame = encode_predict(0, self.type.dtype, self.type.leading_dimensions, found)
        return Inputs(b"".join(frame), errors)


class _NeedsEachRow(Exception):
    """A column has values that have to be read one by one."""


def _matrix(of_type: InputType, batch: Any) -> tuple[memoryview, int]:
    """Return the values of columns that are the elements of tensors, row by row; and the number of rows.

    Nothing here is done for each column of each batch: there may be thousands. pyarrow refuses missing values.
    """
    dtype = of_type.dtype
    if not dtype.is_numeric or dtype is DType.BOOL or of_type.row_bytes is None or len(of_type.shape) > 1:
        raise _NeedsEachRow
    if batch.num_columns != of_type.elements:
        raise _NeedsEachRow
    for kind in set(batch.schema.types):
        of = _numpy_of(kind)
        if not np.can_cast(of, _NUMPY[dtype], "same_kind") or (of.kind == "f" and _NUMPY[dtype].kind != "f"):
            raise _NeedsEachRow
    matrix = batch.to_tensor().to_numpy()
    return np.ascontiguousarray(matrix, _NUMPY[dtype]).data.cast("B"), len(matrix)


def _column(field: Field, column: Any) -> Column:
    """Return a field's values for a batch. ``column``: an array of pyarrow."""
    rows, of_type = len(column), field.type
    if of_type.shape or field.categories or of_type.dtype is DType.BYTES:
        raise _NeedsEachRow
    present, flags = None, None
    if column.null_count:
        if not field.is_nullable:
            raise _NeedsEachRow
        flags = _bits(column, column.buffers()[0])
        present = np.packbits(flags, bitorder="little").tobytes()
    if of_type.dtype is DType.STRING:
        data, offsets = _texts(column)
        return Column(field.name, of_type, rows, data, tuple(np.diff(offsets).tolist()), present)
    wanted = _NUMPY[of_type.dtype]
    is_truth = str(column.type) == "bool"
    if is_truth != (of_type.dtype is DType.BOOL):
        raise _NeedsEachRow
    buffer = column.buffers()[1]
    if is_truth:
        values = _bits(column, buffer)
    else:
        values = np.frombuffer(buffer, _numpy_of(column.type))[column.offset : column.offset + rows]
    if flags is not None:
        values = np.where(flags, values, values.dtype.type(0))
    if wanted.kind in "iu" and (values.dtype.kind == "f" or (rows and not _fits(values, wanted))):
        raise _NeedsEachRow
    return Column(field.name, of_type, rows, np.ascontiguousarray(values, wanted).data.cast("B"), None, present)


def _numpy_of(kind: Any) -> "np.dtype[Any]":
    """Return numpy's type for numbers of pyarrow. pyarrow's own conversions import pandas, if it is there, which takes
    as long as a million rows."""
    import pyarrow as pa

    if not pa.types.is_integer(kind) and not pa.types.is_floating(kind):
        raise _NeedsEachRow
    letter = "f" if pa.types.is_floating(kind) else "i" if pa.types.is_signed_integer(kind) else "u"
    return np.dtype(f"{letter}{kind.bit_width // 8}")


def _bits(column: Any, buffer: Any) -> "np.ndarray[Any, Any]":
    """Return a column's truths, or which of its values are there."""
    end = column.offset + len(column)
    return np.unpackbits(np.frombuffer(buffer, np.uint8), count=end, bitorder="little")[column.offset :].view(bool)


def _fits(values: "np.ndarray[Any, Any]", wanted: "np.dtype[Any]") -> bool:
    bounds = np.iinfo(wanted)
    return bounds.min <= int(values.min()) and int(values.max()) <= bounds.max


def _texts(column: Any) -> tuple[bytes, "np.ndarray[Any, Any]"]:
    """Return the bytes of all texts of a column, and where each begins."""
    if not str(column.type) == "string":
        raise _NeedsEachRow
    _, offsets, data = column.buffers()
    places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    whole = b"" if data is None else memoryview(data)[int(places[0]) : int(places[-1])].tobytes()
    return whole, places
