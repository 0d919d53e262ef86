"""Copies and checks a long JSON text of a container in pieces, so that it holds no turn of the loop.

A text is cut at commas outside of its strings. Each piece is checked as a text of its own: with the brackets before it
that are open where it begins, and brackets after it that close those that are open where it ends. ``[[1,2],[3,4]]``,
cut at its second comma, becomes ``[[1,2],0]`` and ``[0,[3,4]]``: the text is JSON exactly if both are. A long string
keeps only its two ends, after the middle has been checked.
"""

import io
from collections.abc import Generator

import msgspec
import numpy as np

from clipper.errors import ModelFailed
from clipper.values.inputs import long_text
from clipper.values.inputs.json_marks import SEPARATOR, find_marks
from clipper.values.outputs.checks import NOT_JSON, check_characters, check_json

_OPENED = {ord("["): b"[", ord("{"): b'{"":'}
_CLOSED = {ord("["): b"]", ord("{"): b"}"}
# Brackets with an item before the piece, and an item after it, so that no comma stands alone.
_OPENED_BEFORE = {ord("["): b"[0,", ord("{"): b'{"":0,'}
_AFTER = {ord("["): b",0", ord("{"): b',"":0'}
# A comma comes within this many pieces, or the text is refused: numbers, brackets and the ends of strings are short.
_PIECES_WITHOUT_COMMA = 64
# The length of the longest escape, such as \u001f.
_ESCAPE_BYTES = 6


def read_long_text(text: memoryview) -> Generator[None, None, bytes]:
    """Return a copy of JSON, in steps below a millisecond. Raises ModelFailed if it is none, or beyond float64."""
    copy, checks, start = io.BytesIO(), _Checks(), 0
    try:
        while start < len(text):
            end = min(start + long_text.PIECE_BYTES, len(text))
            for _ in range(3):  # a piece of a string is checked alone, so it does not end inside a character
                end -= end < len(text) and text[end] & 0xC0 == 0x80
            piece = bytes(text[start:end])
            copy.write(piece)
            piece.decode()
            checks.add(piece)
            start = end
            yield
        checks.end()
    except NOT_JSON as error:
        raise ModelFailed(f"the container's output is not JSON: {error}") from error
    return copy.getvalue()  # this makes no further copy


class _Checks:
    """Checks the pieces of a text.

    Attributes:
        _open: the brackets that are open behind the last cut.
        _rest: the text since that cut, without the middle of a long string.
        _is_inside: whether this rest ends inside a string, and surely not within an escape.
    """

    def __init__(self) -> None:
        self._open = self._rest = b""
        self._is_inside = False

    def add(self, piece: bytes) -> None:
        """Check the text up to the last comma."""
        if self._is_inside and b'"' not in piece and b"\\" not in piece:  # inside a long string, such as an image
            check_json(b'"%b"' % piece)
            return
        text = self._rest + piece
        marks = find_marks(text)
        self._is_inside = marks.is_inside and b"\\" not in text[-_ESCAPE_BYTES:]
        places, found = marks.places, np.frombuffer(text, np.uint8)[marks.places]
        commas, cut = places[found == ord(",")], 0
        if len(commas):
            comma = int(commas[-1])
            self._check(text[:comma], found[(marks.kinds != SEPARATOR) & (places < comma)].tobytes())
            cut = comma + 1
        if marks.is_inside:
            self._rest = _shortened(text[cut:], max(int(places[-1]) + 1 - cut, 0) if len(places) else 0)
        else:
            self._rest = text[cut:]
            if len(self._rest) > _PIECES_WITHOUT_COMMA * long_text.PIECE_BYTES:
                raise msgspec.DecodeError(f"it has {len(self._rest)} characters without a comma")

    def end(self) -> None:
        """Check the rest."""
        _check_whole(self._opening() + self._rest)

    def _check(self, piece: bytes, brackets: bytes) -> None:
        """Check a piece that a comma follows. ``brackets``: its brackets outside of strings."""
        while (fewer := brackets.replace(b"[]", b"").replace(b"{}", b"")) != brackets:
            brackets = fewer
        closed = len(brackets) - len(brackets.lstrip(b"]}"))
        is_open = self._open[: max(len(self._open) - closed, 0)] + brackets[closed:]
        if closed > len(self._open) or not is_open.strip(b"]}"):
            raise msgspec.DecodeError("it has a comma outside of any list or object")
        closing = b"".join(_CLOSED.get(bracket, b"") for bracket in reversed(is_open))
        _check_whole(self._opening() + piece + _AFTER.get(is_open[-1], b"") + closing)
        self._open = is_open

    def _opening(self) -> bytes:
        if not self._open:
            return b""
        *outer, last = self._open
        return b"".join(_OPENED[bracket] for bracket in outer) + _OPENED_BEFORE[last]


def _check_whole(text: bytes) -> None:
    check_json(text)
    check_characters(text)


def _shortened(text: bytes, start: int) -> bytes:
    """Check and leave out the middle of the string that begins behind ``start`` and does not end."""
    quote = text.find(b'"', start) + 1
    while len(text) - quote > 2 * long_text.PIECE_BYTES:
        end = long_text.next_character(text, quote, len(text))
        check_json(b'"%b"' % text[quote:end])
        text = text[:quote] + text[end:]
    return text
