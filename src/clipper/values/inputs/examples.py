"""Examples of inputs as JSON values, for people who want to try a model."""

from math import prod
from typing import Any

import msgspec

from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType

# A longer example would not be readable.
MAX_EXAMPLE_ELEMENTS = 1000
# The length of open dimensions; any would do.
_OPEN_LENGTH = 3
_ELEMENTS = {
    DType.STRING: "text",
    DType.BYTES: "Ynl0ZXM=",
    DType.BOOL: True,
    DType.FLOAT32: 0.5,
    DType.FLOAT64: 0.5,
}


def example_input(input_type: ValueType) -> tuple[Any] | None:
    """Return an example of an input, in a tuple; None if it would be long. A record has all of its fields."""
    if isinstance(input_type, RecordType):
        values = {field.name: _of_field(field) for field in input_type.fields}
        return None if None in values.values() else ({name: value[0] for name, value in values.items() if value},)
    value: Any = _ELEMENTS.get(input_type.dtype, 1)
    shape = [length or _OPEN_LENGTH for length in input_type.shape]
    if prod(shape) > MAX_EXAMPLE_ELEMENTS:
        return None
    for length in reversed(shape):
        value = [value] * length
    return (value,)


def _of_field(field: Field) -> tuple[Any] | None:
    if field.categories:
        return (field.categories[0],)
    if field.default is not None:
        return (msgspec.json.decode(field.default),)
    return example_input(field.type)
