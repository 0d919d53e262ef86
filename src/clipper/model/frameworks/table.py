"""Turns records into the columns and matrices that models of tables take. ``frames.py`` makes DataFrames."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from clipper.errors import ContainerFailed, InvalidArgument, WrongInput
from clipper.model.model import Array, Columns, Inputs, Values
from clipper.values.records import Field, RecordType, ValueType, parse_type
from clipper.values.types import DType, InputType

# The most categories of a booster's column. It needs all of them, to find the place of each.
BOOSTER_CATEGORIES = 1 << 16

_OF_PLAIN = {str: DType.STRING, bool: DType.BOOL, int: DType.INT64, float: DType.FLOAT64}


def number(name: str, dtype: DType = DType.FLOAT64, is_nullable: bool = False) -> Field:
    """Return a field with a number, or a text."""
    return Field(name, InputType(dtype, ()), is_nullable)


def of_categories(name: str, values: Iterable[Any], most: int) -> Field | None:
    """Return the field of a column with these values, ``most`` of them listed; None if they are of several types."""
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    known = [value for value in plain if value is not None and value == value]  # this leaves out NaN
    dtype = common_type(known)
    if dtype is None:
        return None
    return Field(name, InputType(dtype, ()), categories=tuple(known) if len(known) <= most else ())


def common_type(values: Iterable[Any]) -> DType | None:
    """Return the only type that these plain values have; None if there is none, or several."""
    kinds = set(map(type, values))
    return _OF_PLAIN.get(kinds.pop()) if len(kinds) == 1 else None


def declared_record(text: str | None) -> RecordType | None:
    """Return the record that a deployment declares, if any. Raises ContainerFailed if the text is no type."""
    try:
        found = None if text is None else parse_type(text)
    except InvalidArgument as error:
        raise ContainerFailed(f"input type {text!r:.100}: {error}") from error
    return found if isinstance(found, RecordType) else None


def as_columns(chosen: ValueType, known: RecordType) -> Callable[[Inputs], Columns] | None:
    """Return a function that makes a model's columns of the inputs that its deployment declares; None if that fails.

    The inputs may be records with other types of numbers, lists of numbers in the order of the fields, values of the
    only field, or texts of JSON objects.
    """
    if chosen == known:
        return lambda inputs: inputs  # type: ignore[return-value]  # inputs of a record are its columns
    if isinstance(chosen, RecordType):
        return _as_known(chosen, known)
    fields = known.fields
    if len(fields) == 1 and is_alike(chosen, fields[0].type):
        convert = _converter(Field(fields[0].name, chosen), fields[0])
        return lambda inputs: {fields[0].name: convert(inputs)}  # type: ignore[arg-type]
    numbers = all(field.type.dtype.is_numeric and field.type.shape == () for field in fields)
    if numbers and chosen.dtype.is_numeric and chosen.shape in ((len(fields),), (None,)):
        return lambda inputs: _by_place(np.asarray(inputs), fields)
    if chosen.dtype is DType.STRING:
        return lambda inputs: _from_texts([str(row) for row in inputs], fields)
    return None


def _as_known(chosen: RecordType, known: RecordType) -> Callable[[Inputs], Columns] | None:
    given = {field.name: field for field in chosen.fields}
    if given.keys() - set(known.names):
        return None
    converters: dict[str, Callable[[Values], Values]] = {}
    for field in known.fields:
        if field.name in given:
            if not is_alike(given[field.name].type, field.type):
                return None
            converters[field.name] = _converter(given[field.name], field)
        elif field.is_required:
            return None

    def convert(inputs: Inputs) -> Columns:
        assert isinstance(inputs, dict)
        rows = len(next(iter(inputs.values())))
        return {
            field.name: converters[field.name](inputs[field.name]) if field.name in given else _absent(field, rows)
            for field in known.fields
        }

    return convert


def is_alike(given: InputType, known: InputType) -> bool:
    """Whether values of the first type fit the second. Any type of number fits any other."""
    if not known.dtype.is_numeric or not given.dtype.is_numeric:
        return given.dtype is known.dtype
    return InputType(known.dtype, given.shape).accepts(known)


def _converter(given: Field, known: Field) -> Callable[[Values], Values]:
    if not known.type.dtype.is_numeric or known.type.dtype is given.type.dtype:
        return lambda values: values
    dtype = np.dtype(known.type.dtype.numpy_code)
    as_float = np.dtype(np.float32 if known.type.dtype is DType.FLOAT32 else np.float64)

    def convert(values: Values) -> Values:
        if not isinstance(values, np.ndarray) or values.dtype == object:
            return values
        may_lack = known.type.shape == () and (known.is_nullable or values.dtype.kind == "f")
        return values.astype(as_float if may_lack and known.type.dtype is not DType.BOOL else dtype, copy=False)

    return convert


def _absent(field: Field, rows: int) -> Values:
    """Return the values of a field that no row has: its default, or missing values."""
    return column_of(field, [None if field.default is None else json.loads(field.default)] * rows)


def _by_place(rows: Array, fields: Sequence[Field]) -> Columns:
    if rows.shape[1:] != (len(fields),):
        raise WrongInput(f"the model takes {len(fields)} numbers: got rows of shape {list(rows.shape[1:])}")
    return {field.name: column_of(field, rows[:, index]) for index, field in enumerate(fields)}


def _from_texts(texts: Sequence[str], fields: Sequence[Field]) -> Columns:
    names = {field.name for field in fields}
    required = {field.name for field in fields if field.is_required}
    expected = f"the model takes the text of a JSON object with {', '.join(sorted(names))}"
    objects = []
    for text in texts:
        try:
            values = json.loads(text)
        except ValueError as error:
            raise WrongInput(f"{expected}: {error}") from error
        if not isinstance(values, dict) or not required <= values.keys() <= names:
            got = ", ".join(sorted(values)) if isinstance(values, dict) else f"a {type(values).__name__}"
            raise WrongInput(f"{expected}: got {got or 'an empty object'}")
        objects.append(values)
    return {field.name: column_of(field, [values.get(field.name) for values in objects]) for field in fields}


def column_of(field: Field, values: Sequence[Any] | Array) -> Values:
    """Return plain values, None if missing, in a batch's form. Raises WrongInput if one is not of the field's type."""
    dtype, shape = field.type.dtype, field.type.shape
    if field.default is not None and not isinstance(values, np.ndarray):
        default = json.loads(field.default)
        values = [default if value is None else value for value in values]
    try:
        if not dtype.is_numeric or (dtype is DType.BOOL and field.is_nullable and not shape):
            return list(values)
        code = dtype.numpy_code
        if not field.is_nullable:
            return np.array(values, code) if shape == () or not len(values) else _arrays(values, code)
        if shape == ():
            return np.array(values, np.float32 if dtype is DType.FLOAT32 else np.float64)
        column = np.full(len(values), None, object)
        for row, value in enumerate(values):
            column[row] = None if value is None else np.array(value, code)
        return column
    except (TypeError, ValueError, OverflowError) as error:
        raise WrongInput(f"the field {field.name} is of {field.type}: {error}") from error


def with_nan(values: Values) -> list[Any]:
    return [np.nan if value is None else value for value in values]


def _arrays(values: Sequence[Any] | Array, code: str) -> Values:
    arrays = [np.array(value, code) for value in values]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays


def matrix(record: RecordType, dtype: Any) -> Callable[[Inputs], Array]:
    """Return a function that makes the matrix (rows, fields) of a batch: categories become their places in their field.

    A missing value, or a value that is no category of its field, is NaN.
    """
    places = {
        field.name: {category: place for place, category in enumerate(field.categories)}
        for field in record.fields
        if field.categories
    }

    def make(inputs: Inputs) -> Array:
        assert isinstance(inputs, dict)
        rows = len(next(iter(inputs.values())))
        made = np.empty((rows, len(inputs)), dtype)
        for index, (name, values) in enumerate(inputs.items()):
            if name in places:
                known = places[name]
                made[:, index] = [known.get(value, np.nan) for value in values]
            else:
                made[:, index] = with_nan(values) if isinstance(values, list) else values
        return made

    return make
