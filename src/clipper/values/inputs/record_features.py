"""Features of a policy from fields of a record: numbers, and a number for each category (one-hot)."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from clipper.errors import InvalidArgument
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import Field, RecordType
from clipper.values.types import MAX_FEATURES, DType

# The word that means all fields, in place of names.
ALL_FIELDS = "input"


class RecordFeatures:
    """Makes the features of a record from its row. A missing value becomes zeros.

    Attributes:
        names: the name of each feature: ``age``, ``job=smith``, ``scores[0]``.
        fields: the name of the field that each feature comes from.
    """

    def __init__(self, record: RecordType, chosen: str) -> None:
        """Choose the features. ``chosen``: names of fields in the form of ``--features``, or ``input`` for all. Raises
        InvalidArgument if there is no such field, a field has no numbers or categories, or there are too many features.
        """
        self._rows = RecordRows(record)
        wanted = list(record.names) if chosen == ALL_FIELDS else field_names(chosen)
        by_name = {field.name: index for index, field in enumerate(record.fields)}
        if unknown := [name for name in wanted if name not in by_name]:
            raise InvalidArgument(
                f"features name {unknown[0]!r:.100}, which is no field of {str(record)[:200]}: expected names of fields"
            )
        self._makers: list[tuple[int, int, Callable[[Any], Any]]] = []
        names: list[str] = []
        fields: list[str] = []
        for name in wanted:
            field = record.fields[by_name[name]]
            first = len(names)
            names += _names_of(field)
            if len(names) > MAX_FEATURES:
                raise InvalidArgument(
                    f"the fields {', '.join(wanted)[:200]} make over {MAX_FEATURES} features, with one for each "
                    "category and element: name fewer fields"
                )
            self._makers.append((by_name[name], first, _maker(field, len(names) - first)))
            fields += [name] * (len(names) - first)
        self.names, self.fields = tuple(names), tuple(fields)

    def of(self, row: bytes) -> bytes:
        """Return the features' raw buffer, little-endian float64."""
        values = self._rows.values(row)
        features = np.zeros(len(self.names), "<f8")
        for index, first, make in self._makers:
            value = values[index]
            if value is not None:
                numbers = make(value)
                features[first : first + len(numbers)] = numbers
        # A single NaN would erase everything that a linear policy has learned.
        features[~np.isfinite(features)] = 0.0
        return features.tobytes()


def field_names(text: str) -> list[str]:
    """Split ``age, income``; a name with commas is in "". Raises InvalidArgument if a name is empty, or comes twice."""
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not all(names) or len(set(names)) != len(names) or not names:
        raise InvalidArgument(f"{text[:100]!r} is no list of fields: expected names with commas between them")
    return names


def _names_of(field: Field) -> Iterator[str]:
    of_type = field.type
    if field.categories:
        yield from (
            f"{field.name}={value if isinstance(value, str) else json.dumps(value)}" for value in field.categories
        )
    elif of_type.row_bytes is None:
        expected = "expected numbers of a fixed shape, or categories"
        if of_type.dtype is DType.STRING:
            of_two = replace(field, categories=("a", "b"), default=None)
            expected += f": name those of this field in the application's --input-type, such as {str(of_two)!r:.200}"
        raise InvalidArgument(f"field {field.name!r:.100} is {of_type} and cannot be features: {expected}")
    elif not of_type.shape:
        yield field.name
    else:
        yield from (f"{field.name}[{index}]" for index in range(of_type.elements))


def _maker(field: Field, count: int) -> Callable[[Any], Any]:
    """Return a function from a row's value of the field to numbers."""
    dtype = field.type.dtype
    if field.categories:
        # The categories in the form of a row, in which a text is UTF-8.
        places = {
            value.encode() if dtype is DType.STRING and isinstance(value, str) else value: index
            for index, value in enumerate(field.categories)
        }
        columns = np.eye(count)
        none = np.zeros(count)
        return lambda value: columns[places[value]] if value in places else none
    if field.type.shape:
        return lambda value: np.frombuffer(value, dtype.numpy_code)
    return lambda value: (value,)
