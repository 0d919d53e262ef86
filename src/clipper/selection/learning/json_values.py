"""Outputs and labels are JSON text, and mostly stay so: this tells which are equal, and which are numbers."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from clipper.types import MAX_DIMENSIONS

Shape = tuple[int, ...]


def value_key(text: bytes) -> Hashable:
    """Equal for texts of one JSON value, however written: ``3`` and ``3.0``, objects in any order of their names.

    ``true`` is not 1. A text that is not JSON, or nested too deeply, equals itself.
    """
    value = decode(text)
    try:
        return text if value is _UNREADABLE else _key(value)
    except RecursionError:
        return text


def is_json(text: bytes) -> bool:
    """Whether it is one JSON value, nested no deeper than can be read."""
    return decode(text) is not _UNREADABLE


def is_same(text: bytes, other: bytes) -> bool:
    """Whether both texts are of one JSON value."""
    return text == other or value_key(text) == value_key(other)


@dataclass(frozen=True, slots=True)
class Array:
    """A number, or a vector or nested lists of them of one length a dimension, flat in C order."""

    shape: Shape
    numbers: tuple[float, ...]

    def encode(self) -> bytes:
        """Its JSON text."""
        nested: list[Any] = list(self.numbers)
        for size in reversed(self.shape[1:]):
            nested = [nested[start : start + size] for start in range(0, len(nested), size)]
        return msgspec.json.encode(nested if self.shape else nested[0])


def parse_array(text: bytes) -> Array | None:
    """The numbers in ``text``; None if it is something else, ragged, empty or holds what no double can."""
    value = decode(text)
    shape = _shape(value)
    if shape is None or len(shape) > MAX_DIMENSIONS:
        return None
    numbers: list[float] = []
    try:
        return Array(shape, tuple(numbers)) if _flatten(value, shape, numbers) else None
    except OverflowError:
        return None


def decode(text: bytes) -> Any:
    """The value; an object that equals nothing if it cannot be read."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _UNREADABLE


_UNREADABLE = object()


def _key(value: Any) -> Hashable:
    # A bool equals a number in Python, and its tag nothing that JSON can hold.
    if isinstance(value, bool):
        return bool, value
    if isinstance(value, list):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return frozenset((name, _key(item)) for name, item in value.items())
    return value  # type: ignore[no-any-return]


def _shape(value: Any) -> Shape | None:
    """What the first element of each dimension says."""
    shape: list[int] = []
    while isinstance(value, list):
        if not value:
            return None
        shape.append(len(value))
        value = value[0]
    return tuple(shape)


def _flatten(value: Any, shape: Sequence[int], numbers: list[float]) -> bool:
    """Append the numbers; False if ``value`` is not of that shape."""
    if not shape:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        numbers.append(float(value))
        return True
    if not isinstance(value, list) or len(value) != shape[0]:
        return False
    return all(_flatten(item, shape[1:], numbers) for item in value)
