"""Finds the parts of a long JSON text, in pieces, and counts them before any of them is parsed."""

import itertools
import re
from collections.abc import Generator

import msgspec
import numpy as np

from clipper.errors import MalformedRequest
from clipper.values.inputs.json_marks import OPEN, SEPARATOR, find_marks
from clipper.values.inputs.long_text import strip

# A piece takes half a millisecond if every other character is a comma.
_PIECE_BYTES = 32 * 1024
# More keys than any client sends. Each key costs a little before it turns out to be unknown.
MAX_KEYS = 1000
# Longer than any known key.
_MAX_KEY_BYTES = 100
# This much of a longer key is enough for a message.
_SHOWN_KEY_BYTES = 40
_LONE_KEY = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"([a-z_]{1,30})"[ \t\r\n]*:')
_DEPTHS = np.array([0, 0, 0, 1, -1, 0], np.int64)

Extent = tuple[int, int]


def find_items(text: bytearray, start: int, stop: int, most: int) -> Generator[None, None, list[Extent] | None]:
    """Return the extents of the items of the list in ``text[start:stop]``; None if there are more than ``most``.

    Items are not parsed, so they may be anything, even if it is not JSON.

    Raises MalformedRequest if the text is not a list.
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
    """Find the only field of an object, if its value is a string or contains none.

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


def find_fields(
    text: bytearray, start: int, stop: int, most_key_bytes: int = _MAX_KEY_BYTES
) -> Generator[None, None, dict[str, Extent]]:
    """Return the extents of the values of the object in ``text[start:stop]``, by key. The last of equal keys counts.
    ``most_key_bytes``: the size of the longest known key, as JSON. Of a longer key, the beginning is returned. Raises
    MalformedRequest if the text is not an object, or has more than ``MAX_KEYS`` keys.
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
        fields[_read_key(text, *strip(text, before + 1, colon), most_key_bytes)] = colon + 1, after
    return fields


def _read_key(text: bytearray, start: int, stop: int, most_bytes: int) -> str:
    if stop - start > most_bytes:
        return text[start + 1 : start + _SHOWN_KEY_BYTES].decode("utf-8", "replace") + "…"
    try:
        return msgspec.json.decode(text[start:stop], type=str)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MalformedRequest(f"body is not JSON: {error}") from error


def _find_marks(
    text: bytearray, start: int, stop: int, brackets: bytes, most: int
) -> Generator[None, None, list[int] | None]:
    """Find where a list or object opens and closes, and its commas and colons; None if these are over ``most``."""
    start, stop = strip(text, start, stop)
    marks: list[int] = []
    depth, is_inside, is_escaped = 0, False, False
    for at in range(start, stop, _PIECE_BYTES):
        piece = text[at : min(at + _PIECE_BYTES, stop)]
        places, found, is_inside, is_escaped = find_marks(piece, is_inside, is_escaped)
        depths = np.cumsum(_DEPTHS[found]) + depth
        own = (depths == 1) & ((found == SEPARATOR) | (found == OPEN)) | (depths <= 0)
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
