"""Finds the brackets, commas and colons of a JSON text that are outside of its strings, a piece at a time.

All characters of a piece are classified at once, as simdjson does.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_QUOTE, _BACKSLASH, OPEN, CLOSE, SEPARATOR = range(1, 6)
_KINDS = bytearray(256)
for _kind, _characters in ((_QUOTE, b'"'), (_BACKSLASH, b"\\"), (OPEN, b"[{"), (CLOSE, b"]}"), (SEPARATOR, b",:")):
    for _character in _characters:
        _KINDS[_character] = _kind


class Marks(NamedTuple):
    """The brackets, commas and colons of a piece that are outside of strings.

    Attributes:
        places: their places in the piece.
        kinds: the kind of each: ``OPEN``, ``CLOSE`` or ``SEPARATOR``.
        is_inside: whether the piece ends inside a string.
        is_escaped: whether it ends with a backslash that escapes the next character.
    """

    places: Any
    kinds: Any
    is_inside: bool
    is_escaped: bool


def find_marks(piece: bytes | bytearray, is_inside: bool = False, is_escaped: bool = False) -> Marks:
    """Return the marks of a piece. The last two arguments are attributes of the marks of the piece before."""
    kinds = np.frombuffer(piece.translate(_KINDS), np.uint8)
    if is_escaped or b"\\" in piece:
        kinds, is_escaped = _without_escaped(kinds, is_escaped)
    places = np.flatnonzero(kinds)
    found = kinds[places]
    if is_inside or b'"' in piece:
        quotes = found == _QUOTE
        inside = (np.cumsum(quotes) + is_inside) & 1
        is_inside = bool(inside[-1]) if len(inside) else is_inside
        outside = (inside == 0) & ~quotes
        places, found = places[outside], found[outside]
    return Marks(places, found, is_inside, is_escaped)


def outside_strings(
    piece: bytes | bytearray, places: Sequence[int], is_inside: bool = False, is_escaped: bool = False
) -> tuple[list[int], bool, bool]:
    """Return the places in a piece that are outside of strings, and the last two attributes of ``Marks``.

    The last two arguments are those attributes of the piece before.
    """
    kinds = np.frombuffer(piece.translate(_KINDS), np.uint8)
    if is_escaped or b"\\" in piece:
        kinds, is_escaped = _without_escaped(kinds, is_escaped)
    quotes = np.flatnonzero(kinds == _QUOTE)
    inside = (np.searchsorted(quotes, places) + is_inside) & 1
    outside = [place for place, is_in in zip(places, inside.tolist()) if not is_in]
    return outside, bool((len(quotes) + is_inside) & 1), is_escaped


def _without_escaped(kinds: Any, is_escaped: bool) -> tuple[Any, bool]:
    """Clear escaped characters; return whether the piece ends with a backslash that escapes the next character."""
    kinds = kinds.copy()
    if is_escaped:
        kinds[0] = 0
    slashes = np.flatnonzero(kinds == _BACKSLASH)
    if not len(slashes):
        return kinds, False
    # In a run of backslashes, every second one is escaped by the one before it.
    is_first = np.diff(slashes, prepend=-2) != 1
    numbers = np.arange(len(slashes))
    in_run = numbers - np.maximum.accumulate(np.where(is_first, numbers, 0))
    active = slashes[in_run % 2 == 0]
    behind = active + 1
    kinds[behind[behind < len(kinds)]] = 0
    kinds[slashes] = 0
    return kinds, bool(active[-1] == len(kinds) - 1)
