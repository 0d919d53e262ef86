"""Takes the output of each row out of the columns of a batch, with or without names."""

import base64
import struct
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import prod

import msgspec

from clipper.errors import ModelFailed
from clipper.values.columns import Column
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.checks import NOT_JSON, check_output
from clipper.values.outputs.long_texts import read_long_text
from clipper.values.outputs.output import (
    NO_BOOL,
    TEXT_TIMES,
    Output,
    OutputNames,
    Part,
    TypedOutput,
    are_bools,
    make_array,
    make_record,
    read_array,
    sizes,
)
from clipper.values.types import DType

# The base64 of this many bytes takes a tenth of a millisecond. A multiple of 3 lets the texts of pieces be joined.
_PIECE_BYTES = 192 * 1024
_NULL = b"null"
_encode = msgspec.json.encode
# Sets of names are kept, since each model repeats its own. A set of over this size is not kept: a container may send a
# thousand new names in every batch, and 256 such sets would take 200 MB.
MAX_KEPT_BYTES = 32 * 1024
names_of = lru_cache(256)(OutputNames)


class RecordColumns:
    """The outputs of a batch. ``columns`` are those of ``COLUMN_RESULTS``.

    Columns of one name have the values of different rows: if the values are of several types, a column for each type.
    Outputs are not records if their columns have the name "".
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._starts = [_starts(column) for column in columns]
        self._of_name: dict[str, list[int]] = {}
        for index, column in enumerate(columns):
            self._of_name.setdefault(column.name, []).append(index)
        of_text = {column.name for column in columns if column.dtype is not DType.BYTES}
        of_bytes = frozenset(self._of_name.keys() - of_text)
        names = tuple(self._of_name)
        make = names_of if sum(map(len, names)) <= MAX_KEPT_BYTES else OutputNames
        self._names = None if "" in self._of_name else make(names, of_bytes)

    def row_bytes(self, row: int) -> int:
        """Return the size of a row's values."""
        return sum(
            (starts[row + 1] - starts[row]) // (TEXT_TIMES if column.is_json else 1)
            for column, starts in zip(self._columns, self._starts)
            if _is_there(column, row)
        )

    def outputs(self, failures: Mapping[int, str]) -> tuple[Sequence[Output | None], Mapping[int, str]]:
        """Return the output of each row, None for a failed row; and the message for each failed row. ``failures``: the
        failures that the container has told.
        """
        found = dict(failures)
        parts = [self._values(indexes, found) for indexes in self._of_name.values()]
        names = self._names
        outputs: list[Output | None]
        outputs = [*parts[0]] if names is None else [make_record(names, values) for values in zip(*parts)]
        for row in found:
            outputs[row] = None
        return outputs, found

    def _values(self, indexes: Sequence[int], failures: dict[int, str]) -> list[Part]:
        """Return the values in these columns, which have one name."""
        parts = [_parts(self._columns[index], self._starts[index], failures) for index in indexes]
        values = parts[0]
        for index, others in zip(indexes[1:], parts[1:]):
            column = self._columns[index]
            values = [other if _is_there(column, row) else values[row] for row, other in enumerate(others)]
        return values

    def output(self, row: int) -> Generator[None, None, Output]:
        """Return an output, in steps of less than a millisecond. Raises ModelFailed if a value is not valid."""
        parts: list[Part] = []
        for indexes in self._of_name.values():
            index = next((each for each in reversed(indexes) if _is_there(self._columns[each], row)), None)
            if index is None:
                parts.append(_NULL)
                continue
            column, starts = self._columns[index], self._starts[index]
            data = memoryview(column.payload)[starts[row] : starts[row + 1]]
            if column.dtype.is_numeric:
                form, data = _form(column, data)
                parts.append((yield from read_array(form, data)))
            else:
                parts.append((yield from _read_text(column, data)))
        return parts[0] if self._names is None else make_record(self._names, tuple(parts))


def _starts(column: Column) -> Sequence[int]:
    """Return the beginning of each row, and the end of the last."""
    size = column.row_bytes
    if size is not None:
        return range(0, (column.rows + 1) * size, size) if size else (0,) * (column.rows + 1)
    return list(accumulate(column.lengths or (), initial=0))


def _parts(column: Column, starts: Sequence[int], failures: dict[int, str]) -> list[Part]:
    """Return the values of a column. A value that is not valid becomes a failure, unless its row has failed before."""
    data = bytes(column.payload)
    if column.row_bytes is not None and column.present is None and (column.dtype is not DType.BOOL or are_bools(data)):
        form = _closed_form(column)
        size, most_bytes, is_long = sizes(form)
        return [TypedOutput(form, data[start : start + size], most_bytes, is_long) for start in starts[:-1]]
    parts: list[Part] = []
    for row in range(column.rows):
        part: Part = _NULL
        if row not in failures and _is_there(column, row):
            try:
                part = _part(column, memoryview(data)[starts[row] : starts[row + 1]])
            except ModelFailed as error:
                failures[row] = str(error)
        parts.append(part)
    return parts


def _part(column: Column, data: memoryview) -> Part:
    if column.dtype.is_numeric:
        form, data = _form(column, data)
        if form.dtype is DType.BOOL and not are_bools(data):
            raise ModelFailed(NO_BOOL)
        return make_array(form, bytes(data))
    if column.dtype is DType.BYTES:
        return b'"%b"' % base64.b64encode(data)
    if column.is_json:
        text = bytes(data)
        try:
            check_output(text)
        except NOT_JSON as error:
            raise ModelFailed(f"the container's output is not JSON: {error}") from error
        return text
    try:
        return _encode(str(data, "utf-8"))
    except UnicodeDecodeError as error:
        raise ModelFailed(f"output{_quoted(column.name)} is not UTF-8: {error}") from error


def _read_text(column: Column, data: memoryview) -> Generator[None, None, bytes]:
    """Return the JSON of a text or of bytes, in short steps. Raises ModelFailed if a text is not UTF-8."""
    if column.is_json:
        return (yield from read_long_text(data))
    if len(data) <= _PIECE_BYTES:
        part = _part(column, data)
        assert isinstance(part, bytes)
        return part
    pieces, start = [b'"'], 0
    while start < len(data):
        end = min(start + _PIECE_BYTES, len(data))
        for _ in range(3):  # a piece does not end inside a character
            end -= column.dtype is DType.STRING and end < len(data) and data[end] & 0xC0 == 0x80
        part = _part(column, data[start:end])
        assert isinstance(part, bytes)
        pieces.append(part[1:-1])
        start = end
        yield
    return b"".join((*pieces, b'"'))


def _is_there(column: Column, row: int) -> bool:
    return column.present is None or bool(column.present[row >> 3] >> (row & 7) & 1)


def _quoted(name: str) -> str:
    return f" {name!r}" if name else ""


_form_of = lru_cache(1024)(OutputForm)


def _closed_form(column: Column) -> OutputForm:
    return _form_of(column.dtype, tuple(size or 0 for size in column.type.shape), column.written_as or column.dtype)


def _form(column: Column, data: memoryview) -> tuple[OutputForm, memoryview]:
    """Return the form of a value, and its elements. Raises ModelFailed if its size is not that of its shape."""
    of_type, size = column.type, column.dtype.size_bytes
    if of_type.row_bytes is not None:
        return _closed_form(column), data
    count = of_type.leading_dimensions
    if count:
        if len(data) < 4 * count:
            raise ModelFailed(f"output{_quoted(column.name)} has {len(data)} bytes: expected its {count} dimensions")
        shape = struct.unpack_from(f"<{count}I", data)
        data = data[4 * count :]
    else:
        shape = (len(data) // size,)
    is_of_type = all(length is None or length == came for length, came in zip(of_type.shape, shape))
    if not is_of_type or prod(shape) * size != len(data):
        raise ModelFailed(
            f"output{_quoted(column.name)} has {len(data)} bytes and the shape {list(shape)}: expected {of_type}"
        )
    return _form_of(column.dtype, shape, column.written_as or column.dtype), data
