"""Reads the record of a model's inputs, and the form in which it wants a batch, from the annotations of its code.

A dataclass, a TypedDict or a pydantic model describes a row. ``predict_batch(self, rows: list[Row])`` gets objects of
that class, ``predict_batch(self, inputs: DataFrame)`` a DataFrame, and any other ``predict_batch`` a dict of columns.
"""

import dataclasses
import enum
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Union

import numpy as np

from clipper.errors import ClipperError, ContainerFailed
from clipper.model.model import Inputs, Values
from clipper.values.records import Field, RecordType, parse_type
from clipper.values.types import DType, InputType

_TYPES = {bool: DType.BOOL, int: DType.INT64, float: DType.FLOAT64, str: DType.STRING, bytes: DType.BYTES}
_EXPECTED = (
    "expected float, int, bool, str, bytes, a type of numpy, Literal or Enum of these, lists of numbers, one of these "
    'or None, or Annotated[..., "float32[28,28]"]'
)
# The values that mean no default, in each kind of class.
_NONE: Any = object()
# Factories of defaults; another may give each row a value of its own, such as the time.
_EMPTY = (list, tuple)


class RowClass(NamedTuple):
    """A class that describes a row.

    Attributes:
        made: makes an object of the class from a row's values by field.
        hints: the annotation of each field.
    """

    record: RecordType
    made: Callable[..., Any]
    hints: Mapping[str, Any]


def row_class(found: object) -> RowClass | None:
    """Read a dataclass, TypedDict or pydantic model, else None. Raises ContainerFailed for a field of no input type."""
    if not isinstance(found, type):
        return None
    if dataclasses.is_dataclass(found):
        defaults = {one.name: _default_of(one) for one in dataclasses.fields(found) if one.init}
    elif typing.is_typeddict(found):
        defaults = dict.fromkeys(found.__annotations__, _NONE)
    elif isinstance(described := getattr(found, "model_fields", None), dict):
        # A required field of pydantic has a default that only pydantic knows.
        defaults = {
            name: _NONE
            if one.is_required()
            else one.get_default(call_default_factory=one.default_factory in (list, tuple))
            for name, one in described.items()
        }
    else:
        return None
    try:
        hints = typing.get_type_hints(found, include_extras=True)
        fields = (_field(found.__name__, name, hints[name], default) for name, default in defaults.items())
        return RowClass(RecordType(tuple(fields)), found, hints)
    except ContainerFailed:
        raise
    except Exception as error:  # annotations are expressions of the user, and there may be none
        raise ContainerFailed(f"the annotations of {found.__name__} make no record: {error!r:.200}") from error


def _default_of(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory in _EMPTY:
        return []
    return _NONE if field.default is dataclasses.MISSING else field.default


def _field(owner: str, name: str, hint: Any, default: Any) -> Field:
    inner, is_nullable = _without_none(hint)
    try:
        of_type, categories = _type_of(inner)
        default = default.value if isinstance(default, enum.Enum) else default
        text = None if default is _NONE or default is None else json.dumps(default, allow_nan=False)
        if default is None:
            is_nullable = True
    except (ClipperError, TypeError, ValueError) as error:
        raise ContainerFailed(f"the field {name} of {owner} is annotated {hint!r:.100}: {error}") from error
    return Field(name, of_type, is_nullable, text, categories)


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return an annotation without ``| None`` and ``NotRequired``, and whether it had either."""
    origin = typing.get_origin(hint)
    # typing.NotRequired is new in Python 3.11.
    if getattr(origin, "__name__", getattr(origin, "_name", None)) in ("NotRequired", "Required"):
        inner, is_nullable = _without_none(typing.get_args(hint)[0])
        return inner, is_nullable or "NotRequired" in str(origin)
    if origin is Union or origin is types.UnionType:
        others = [one for one in typing.get_args(hint) if one is not type(None)]
        if len(others) == 1:
            return others[0], True
    return hint, False


def _type_of(hint: Any) -> tuple[InputType, tuple[Any, ...]]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        for text in arguments[1:]:
            if isinstance(text, str) and isinstance(
                said := parse_type(text if "[" in text else f"{text}[]"), InputType
            ):
                return said, ()
        return _type_of(arguments[0])
    if origin is Literal:
        return InputType(_dtype_of(type(arguments[0])), ()), arguments
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        values = tuple(one.value for one in hint)
        return InputType(_dtype_of(type(values[0])), ()), values
    if origin in (list, tuple, Sequence):
        inner, _ = _type_of(arguments[0])
        return InputType(inner.dtype, (None, *inner.shape)), ()
    if hint is np.ndarray or origin is np.ndarray:
        return InputType(DType.FLOAT64), ()
    return InputType(_dtype_of(hint), ()), ()


def _dtype_of(kind: Any) -> DType:
    if kind in _TYPES:
        return _TYPES[kind]
    if isinstance(kind, type) and issubclass(kind, np.generic):
        return DType.parse(np.dtype(kind).name)
    raise TypeError(_EXPECTED)


def wanted(predict_batch: Callable[..., object]) -> RowClass | Literal["frame"] | None:
    """Return the class of the rows that a model wants, or ``frame`` if it wants a DataFrame; None if it does not say.
    Raises ContainerFailed if the annotation of a field of the class is no type of an input.
    """
    try:
        parameters = list(inspect.signature(predict_batch).parameters.values())
    except (TypeError, ValueError):  # a callable in C
        return None
    hint: Any = parameters[0].annotation if parameters else None
    if isinstance(hint, str):
        try:
            hint = typing.get_type_hints(getattr(predict_batch, "__func__", predict_batch))[parameters[0].name]
        except Exception:  # noqa: BLE001  what only type checkers import is not there, and may be anything
            return "frame" if hint.rpartition(".")[2] == "DataFrame" else None
    if getattr(hint, "__name__", "") == "DataFrame":
        return "frame"
    arguments = typing.get_args(hint)
    return row_class(arguments[0]) if typing.get_origin(hint) in (list, Sequence) and len(arguments) == 1 else None


def by_rows(predict_batch: Callable[[Any], object], rows: RowClass) -> Callable[[Inputs], object]:
    """Return a function of columns, which calls the model with a list of objects of its class."""
    readers = [_objects_of(field, rows.hints[field.name]) for field in rows.record.fields]
    names = rows.record.names

    def predict(inputs: Inputs) -> object:
        assert isinstance(inputs, dict)
        columns = [read(inputs[name]) for name, read in zip(names, readers)]
        return predict_batch([rows.made(**dict(zip(names, values))) for values in zip(*columns)])

    return predict


def _objects_of(field: Field, hint: Any) -> Callable[[Values], list[Any]]:
    """Return a function that turns a field's values into the type of its annotation."""
    inner, _ = _without_none(hint)
    if typing.get_origin(inner) is typing.Annotated:
        inner = typing.get_args(inner)[0]
    if isinstance(inner, type) and issubclass(inner, enum.Enum):
        return lambda values: [None if value is None else inner(value) for value in _plain(values, field)]
    is_list = typing.get_origin(inner) in (list, tuple, Sequence)
    if field.type.shape and not is_list:
        return list
    return lambda values: _plain(values, field)


def _plain(values: Values, field: Field) -> list[Any]:
    if field.type.shape:
        return [None if array is None else array.tolist() for array in values]
    plain: list[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    if not field.is_nullable or not isinstance(values, np.ndarray):
        return plain
    # Whole numbers that may be missing come as floats.
    as_type = float if field.type.dtype in (DType.FLOAT32, DType.FLOAT64) else int
    return [None if math.isnan(value) else as_type(value) for value in plain]
