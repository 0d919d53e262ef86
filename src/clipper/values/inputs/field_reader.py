"""Reads the values of a record's field from JSON: one by one, or a short list of them in a step."""

import base64
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import DecodeError, Raw

from clipper.errors import InvalidArgument, MalformedRequest, RequestError, WrongInput
from clipper.values.decoding import parsed
from clipper.values.inputs.json_parts import find_items
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.values.inputs.numbers import FLOATS, pack, show
from clipper.values.inputs.reader import ArrayReader, Reader, make_reader
from clipper.values.records import Field
from clipper.values.types import DType

# The most characters of a list in a message.
SHOWN_CHARACTERS = 200
# Reading this many values one by one takes about a millisecond.
_STEP_ITEMS = 500
# The errors of msgspec or a converter that does not take a value.
NOT_QUICK = (DecodeError, RecursionError, RequestError, KeyError, OverflowError, ValueError, struct.error)
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
    """Reads the values of a field, in the form that ``RecordRows`` takes; None is a missing value. ``absent``: the
    value of a record without the field, if it is not required.
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
        self.absent: Any = None
        if field.default is not None:
            try:
                self.absent = self.take(parsed(field.default.encode(), "it"))
            except RequestError as error:
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
        except (WrongInput, ValueError, OverflowError) as error:
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
        """Return the value in ``text[start:stop]``, in steps that may overwrite it. Raises as ``Reader.read``."""
        if stop - start <= SHORT_TEXT_BYTES:
            return self.take(parsed(bytes(text[start:stop])))
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
        """Return the list in ``text[start:stop]``, at most ``most`` + 1 values, in steps. Raises as ``Reader.read``."""
        if stop - start <= SHORT_TEXT_BYTES:
            own = bytes(text[start:stop])
            if (quick := self.quick_column(own)) is not None and len(quick) <= most:
                yield
                return quick
            listed = parsed(own)
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
            return values if self._convert is None else converted(self._convert, values)
        except NOT_QUICK:
            return None

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
            name = f"one of {listed[:SHOWN_CHARACTERS]}{'…' if len(listed) > SHOWN_CHARACTERS else ''}"
        return f"{name}, or null" if field.is_nullable else name

    def _wrong(self, value: Any, why: str = "") -> WrongInput:
        because = f" ({why})" if why else ""
        return WrongInput(f"{self._title} is {show(value)}{because}: expected {self._expected}")


def converted(convert: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """Return the values of rows for those that msgspec read; ``convert``: see ``FieldReader.quick``."""
    if None in values:
        return [None if value is None else convert(value) for value in values]
    return list(map(convert, values))
