"""Turns the JSON of a record into its row: an object, or a value of each column.

msgspec decodes an object into a struct that is made of the record's type, so a record takes no dictionary. A text that
msgspec refuses is read again field by field, which finds out what is wrong.
"""

import base64
import binascii
import struct
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import DecodeError, Raw

from clipper.errors import InvalidArgument, MalformedRequest, RequestError, WrongInput
from clipper.values.inputs.json_parts import Extent, find_fields, find_items
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES, Row, strip
from clipper.values.inputs.numbers import FLOATS, pack, show
from clipper.values.inputs.reader import ArrayReader, Reader, make_reader
from clipper.values.inputs.record_rows import RecordRows, check_rows_bytes
from clipper.values.records import MAX_FIELD_NAME_BYTES, Field, RecordType, ValueType
from clipper.values.types import DType

# The longest name in JSON, all of it in escapes, with quotes.
_MAX_KEY_BYTES = 6 * MAX_FIELD_NAME_BYTES + 2
# msgspec's structs cannot have such a name, and neither have tables that people train on.
_NO_STRUCT_NAME = frozenset('"\\').union(map(chr, range(0x20)))
# The most characters and fields in a message.
_SHOWN_CHARACTERS, _SHOWN_FIELDS = 200, 20

# To read the first number of values one by one, or to make rows of the second, takes about a millisecond.
_STEP_ITEMS, _STEP_VALUES = 500, 5_000
# The errors of msgspec or a converter that does not take a value.
_NOT_QUICK = (
    DecodeError,
    UnicodeError,
    RecursionError,
    RequestError,
    KeyError,
    OverflowError,
    ValueError,
    struct.error,
)

Rows = Generator[None, None, list[bytes]]
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_decode_columns: Callable[[bytes], dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw]).decode
_QUICK_TYPES: Mapping[DType, Any] = {
    DType.INT32: int,
    DType.INT64: int,
    DType.UINT8: int,
    DType.FLOAT32: float,
    DType.FLOAT64: float,
    DType.BOOL: bool,
    DType.STRING: str,
    DType.BYTES: bytes,
}


class FieldReader:
    """Reads the values of a field, in the form that ``RecordRows`` takes; None is a missing value.

    Attributes:
        absent: the value of a record without the field, if it is not required.
    """

    def __init__(self, field: Field, null_is_nan: bool = False) -> None:
        self.field = field
        self.null_is_nan = null_is_nan
        self.dtype = dtype = field.type.dtype
        self._is_scalar = dtype.is_numeric and not field.type.shape
        self._reader: Reader = make_reader(field.type, null_is_nan)
        self._array = ArrayReader(field.type, null_is_nan)
        self._is_image = dtype is DType.UINT8 and field.type.row_bytes is not None
        self._decode_list: Callable[[bytes], list[Any]] | None = None
        self._convert: Callable[[Any], Any] | None = None
        self._pack = struct.Struct("<f" if dtype is DType.FLOAT32 else "<d").pack
        # The value of a category in a row, by its value in JSON.
        self.categories: Mapping[Any, Any] = {value: self._converted(value) for value in field.categories}
        self._kinds = set(map(type, self.categories))
        self.absent: Any = None
        if field.default is not None:
            try:
                self.absent = self.take(_decode(field.default.encode()))
            except (RequestError, DecodeError, UnicodeError) as error:
                raise InvalidArgument(f"the default of field {field.name!r} is not valid: {error}") from error

    def take(self, value: Any) -> Any:
        """Return the value of a row for a value that was read from JSON. Raises WrongInput."""
        if value is None and self.field.is_nullable:
            return None
        if self.categories:
            # In Python, true equals 1; in JSON it does not.
            if isinstance(value, (str, int, float)) and isinstance(value, bool) == (self.dtype is DType.BOOL):
                found = self.categories.get(value, self)
                if found is not self:
                    return found
            raise self._wrong(value)
        return self._converted(value)

    def _converted(self, value: Any) -> Any:
        dtype = self.dtype
        try:
            if self._is_scalar:
                return self._number(value)
            if dtype is DType.STRING and isinstance(value, str):
                return value.encode()
            if (dtype is DType.BYTES or self._is_image) and isinstance(value, str):
                data = base64.b64decode(value, validate=True)
                if not self._is_image or len(data) == self.field.type.row_bytes:
                    return data
                raise WrongInput(f"it is base64 of {len(data)} bytes")
            if dtype.is_numeric:
                return self._array.row_of(value)
        except (WrongInput, UnicodeError, binascii.Error, ValueError, OverflowError) as error:
            raise self._wrong(value, "" if self._is_scalar else str(error)) from error
        raise self._wrong(value)

    def _number(self, value: Any) -> Any:
        kind = type(value)
        if self.dtype in FLOATS:
            if kind is not float and kind is not int:
                raise ValueError
            number = float(value)
            self._pack(number)  # raises OverflowError for a number too large for a float32
            return number
        pack(self.dtype, [value])
        return bool(value) if self.dtype is DType.BOOL else int(value)

    def read_long(self, text: bytearray, start: int, stop: int) -> Generator[None, None, Any]:
        """Return the value in ``text[start:stop]``, in steps; this may overwrite the text.

        Raises MalformedRequest or WrongInput.
        """
        if stop - start <= SHORT_TEXT_BYTES:
            return self.take(_parsed(bytes(text[start:stop])))
        if self._is_scalar or self.categories:
            raise WrongInput(f"{self._title} takes {stop - start} bytes: expected {self._expected}")
        try:
            return (yield from self._reader.read_long(text, start, stop))
        except WrongInput as error:
            raise WrongInput(f"{self._title}: {error}") from error

    def quick(self) -> tuple[Any, Any, Callable[[Any], Any] | None]:
        """Return msgspec's type of the value in a struct, its default there or ``NODEFAULT``, and any converter.

        The converter makes the value of a row. It may raise any error; ``take`` has the message.
        """
        field, dtype = self.field, self.dtype
        convert: Callable[[Any], Any] | None = None
        if field.type.shape:
            of_type: Any = Raw
            convert = self._tensor
        else:
            of_type = _QUICK_TYPES[dtype]
            if self.categories:
                convert = self.categories.__getitem__
            elif dtype is DType.STRING:
                convert = str.encode
        if field.is_nullable and of_type is not Raw:
            of_type = of_type | None
        if field.is_required:
            return of_type, msgspec.NODEFAULT, convert
        default = (field.default or "null").encode()
        return of_type, Raw(default) if of_type is Raw else msgspec.json.decode(default, type=of_type), convert

    def read_column(self, text: bytearray, start: int, stop: int, most: int) -> Generator[None, None, list[Any]]:
        """Return the values of the list in ``text[start:stop]``, ``most`` and one at most, in steps.

        This may overwrite the text. Raises MalformedRequest or WrongInput.
        """
        if stop - start <= SHORT_TEXT_BYTES:
            own = bytes(text[start:stop])
            if (quick := self.quick_column(own)) is not None and len(quick) <= most:
                yield
                return quick
            listed = _parsed(own)
            if not isinstance(listed, list):
                raise WrongInput(f"{self._title} is {show(listed)}: expected a list of values")
            values = [self.take(value) for value in listed[: most + 1]]
            yield
            return values
        extents = yield from find_items(text, start, stop, most)
        if extents is None:
            raise MalformedRequest(f"{self._title} has over {most} values: expected at most {most}")
        values = []
        for place, extent in enumerate(extents):
            values.append((yield from self.read_long(text, *extent)))
            if place % _STEP_ITEMS == 0:
                yield
        return values

    def quick_column(self, text: bytes) -> list[Any] | None:
        """Return the values of a short list if msgspec takes all of them; None for any other text."""
        if self._decode_list is None:
            of_type, _, convert = self.quick()
            self._decode_list, self._convert = msgspec.json.Decoder(list[of_type]).decode, convert  # type: ignore[valid-type]
        try:
            values: list[Any] = self._decode_list(text)
            if self._is_scalar and self.dtype is not DType.FLOAT64:
                pack(self.dtype, [value for value in values if value is not None])  # raises if one is out of range
            if self._convert is not None:
                values = [None if value is None else self._convert(value) for value in values]
        except _NOT_QUICK:
            return None
        return values

    def _tensor(self, text: Raw) -> bytes | None:
        own = bytes(text)
        return None if own == b"null" and self.field.is_nullable else self._reader.read(own)

    @property
    def _title(self) -> str:
        return f"field {self.field.name!r:.100}"

    @property
    def _expected(self) -> str:
        field = self.field
        name = str(field.type) if field.type.shape else field.type.dtype.label
        if field.categories:
            listed = ", ".join(map(show, field.categories))
            name = f"one of {listed[:_SHOWN_CHARACTERS]}{'…' if len(listed) > _SHOWN_CHARACTERS else ''}"
        return f"{name}, or null" if field.is_nullable else name

    def _wrong(self, value: Any, why: str = "") -> WrongInput:
        because = f" ({why})" if why else ""
        return WrongInput(f"{self._title} is {show(value)}{because}: expected {self._expected}")


class RecordReader:
    """Reads records of a type.

    Args:
        record: the records' type.
        null_is_nan: whether null in tensors of floats is NaN.
        ignores_unknown: whether a record may have fields that the type does not have, which are ignored.

    Raises:
        InvalidArgument: a default is not a value of its field.
    """

    def __init__(self, record: RecordType, null_is_nan: bool = False, ignores_unknown: bool = False) -> None:
        self.record = record
        self._ignores_unknown = ignores_unknown
        self.rows = RecordRows(record)
        self.fields = [FieldReader(field, null_is_nan) for field in record.fields]
        self._by_name = {field.field.name: field for field in self.fields}
        self._decode: Callable[[bytes], Any] | None = None
        self._decode_body: Callable[[bytes], Any] | None = None
        self._converted: list[tuple[int, Callable[[Any], Any]]] = []
        if not any(_NO_STRUCT_NAME.intersection(name) for name in record.names):
            self._make_decoders()

    def _make_decoders(self) -> None:
        annotated: list[Any] = []
        for index, field in enumerate(self.fields):
            of_type, default, convert = field.quick()
            annotated.append((f"f{index}", of_type, msgspec.field(default=default)))
            if convert is not None:
                self._converted.append((index, convert))
        record = msgspec.defstruct(
            "Record",
            annotated,
            rename={f"f{index}": name for index, name in enumerate(self.record.names)},
            forbid_unknown_fields=not self._ignores_unknown,
            kw_only=True,
            gc=False,
        )
        body = msgspec.defstruct("Body", [("input", record)], forbid_unknown_fields=True, gc=False)
        self._decode, self._decode_body = msgspec.json.Decoder(record).decode, msgspec.json.Decoder(body).decode

    def read(self, text: bytes) -> bytes:
        """Return the row of a record, like ``Reader.read``."""
        if self._decode is not None:
            try:
                return self._packed(self._decode(text))
            except _NOT_QUICK:
                pass
        return self.row_of(_parsed(text))

    def read_body(self, body: bytes) -> bytes | None:
        """Return the row of ``{"input": {…}}``; None if the body has another form, or something is wrong with it."""
        if self._decode_body is None:
            return None
        try:
            return self._packed(self._decode_body(body).input)
        except _NOT_QUICK:
            return None

    def _packed(self, record: Any) -> bytes:
        values = list(msgspec.structs.astuple(record))
        for index, convert in self._converted:
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
        """Return the name of each field if it is among these names; None for a field that may be absent.

        Raises WrongInput.
        """
        given = set(names)
        if not self._ignores_unknown and (unknown := given - self._by_name.keys()):
            raise WrongInput(
                f"input has the field {min(unknown)!r:.100}, which is not known: expected {self._shown()}; "
                "`clipper app update NAME --ignore-unknown-fields` lets others pass"
            )
        missing = [each.field for each in self.fields if each.field.is_required and each.field.name not in given]
        if missing:
            shown = ", ".join(map(str, missing))
            raise WrongInput(f"input lacks {shown[:_SHOWN_CHARACTERS]}: expected {self._shown()}")
        return [name if name in given else None for name in self.record.names]

    def row_at(self, places: Sequence[Any], values: Any) -> bytes:
        """Return the row of a record. ``places``: the place of each field in ``values``; None if it is absent.

        Raises WrongInput.
        """
        return self.rows.row(
            [field.absent if place is None else field.take(values[place]) for field, place in zip(self.fields, places)]
        )

    def read_list(self, text: bytearray, start: int, stop: int, places: Sequence[int | None], width: int) -> Row:
        """Return the row of the list of values in ``text[start:stop]``, in steps; this may overwrite the text.

        ``places``: see ``row_at``. ``width``: the length of the list. Raises MalformedRequest or WrongInput.
        """
        if stop - start <= SHORT_TEXT_BYTES:
            values = _parsed(bytes(text[start:stop]))
            if not isinstance(values, list) or len(values) != width:
                raise WrongInput(f"a row is {show(values)}: expected a list of {width}, a value for each column")
            return self.row_at(places, values)
        extents = yield from find_items(text, start, stop, width)
        if extents is None or len(extents) != width:
            raise WrongInput(f"a row is no list of {width}: expected a value for each column")
        found: list[Any] = []
        for field, place in zip(self.fields, places):
            found.append(field.absent if place is None else (yield from field.read_long(text, *extents[place])))
            yield
        return (yield from self.rows.row_in_steps(found))

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        """Return the row of a record in steps, like ``Reader.read_long``."""
        extents = yield from self._extents(text, start, stop, "input")
        values: list[Any] = []
        for field, place in zip(self.fields, self.places_of(extents)):
            values.append(field.absent if place is None else (yield from field.read_long(text, *extents[place])))
            yield
        return (yield from self.rows.row_in_steps(values))

    def read_columns(self, text: bytearray, start: int, stop: int, most: int) -> Rows:
        """Return the rows of the columns in ``text[start:stop]``: an object with a list of values for each field.

        It works in steps of a few milliseconds, and may overwrite the text.

        Args:
            most: the most rows.

        Raises:
            MalformedRequest: the text is not JSON, or has no rows or too many.
            WrongInput: a value is not of its field, or the columns have different lengths.
        """
        columns = self._quick_columns(bytes(text[start:stop])) if stop - start <= SHORT_TEXT_BYTES else None
        if columns is None:
            columns = {}
            extents = yield from self._extents(text, start, stop, "input_columns")
            for field, place in zip(self.fields, self.places_of(extents)):
                if place is not None:
                    columns[place] = yield from field.read_column(text, *extents[place], most)
        counts = {name: len(values) for name, values in columns.items()}
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
            raise WrongInput(f"input_columns has {shown[:_SHOWN_CHARACTERS]}: expected as many values of each field")
        count = max(counts.values(), default=0)
        if not 1 <= count <= most:
            raise MalformedRequest(f"input_columns has {count} values of each field: expected 1 to {most}")
        return (yield from self.rows_of(columns, count))

    def rows_of(self, columns: Mapping[str, Sequence[Any]], count: int) -> Rows:
        """Return the rows of ``count`` records by the values of their fields, in steps. Raises TooLarge."""
        lists = [columns.get(field.field.name) or [field.absent] * count for field in self.fields]
        rows: list[bytes] = []
        size_bytes = 0
        step = max(1, _STEP_VALUES // len(lists))
        for at in range(0, count, step):
            piece = [values[at : at + step] for values in lists]
            if self.rows.are_long(piece):
                for values in zip(*piece):
                    rows.append((yield from self.rows.row_in_steps(values)))
                    check_rows_bytes(size_bytes := size_bytes + len(rows[-1]))
                    yield
            else:
                rows += map(self.rows.row, zip(*piece))
                check_rows_bytes(size_bytes := size_bytes + sum(map(len, rows[at:])))
                yield
        return rows

    def _quick_columns(self, text: bytes) -> dict[str, list[Any]] | None:
        """Return the columns of a short text; None if one of them has to be read value by value."""
        try:
            given = _decode_columns(text)
        except _NOT_QUICK:
            return None
        columns: dict[str, list[Any]] = {}
        for field, place in zip(self.fields, self.places_of(given)):
            if place is not None:
                values = field.quick_column(bytes(given[place]))
                if values is None:
                    return None
                columns[place] = values
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
        return f"{shown[:_SHOWN_CHARACTERS]}{', …' if len(self.record.names) > _SHOWN_FIELDS else ''}"


def reader_of(input_type: ValueType, null_is_nan: bool = False, ignores_unknown: bool = False) -> Reader:
    """Return a reader for inputs of any type. Raises InvalidArgument if a record has a default that is not valid."""
    if isinstance(input_type, RecordType):
        return RecordReader(input_type, null_is_nan, ignores_unknown)
    return make_reader(input_type, null_is_nan)


def _parsed(text: bytes) -> Any:
    try:
        return _decode(text)
    except (DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedRequest(f"input is not JSON: {error}") from error
