"""Compares outputs and labels, which mostly stay JSON text: finds which are equal, and which are numbers."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import msgspec

from clipper.values.json_types import flattened

Shape = tuple[int, ...]

_NUMBERS = frozenset({int, float})


def value_key(text: bytes) -> Hashable:
    """Return a key that is equal for all texts of one JSON value: ``3`` and ``3.0``, or objects in another order.

    ``true`` is not 1. A text that is not JSON, or nested too deeply, only equals itself.
    """
    value = decode(text)
    try:
        return text if value is _UNREADABLE else _key(value)
    except RecursionError:
        return text


def is_same(text: bytes, other: bytes) -> bool:
    """Whether both texts have the same JSON value."""
    return text == other or value_key(text) == value_key(other)


@dataclass(frozen=True, slots=True)
class Array:
    """A number, a vector, or nested lists of numbers with one length in each dimension, flat in C order."""

    shape: Shape
    numbers: tuple[float, ...]

    def encode(self) -> bytes:
        """Return its JSON text."""
        nested: list[Any] = list(self.numbers)
        for size in reversed(self.shape[1:]):
            nested = [nested[start : start + size] for start in range(0, len(nested), size)]
        return msgspec.json.encode(nested if self.shape else nested[0])


def parse_array(text: bytes) -> Array | None:
    """Return the numbers in ``text``; None if it is something else, ragged, empty or beyond the range of a double."""
    value = decode(text)
    if type(value) is float:  # as most labels and outputs of feedback are
        return Array((), (value,))
    flat, shape = flattened(value)
    if shape is None or not flat or not _NUMBERS.issuperset(map(type, flat)):
        return None
    try:
        return Array(shape, tuple(map(float, flat)))
    except OverflowError:
        return None


def decode(text: bytes) -> Any:
    """Return the value; if it cannot be read, an object that equals nothing."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _UNREADABLE


_UNREADABLE = object()


def _key(value: Any) -> Hashable:
    # In Python a bool equals a number, so tag it with something that JSON cannot contain.
    if isinstance(value, bool):
        return bool, value
    if isinstance(value, list):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return frozenset((name, _key(item)) for name, item in value.items())
    return value  # type: ignore[no-any-return]
