"""The row of a record: the buffer that the cache compares, and from which a batch's columns are made.

A row is a fixed part, followed by the texts, bytes and tensors of open shapes one after another. The fixed part has the
bits of the nullable fields that are present, the fields of fixed size, and the sizes of the parts that follow. So a
``struct`` packs it, and numpy takes a field out of a batch's rows in a step.
"""

import io
import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import accumulate, chain, groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from clipper.errors import TooLarge
from clipper.values.columns import Column
from clipper.values.records import RecordType
from clipper.values.types import DType

# Python makes and cuts up to this many rows. Between other work, whose code and data fill the processor's caches, the
# first call of each of numpy's functions takes some microseconds, and a loop over rows does little but repeat itself.
_FEW_ROWS, _FEW_CUT_ROWS = 16, 32
# Up to this mean size of values, taking their bytes one by one in numpy is quicker than cutting each value.
_SHORT_VALUE_BYTES = 48
# The largest rows of a request. They may have defaults and zeros for missing tensors: much more than their text has.
MAX_ROWS_BYTES = 64 * 1024 * 1024
# Copying this much takes a millisecond at most, also where the memory is new.
STEP_BYTES = 512 * 1024
_CODES = {DType.INT32: "i", DType.INT64: "q", DType.FLOAT32: "f", DType.FLOAT64: "d", DType.UINT8: "B", DType.BOOL: "?"}


class Cut(NamedTuple):
    """The values of a batch by field.

    Attributes:
        payloads: the ``Column.payload`` of each field, in order; a view of a long row.
        lengths: the sizes, as little-endian u32, of each field of ``RecordRows.variable``.
        present: the ``Column.present`` by the index of a field with a missing value.
    """

    payloads: list[Any]
    lengths: Sequence[bytes]
    present: Mapping[int, bytes]


class RecordRows:
    """Makes rows of a type of record, and reads them.

    A value is a Python number if its field is a number; else the bytes of a row of the field's type: UTF-8, raw bytes,
    or elements in C order, after their own dimensions if ``InputType.leading_dimensions`` says so. None is a missing
    value.

    Attributes:
        variable: the indexes of the fields whose values have sizes of their own.
        fixed_bytes: the size of the fixed part of a row.
    """

    def __init__(self, record: RecordType) -> None:
        self.record = record
        fields = record.fields
        self._nullable = [index for index, field in enumerate(fields) if field.is_nullable]
        self._fixed = [index for index, field in enumerate(fields) if field.type.row_bytes is not None]
        self.variable = [index for index, field in enumerate(fields) if field.type.row_bytes is None]
        self._tensors = [index for index in self._fixed if fields[index].type.shape]
        self._bits_bytes = -(-len(self._nullable) // 8)
        codes = [f"{self._bits_bytes}s"]
        cells = [f"{self._bits_bytes}s"]
        for index in (*self._fixed, *self.variable):
            of_type = fields[index].type
            size, code = 4, "I"
            if of_type.row_bytes is not None:
                size = of_type.row_bytes
                code = f"{size}s" if of_type.shape else _CODES[of_type.dtype]
            codes.append(code)
            cells.append(f"{size}s")
        # Fixed fields that follow one another are written together if they are numbers of one dtype.
        self._runs: list[tuple[str, DType, list[int]]] = []
        runs: list[tuple[str, Any]] = [("bits", (np.uint8, (self._bits_bytes,)))]
        for of, group in groupby(self._fixed, lambda index: fields[index].type):
            own = list(group)
            if of.shape:
                runs += [(f"{index}", np.dtype((of.dtype.numpy_code, of.shape))) for index in own]
            else:
                self._runs.append((f"{own[0]}", of.dtype, own))
                runs.append((f"{own[0]}", np.dtype((of.dtype.numpy_code, (len(own),)))))
        self._table_in_runs = np.dtype([*runs, ("sizes", ("<u4", (len(self.variable),)))])
        self._head = struct.Struct("<" + "".join(codes))
        self.fixed_bytes = self._head.size
        # The bytes of each field, or of the size of a part that follows, and their places in the order of the fields.
        self._cells = struct.Struct("<" + "".join(cells))
        places = {index: place for place, index in enumerate((*self._fixed, *self.variable), 1)}
        self._in_order = itemgetter(*(places[index] for index in range(len(fields))), 0)
        self._no_bit_missing = ((1 << len(self._nullable)) - 1).to_bytes(self._bits_bytes, "little")
        # The bytes of a missing value of each field.
        self._absent = [b"" if field.type.row_bytes is None or field.type.shape else 0 for field in fields]
        self._take_fixed, self._take_variable = _taker(self._fixed), _taker(self.variable)
        self._take_nullable = _taker(self._nullable)
        # The sizes of the parts that follow, at the end of the fixed part.
        self._sizes = struct.Struct(f"<{len(self.variable)}I")
        self._is_plain = not self._nullable and not self.variable

    def row(self, values: Sequence[Any]) -> bytes:
        """Return the row of fields' ``values``. Raises struct.error, OverflowError or TypeError if one is wrong."""
        if self._is_plain:
            return self._head.pack(b"", *values)
        bits = self._no_bit_missing
        if self._nullable and None in self._take_nullable(values):
            bits, values = self._without_missing(values)
        following = self._take_variable(values)
        return b"".join((self._head.pack(bits, *self._take_fixed(values), *map(len, following)), *following))

    def rows(self, columns: Sequence[Any], count: int) -> list[bytes]:
        """Return the rows of ``count`` records. Raises as ``row``.

        ``columns``: the values of each field in order; numbers without a missing value may be an array of their dtype.
        """
        if count <= _FEW_ROWS:
            lists = [values.tolist() if isinstance(values, np.ndarray) else values for values in columns]
            return list(map(self.row, zip(*lists)))
        table = np.zeros(count, self._table_in_runs)
        columns = self._write_bits(table["bits"], columns) if self._nullable else columns
        for name, dtype, indexes in self._runs:
            block, own = table[name], [columns[index] for index in indexes]
            if any(isinstance(values, np.ndarray) for values in own):
                numbers = np.concatenate([_numbers(dtype, values) for values in own])
            else:
                numbers = _numbers(dtype, list(chain.from_iterable(own)))
            block[:] = numbers.reshape(-1, count).T
        for index in self._tensors:
            of = self.record.fields[index].type
            missing = bytes(of.row_bytes or 0)
            whole = b"".join([value or missing for value in columns[index]])
            table[f"{index}"] = np.frombuffer(whole, of.dtype.numpy_code).reshape(count, *of.shape)
        following = [columns[index] for index in self.variable]
        if following:
            sizes = np.fromiter(map(len, chain.from_iterable(following)), "<u4", count * len(following))
            table["sizes"] = sizes.reshape(-1, count).T
        whole, size = table.tobytes(), self.fixed_bytes
        heads = [whole[at : at + size] for at in range(0, len(whole), size)]
        return list(map(b"".join, zip(heads, *following))) if following else heads

    def _write_bits(self, bits: "np.ndarray[Any, Any]", columns: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Set the bits of the values that are present; return the columns with empty values in place of None."""
        bits[:] = np.frombuffer(self._no_bit_missing, np.uint8)
        present = list(columns)
        for bit, index in enumerate(self._nullable):
            values = columns[index]
            if not isinstance(values, np.ndarray) and None in values:
                absent = self._absent[index]
                present[index] = [absent if value is None else value for value in values]
                missing = np.fromiter((value is None for value in values), np.bool_, len(values))
                bits[missing, bit // 8] &= 0xFF ^ 1 << bit % 8
        return present

    def are_long(self, columns: Sequence[Sequence[Any]]) -> bool:
        """Whether the rows of these values take so long to make that it has to be done in steps."""
        long = (*self.variable, *self._tensors)
        return sum(sum(map(len, filter(None, columns[index]))) for index in long) > STEP_BYTES

    def row_in_steps(self, values: Sequence[Any]) -> Generator[None, None, bytes]:
        """Return the same as ``row``, in steps if the row is long. Touching new memory takes most of the time."""
        if sum(len(value) for value in values if isinstance(value, bytes)) <= STEP_BYTES:
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
        """Return the bits of the fields that are present, and the values with empty ones in place of None."""
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
        start = self.fixed_bytes
        for index, size in zip(self.variable, found[fixed:]):
            values[index] = row[start : start + size]
            start += size
        for bit, index in enumerate(self._nullable):
            if not there >> bit & 1:
                values[index] = None
        return values

    def cut(self, rows: Sequence[bytes]) -> Cut:
        """Return the values of a batch by field."""
        count = len(rows)
        if count > _FEW_CUT_ROWS:
            return self._cut_many(rows)
        payloads: list[Any]
        if count == 1:
            *payloads, bits = self._in_order(self._cells.unpack_from(rows[0]))
            are_all_there = bits == self._no_bit_missing
        else:
            *payloads, bits = map(b"".join, zip(*[self._in_order(self._cells.unpack_from(row)) for row in rows]))
            are_all_there = bits == self._no_bit_missing * count
        lengths: Sequence[bytes] = ()
        if self.variable:
            if count == 1 and len(rows[0]) > STEP_BYTES:
                rows = [memoryview(rows[0])]  # type: ignore[list-item]  # a slice of it is no copy
            lengths = self._take_variable(payloads)
            for index, payload in zip(self.variable, self._following(rows)):
                payloads[index] = payload
        return Cut(payloads, lengths, _NONE_MISSING if are_all_there else self._present(bits, count))

    def _following(self, rows: Sequence[bytes]) -> Iterable[Any]:
        """Return the values of each field of variable size, one after another."""
        size = self.fixed_bytes
        sizes, at = self._sizes.unpack_from, size - self._sizes.size
        parts = []
        for row in rows:
            own, start = [], size
            for length in sizes(row, at):
                own.append(row[start : start + length])
                start += length
            parts.append(own)
        return parts[0] if len(rows) == 1 else map(b"".join, zip(*parts))

    def _cut_many(self, rows: Sequence[bytes]) -> Cut:
        count, size = len(rows), self.fixed_bytes
        table = np.frombuffer(b"".join([row[:size] for row in rows]), self._table_in_runs)
        payloads: list[Any] = [b""] * len(self.record.fields)
        for name, dtype, indexes in self._runs:
            whole, own = table[name].T.tobytes(), count * dtype.size_bytes
            for place, index in enumerate(indexes):
                payloads[index] = whole[place * own : place * own + own]
        for index in self._tensors:
            payloads[index] = table[f"{index}"].tobytes()
        lengths: list[bytes] = []
        if self.variable:
            sizes = table["sizes"].T
            whole = sizes.tobytes()
            lengths = [whole[at : at + 4 * count] for at in range(0, len(whole), 4 * count)]
            for index, payload in zip(self.variable, self._following_many(rows, sizes)):
                payloads[index] = payload
        bits = table["bits"].tobytes()
        are_all_there = bits == self._no_bit_missing * count
        return Cut(payloads, lengths, _NONE_MISSING if are_all_there else self._present(bits, count))

    def _following_many(self, rows: Sequence[bytes], sizes: "np.ndarray[Any, Any]") -> Iterable[Any]:
        """Return the same as ``_following``. ``sizes``: of the values of each field."""
        by_field = sizes.sum(axis=1, dtype=np.int64)
        total = int(by_field.sum())
        if total > _SHORT_VALUE_BYTES * sizes.size:
            return self._following(rows)
        # numpy takes all bytes in their new order: those of the first field's values, then those of the second's.
        following = np.frombuffer(b"".join([row[self.fixed_bytes :] for row in rows]), np.uint8)
        by_row = sizes.T.ravel().astype(np.int64)
        starts = (np.cumsum(by_row) - by_row).reshape(sizes.T.shape).T.ravel()
        flat = sizes.ravel()
        ends = np.cumsum(flat, dtype=np.int64)
        whole = following[np.repeat(starts - (ends - flat), flat) + np.arange(total)].tobytes()
        return [whole[start:end] for start, end in pairwise(accumulate(by_field.tolist(), initial=0))]

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
        tables = {index: struct.unpack(f"<{count}I", table) for index, table in zip(self.variable, cut.lengths)}
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
    for at in range(0, len(view), STEP_BYTES):
        row.write(view[at : at + STEP_BYTES])
        yield


def _numbers(dtype: DType, values: Any) -> "np.ndarray[Any, Any]":
    """Return numbers as an array; of Python numbers, with the errors of ``struct``."""
    if isinstance(values, np.ndarray):
        return values
    return np.frombuffer(struct.pack(f"<{len(values)}{_CODES[dtype]}", *values), dtype.numpy_code)


_NONE_MISSING: Mapping[int, bytes] = {}


def _taker(indexes: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return a function that returns the items at these indexes."""
    if len(indexes) > 1:
        return itemgetter(*indexes)
    return lambda values: [values[index] for index in indexes]
