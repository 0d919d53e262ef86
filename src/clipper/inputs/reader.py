"""From the JSON of one input to its row: the raw buffer that containers get and the cache compares.

Numbers go from JSON text to a buffer without becoming Python objects (simdjson), and shapes are checked on the text:
with all characters of numbers removed, what is left of a nested array is its brackets and commas, which must be
exactly those of the declared shape. Whatever the fast way refuses is read again slowly, to say what is wrong with it.
"""

import base64
import binascii
from typing import Any, Protocol

import msgspec
import numpy as np
import simdjson

from clipper.errors import MalformedRequest, WrongInput
from clipper.inputs.long_text import SHORT_TEXT_BYTES, NumberPieces, Row, read_base64, read_string, strip
from clipper.inputs.numbers import FLOATS, NUMPY, pack, show
from clipper.types import DType, InputType

_NUMBER_CHARACTERS = b"0123456789.eE+- \t\r\n"


class Reader(Protocol):
    """Reads inputs of one type."""

    def read(self, text: bytes) -> bytes:
        """Return the row of one input.

        Args:
            text: the JSON text of the input alone.

        Raises:
            MalformedRequest: not JSON.
            WrongInput: not of the declared type or shape; the message says what was expected and what came.
        """
        ...

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        """As ``read``, of the input in ``text[start:stop]``, which may be long: in pieces, over which it is lost."""
        ...


def make_reader(input_type: InputType) -> Reader:
    match input_type.dtype:
        case DType.STRING:
            return StringReader()
        case DType.BYTES:
            return BytesReader()
        case DType.BOOL:
            return ArrayReader(input_type)
        case DType.UINT8 if input_type.row_bytes is not None:
            return PictureReader(input_type)
    return NumberReader(input_type)


class StringReader:
    """A JSON string; the row is its UTF-8."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(str).decode

    def read(self, text: bytes) -> bytes:
        try:
            return self._decode(text).encode()
        except (msgspec.DecodeError, UnicodeError) as error:
            raise _wrong(text, "a JSON string", error) from error

    read_long = staticmethod(read_string)


class BytesReader:
    """A JSON string of base64; the row is what it stands for."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(str).decode

    def read(self, text: bytes) -> bytes:
        try:
            return base64.b64decode(self._decode(text), validate=True)
        except (msgspec.DecodeError, UnicodeError, binascii.Error, ValueError) as error:
            raise _wrong(text, "a JSON string of base64", error) from error

    read_long = staticmethod(read_base64)


class PictureReader:
    """Numbers of a byte, of a shape that fixes how many: in lists, or as a JSON string of base64 of the row itself.

    The string is a third of the lists' size. A picture of 224 × 224 in lists takes milliseconds to read.
    """

    def __init__(self, input_type: InputType) -> None:
        self._type = input_type
        self._lists = NumberReader(input_type)
        self._packed = BytesReader()

    def read(self, text: bytes) -> bytes:
        if not text.lstrip().startswith(b'"'):
            return self._lists.read(text)
        return self._checked(self._packed.read(text))

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        first, _ = strip(text, start, stop)
        if text[first : first + 1] != b'"':
            return (yield from self._lists.read_long(text, start, stop))
        return self._checked((yield from read_base64(text, start, stop)))

    def _checked(self, row: bytes) -> bytes:
        if len(row) != self._type.row_bytes:
            raise WrongInput(f"input is base64 of {len(row)} bytes: expected {self._type.row_bytes} of {self._type}")
        return row


class ArrayReader:
    """Any numeric type and shape, by way of Python objects: slow, and exact in what it says.

    Booleans are ``true`` and ``false``, or 0 and 1.
    """

    def __init__(self, input_type: InputType) -> None:
        self._type = input_type
        self._decode = msgspec.json.Decoder().decode
        self._pieces = NumberPieces(input_type)

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        return self._pieces.read(text, start, stop)

    def read(self, text: bytes) -> bytes:
        try:
            value = self._decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MalformedRequest(f"input is not JSON: {error}") from error
        shape = self._measure(value, len(self._type.shape))
        flat: list[Any] = []
        _flatten(value, len(shape), flat)
        return self._prefix(shape) + pack(self._type.dtype, flat)

    def _measure(self, value: Any, dimensions: int) -> tuple[int, ...]:
        shape: list[int] = []
        level = value
        while isinstance(level, list) and len(shape) <= dimensions:
            shape.append(len(level))
            level = level[0] if level else None
        if not self._fits(tuple(shape)):
            got = f"has shape [{','.join(map(str, shape))}]" if shape else f"is {show(value)}"
            raise WrongInput(f"input {got}: expected {self._type}")
        _check_regular(value, shape, self._type)
        return tuple(shape)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        expected = self._type.shape
        return len(shape) == len(expected) and all(want is None or want == got for want, got in zip(expected, shape))

    def _prefix(self, shape: tuple[int, ...]) -> bytes:
        return np.array(shape, "<u4").tobytes() if self._type.leading_dimensions else b""


class NumberReader:
    """Numbers of a known number of dimensions, straight from the text to a buffer."""

    def __init__(self, input_type: InputType) -> None:
        self.input_type = input_type
        self.row_bytes = input_type.row_bytes
        # A shape with a row size has one possible skeleton; ``[*]`` is looked at by its brackets; else slowly.
        self._skeleton = _skeleton(input_type.shape) if _fits_a_short_text(input_type) else None
        self._is_list = len(input_type.shape) == 1
        self._is_simple = input_type.dtype == DType.FLOAT64
        self._kind = "d" if input_type.dtype in FLOATS else "i"
        self._slow = ArrayReader(input_type)
        self._parser = simdjson.Parser()

    @property
    def takes_plain_list(self) -> bool:
        """Whether a row is just a flat JSON list as float64: the request's reader then has a shorter way."""
        return self._is_list and self._is_simple

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        return self._slow.read_long(text, start, stop)

    def read(self, text: bytes) -> bytes:
        if not self._has_shape(text):
            return self._slow.read(text)
        try:
            document: Any = self._parser.parse(text)
            buffer = document.as_buffer(of_type=self._kind)
        except (ValueError, TypeError, RuntimeError, AttributeError):
            # The failed attempt's objects may still hold the parser.
            self._parser = simdjson.Parser()
            return self._slow.read(text)
        # The parser refuses to be used again while a document of its own is alive.
        del document
        return self._convert(buffer, text)

    def _has_shape(self, text: bytes) -> bool:
        if self._skeleton is not None:
            return text.translate(None, _NUMBER_CHARACTERS) == self._skeleton
        return self._is_list and text.rfind(b"[") == text.find(b"[")

    def _convert(self, buffer: Any, text: bytes) -> bytes:
        if self._is_simple:
            return self._checked(bytes(buffer), text)
        wide = np.frombuffer(buffer, "<f8" if self._kind == "d" else "<i8")
        with np.errstate(over="ignore"):
            narrow = wide.astype(NUMPY[self.input_type.dtype])
        lossless = np.isfinite(narrow).all() if self._kind == "d" else (narrow == wide).all()
        return self._checked(narrow.tobytes(), text) if lossless else self._slow.read(text)

    def _checked(self, row: bytes, text: bytes) -> bytes:
        # ``[]`` has the skeleton of ``[1]``.
        return row if self.row_bytes is None or len(row) == self.row_bytes else self._slow.read(text)


def _fits_a_short_text(input_type: InputType) -> bool:
    """Whether the shape has a row size, and one that a short text can hold, with two characters a number."""
    row_bytes = input_type.row_bytes
    return row_bytes is not None and row_bytes // input_type.dtype.size_bytes * 2 <= SHORT_TEXT_BYTES


def _skeleton(shape: tuple[int | None, ...]) -> bytes:
    text = b""
    for length in reversed(shape):
        text = b"[" + b",".join([text] * (length or 0)) + b"]"
    return text


def _check_regular(value: Any, shape: list[int], input_type: InputType) -> None:
    level = [value]
    for length in shape:
        for part in level:
            if not isinstance(part, list) or len(part) != length:
                got = f"a list of {len(part)}" if isinstance(part, list) else show(part)
                raise WrongInput(f"input is ragged: {got} beside lists of {length}; expected {input_type}")
        level = [item for part in level for item in part]


def _flatten(value: Any, dimensions: int, into: list[Any]) -> None:
    if dimensions == 0:
        into.append(value)
    elif dimensions == 1:
        into.extend(value)
    else:
        for part in value:
            _flatten(part, dimensions - 1, into)


def _wrong(text: bytes, expected: str, error: Exception) -> MalformedRequest | WrongInput:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return MalformedRequest(f"input is not JSON: {error}")
    return WrongInput(f"input is {show(value)}: expected {expected}")
