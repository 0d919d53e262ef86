"""Batches of records as pandas DataFrames, with the types that a table has after ``pandas.read_csv``.

Numbers have the field's type, or are floats with NaN if they may be missing. Texts have pandas' own type of texts:
``str`` from pandas 3 on, ``object`` before, and a missing one is NaN. Truths that may be missing are objects with NaN.
A field with categories is a Categorical with exactly these, in their order. Tensors and bytes are objects.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas

from clipper.model.frameworks.table import with_nan
from clipper.model.model import Inputs, Values
from clipper.values.records import Field, RecordType
from clipper.values.types import DType

# ``str`` from pandas 3 on.
_TEXT = pandas.Series([""]).dtype


def framing(record: RecordType) -> Callable[[Inputs], Any]:
    """Return a function that makes the DataFrame of a batch of columns, without those that the batch lacks."""
    makers = [(field.name, _maker(field)) for field in record.fields]

    def make(inputs: Inputs) -> Any:
        assert isinstance(inputs, dict)
        # The frame's arrays are those of the batch, which the model may change.
        return pandas.DataFrame({name: maker(inputs[name]) for name, maker in makers if name in inputs}, copy=False)

    return make


def _maker(field: Field) -> Callable[[Values], Any]:
    if field.categories:
        return _categorical(field)
    if field.type.shape:
        return lambda values: pandas.Series(list(values), dtype=object)
    if field.type.dtype is DType.STRING:
        return _objects if _TEXT.kind == "O" and _TEXT.name == "object" else _texts
    if field.type.dtype is DType.BYTES or (field.type.dtype is DType.BOOL and field.is_nullable):
        return _objects
    return lambda values: values


def _categorical(field: Field) -> Callable[[Values], Any]:
    dtype = pandas.CategoricalDtype(list(field.categories))
    places = {category: place for place, category in enumerate(field.categories)}

    def make(values: Values) -> Any:
        if isinstance(values, np.ndarray):
            return pandas.Categorical(values, dtype=dtype)
        return pandas.Categorical.from_codes([places.get(value, -1) for value in values], dtype=dtype)

    return make


def _texts(values: Values) -> Any:
    return pandas.array(with_nan(values), dtype=_TEXT)


def _objects(values: Values) -> Any:
    return np.array(with_nan(values), object)
