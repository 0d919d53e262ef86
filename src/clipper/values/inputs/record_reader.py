"""Turns the JSON of a record into its row: an object, or a value of each column.

msgspec decodes an object into a struct that is made of the record's type, so a record takes no dictionary. A text that
msgspec refuses is read again field by field, which finds out what is wrong.
"""

import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import msgspec
from msgspec import DecodeError, Raw

from clipper.errors import MalformedRequest, RequestError, WrongInput
from clipper.values.decoding import NOT_JSON, parsed
from clipper.values.inputs.field_reader import NOT_QUICK, SHOWN_CHARACTERS, FieldReader, converted
from clipper.values.inputs.json_parts import Extent, find_fields, find_items
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES, Row, strip
from clipper.values.inputs.numbers import show
from clipper.values.inputs.reader import Reader, make_reader
from clipper.values.inputs.record_rows import STEP_BYTES, RecordRows, check_rows_bytes
from clipper.values.records import MAX_FIELD_NAME_BYTES, MAX_FIELDS, RecordType, ValueType

# The longest name in JSON, all of it in escapes, with quotes.
_MAX_KEY_BYTES = 6 * MAX_FIELD_NAME_BYTES + 2
# msgspec's structs cannot have names with these characters. Tables that people train on have none, either.
_NO_STRUCT_NAME = frozenset('"\\').union(map(chr, range(0x20)))
# The most bytes of a value, and the most fields, that a message shows.
_SHOWN_VALUE_BYTES = 40
_SHOWN_FIELDS = 20
# Making rows of this many values takes about a millisecond.
_STEP_VALUES = 5_000
# A digit and a comma, two characters, may become a float64 of a tensor: eight bytes.
_BYTES_PER_CHARACTER = 4
# The orders of columns to keep: clients of an application send one or a few. Making the decoder for this many columns
# takes half a millisecond.
_MAX_ORDERS, _MAX_COLUMNS = 16, 2 * MAX_FIELDS

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode

Rows = Generator[None, None, list[bytes]]
# The values of each field in order; None if the field is absent.
Columns = Sequence[Sequence[Any] | None]


class Order(NamedTuple):
    """The columns of a table as lists of values: their order in a row.

    Attributes:
        places: the place of each field; None if it is absent.
        width: the length of a list.
        decode: decodes short lists of such lists; None for too many values.
    """

    places: Sequence[int | None]
    width: int
    decode: Callable[[bytes], list[tuple[Any, ...]]] | None


class RecordReader:
    """Reads records of a type. ``ignores_unknown``: whether a record may have fields that the type does not have, which
    are ignored. Raises InvalidArgument if a default is not a value of its field.
    """

    def __init__(self, record: RecordType, null_is_nan: bool = False, ignores_unknown: bool = False) -> None:
        self.record = record
        self._ignores_unknown = ignores_unknown
        self.rows = RecordRows(record)
        self.fields = [FieldReader(field, null_is_nan) for field in record.fields]
        self._by_name = {field.field.name: field for field in self.fields}
        self._quick = [field.quick() for field in self.fields]
        self._converts = [(index, convert) for index, (_, _, convert) in enumerate(self._quick) if convert is not None]
        self._absent_bytes = sum(len(field.absent) for field in self.fields if isinstance(field.absent, bytes))
        self._has_structs = not any(_NO_STRUCT_NAME.intersection(name) for name in record.names)
        self._decode: Callable[[bytes], Any] | None = None
        self._decode_body: Callable[[bytes], Any] | None = None
        self._decode_columns: Callable[[bytes], Any] | None = None
        self._orders: dict[bytes, Order] = {}
        if self._has_structs:
            of_record = self._struct([(of_type, default) for of_type, default, _ in self._quick])
            body = msgspec.defstruct("Body", [("input", of_record)], forbid_unknown_fields=True, gc=False)
            self._decode = msgspec.json.Decoder(of_record).decode
            self._decode_body = msgspec.json.Decoder(body).decode

    def _struct(self, fields: Iterable[tuple[Any, Any]]) -> type[msgspec.Struct]:
        """Return a struct with the record's names. ``fields``: the type and the default of each."""
        return msgspec.defstruct(
            "Record",
            [(f"f{index}", of_type, msgspec.field(default=default)) for index, (of_type, default) in enumerate(fields)],
            rename={f"f{index}": name for index, name in enumerate(self.record.names)},
            forbid_unknown_fields=not self._ignores_unknown,
            kw_only=True,
            gc=False,
        )

    def read(self, text: bytes) -> bytes:
        """Return the row of a record, like ``Reader.read``."""
        if self._decode is not None:
            try:
                return self._packed(self._decode(text))
            except NOT_QUICK:
                pass
        try:
            return self.row_of(parsed(text))
        except MalformedRequest as error:
            raise _named(text, error) from error

    def read_body(self, body: bytes) -> bytes | None:
        """Return the row of ``{"input": {…}}``; None if the body has another form, or something is wrong with it."""
        if self._decode_body is None:
            return None
        try:
            return self._packed(self._decode_body(body).input)
        except NOT_QUICK:
            return None

    def _packed(self, record: Any) -> bytes:
        values = list(msgspec.structs.astuple(record))
        for index, convert in self._converts:
            value = values[index]
            if value is not None:
                values[index] = convert(value)
        return self.rows.row(values)

    def row_of(self, value: Any) -> bytes:
        """Return the row of a record that was read from its JSON. Raises WrongInput."""
        if not isinstance(value, dict):
            raise WrongInput(f"input is {show(value)}: expected an object with the fields {self._shown()}")
        return self.row_at(self.places_of(value), value)

    def places_of(self, names: Iterable[str]) -> Sequence[str | None]:
        """Return each field's name if it is among these; None if it may be absent. Raises WrongInput."""
        given = set(names)
        if not self._ignores_unknown and (unknown := given - self._by_name.keys()):
            raise WrongInput(
                f"input has the field {min(unknown)!r:.100}, which is not known: expected {self._shown()}; "
                "`clipper app update NAME --ignore-unknown-fields` makes it ignore other fields"
            )
        missing = [each.field for each in self.fields if each.field.is_required and each.field.name not in given]
        if missing:
            shown = ", ".join(map(str, missing))
            raise WrongInput(f"input lacks {shown[:SHOWN_CHARACTERS]}: expected {self._shown()}")
        return [name if name in given else None for name in self.record.names]

    def row_at(self, places: Sequence[Any], values: Any) -> bytes:
        """Return the row of values at these ``places``; None is an absent field. Raises WrongInput."""
        return self.rows.row(
            [field.absent if place is None else field.take(values[place]) for field, place in zip(self.fields, places)]
        )

    def order_of(self, names: bytes) -> Order:
        """Return the order of columns whose names are in this JSON. Raises MalformedRequest or WrongInput."""
        known = self._orders.get(names)
        if known is not None:
            return known
        try:
            listed = [str(name) for name in msgspec.json.decode(names, type=list[str | int])]
        except (DecodeError, UnicodeError) as error:
            raise MalformedRequest(f"dataframe_split has columns that are no names: {error}") from error
        by_name = {name: place for place, name in enumerate(listed)}
        if len(by_name) < len(listed):
            raise MalformedRequest("dataframe_split has a column twice: expected each once")
        places = [None if name is None else by_name[name] for name in self.places_of(listed)]
        decode = None
        if len(listed) <= _MAX_COLUMNS:
            types: list[Any] = [Raw] * len(listed)
            for place, (of_type, _, _) in zip(places, self._quick):
                if place is not None:
                    types[place] = of_type
            decode = msgspec.json.Decoder(list[tuple[*types]]).decode  # type: ignore[valid-type]
        order = Order(places, len(listed), decode)
        if len(names) <= SHORT_TEXT_BYTES:
            if len(self._orders) >= _MAX_ORDERS:
                self._orders.clear()
            self._orders[names] = order
        return order

    def read_short_lists(self, text: bytes, order: Order, most: int) -> Generator[None, None, list[bytes] | None]:
        """Return the rows of a list of lists of values, in steps. Raises TooLarge.

        Return None if ``read_list`` has to find out what is wrong, or there are more than ``most``.
        """
        if order.decode is None:
            return None
        try:
            given = list(zip(*order.decode(text)))
            columns = self._converted([None if place is None else given[place] for place in order.places])
        except NOT_QUICK:
            return None
        return (yield from self._quick_rows(columns, most, len(text)))

    def read_list(self, text: bytearray, start: int, stop: int, order: Order) -> Row:
        """Return the row of the list in ``text[start:stop]``, in steps that may overwrite it. Raises as ``read``."""
        places, width = order.places, order.width
        if stop - start <= SHORT_TEXT_BYTES:
            values = parsed(bytes(text[start:stop]))
            if not isinstance(values, list) or len(values) != width:
                raise WrongInput(f"a row is {show(values)}: expected a list of {width}, a value for each column")
            return self.row_at(places, values)
        extents = yield from find_items(text, start, stop, width)
        if extents is None or len(extents) != width:
            raise WrongInput(f"a row is no list of {width}: expected a value for each column")
        return (yield from self._row_of_extents(text, places, extents))

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        """Return the row of a record in steps, like ``Reader.read_long``."""
        extents = yield from self._extents(text, start, stop, "input")
        return (yield from self._row_of_extents(text, self.places_of(extents), extents))

    def _row_of_extents(self, text: bytearray, places: Sequence[Any], extents: Any) -> Row:
        """Return the row of values at these ``places`` among the ``extents`` of a text; None is an absent field."""
        values: list[Any] = []
        for field, place in zip(self.fields, places):
            values.append(field.absent if place is None else (yield from field.read_long(text, *extents[place])))
            yield
        return (yield from self.rows.row_in_steps(values))

    def read_columns(self, text: bytearray, start: int, stop: int, most: int) -> Rows:
        """Return the rows of the columns in ``text[start:stop]``: an object with a list of values for each field.

        It works in steps of a few milliseconds, and may overwrite the text. ``most``: the most rows. Raises
        MalformedRequest if the text is not JSON, or has no rows or too many; WrongInput if a value is not of its field,
        or the columns have different lengths.
        """
        if stop - start <= SHORT_TEXT_BYTES and (quick := self._quick_columns(bytes(text[start:stop]))) is not None:
            rows = yield from self._quick_rows(quick, most, stop - start)
            if rows is not None:
                return rows
        columns: list[Sequence[Any] | None] = [None] * len(self.fields)
        extents = yield from self._extents(text, start, stop, "input_columns")
        for index, name in enumerate(self.places_of(extents)):
            if name is not None:
                columns[index] = yield from self.fields[index].read_column(text, *extents[name], most)
        lengths = {name: len(values) for name, values in zip(self.record.names, columns) if values is not None}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{count} of {name!r}" for name, count in lengths.items())
            raise WrongInput(f"input_columns has {shown[:SHOWN_CHARACTERS]}: expected as many values of each field")
        count = max(lengths.values(), default=0)
        if not 1 <= count <= most:
            raise MalformedRequest(f"input_columns has {count} values of each field: expected 1 to {most}")
        return (yield from self.rows_of(columns, count))

    def rows_of(self, columns: Columns, count: int, most_bytes: float = inf) -> Rows:
        """Return the rows of ``count`` records by the values of their fields, in steps.

        Numbers may be in arrays of their field's dtype. ``most_bytes``: a bound on the values, without those of absent
        fields, if there is one. Raises TooLarge.
        """
        is_short = most_bytes + self._absent_bytes * count <= STEP_BYTES
        lists = [[field.absent] * count if values is None else values for field, values in zip(self.fields, columns)]
        rows: list[bytes] = []
        size_bytes = 0
        step = max(1, min(_STEP_VALUES // len(lists), STEP_BYTES // self.rows.fixed_bytes))
        for at in range(0, count, step):
            piece = lists if count <= step else [values[at : at + step] for values in lists]
            if not is_short and self.rows.are_long(piece):
                for values in zip(*piece):
                    rows.append((yield from self.rows.row_in_steps(values)))
                    check_rows_bytes(size_bytes := size_bytes + len(rows[-1]))
                    yield
            else:
                rows += self.rows.rows(piece, min(step, count - at))
                check_rows_bytes(size_bytes := size_bytes + sum(map(len, rows[at:])))
                yield
        return rows

    def _quick_rows(self, columns: Columns, most: int, text_bytes: int) -> Generator[None, None, list[bytes] | None]:
        """Return the rows of values that msgspec read; None if a number, or that of rows, is out of range."""
        counts = {len(values) for values in columns if values is not None}
        if len(counts) != 1 or not 1 <= (count := counts.pop()) <= most:
            return None
        try:
            return (yield from self.rows_of(columns, count, _BYTES_PER_CHARACTER * text_bytes))
        except (struct.error, OverflowError):
            return None

    def _quick_columns(self, text: bytes) -> Columns | None:
        """Return the columns of a short text; None if one of them has to be read value by value."""
        if self._decode_columns is None and self._has_structs:
            lists = [
                (list[of_type], msgspec.NODEFAULT if default is msgspec.NODEFAULT else None)  # type: ignore[valid-type]
                for of_type, default, _ in self._quick
            ]
            self._decode_columns = msgspec.json.Decoder(self._struct(lists)).decode
        try:
            if self._decode_columns is not None:
                return self._converted(list(msgspec.structs.astuple(self._decode_columns(text))))
        except NOT_QUICK:
            pass
        return None

    def _converted(self, columns: list[Sequence[Any] | None]) -> Columns:
        for index, convert in self._converts:
            values = columns[index]
            if values is not None:
                columns[index] = converted(convert, values)
        return columns

    def _extents(
        self, text: bytearray, start: int, stop: int, title: str
    ) -> Generator[None, None, Mapping[str, Extent]]:
        first, _ = strip(text, start, stop)
        if text[first : first + 1] != b"{":
            raise WrongInput(f"{title} is no object: expected one with the fields {self._shown()}")
        return (yield from find_fields(text, start, stop, _MAX_KEY_BYTES))

    def _shown(self) -> str:
        shown = ", ".join(map(repr, self.record.names[:_SHOWN_FIELDS]))
        return f"{shown[:SHOWN_CHARACTERS]}{', …' if len(self.record.names) > _SHOWN_FIELDS else ''}"


def _named(text: bytes, error: MalformedRequest) -> RequestError:
    """Return an error that names the field of a number that is out of range, such as 1e400; else ``error``."""
    try:
        values = _decode_fields(text) if "out of range" in str(error) else {}
    except NOT_JSON:
        return error
    for name, value in values.items():
        try:
            parsed(bytes(value))
        except MalformedRequest:
            shown = bytes(value)[:_SHOWN_VALUE_BYTES].decode(errors="replace")
            return WrongInput(f"field {name!r:.100} is {shown}, which is out of range: expected a float64 at most")
    return error


def reader_of(input_type: ValueType, null_is_nan: bool = False, ignores_unknown: bool = False) -> Reader:
    """Return a reader for inputs of any type. Raises InvalidArgument if a record has a default that is not valid."""
    if isinstance(input_type, RecordType):
        return RecordReader(input_type, null_is_nan, ignores_unknown)
    return make_reader(input_type, null_is_nan)
