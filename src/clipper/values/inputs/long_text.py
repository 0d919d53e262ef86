"""Reads inputs with long texts in pieces: generators that yield so that other requests get their turn.

simdjson takes fourteen bytes of memory for a byte of JSON, and a list of Python numbers takes thirty. So each of them
gets one piece at a time, and only the row, to which each piece is added, grows with the input.
"""

import binascii
import io
from collections.abc import Generator, Iterator
from typing import Any

import msgspec
import numpy as np

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import parsed
from clipper.values.inputs.number_parser import Parser
from clipper.values.inputs.numbers import FLOATS, NUMPY, pack
from clipper.values.types import DType, InputType

# Shorter texts are read as a whole, which takes some milliseconds in the worst case.
SHORT_TEXT_BYTES = 32 * 1024
# A piece takes 5 ms in the worst case: floats almost halfway between two doubles, which are slow to round.
PIECE_BYTES = 16 * 1024
_WHITESPACE = b" \t\r\n"
# Maps every character but brackets and commas to 0, as part of a number. The piece's parser finds what is not JSON.
_KINDS = bytes(each if each in b"[]," else ord("0") for each in range(256))
_WITHOUT_BRACKETS = bytes(ord(" ") if each in b"[]" else each for each in range(256))
# A number directly before or after a list, lists without a comma between them, and an empty list are not valid.
_MISPLACED = (b"0[", b"]0", b"][", b"[]")

Row = Generator[None, None, bytes]


def strip(text: bytes | bytearray, start: int, stop: int) -> tuple[int, int]:
    """Strip whitespace at both ends of ``text[start:stop]``, at most one piece's length of it; return the extent."""
    head = text[start : min(start + PIECE_BYTES, stop)]
    start += len(head) - len(head.lstrip(_WHITESPACE))
    tail = text[max(start, stop - PIECE_BYTES) : stop]
    return start, stop - len(tail) + len(tail.rstrip(_WHITESPACE))


class NumberPieces:
    """Reads numbers in nested lists, of any type and shape.

    The brackets and commas of each piece are written over the text that has been read, so they take no memory of their
    own. At the end they show the shape.
    """

    def __init__(self, input_type: InputType, null_is_nan: bool = False) -> None:
        self._type, self._null_is_nan = input_type, null_is_nan
        self._most = input_type.elements or None
        self._kind = "d" if input_type.dtype in FLOATS else "i"
        self._parser = Parser()

    def read(self, text: bytearray, start: int, stop: int) -> Row:
        """Return the row of the input in ``text[start:stop]``, which this overwrites. Raises as ``Reader.read``."""
        start, stop = strip(text, start, stop)
        prefix_bytes = 4 * self._type.leading_dimensions
        row = io.BytesIO()  # returns its bytes without a copy
        row.seek(prefix_bytes)
        at = kept = start
        count = 0
        while at <= stop:
            cut = _next_comma(text, at, stop)
            piece = bytes(text[at:cut])
            left = self._skeleton_of(piece)
            expected = left.count(b",") + 1
            flat = piece if len(left) == expected - 1 else piece.translate(_WITHOUT_BRACKETS)
            numbers = self._convert(flat, count, expected)
            count += expected
            if self._most is not None and count > self._most:
                raise WrongInput(f"input has over {self._most} numbers: expected {self._type}")
            row.write(numbers)
            if cut < stop:
                left += b","
            text[kept : kept + len(left)] = left
            kept += len(left)
            at = cut + 1
            yield
        shape = yield from self._measure(text, start, kept)
        if prefix_bytes:
            row.seek(0)
            row.write(np.array(shape, "<u4").tobytes())
        return row.getvalue()

    def _skeleton_of(self, piece: bytes) -> bytes:
        """Return the brackets and commas of a piece."""
        kinds = piece.translate(_KINDS, _WHITESPACE)
        if any(wrong in kinds for wrong in _MISPLACED):
            raise WrongInput(f"input is ragged, or not a list of numbers: expected {self._type}")
        return kinds.translate(None, b"0")

    def _convert(self, piece: bytes, first: int, expected: int) -> bytes:
        """Return the buffer of ``expected`` numbers that are separated by commas."""
        text = b"[%b]" % piece
        buffer = None if self._type.dtype == DType.BOOL else self._convert_fast(text)
        if buffer is None:
            buffer = pack(self._type.dtype, parsed(text), first, self._null_is_nan)
        if len(buffer) != expected * self._type.dtype.size_bytes:
            raise MalformedRequest("input is not JSON: expected a number between two commas")
        return buffer

    def _convert_fast(self, text: bytes) -> bytes | None:
        """Return the buffer, or None if a number lacks the form of its type: an integer ``1.0``, or out of range."""
        try:
            document: Any = self._parser.parse(text)
            wide = np.frombuffer(document.as_buffer(of_type=self._kind), "<f8" if self._kind == "d" else "<i8")
        except (ValueError, TypeError, RuntimeError, AttributeError):
            self._parser = Parser()  # the failed attempt's objects may still hold the old parser
            return None
        del document
        if self._type.dtype.size_bytes == 8:
            return wide.tobytes()
        with np.errstate(over="ignore"):
            narrow = wide.astype(NUMPY[self._type.dtype])
        is_lossless = np.isfinite(narrow).all() if self._kind == "d" else (narrow == wide).all()
        return narrow.tobytes() if is_lossless else None

    def _measure(self, text: bytearray, start: int, stop: int) -> Generator[None, None, tuple[int, ...]]:
        """Return the shape whose brackets and commas are in ``text[start:stop]``.

        Lists of one shape side by side are a text that repeats with a period, and so is each of these lists.
        """
        wanted = self._type.shape
        ragged = WrongInput(f"input is ragged, or not a list of numbers: expected {self._type}")
        shape: list[int] = []
        for dimensions in range(len(wanted), 0, -1):
            if text[start : start + dimensions + 1].count(b"[") != dimensions or text[stop - 1 : stop] != b"]":
                raise ragged
            start, stop = start + 1, stop - 1
            if dimensions == 1:
                if text.count(b",", start, stop) != stop - start:
                    raise ragged
                shape.append(stop - start + 1)
                break
            end = text.find(b"]" * (dimensions - 1), start, stop) + dimensions - 1
            period = end - start + 1
            if end < start + dimensions - 1 or (stop - start + 1) % period or (end < stop and text[end] != ord(",")):
                raise ragged
            for at in range(start, stop - period, PIECE_BYTES):
                size = min(PIECE_BYTES, stop - period - at)
                if text[at : at + size] != text[at + period : at + period + size]:
                    raise ragged
                yield
            shape.append((stop - start + 1) // period)
            stop = end
        if not wanted and stop > start:
            raise ragged
        if any(want not in (None, got) for want, got in zip(wanted, shape)):
            raise WrongInput(f"input has shape [{','.join(map(str, shape))}]: expected {self._type}")
        return tuple(shape)


def read_string(text: bytearray, start: int, stop: int) -> Row:
    """Return the UTF-8 of the JSON string in ``text[start:stop]``. Raises as ``Reader.read``."""
    row = io.BytesIO()
    for piece in _string_pieces(text, *strip(text, start, stop)):
        row.write(piece)
        yield
    return row.getvalue()


def read_base64(text: bytearray, start: int, stop: int) -> Row:
    """Return the bytes that are base64 in the JSON string in ``text[start:stop]``. Raises as ``Reader.read``."""
    row = io.BytesIO()
    waiting, has_ended = b"", False
    try:
        for piece in _string_pieces(text, *strip(text, start, stop)):
            waiting += piece
            group, waiting = waiting[: len(waiting) & ~3], waiting[len(waiting) & ~3 :]
            if group and has_ended:
                raise binascii.Error("data after padding")
            row.write(binascii.a2b_base64(group, strict_mode=True))
            has_ended = group.endswith(b"=")
            yield
        row.write(binascii.a2b_base64(waiting, strict_mode=True))
    except binascii.Error as error:
        raise WrongInput(f"input is not base64 ({error}): expected a JSON string of base64") from error
    return row.getvalue()


def _next_comma(text: bytearray, at: int, stop: int) -> int:
    """Return the end of the piece that begins ``at``: the first comma after a piece's length, or ``stop``."""
    if stop - at <= PIECE_BYTES:
        return stop
    cut = text.find(b",", at + PIECE_BYTES, at + 2 * PIECE_BYTES)
    if 0 <= cut < stop:
        return cut
    if stop - at > 2 * PIECE_BYTES:
        raise MalformedRequest(f"input has over {PIECE_BYTES} characters without a comma: expected numbers")
    return stop


def _string_pieces(text: bytearray, start: int, stop: int) -> Iterator[bytes]:
    """Yield the contents of a JSON string as UTF-8."""
    if stop - start < 2 or text[start] != ord('"') or text[stop - 1] != ord('"'):
        raise WrongInput("input is not in quotation marks: expected a JSON string")
    at, stop = start + 1, stop - 1
    while at < stop:
        cut = next_character(text, at, stop)
        try:
            piece = msgspec.json.decode(b'"%b"' % bytes(text[at:cut]), type=str).encode()
        except (msgspec.DecodeError, UnicodeError) as error:
            raise MalformedRequest(f"input is not JSON: {error}") from error
        yield piece
        at = cut


def next_character(text: bytes | bytearray, at: int, stop: int) -> int:
    """Return a possible end of the piece that begins ``at``: not inside an escape, a surrogate pair or a character."""
    end = at + PIECE_BYTES
    if end >= stop:
        return stop
    slash = text.rfind(b"\\", end - 6, end)
    if slash >= 0 and _begins_escape(text, at, slash) and (end - slash < 2 or text[slash + 1] == ord("u")):
        # A \u escape has six characters; only a complete one belongs to this piece.
        end = end if end - slash >= 6 else slash
    if text[end - 6 : end - 3].lower() == b"\\ud" and text[end - 3] in b"89abAB":
        end = end - 6 if _begins_escape(text, at, end - 6) else end
    for _ in range(3):
        end -= text[end] & 0xC0 == 0x80
    return end


def _begins_escape(text: bytes | bytearray, at: int, slash: int) -> bool:
    """Whether the backslash at ``slash`` begins an escape. A character begins at ``at``."""
    before = text[at:slash]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0
