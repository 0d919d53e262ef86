"""PREDICT_COLUMNS and COLUMN_RESULTS: a batch of records, as a buffer for each field.

See proto/container-protocol.md.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from clipper.errors import InvalidArgument, ModelFailed, ProtocolViolation
from clipper.model.protocol.frames import Kind, header
from clipper.model.protocol.messages import (
    MAX_ROWS,
    MAX_TRACE_BYTES,
    Buffer,
    pack_failures,
    read_failures,
)
from clipper.values.columns import Column
from clipper.values.records import MAX_FIELDS
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

_PREDICT = struct.Struct("<IHHII")  # rows, columns, reserved, trace bytes, reserved
_RESULTS = struct.Struct("<IIQHHI")  # rows, failed rows, evaluation time in microseconds, columns, two reserved
_COLUMN = struct.Struct("<BBBBHH")  # dtype, dimensions, has present bits, written as, name bytes, reserved
# Joining the parts of a smaller frame is quicker than writing each.
_JOINED_BYTES = 64 * 1024

_DTYPES = {int(dtype): dtype for dtype in DType}
_PADDING = [bytes(size) for size in range(8)]


class PredictColumns(NamedTuple):
    """A batch of records as it arrived. ``columns`` are in the order of the model's fields."""

    rows: int
    columns: tuple[Column, ...]
    trace: bytes = b""


class ColumnResults(NamedTuple):
    """The answer to a batch whose outputs are records.

    Attributes:
        columns: the values of each named output. Values of failed rows mean nothing.
        evaluation_us: how long the model took, in microseconds.
        failures: row to error message.
    """

    rows: int
    columns: tuple[Column, ...]
    evaluation_us: int
    failures: Mapping[int, str]


def encode_predict_columns(batch_id: int, columns: Sequence[Column], trace: bytes = b"") -> list[Buffer]:
    """Return the frame as buffers to write one after another.

    ``columns``: at least one, all with the same number of rows, 1 to ``MAX_ROWS``. ``trace``: as in ``add_trace``.
    """
    return predict_columns_frame(batch_id, columns[0].rows, len(columns), [b"", b"", *_parts(columns)], trace)


def predict_columns_frame(
    batch_id: int, rows: int, columns: int, parts: list[Buffer], trace: bytes = b""
) -> list[Buffer]:
    """Return the frame of a batch whose columns are encoded. ``parts``: two empty buffers, and then the columns'."""
    parts[1] = _PREDICT.pack(rows, columns, 0, len(trace), 0)
    parts.append(trace)
    return _framed(Kind.PREDICT_COLUMNS, batch_id, parts)


def encode_column_results(
    batch_id: int, columns: Sequence[Column], evaluation_us: int = 0, failures: Mapping[int, str] | None = None
) -> list[Buffer]:
    """Return the frame as buffers to write one after another. ``failures``: row to message, of rows without output."""
    failed = failures or {}
    head = _RESULTS.pack(columns[0].rows, len(failed), evaluation_us, len(columns), 0, 0)
    return _framed(Kind.COLUMN_RESULTS, batch_id, [b"", head, *_parts(columns), pack_failures(failed)])


def decode_predict_columns(body: Buffer) -> PredictColumns:
    """Decode a PREDICT_COLUMNS. Raises ProtocolViolation if the sizes do not add up, or a field is not valid."""
    view = memoryview(body)
    if len(view) < _PREDICT.size:
        raise ProtocolViolation(f"PREDICT_COLUMNS of {len(view)} bytes is too short: expected at least {_PREDICT.size}")
    rows, count, reserved, trace_bytes, reserved_too = _PREDICT.unpack_from(view)
    if reserved or reserved_too or trace_bytes > min(len(view) - _PREDICT.size, MAX_TRACE_BYTES):
        raise ProtocolViolation(
            f"PREDICT_COLUMNS has a trace of {trace_bytes} bytes, or a reserved field that is not 0"
        )
    end = len(view) - trace_bytes
    columns, last = _read_columns(view[:end], _PREDICT.size, rows, count)
    if last != end:
        raise ProtocolViolation(f"PREDICT_COLUMNS has {end - last} bytes after its columns")
    return PredictColumns(rows, columns, bytes(view[end:]))


def decode_column_results(body: Buffer) -> ColumnResults:
    """Decode a COLUMN_RESULTS. It does not look at the values.

    Raises:
        ModelFailed: the body is not valid. The batch has failed, and other frames can still be read.
    """
    view = memoryview(body)
    try:
        if len(view) < _RESULTS.size:
            raise ProtocolViolation(f"a body of {len(view)} bytes is too short: expected at least {_RESULTS.size}")
        rows, failed, evaluation_us, count, reserved, reserved_too = _RESULTS.unpack_from(view)
        if reserved or reserved_too or failed > rows:
            raise ProtocolViolation(f"it has {failed} failures in {rows} rows, or a reserved field that is not 0")
        columns, start = _read_columns(view, _RESULTS.size, rows, count)
        failures, last = read_failures(view, start, rows, failed)
        if last != len(view):
            raise ProtocolViolation(f"it has {len(view) - last} bytes after its failures")
    except ProtocolViolation as error:
        raise ModelFailed(f"the container's COLUMN_RESULTS is not valid: {error}") from error
    return ColumnResults(rows, columns, evaluation_us, failures)


def _framed(kind: Kind, batch_id: int, parts: list[Buffer]) -> list[Buffer]:
    """``parts``: an empty buffer, and then the body's."""
    size = sum(map(len, parts))
    parts[0] = header(kind, size, batch_id)
    return [b"".join(parts)] if size <= _JOINED_BYTES else parts


def _parts(columns: Sequence[Column]) -> Iterator[Buffer]:
    for name, of_type, rows, payload, lengths, present, written_as in columns:
        yield column_head(name, of_type, present is not None, written_as or of_type.dtype)
        if present is not None:
            yield present
            yield _PADDING[-len(present) % 8]
        if lengths is not None:
            yield struct.pack(f"<{rows}I{4 * (rows % 2)}x", *lengths)
        yield payload
        if len(payload) % 8:
            yield _PADDING[-len(payload) % 8]


# The heads of columns, which are the same in each batch. A worker has some models with some tens of fields each.
@lru_cache(4096)
def column_head(name: str, of_type: InputType, has_present: bool, written_as: DType) -> bytes:
    """Return what a column begins with, before its bits, lengths and values."""
    shape, text = [size or 0 for size in of_type.shape], name.encode()
    head = _COLUMN.pack(of_type.dtype, len(shape), has_present, written_as, len(text), 0)
    head += struct.pack(f"<{len(shape)}I", *shape) + text
    return head + bytes(-len(head) % 8)


def _read_columns(view: memoryview, start: int, rows: int, count: int) -> tuple[tuple[Column, ...], int]:
    """Return the columns that begin at ``start``, and where they end."""
    if not 1 <= rows <= MAX_ROWS or not 1 <= count <= MAX_FIELDS:
        raise ProtocolViolation(
            f"a batch has {rows} rows of {count} columns: expected 1 to {MAX_ROWS} rows, and 1 to {MAX_FIELDS} columns"
        )
    columns = []
    for _ in range(count):
        column, start = _read_column(view, start, rows)
        columns.append(column)
    if len({column.name for column in columns}) != count:
        raise ProtocolViolation("two columns have the same name")
    return tuple(columns), start


def _read_column(view: memoryview, start: int, rows: int) -> tuple[Column, int]:
    head, start = _take(view, start, _COLUMN.size)
    dimensions, name_bytes = head[1], head[4] | head[5] << 8
    named, start = _take(view, start, -(-(4 * dimensions + name_bytes) // 8) * 8)
    # Nobody has fields of such long names, and a cache of them would take too much.
    describe = _described if len(named) <= _KEPT_BYTES else _described.__wrapped__
    name, of_type, has_present, written_as, size = describe(bytes(head), bytes(named))
    present: bytes | None = None
    if has_present:
        bits, start = _take(view, start, -(-rows // 64) * 8)
        present = bytes(bits[: -(-rows // 8)])
    lengths: tuple[int, ...] | None = None
    if size is None:
        table, start = _take(view, start, (rows + rows % 2) * 4)
        lengths = struct.unpack_from(f"<{rows}I", table)
    total = rows * size if size is not None else sum(lengths or ())
    padded, start = _take(view, start, -(-total // 8) * 8)
    return Column(name, of_type, rows, padded[:total], lengths, present, written_as), start


# A record's names have at most 255 bytes, and a shape 32.
_KEPT_BYTES = 288


# Each batch of a model begins its columns alike. A process has some models with some tens of fields each.
@lru_cache(4096)
def _described(head: bytes, named: bytes) -> tuple[str, InputType, int, DType, int | None]:
    """Return a column's name, type, whether it has present bits, as which type JSON has it, and its values' size."""
    code, dimensions, has_present, written_code, name_bytes, reserved = _COLUMN.unpack(head)
    dtype, written_as = _DTYPES.get(code), _DTYPES.get(written_code)
    if dtype is None or dimensions > MAX_DIMENSIONS or has_present > 1 or reserved or not name_bytes:
        raise ProtocolViolation(
            f"a column has type {code}, {dimensions} dimensions and a name of {name_bytes} bytes, or a reserved field "
            f"that is not 0: expected a type from 1 to 8, at most {MAX_DIMENSIONS} dimensions, and a name"
        )
    if written_as not in (dtype, DType.FLOAT64 if dtype is DType.FLOAT32 else dtype):
        raise ProtocolViolation(f"a column of {dtype.label} is written as type {written_code}: expected {int(dtype)}")
    lengths_bytes = 4 * dimensions
    try:
        sizes = struct.unpack_from(f"<{dimensions}I", named)
        of_type = InputType(dtype, tuple(size or None for size in sizes))
        name = str(named[lengths_bytes : lengths_bytes + name_bytes], "utf-8")
    except (UnicodeDecodeError, InvalidArgument) as error:
        raise ProtocolViolation(f"a column's name or shape is not valid: {error}") from error
    return name, of_type, has_present, written_as or dtype, of_type.row_bytes


def _take(view: memoryview, start: int, size: int) -> tuple[memoryview, int]:
    end = start + size
    if end > len(view):
        raise ProtocolViolation(f"the body ends inside a column, {end - len(view)} bytes too early")
    return view[start:end], end
