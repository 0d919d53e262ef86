"""Turns the JSON of an input into its row: the raw buffer that containers get and the cache compares.

simdjson converts numbers from JSON text to a buffer without making Python objects. Shapes are checked on the text: the
brackets and commas that remain of a nested array without its numbers must be exactly those of the declared shape.
An input that the fast way refuses is read again by the slow way, which finds out what is wrong.
"""

import base64
from typing import Any, Protocol

import msgspec
import numpy as np

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import NOT_JSON, parsed
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES, NumberPieces, Row, read_base64, read_string, strip
from clipper.values.inputs.number_parser import Parser
from clipper.values.inputs.numbers import FLOATS, NUMPY, pack, show
from clipper.values.types import DType, InputType

_NUMBER_CHARACTERS = b"0123456789.eE+- \t\r\n"
_decode_text = msgspec.json.Decoder(str).decode


class Reader(Protocol):
    """Reads inputs of a type."""

    def read(self, text: bytes) -> bytes:
        """Return the row of an input. ``text``: the JSON text of the input alone.

        Raises MalformedRequest if the text is not JSON, and WrongInput if it is not of the declared type or shape. The
        message says what was expected and what came.
        """
        ...

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        """Read the input in ``text[start:stop]`` as ``read`` does, but in pieces; this overwrites the text."""
        ...


def make_reader(input_type: InputType, null_is_nan: bool = False) -> Reader:
    """Return a reader for tensors, texts or bytes of a type. ``null_is_nan``: whether null in floats is NaN."""
    match input_type.dtype:
        case DType.STRING:
            return StringReader()
        case DType.BYTES:
            return BytesReader()
        case DType.BOOL:
            return ArrayReader(input_type)
        case DType.UINT8 if input_type.row_bytes is not None:
            return ImageReader(input_type)
    return NumberReader(input_type, null_is_nan)


class StringReader:
    """Reads a JSON string; the row is its UTF-8."""

    def read(self, text: bytes) -> bytes:
        try:
            return _decode_text(text).encode()
        except (msgspec.DecodeError, UnicodeError) as error:
            raise _wrong(text, "a JSON string", error) from error

    read_long = staticmethod(read_string)


class BytesReader:
    """Reads a JSON string of base64; the row has the bytes that it encodes."""

    def read(self, text: bytes) -> bytes:
        try:
            return base64.b64decode(_decode_text(text), validate=True)
        except (msgspec.DecodeError, ValueError) as error:
            raise _wrong(text, "a JSON string of base64", error) from error

    read_long = staticmethod(read_base64)


class ImageReader:
    """Reads ``uint8`` of a fixed number of elements: nested lists, or a JSON string of the row in base64.

    The string has a third of the lists' size. An image of 224 × 224 takes milliseconds to read as lists.
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
            raise WrongInput(
                f"input is base64 of {len(row)} bytes: expected {self._type.row_bytes} bytes, of {self._type}"
            )
        return row


class ArrayReader:
    """Reads any numeric type and shape as Python objects: slowly, with exact messages. ``true`` is 1, ``false`` 0."""

    def __init__(self, input_type: InputType, null_is_nan: bool = False) -> None:
        self._type, self._null_is_nan = input_type, null_is_nan
        self._pieces = NumberPieces(input_type, null_is_nan)

    def read_long(self, text: bytearray, start: int, stop: int) -> Row:
        return self._pieces.read(text, start, stop)

    def read(self, text: bytes) -> bytes:
        return self.row_of(parsed(text))

    def row_of(self, value: Any) -> bytes:
        """Return the row of an input that was read from its JSON. Raises WrongInput."""
        shape = self._measure(value)
        flat = _flattened(value, shape, self._type)
        prefix = np.array(shape, "<u4").tobytes() if self._type.leading_dimensions else b""
        return prefix + pack(self._type.dtype, flat, null_is_nan=self._null_is_nan)

    def _measure(self, value: Any) -> list[int]:
        expected = self._type.shape
        shape: list[int] = []
        level = value
        while isinstance(level, list) and len(shape) <= len(expected):
            shape.append(len(level))
            level = level[0] if level else None
        if len(shape) != len(expected) or any(want not in (None, got) for want, got in zip(expected, shape)):
            got = f"has shape [{','.join(map(str, shape))}]" if shape else f"is {show(value)}"
            raise WrongInput(f"input {got}: expected {self._type}")
        return shape


class NumberReader:
    """Reads numbers of a known number of dimensions, straight from the text into a buffer."""

    def __init__(self, input_type: InputType, null_is_nan: bool = False) -> None:
        self.input_type = input_type
        self.row_bytes = input_type.row_bytes
        # A fixed shape has one skeleton of brackets and commas, and ``[*]`` has one pair of brackets. Other shapes are
        # read slowly, and so are inputs whose texts, with two characters a number, cannot be short.
        is_short = 0 < 2 * input_type.elements <= SHORT_TEXT_BYTES
        self._skeleton = _skeleton(input_type.shape) if is_short else None
        self._is_list = len(input_type.shape) == 1
        self._is_simple = input_type.dtype == DType.FLOAT64
        self._kind = "d" if input_type.dtype in FLOATS else "i"
        self._slow = ArrayReader(input_type, null_is_nan)
        self._parser = Parser()

    @property
    def takes_plain_list(self) -> bool:
        """Whether a row is a flat JSON list of float64, for which a request's reader has a shortcut."""
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
            self._parser = Parser()
            return self._slow.read(text)
        # The parser cannot be used again while one of its documents is alive.
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
        # ``[]`` has the same skeleton as ``[1]``.
        return row if self.row_bytes is None or len(row) == self.row_bytes else self._slow.read(text)


def _skeleton(shape: tuple[int | None, ...]) -> bytes:
    text = b""
    for length in reversed(shape):
        text = b"[" + b",".join([text] * (length or 0)) + b"]"
    return text


def _flattened(value: Any, shape: list[int], input_type: InputType) -> list[Any]:
    """Return the elements of nested lists of this shape. Raises WrongInput if a list has another length."""
    level = [value]
    for length in shape:
        for part in level:
            if not isinstance(part, list) or len(part) != length:
                got = f"a list of {len(part)}" if isinstance(part, list) else show(part)
                raise WrongInput(f"input is ragged: {got} beside lists of {length}: expected {input_type}")
        level = [item for part in level for item in part]
    return level


def _wrong(text: bytes, expected: str, error: Exception) -> MalformedRequest | WrongInput:
    try:
        value = msgspec.json.decode(text)
    except NOT_JSON:
        return MalformedRequest(f"input is not JSON: {error}")
    return WrongInput(f"input is {show(value)}: expected {expected}")
