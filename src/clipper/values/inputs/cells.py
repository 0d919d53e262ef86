"""Inputs from texts: the cells of a table in CSV, and ``age=31`` on the command line."""

import json
from collections.abc import Mapping
from typing import Any

from clipper.errors import InvalidArgument
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType


def input_of_texts(texts: Mapping[str, str], input_type: ValueType | None) -> Any:
    """Return a row's input, by its columns: a record, a list of numbers, or the only text. Raises InvalidArgument."""
    if isinstance(input_type, RecordType):
        return record_of_texts(texts, input_type)
    return list_of([_number(text) for text in texts.values()], input_type)


def list_of(values: list[Any], input_type: ValueType | None) -> Any:
    """Return the input that a row's values are: their list, or the only value if the type has no shape."""
    is_text = not isinstance(input_type, RecordType) and input_type is not None and not input_type.shape
    return values[0] if is_text and len(values) == 1 else values


def _number(text: str) -> Any:
    """Return the value of a text that is JSON, such as a number; any other text unchanged."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text


def record_of_texts(texts: Mapping[str, str], record: RecordType) -> dict[str, Any]:
    """Return the record of these texts; an empty text means missing, or the default. Raises InvalidArgument."""
    by_name = {field.name: field for field in record.fields}
    found = {}
    for name, text in texts.items():
        field = by_name.get(name)
        if field is None:
            found[name] = _number(text)  # the server refuses or ignores an unknown field
        elif text or field.is_required:
            found[name] = _value_of(text, field)
    return found


def _value_of(text: str, field: Field) -> Any:
    dtype = field.type.dtype
    if dtype in (DType.STRING, DType.BYTES):
        return text
    if dtype is DType.BOOL and not field.type.shape and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if field.is_nullable and text.lower() in _MISSING:
        return None
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{field.name}={text[:100]} is not valid: expected {field}") from error


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
# The texts that tables write for missing values.
_MISSING = frozenset({"nan", "na", "null", "none"})
