"""The footers of Parquet files: joined, so that rows get columns while their own bytes stay as they are.

A footer is a structure in Thrift's compact protocol. Here a structure is a dict from a field's number to its kind and
value, and a list is the kind of its elements and their values. See parquet.thrift of the format for the numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

MAGIC = b"PAR1"
# After a footer: its length and the magic.
TAIL_BYTES = 8

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _, _, _STRUCT = range(1, 13)
_FIXED_BYTES = {_TRUE: 1, _FALSE: 1, _BYTE: 1, _DOUBLE: 8}
_INTEGERS = (_I16, _I32, _I64)

# Of the file: of a group of rows, of a column of it, and of what that is about.
_VERSION, _SCHEMA, _ROWS, _GROUPS, _PAIRS, _ORDERS = 1, 2, 3, 4, 5, 7
_COLUMNS, _BYTES, _GROUP_ROWS, _GROUP_OFFSET, _PACKED_BYTES, _ORDINAL = 1, 2, 3, 5, 6, 7
_COLUMN_OFFSET, _COLUMN_ABOUT, _INDEXES = 2, 3, (4, 5, 6, 7)
_ABOUT_OFFSETS = (9, 10, 11, 14)
_CHILDREN = 5

_Struct = dict[int, tuple[int, Any]]


class Part(NamedTuple):
    """A file whose bytes before its footer are a part of another one, and begin at ``start`` there."""

    footer: bytes
    start: int


def joined_footer(rows: Sequence[Part], added: Part, pairs: bytes) -> bytes:
    """Return the footer of a file of rows and added columns, with its tail.

    Args:
        rows: files of the same columns, one after another.
        added: a file of further columns, in groups of as many rows as those of ``rows``; groups without a row left out.
        pairs: the footer of a file whose keys and values this one gets, such as Arrow's schema.
    """
    added_groups: list[_Struct] = []
    more = _read(added.footer, added_groups.append)
    groups: list[bytes] = []
    first: _Struct | None = None
    columns_added: Iterator[_Struct] = iter(added_groups)

    def add(group: _Struct, start: int) -> None:
        if not group[_GROUP_ROWS][1]:
            return
        beside = next(columns_added)
        if group[_GROUP_ROWS] != beside[_GROUP_ROWS]:
            raise ValueError("the groups of added columns have other rows")
        _move(group, start)
        _move(beside, added.start)
        group[_COLUMNS][1][1].extend(beside[_COLUMNS][1][1])
        for size in (_BYTES, _PACKED_BYTES):
            if size in group and size in beside:
                group[size] = (_I64, group[size][1] + beside[size][1])
        group.pop(_ORDINAL, None)  # optional, and too short for some files
        groups.append(bytes(_written(_STRUCT, group)))

    for part in rows:
        found = _read(part.footer, lambda group, start=part.start: add(group, start))  # type: ignore[misc]
        first = first or found
    assert first is not None
    root, *elements = first[_SCHEMA][1][1]
    added_root, *added_elements = more[_SCHEMA][1][1]
    root[_CHILDREN] = (_I32, root[_CHILDREN][1] + added_root[_CHILDREN][1])
    first[_SCHEMA] = (_LIST, (_STRUCT, [root, *elements, *added_elements]))
    first[_VERSION] = max(first[_VERSION], more[_VERSION])
    first[_ROWS] = more[_ROWS]
    first[_GROUPS] = (_LIST, (_STRUCT, groups))
    first[_PAIRS] = _read(pairs, lambda group: None)[_PAIRS]
    if _ORDERS in first and _ORDERS in more:
        first[_ORDERS][1][1].extend(more[_ORDERS][1][1])
    else:
        first.pop(_ORDERS, None)
    footer = _written(_STRUCT, first)
    return bytes(footer) + len(footer).to_bytes(4, "little") + MAGIC


def _move(group: _Struct, start: int) -> None:
    """Have a group's places count from the beginning of the file that it becomes a part of."""
    if not start:
        return
    _shift(group, _GROUP_OFFSET, start)
    for column in group[_COLUMNS][1][1]:
        _shift(column, _COLUMN_OFFSET, start)
        for offset in _ABOUT_OFFSETS:
            _shift(column[_COLUMN_ABOUT][1], offset, start)
        for index in _INDEXES:  # they have places in the file themselves, and readers do without them
            column.pop(index, None)


def _shift(struct: _Struct, field: int, start: int) -> None:
    kind, offset = struct.get(field, (_I64, 0))
    if offset:
        struct[field] = (kind, offset + start)


def _read(footer: bytes, on_group: Callable[[_Struct], None]) -> _Struct:
    """Return a file's footer without its groups, each of which ``on_group`` takes: there may be too many at once."""
    reader = _Reader(footer)
    found: _Struct = {}
    for number, kind in reader.fields():
        if number == _GROUPS:
            for each in reader.elements(reader.list_head()[1], _STRUCT):
                on_group(each)
        else:
            found[number] = (kind, reader.value(kind))
    return found


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7

    def _signed(self) -> int:
        found = self._varint()
        return found >> 1 ^ -(found & 1)

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield the number and kind of each field of a structure. The caller reads its value before the next one."""
        number = 0
        while head := self._take(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._signed()
            yield number, head & 15

    def value(self, kind: int) -> Any:
        """Read a field's value. Of a truth, the kind is the value."""
        return None if kind in (_TRUE, _FALSE) else self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._signed()
        if kind == _STRUCT:
            return {number: (of, self.value(of)) for number, of in self.fields()}
        if kind == _LIST:
            of, count = self.list_head()
            return of, list(self.elements(count, of))
        return self._take(self._varint() if kind == _BINARY else _FIXED_BYTES[kind])

    def list_head(self) -> tuple[int, int]:
        """Read the kind and number of a list's elements."""
        head = self._take(1)[0]
        return head & 15, head >> 4 if head < 0xF0 else self._varint()

    def elements(self, count: int, kind: int) -> Iterator[Any]:
        return (self._value(kind) for _ in range(count))


def _written(kind: int, value: Any) -> bytearray | bytes:
    """Return a value's bytes. A structure may be given as its bytes."""
    if isinstance(value, bytes):
        return _varint(len(value)) + value if kind == _BINARY else value
    if kind in _INTEGERS:
        return _varint(value << 1 ^ value >> 63)
    out = bytearray()
    if kind == _LIST:
        of, values = value
        out += bytes([len(values) << 4 | of]) if len(values) < 15 else bytes([0xF0 | of]) + _varint(len(values))
        for each in values:
            out += _written(of, each)
        return out
    last = 0
    for number, (of, each) in sorted(value.items()):
        out.append((number - last) << 4 | of)  # no structure of a footer skips 15 fields
        out += b"" if of in (_TRUE, _FALSE) else _written(of, each)
        last = number
    out.append(0)
    return out


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
