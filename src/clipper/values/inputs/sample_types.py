"""Finds the type of the records in a sample."""

import json
from collections.abc import Sequence
from typing import Any

from clipper.values.records import MAX_FIELD_NAME_BYTES, MAX_FIELDS, Field, RecordType
from clipper.values.types import DType, InputType


def sample_rows(sample: Any) -> list[dict[str, Any]]:
    """Return the records in a sample; none if it is the input of a model that takes no records."""
    rows = [sample] if isinstance(sample, dict) else sample
    are_records = isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
    return rows if are_records else []


def sample_type(text: str) -> str | None:
    """Return the record type of a sample's JSON, without fields whose type is not shown; None if it is no record.

    A number is a float64, since the next may be one.
    """
    rows = sample_rows(json.loads(text))
    names = dict.fromkeys(name for row in rows for name in row)
    fields = [_field(name, [row.get(name) for row in rows]) for name in names]
    known = tuple(field for field in fields if field is not None)[:MAX_FIELDS]
    return str(RecordType(known)) if known else None


def _field(name: str, values: Sequence[Any]) -> Field | None:
    types = {_type_of(value) for value in values if value is not None}
    only = types.pop() if len(types) == 1 else None
    is_named = 0 < len(name.encode("utf-8", "replace")) <= MAX_FIELD_NAME_BYTES
    return Field(name, only, None in values) if only is not None and is_named else None


def _type_of(value: Any) -> InputType | None:
    """Return the type of a value; None if no field can have it."""
    if isinstance(value, list):
        inner = {_type_of(each) for each in value}
        only = inner.pop() if len(inner) == 1 else None
        return None if only is None or not only.dtype.is_numeric else InputType(only.dtype, (None, *only.shape))
    kinds = {str: DType.STRING, bool: DType.BOOL, int: DType.FLOAT64, float: DType.FLOAT64}
    return InputType(kinds[type(value)], ()) if type(value) in kinds else None
