"""Finds the parts of a long JSON text, in pieces, and counts them before any of them is parsed."""

import itertools
import re
from collections.abc import Generator
from typing import Any

import msgspec
import numpy as np

from clipper.errors import MalformedRequest
from clipper.inputs.long_text import strip

# Half a millisecond of work if every other character is a comma.
_PIECE_BYTES = 32 * 1024
# More keys than any client sends. Each key costs a little before it turns out to be unknown.
MAX_KEYS = 1000
# No known key is longer.
_MAX_KEY_BYTES = 100
_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _SEPARATOR = range(1, 6)
_KINDS = bytearray(256)
for _kind, _characters in ((_QUOTE, b'"'), (_BACKSLASH, b"\\"), (_OPEN, b"[{"), (_CLOSE, b"]}"), (_SEPARATOR, b",:")):
    for _character in _characters:
        _KINDS[_character] = _kind
_LONE_KEY = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"([a-z_]{1,30})"[ \t\r\n]*:')
_DEPTHS = np.array([0, 0, 0, 1, -1, 0], np.int64)

Extent = tuple[int, int]


def find_items(text: bytearray, start: int, stop: int, most: int) -> Generator[None, None, list[Extent] | None]:
    """Return the extents of the items of the list in ``text[start:stop]``; None if there are more than ``most``.

    Items are not parsed, so they may be anything, even if it is not JSON.

    Raises:
        MalformedRequest: the text is not a list.
    """
    marks = yield from _find_marks(text, start, stop, b"[]", most + 1)
    if marks is None:
        return None
    if any(text[mark] != ord(",") for mark in marks[1:-1]):
        raise MalformedRequest("body is not JSON: expected a comma between the items of a list")
    if len(marks) == 2 and not text[marks[0] + 1 : marks[1]].strip():
        return []
    return [(before + 1, after) for before, after in itertools.pairwise(marks)]


def find_lone_field(text: bytearray) -> dict[str, Extent] | None:
    """Find the field of an object that has only one, and whose value is either a string or contains none.

    Most bodies have this form. Return None if there may be more fields; that is not examined further.
    """
    match = _LONE_KEY.match(text)
    start, stop = strip(text, match.end() if match else 0, len(text))
    if match is None or text[stop - 1 : stop] != b"}":
        return None
    start, stop = strip(text, start, stop - 1)
    quote = text.find(b'"', start, stop)
    if quote == start:
        quote = text.find(b'"', start + 1, stop)
        is_alone = quote == stop - 1
    else:
        is_alone = quote < 0
    return {match[1].decode(): (start, stop)} if is_alone else None


def find_fields(text: bytearray, start: int, stop: int) -> Generator[None, None, dict[str, Extent]]:
    """Return the extents of the values of the object in ``text[start:stop]``, by key. Of equal keys, the last counts.

    Raises:
        MalformedRequest: the text is not an object, or has more than ``MAX_KEYS`` keys.
    """
    marks = yield from _find_marks(text, start, stop, b"{}", 2 * MAX_KEYS + 1)
    if marks is None:
        raise MalformedRequest(f"body has over {MAX_KEYS} keys: expected fewer")
    fields: dict[str, Extent] = {}
    if len(marks) == 2 and not text[marks[0] + 1 : marks[1]].strip():
        return fields
    if len(marks) % 2 == 0 or any(text[mark] != ord(":,"[index % 2]) for index, mark in enumerate(marks[1:-1])):
        raise MalformedRequest("body is not JSON: expected a colon after each key, and a comma after each value")
    for before, colon, after in zip(marks[::2], marks[1::2], marks[2::2]):
        key = _read_key(text, *strip(text, before + 1, colon))
        if key is not None:
            fields[key] = colon + 1, after
    return fields


def _read_key(text: bytearray, start: int, stop: int) -> str | None:
    if stop - start > _MAX_KEY_BYTES:
        return None
    try:
        return msgspec.json.decode(text[start:stop], type=str)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MalformedRequest(f"body is not JSON: {error}") from error


def _find_marks(
    text: bytearray, start: int, stop: int, brackets: bytes, most: int
) -> Generator[None, None, list[int] | None]:
    """Find where a list or object opens, where it closes, and the commas and colons between its parts.

    Return None if there are more than ``most`` such places. All characters of a piece are classified at once, as
    simdjson does.
    """
    start, stop = strip(text, start, stop)
    marks: list[int] = []
    depth, is_inside, is_escaped = 0, False, False
    for at in range(start, stop, _PIECE_BYTES):
        piece = text[at : min(at + _PIECE_BYTES, stop)]
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
        depths = np.cumsum(_DEPTHS[found]) + depth
        own = (depths == 1) & ((found == _SEPARATOR) | (found == _OPEN)) | (depths <= 0)
        # The opening of a nested list is at depth 2, and its closing returns to depth 1.
        marks += (places[own] + at).tolist()
        if len(marks) > most and marks[0] == start:
            return None
        depth = int(depths[-1]) if len(depths) else depth
        if depth <= 0:
            break
        yield
    if depth or is_inside or len(marks) < 2 or (marks[0], marks[-1] + 1) != (start, stop):
        raise MalformedRequest("body is not JSON: a list, an object or a string does not end where it should")
    if text[start] != brackets[0] or text[stop - 1] != brackets[1]:
        raise MalformedRequest(f"expected a JSON {'object' if brackets == b'{}' else 'list'}")
    return marks


def _without_escaped(kinds: Any, is_escaped: bool) -> tuple[Any, bool]:
    """Clear escaped characters; also return whether the piece ends with a backslash that escapes the next one."""
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
