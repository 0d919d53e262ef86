"""The row of a record: the buffer that the cache compares, and from which a batch's columns are made.

A row is a fixed part, followed by the texts, bytes and tensors of open shapes one after another. The fixed part has the
bits that say which nullable fields are there, the other fields, and the sizes of what follows: so one
``struct`` packs it, and numpy takes a field out of a batch's rows in one step.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from clipper.values.columns import Column
from clipper.values.records import RecordType
from clipper.values.types import DType

# Up to so many rows are cut by Python.
_FEW_ROWS = 4
_CODES = {DType.INT32: "i", DType.INT64: "q", DType.FLOAT32: "f", DType.FLOAT64: "d", DType.UINT8: "B", DType.BOOL: "?"}


class RecordRows:
    """Makes rows of one type of record, and reads them.

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
        self._bits_bytes = -(-len(self._nullable) // 8)
        codes = [f"{self._bits_bytes}s"]
        formats: list[tuple[str, Any]] = [("bits", (np.uint8, (self._bits_bytes,)))]
        # Where each field, or the size of what follows, is in the fixed part.
        self._places: dict[int, tuple[int, int]] = {}
        for index in (*self._fixed, *self._variable):
            of_type = fields[index].type
            size, code = 4, "I"
            form: np.dtype[Any] = np.dtype("<u4")
            if of_type.row_bytes is not None:
                size, form = of_type.row_bytes, np.dtype((of_type.dtype.numpy_code, of_type.shape))
                code = f"{size}s" if of_type.shape else _CODES[of_type.dtype]
            start = struct.calcsize("<" + "".join(codes))
            self._places[index] = start, start + size
            codes.append(code)
            formats.append((f"{index}", form))
        self._head = struct.Struct("<" + "".join(codes))
        self._table = np.dtype(formats)
        # What stands for a missing value of each field.
        self._absent = [b"" if field.type.row_bytes is None or field.type.shape else 0 for field in fields]
        self._is_plain = not self._nullable and not self._variable

    def row(self, values: Sequence[Any]) -> bytes:
        """Return the row of a record. ``values``: of each field in order.

        Raises:
            struct.error, OverflowError, TypeError: a value is not of its field's type.
        """
        if self._is_plain:
            return self._head.pack(b"", *values)
        bits = 0
        if self._nullable:
            for bit, index in enumerate(self._nullable):
                if values[index] is not None:
                    bits |= 1 << bit
            if None in values:
                values = [absent if value is None else value for value, absent in zip(values, self._absent)]
        following = [values[index] for index in self._variable]
        head = self._head.pack(
            bits.to_bytes(self._bits_bytes, "little"),
            *[values[index] for index in self._fixed],
            *map(len, following),
        )
        return b"".join((head, *following))

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

    def columns(self, rows: Sequence[bytes]) -> list[Column]:
        """Return the columns of a batch."""
        fields, count, size = self.record.fields, len(rows), self._head.size
        payloads: list[bytes] = [b""] * len(fields)
        lengths: list[tuple[int, ...] | None] = [None] * len(fields)
        present: dict[int, bytes] = {}
        # To copy a field out of each row costs less than numpy's call does for so few.
        table = np.frombuffer(b"".join([row[:size] for row in rows]), self._table) if count > _FEW_ROWS else None
        for index, (start, end) in self._places.items():
            if table is None:
                payloads[index] = rows[0][start:end] if count == 1 else b"".join([row[start:end] for row in rows])
            else:
                payloads[index] = table[f"{index}"].tobytes()
        starts = [size] * count
        for index in self._variable:
            sizes = struct.unpack(f"<{count}I", payloads[index])
            ends = [start + length for start, length in zip(starts, sizes)]
            payloads[index] = b"".join([row[start:end] for row, start, end in zip(rows, starts, ends)])
            lengths[index], starts = sizes, ends
        for bit, index in enumerate(self._nullable):
            byte, mask = bit >> 3, 1 << (bit & 7)
            is_there = [row[byte] & mask for row in rows] if table is None else table["bits"][:, byte] & mask
            if not all(is_there):
                present[index] = np.packbits(np.asarray(is_there, bool), bitorder="little").tobytes()
        return [
            Column(field.name, field.type, count, payload, sizes, present.get(index))
            for index, (field, payload, sizes) in enumerate(zip(fields, payloads, lengths))
        ]
