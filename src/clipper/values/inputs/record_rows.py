"""The row of a record: the buffer that the cache compares, and from which a batch's columns are made.

A row is a fixed part, followed by the texts, bytes and tensors of open shapes one after another. The fixed part has the
bits of the nullable fields that are present, the fields of fixed size, and the sizes of the parts that follow. So a
``struct`` packs it, and numpy takes a field out of a batch's rows in a step.
"""

import io
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from clipper.errors import TooLarge
from clipper.values.columns import Column
from clipper.values.records import RecordType
from clipper.values.types import DType

# Python cuts up to this many rows: numpy's call for each field costs as much as cutting them.
_FEW_ROWS = 8
# The largest rows of a request. They may have defaults and zeros for missing tensors: much more than their text has.
MAX_ROWS_BYTES = 64 * 1024 * 1024
# Copying this much takes a millisecond at most, also where the memory is new.
_STEP_BYTES = 512 * 1024
_CODES = {DType.INT32: "i", DType.INT64: "q", DType.FLOAT32: "f", DType.FLOAT64: "d", DType.UINT8: "B", DType.BOOL: "?"}


class Cut(NamedTuple):
    """The values of a batch by field.

    Attributes:
        payloads: the ``Column.payload`` of each field, in order; a view of a long row.
        lengths: the sizes, as little-endian u32, by the index of a field whose values have sizes of their own.
        present: the ``Column.present`` by the index of a field with a missing value.
    """

    payloads: list[Any]
    lengths: Mapping[int, bytes]
    present: Mapping[int, bytes]


class RecordRows:
    """Makes rows of a type of record, and reads them.

    A value is a Python number if its field is a number; else the bytes of a row of the field's type: UTF-8, raw bytes,
    or elements in C order, after their own dimensions if ``InputType.leading_dimensions`` says so. None is a missing
    value.
    """

    def __init__(self, record: RecordType) -> None:
        self.record = record
        fields = record.fields
        self._nullable = [index for index, field in enumerate(fields) if field.is_nullable]
        self._fixed = [index for index, field in enumerate(fields) if field.type.row_bytes is not None]
        self._variable = [index for index, field in enumerate(fields) if field.type.row_bytes is None]
        self._tensors = [index for index in self._fixed if fields[index].type.shape]
        self._bits_bytes = -(-len(self._nullable) // 8)
        codes = [f"{self._bits_bytes}s"]
        formats: list[tuple[str, Any]] = [("bits", (np.uint8, (self._bits_bytes,)))]
        cells = [f"{self._bits_bytes}s"]
        for index in (*self._fixed, *self._variable):
            of_type = fields[index].type
            size, code = 4, "I"
            form: np.dtype[Any] = np.dtype("<u4")
            if of_type.row_bytes is not None:
                size, form = of_type.row_bytes, np.dtype((of_type.dtype.numpy_code, of_type.shape))
                code = f"{size}s" if of_type.shape else _CODES[of_type.dtype]
            codes.append(code)
            cells.append(f"{size}s")
            formats.append((f"{index}", form))
        self._head = struct.Struct("<" + "".join(codes))
        # The bytes of each field, or of the size of a part that follows, and their places in the order of the fields.
        self._cells = struct.Struct("<" + "".join(cells))
        self._table = np.dtype(formats)
        places = {index: place for place, index in enumerate((*self._fixed, *self._variable), 1)}
        self._in_order = itemgetter(*(places[index] for index in range(len(fields))), 0)
        self._no_bit_missing = ((1 << len(self._nullable)) - 1).to_bytes(self._bits_bytes, "little")
        self._names = [f"{index}" for index in range(len(fields))]
        # The bytes of a missing value of each field.
        self._absent = [b"" if field.type.row_bytes is None or field.type.shape else 0 for field in fields]
        self._take_fixed, self._take_variable = _taker(self._fixed), _taker(self._variable)
        self._take_nullable = _taker(self._nullable)
        # The sizes of the parts that follow, at the end of the fixed part.
        self._sizes = struct.Struct(f"<{len(self._variable)}I")
        self._is_plain = not self._nullable and not self._variable

    def row(self, values: Sequence[Any]) -> bytes:
        """Return the row of a record. ``values``: the values of the fields in order.

        Raises:
            struct.error, OverflowError, TypeError: a value is not of its field's type.
        """
        if self._is_plain:
            return self._head.pack(b"", *values)
        bits = self._no_bit_missing
        if self._nullable and None in self._take_nullable(values):
            bits, values = self._without_missing(values)
        following = self._take_variable(values)
        return b"".join((self._head.pack(bits, *self._take_fixed(values), *map(len, following)), *following))

    def are_long(self, columns: Sequence[Sequence[Any]]) -> bool:
        """Whether the rows of these values take so long to make that it has to be done in steps."""
        long = (*self._variable, *self._tensors)
        return sum(len(value) for index in long for value in columns[index] if value is not None) > _STEP_BYTES

    def row_in_steps(self, values: Sequence[Any]) -> Generator[None, None, bytes]:
        """Return the same as ``row``, in steps if the row is long: new memory is what takes most of the time."""
        if sum(len(value) for value in values if isinstance(value, bytes)) <= _STEP_BYTES:
            return self.row(values)
        bits, values = self._without_missing(values)
        following = self._take_variable(values)
        row = io.BytesIO()  # returns its bytes without a copy
        row.write(bits)
        for index in self._fixed:
            of_type, value = self.record.fields[index].type, values[index]
            if of_type.shape:
                yield from _write(row, value or bytes(of_type.row_bytes or 0))
            else:
                row.write(struct.pack(f"<{_CODES[of_type.dtype]}", value))
        row.write(self._sizes.pack(*map(len, following)))
        for value in following:
            yield from _write(row, value)
        return row.getvalue()

    def _without_missing(self, values: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
        """Return the bits of the fields that are there, and the values with nothing in place of None."""
        there = sum(1 << bit for bit, index in enumerate(self._nullable) if values[index] is not None)
        present = [absent if value is None else value for value, absent in zip(values, self._absent)]
        return there.to_bytes(self._bits_bytes, "little"), present

    def values(self, row: bytes) -> list[Any]:
        """Return the values of a row: the inverse of ``row``."""
        bits, *found = self._head.unpack_from(row)
        there = int.from_bytes(bits, "little")
        values: list[Any] = [None] * len(self.record.fields)
        fixed = len(self._fixed)
        for index, value in zip(self._fixed, found):
            values[index] = value
        start = self._head.size
        for index, size in zip(self._variable, found[fixed:]):
            values[index] = row[start : start + size]
            start += size
        for bit, index in enumerate(self._nullable):
            if not there >> bit & 1:
                values[index] = None
        return values

    def cut(self, rows: Sequence[bytes]) -> Cut:
        """Return the values of a batch by field."""
        count, size = len(rows), self._head.size
        payloads: list[Any]
        if count == 1:
            *payloads, bits = self._in_order(self._cells.unpack_from(rows[0]))
            are_all_there = bits == self._no_bit_missing
        elif count <= _FEW_ROWS:
            *payloads, bits = map(b"".join, zip(*[self._in_order(self._cells.unpack_from(row)) for row in rows]))
            are_all_there = bits == self._no_bit_missing * count
        else:
            table = np.frombuffer(b"".join([row[:size] for row in rows]), self._table)
            payloads = [table[name].tobytes() for name in self._names]
            bits = table["bits"].tobytes()
            are_all_there = bits == self._no_bit_missing * count
        lengths: dict[int, bytes] = {}
        if self._variable:
            sizes, at = self._sizes.unpack_from, size - self._sizes.size
            if count == 1 and len(rows[0]) > _STEP_BYTES:
                rows = [memoryview(rows[0])]  # type: ignore[list-item]  # a slice of it is no copy
            parts = [
                [row[start:end] for start, end in pairwise(accumulate(sizes(row, at), initial=size))] for row in rows
            ]
            for index, payload in zip(self._variable, parts[0] if count == 1 else map(b"".join, zip(*parts))):
                lengths[index] = payloads[index]
                payloads[index] = payload
        return Cut(payloads, lengths, _NONE_MISSING if are_all_there else self._present(bits, count))

    def _present(self, bits: bytes, rows: int) -> dict[int, bytes]:
        """Return the bits of each field with a missing value. ``bits``: the bits of the rows, one after another."""
        by_row = np.frombuffer(bits, np.uint8).reshape(rows, self._bits_bytes)
        by_field = np.unpackbits(by_row, axis=1, count=len(self._nullable), bitorder="little")
        packed = np.packbits(by_field, axis=0, bitorder="little")
        has_missing = ~by_field.all(axis=0)
        return {self._nullable[bit]: packed[:, bit].tobytes() for bit in np.flatnonzero(has_missing).tolist()}

    def columns(self, rows: Sequence[bytes]) -> list[Column]:
        """Return the columns of a batch."""
        cut, count = self.cut(rows), len(rows)
        tables = {index: struct.unpack(f"<{count}I", table) for index, table in cut.lengths.items()}
        return [
            Column(field.name, field.type, count, payload, tables.get(index), cut.present.get(index))
            for index, (field, payload) in enumerate(zip(self.record.fields, cut.payloads))
        ]


def check_rows_bytes(size_bytes: int) -> None:
    """Raise TooLarge if the rows of a request take more than ``MAX_ROWS_BYTES`` together."""
    if size_bytes > MAX_ROWS_BYTES:
        raise TooLarge(
            f"the records of the request take over {MAX_ROWS_BYTES} bytes with their defaults and missing tensors: "
            "send fewer in a request"
        )


def _write(row: io.BytesIO, value: bytes) -> Generator[None, None, None]:
    view = memoryview(value)
    for at in range(0, len(view), _STEP_BYTES):
        row.write(view[at : at + _STEP_BYTES])
        yield


_NONE_MISSING: Mapping[int, bytes] = {}


def _taker(indexes: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return a function that returns the items at these indexes."""
    if len(indexes) > 1:
        return itemgetter(*indexes)
    return lambda values: [values[index] for index in indexes]
