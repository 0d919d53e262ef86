"""PREDICT_COLUMNS and COLUMN_RESULTS: a batch of records, as a buffer for each field.

See proto/container-protocol.md.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from clipper.errors import InvalidArgument, ModelFailed, ProtocolViolation
from clipper.model.protocol.frames import Kind, header
from clipper.model.protocol.messages import (
    MAX_ROWS,
    MAX_TRACE_BYTES,
    Buffer,
    Results,
    decode_results,
    pack_failures,
    read_failures,
)
from clipper.model.protocol.typed import decode_typed_results
from clipper.values.columns import Column
from clipper.values.output_arrays import LARGE_RESULTS_BYTES, TypedResults
from clipper.values.records import MAX_FIELD_NAME_BYTES, MAX_FIELDS
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
    """The answer to a batch whose outputs are records. ``columns``: the values of each named output, or of outputs
    without a name, whose column has the name "". Columns of one name have the values of different rows. Values of
    failed rows mean nothing.
    """

    rows: int
    columns: tuple[Column, ...]
    evaluation_us: int
    failures: Mapping[int, str]

    @property
    def size_bytes(self) -> int:
        return sum(len(column.payload) for column in self.columns)

    @property
    def is_large(self) -> bool:
        return self.size_bytes > LARGE_RESULTS_BYTES


def encode_predict_columns(batch_id: int, columns: Sequence[Column], trace: bytes = b"") -> list[Buffer]:
    """Return the frame as buffers. ``columns``: all of 1 to ``MAX_ROWS`` rows. ``trace``: as in ``add_trace``."""
    return predict_columns_frame(batch_id, columns[0].rows, len(columns), list(_parts(columns)), trace)


def predict_columns_frame(
    batch_id: int, rows: int, columns: int, parts: Sequence[Buffer], trace: bytes = b"", *, is_short: bool = False
) -> list[Buffer]:
    """Return the frame of a batch whose columns are encoded. ``parts``: the columns' buffers.

    ``is_short``: whether joining the parts is certainly better. Counting the bytes of many parts takes as long.
    """
    head = _PREDICT.pack(rows, columns, 0, len(trace), 0)
    if is_short:
        body = b"".join((head, *parts, trace))
        return [header(Kind.PREDICT_COLUMNS, len(body), batch_id) + body]
    return _framed(Kind.PREDICT_COLUMNS, batch_id, [b"", head, *parts, trace])


def encode_column_results(
    batch_id: int, columns: Sequence[Column], evaluation_us: int = 0, failures: Mapping[int, str] | None = None
) -> list[Buffer]:
    """Return the frame as buffers to write one after another. ``failures``: row to message, of rows without output."""
    failed = failures or {}
    head = _RESULTS.pack(columns[0].rows, len(failed), evaluation_us, len(columns), 0, 0)
    return _framed(Kind.COLUMN_RESULTS, batch_id, [b"", head, *_parts(columns), pack_failures(failed)])


def decode_predict_columns(body: Buffer) -> PredictColumns:
    """Decode a PREDICT_COLUMNS. Raises ProtocolViolation if the sizes do not add up, or a field is not valid."""
    rows, columns, trace = read_predict_columns(body)
    return PredictColumns(rows, tuple(columns), trace)


def read_predict_columns(body: Buffer) -> tuple[int, Iterator[Column], bytes]:
    """Begin to decode a PREDICT_COLUMNS: return its rows, its columns, and its trace.

    Each column is decoded when it is read. Both raise as ``decode_predict_columns``.
    """
    view = memoryview(body)
    if len(view) < _PREDICT.size:
        raise ProtocolViolation(f"PREDICT_COLUMNS of {len(view)} bytes is too short: expected at least {_PREDICT.size}")
    rows, count, reserved, trace_bytes, reserved_too = _PREDICT.unpack_from(view)
    if reserved or reserved_too or trace_bytes > min(len(view) - _PREDICT.size, MAX_TRACE_BYTES):
        raise ProtocolViolation(
            f"PREDICT_COLUMNS has a trace of {trace_bytes} bytes, or a reserved field that is not 0"
        )
    end = len(view) - trace_bytes
    return rows, _predict_columns(view[:end], rows, count), bytes(view[end:])


def _predict_columns(view: memoryview, rows: int, count: int) -> Iterator[Column]:
    _check_counts(rows, count)
    names, start = set(), _PREDICT.size
    for _ in range(count):
        column, start = _read_column(view, start, rows)
        if column.name in names or not column.name or column.is_json:
            raise ProtocolViolation("two columns have the same name, or one has no name, or JSON for a string")
        names.add(column.name)
        yield column
    if start != len(view):
        raise ProtocolViolation(f"PREDICT_COLUMNS has {len(view) - start} bytes after its columns")


def decode_column_results(body: Buffer) -> ColumnResults:
    """Decode a COLUMN_RESULTS, not its values. Raises ModelFailed, after which other frames can be read."""
    view = memoryview(body)
    try:
        if len(view) < _RESULTS.size:
            raise ProtocolViolation(f"a body of {len(view)} bytes is too short: expected at least {_RESULTS.size}")
        rows, failed, evaluation_us, count, reserved, reserved_too = _RESULTS.unpack_from(view)
        if reserved or reserved_too or failed > rows:
            raise ProtocolViolation(f"it has {failed} failures in {rows} rows, or a reserved field that is not 0")
        _check_counts(rows, count)
        columns, start = list[Column](), _RESULTS.size
        for _ in range(count):
            column, start = _read_column(view, start, rows)
            columns.append(column)
        _check_names(columns)
        failures, last = read_failures(view, start, rows, failed)
        if last != len(view):
            raise ProtocolViolation(f"it has {len(view) - last} bytes after its failures")
    except ProtocolViolation as error:
        raise ModelFailed(f"the container's COLUMN_RESULTS is not valid: {error}") from error
    return ColumnResults(rows, tuple(columns), evaluation_us, failures)


def _framed(kind: Kind, batch_id: int, parts: list[Buffer]) -> list[Buffer]:
    """``parts``: an empty buffer, and then the body's."""
    size = sum(map(len, parts))
    parts[0] = header(kind, size, batch_id)
    return [b"".join(parts)] if size <= _JOINED_BYTES else parts


def _parts(columns: Sequence[Column]) -> Iterator[Buffer]:
    for name, of_type, rows, payload, lengths, present, written_as, is_json in columns:
        yield column_head(name, of_type, present is not None, 0 if is_json else written_as or of_type.dtype)
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
def column_head(name: str, of_type: InputType, has_present: bool, written_as: int) -> bytes:
    """Return what a column begins with, before its bits, lengths and values. ``written_as`` is 0 for JSON texts."""
    shape, text = [size or 0 for size in of_type.shape], name.encode()
    head = _COLUMN.pack(of_type.dtype, len(shape), has_present, written_as, len(text), 0)
    head += struct.pack(f"<{len(shape)}I", *shape) + text
    return head + bytes(-len(head) % 8)


def _check_counts(rows: int, count: int) -> None:
    if not 1 <= rows <= MAX_ROWS or not 1 <= count <= MAX_FIELDS:
        raise ProtocolViolation(
            f"a batch has {rows} rows of {count} columns: expected 1 to {MAX_ROWS} rows, and 1 to {MAX_FIELDS} columns"
        )


def _check_names(columns: Sequence[Column]) -> None:
    names = [column.name for column in columns]
    if len(set(names)) < len(names) and any(
        column.present is None for column in columns if names.count(column.name) > 1
    ):
        raise ProtocolViolation("two columns have the same name, and do not say which rows each has")
    if "" in names and any(names):
        raise ProtocolViolation("a column has no name beside columns that have one")


def _read_column(view: memoryview, start: int, rows: int) -> tuple[Column, int]:
    head, start = _take(view, start, _COLUMN.size)
    dimensions, name_bytes = head[1], head[4] | head[5] << 8
    if name_bytes > MAX_FIELD_NAME_BYTES:  # what remembers names relies on this
        raise ProtocolViolation(f"a column's name has {name_bytes} bytes: expected at most {MAX_FIELD_NAME_BYTES}")
    named, start = _take(view, start, -(-(4 * dimensions + name_bytes) // 8) * 8)
    name, of_type, has_present, written_as, is_json, size = _described(bytes(head), bytes(named))
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
    return Column(name, of_type, rows, padded[:total], lengths, present, written_as, is_json), start


# Each batch of a model begins its columns alike. A process has some models with some tens of fields each.
@lru_cache(4096)
def _described(head: bytes, named: bytes) -> tuple[str, InputType, int, DType, bool, int | None]:
    """Return a column's name, type, whether it has present bits, its type in JSON, if it is JSON, and its size."""
    code, dimensions, has_present, written_code, name_bytes, reserved = _COLUMN.unpack(head)
    dtype, written_as = _DTYPES.get(code), _DTYPES.get(written_code)
    if dtype is None or dimensions > MAX_DIMENSIONS or has_present > 1 or reserved:
        raise ProtocolViolation(
            f"a column has type {code} and {dimensions} dimensions, or a reserved field that is not 0: "
            f"expected a type from 1 to 8, and at most {MAX_DIMENSIONS} dimensions"
        )
    is_json = dtype is DType.STRING and not written_code
    if not is_json and written_as not in (dtype, DType.FLOAT64 if dtype is DType.FLOAT32 else dtype):
        raise ProtocolViolation(f"a column of {dtype.label} is written as type {written_code}: expected {int(dtype)}")
    lengths_bytes = 4 * dimensions
    try:
        sizes = struct.unpack_from(f"<{dimensions}I", named)
        of_type = InputType(dtype, tuple(size or None for size in sizes))
        name = str(named[lengths_bytes : lengths_bytes + name_bytes], "utf-8")
    except (UnicodeDecodeError, InvalidArgument) as error:
        raise ProtocolViolation(f"a column's name or shape is not valid: {error}") from error
    return name, of_type, has_present, written_as or dtype, is_json, of_type.row_bytes


def _take(view: memoryview, start: int, size: int) -> tuple[memoryview, int]:
    end = start + size
    if end > len(view):
        raise ProtocolViolation(f"the body ends inside a column, {end - len(view)} bytes too early")
    return view[start:end], end


# The answer to a batch: texts, an array, or columns of named outputs; and what decodes the body of each kind.
BatchResults = Results | TypedResults | ColumnResults
RESULTS_DECODERS: Mapping[int, Callable[[Buffer], BatchResults]] = {
    Kind.RESULTS: decode_results,
    Kind.TYPED_RESULTS: decode_typed_results,
    Kind.COLUMN_RESULTS: decode_column_results,
}
