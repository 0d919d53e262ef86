"""The types that values of JSON show, from which the type of a version's outputs is learned.

Standard library only: the container runtime imports this file inside a model's own environment.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from clipper.errors import InvalidArgument
from clipper.values.records import MAX_TYPE_CHARACTERS, Field, RecordType
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

_NUMBERS = {int, float}


class NoType(Exception):
    """No type describes an output, such as a list of texts."""


def type_of_json(value: Any) -> InputType | None:
    """Return the type of a decoded value: float64 for numbers, since an int today may be a float tomorrow; None if the
    value shows none, being null or empty lists. Raises NoType."""
    flat, shape = flattened(value)
    if shape is None or any(type(each) is int and not -(2**63) <= each < 2**63 for each in flat):
        raise NoType
    return type_of_elements(map(type, flat), shape)


def type_of_text(text: bytes) -> InputType | None:
    """Return the type that a text of JSON shows, as ``type_of_json`` does."""
    try:
        return type_of_json(json.loads(text))
    except (ValueError, RecursionError):
        raise NoType from None


def record_of(types: Mapping[str, InputType | None], nullable: Collection[str] = ()) -> RecordType | None:
    """Return the type of a record of these fields; None if the type of one is not known.

    Raises NoType if they have no names that fields can have, or if nobody could read the type's text again.
    """
    fields = tuple(Field(name, each, is_nullable=name in nullable) for name, each in types.items() if each is not None)
    if len(fields) < len(types):
        return None
    try:
        found = RecordType(fields)
    except InvalidArgument:
        raise NoType from None
    if len(str(found)) > MAX_TYPE_CHARACTERS:
        raise NoType
    return found


def type_of_elements(types: Iterable[type], shape: tuple[int, ...]) -> InputType | None:
    """Return the type of nested lists of this shape, whose elements have these types of Python; None if they show none.

    A null among numbers is NaN. Raises NoType.
    """
    kinds = set(types)
    has_null = type(None) in kinds
    kinds.discard(type(None))
    if not kinds:
        return None
    if kinds <= _NUMBERS:
        return InputType(DType.FLOAT64, shape)
    if has_null or len(kinds) > 1:
        raise NoType
    if bool in kinds:
        return InputType(DType.BOOL, shape)
    if str not in kinds or shape:
        raise NoType
    return InputType(DType.STRING)


def flattened(value: Any) -> tuple[list[Any], tuple[int, ...] | None]:
    """Return the elements of nested lists, and their shape; None instead if lists of one depth differ in length."""
    flat, shape = [value], []
    while flat and type(flat[0]) is list:
        length = len(flat[0])
        if not all(type(part) is list and len(part) == length for part in flat):
            return flat, None
        shape.append(length)
        flat = [item for part in flat for item in part]
    if len(shape) > MAX_DIMENSIONS or any(type(item) is list for item in flat):
        return flat, None
    return flat, tuple(shape)
