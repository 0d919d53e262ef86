"""Reads nested lists of a long JSON text in pieces: their elements, and their shape."""

from collections.abc import Iterator
from math import prod
from typing import Any

import msgspec
import numpy as np

from clipper.values.inputs import long_text
from clipper.values.inputs.json_marks import SEPARATOR, find_marks

_decode = msgspec.json.decode


class Ragged(Exception):
    """The text does not have lists of one shape whose elements are numbers, texts or booleans."""


def elements(text: bytes, marks: bytearray | None = None) -> Iterator[list[Any]]:
    """Yield the elements of nested lists in their order, those of a piece of the text at a time.

    Args:
        text: JSON.
        marks: the brackets and commas are appended to it, for ``shape_of``.

    Raises:
        Ragged: there is an object in the text, or an empty list.
    """
    start, size = 0, long_text.PIECE_BYTES
    if text.startswith(b'"'):
        yield [_decode(text)]
        return
    while start < len(text):
        piece = text[start : start + size]
        is_last = start + size >= len(text)
        found = find_marks(piece)
        characters = np.frombuffer(piece, np.uint8)[found.places]
        commas = found.places[characters == ord(",")]
        if not is_last and not len(commas):
            size *= 2  # the piece ends within a long string
            continue
        end = len(piece) if is_last else int(commas[-1])
        is_own = found.places < end
        if np.isin(characters[is_own], _OF_OBJECTS).any():
            raise Ragged
        flat = bytearray(piece[:end])
        np.frombuffer(flat, np.uint8)[found.places[is_own & (found.kinds != SEPARATOR)]] = ord(" ")
        if marks is not None:
            marks += characters[is_own].tobytes() + (b"" if is_last else b",")
        try:
            values: list[Any] = _decode(b"[%b]" % bytes(flat))
        except msgspec.DecodeError as error:  # a list has no elements
            raise Ragged from error
        yield values
        start, size = start + end + 1, long_text.PIECE_BYTES


_OF_OBJECTS = np.frombuffer(b"{}:", np.uint8)


def shape_of(marks: bytes, count: int) -> tuple[int, ...]:
    """Return the shape of nested lists by their marks. Raises Ragged if lists of one depth differ, or are empty."""
    depth = len(marks) - len(marks.lstrip(b"["))
    shape: list[int] = []
    whole = b""
    for level in range(depth):
        # The first list of this level ends where as many lists end at once.
        stop = marks.find(b"]" * (level + 1)) + level + 1
        size = stop - (depth - 1 - level)
        length, rest = divmod(size - 1, len(whole) + 1)
        if stop <= level or rest or length < 1:
            raise Ragged
        shape.insert(0, length)
        whole = b"[" + b",".join([whole] * length) + b"]"
    if whole != marks or prod(shape) != count:
        raise Ragged
    return tuple(shape)
