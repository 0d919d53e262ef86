"""Tables as inputs: data frames, tables of pyarrow, mappings of columns. None of their libraries is imported here."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clipper.errors import InvalidArgument

# The dtypes of pandas' missing values other than float.
_MISSING = frozenset({"NAType", "NaTType"})


class Columns(NamedTuple):
    by_name: Mapping[str, Any]
    rows: int


def columns_of(inputs: Any) -> Columns | None:
    """Return the columns of a table: a data frame of pandas or polars, a table of pyarrow, or a mapping from names to
    lists or arrays. None if it is none of these. Raises InvalidArgument if columns differ in their length."""
    found: Mapping[str, Any]
    if isinstance(inputs, Mapping):
        found = {str(name): values for name, values in inputs.items()}
    elif hasattr(inputs, "to_pydict"):  # pyarrow
        found = inputs.to_pydict()
    elif hasattr(inputs, "columns") and hasattr(inputs, "dtypes"):
        found = {str(name): inputs[name] for name in inputs.columns}
    else:
        return None
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{length} of {name!r}" for name, length in lengths.items())
        raise InvalidArgument(f"the table has {shown[:200]}: expected columns of one length")
    return Columns({name: _listed(values) for name, values in found.items()}, next(iter(lengths.values()), 0))


def array_of(inputs: Any) -> Any:
    """Return a table as an array of two dimensions, or as lists, for an application whose inputs are lists of numbers.

    Other inputs are returned unchanged.
    """
    if hasattr(inputs, "to_pydict"):  # pyarrow
        return list(map(list, zip(*inputs.to_pydict().values())))
    return inputs.to_numpy() if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy") else inputs


def record_of(value: Any) -> Any:
    """Return the record of a table's only row, or of a data frame's row; return other values unchanged."""
    if hasattr(value, "to_dict") and hasattr(value, "index") and not hasattr(value, "columns"):  # it is a Series
        return {str(name): _plain(item) for name, item in value.to_dict().items()}
    if isinstance(value, Mapping):
        return value
    table = columns_of(value)
    if table is None:
        return value
    if table.rows != 1:
        raise InvalidArgument(f"the table has {table.rows} rows: expected one, or use predict_batch for several")
    return {name: values[0] for name, values in table.by_name.items()}


def _listed(values: Any) -> Sequence[Any]:
    """Return a column in JSON's types. The encoder writes NaN as null."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [_plain(value) for value in listed] if _may_have_marks(values) else listed


def _may_have_marks(values: Any) -> bool:
    """Whether a column may hold pandas values that JSON lacks: arrays of numpy's own numbers hold none."""
    dtype = getattr(values, "dtype", None)  # pandas' own types have kinds, too, and values that numpy lacks
    return dtype is None or not hasattr(dtype, "isbuiltin") or dtype.kind not in "biuf"


def _plain(value: Any) -> Any:
    if type(value).__name__ in _MISSING:
        return None
    return value.item() if hasattr(value, "item") and not getattr(value, "shape", ()) else value
