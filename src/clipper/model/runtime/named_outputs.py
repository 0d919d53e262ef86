"""Reads outputs with names, in the forms in which models return them, and makes a column of each name.

A batch is sent as columns if the values of each name are of one type: elements of arrays, numbers, booleans, texts,
bytes, or lists of the same shape. Some values may be missing. All other batches are sent as JSON, with each value
unchanged, unless JSON loses something: then there is a column for each type that a name has, with JSON for the values
of none.
"""

import dataclasses
import struct
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from clipper.errors import ModelFailed
from clipper.model.model import Array, Values
from clipper.model.runtime.arrays import (
    DTYPES,
    NUMERIC_KINDS,
    as_array,
    as_list,
    described,
    dtype_of,
    type_of_arrays,
    unwrapped,
)
from clipper.model.runtime.inputs import NUMPY_DTYPES
from clipper.values.columns import Column
from clipper.values.json_types import NoType, record_of, type_of_text
from clipper.values.records import MAX_FIELD_NAME_BYTES, MAX_FIELDS, ValueType
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

# The protocol's types of Python's values. A bool is an int, and a text of numpy is a text.
_PLAIN: tuple[tuple[type, DType], ...] = (
    (bool, DType.BOOL),
    (int, DType.INT64),
    (float, DType.FLOAT64),
    (str, DType.STRING),
    (bytes, DType.BYTES),
    (bytearray, DType.BYTES),
    (memoryview, DType.BYTES),
)

_PLAIN_DTYPES = dict(_PLAIN)
_PLAIN_TYPES = frozenset(_PLAIN_DTYPES)
# The name under which outputs without names are kept, and the name of their columns.
NO_NAME = ""


class JsonText(NamedTuple):
    """A value that is JSON already, because a column has no type for it."""

    text: bytes


def by_name(outputs: object) -> dict[Any, Any] | None:
    """Return what a model returned by the names of its outputs; None if they have no names.

    A mapping, a dataclass, a named tuple and a frame of pandas have names. The numbers that pandas gives to columns
    are no names.
    """
    frame = getattr(sys.modules.get("pandas"), "DataFrame", None)
    if frame is None or not isinstance(outputs, frame):
        return fields_of(outputs)
    columns: Any = outputs.columns
    if type(columns).__name__ == "RangeIndex":
        return None
    if not columns.is_unique:
        raise ModelFailed("a frame has two columns of one name: expected each name once")
    return {name: _of_series(outputs[name]) for name in columns}


def fields_of(value: object) -> dict[Any, Any] | None:
    """Return a mapping, a dataclass or a named tuple as a dict; None for any other value."""
    if type(value) is dict:
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value))
    return None


def _of_series(series: Any) -> Any:
    """Return the values of a column of pandas. A missing value is None, but NaN among numbers of numpy."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return series.to_numpy()
    return series.astype(object).where(series.notna(), None).tolist()


def read_values(outputs: Mapping[Any, Any], rows: int) -> dict[str, Values]:
    """Return the values of each name. Raises ModelFailed if these are not sequences of ``rows`` values."""
    if not outputs:
        raise ModelFailed("predict_batch returned no output: expected at least one name with its values")
    values = {str(name): _values(name, each, rows) for name, each in outputs.items()}
    if len(values) != len(outputs):
        raise ModelFailed("predict_batch returned two outputs of one name: expected each name once")
    return values


def _values(name: object, values: object, rows: int) -> Values:
    array = as_array(values, least_dimensions=1)
    if array is not None and len(array) == rows:
        return array
    listed = as_list(values)
    if isinstance(values, np.ndarray):
        # Lists of length 0 are arrays of that length.
        listed = list(values) if values.ndim > 1 and values.dtype.kind in NUMERIC_KINDS else values.tolist()
    if not isinstance(listed, list):
        raise ModelFailed(f"output {name!r:.100} is {described(values)}: expected a sequence of {rows} values")
    if len(listed) != rows:
        raise ModelFailed(f"output {name!r:.100} has {len(listed)} values for {rows} inputs: expected one for each")
    return listed


def transposed(rows: Sequence[Mapping[Any, Any] | None]) -> dict[str, Values] | None:
    """Return the values of each name from a mapping for each row; None if their names are not the same texts."""
    names = rows[0].keys() if rows[0] else ()
    records = [row for row in rows if row is not None and row.keys() == names]
    if not names or len(records) != len(rows) or not all(isinstance(name, str) for name in names):
        return None
    values: dict[str, Values] = {}
    for name in names:
        listed = [row[name] for row in records]
        if type(listed[0]) not in _PLAIN_TYPES:
            listed = [unwrapped(value) for value in listed]
        values[name] = listed if (array := as_array(listed)) is None else array
    return values


def rows_of(values: Mapping[str, Values]) -> list[Any]:
    """Return the outputs: an object for each row, unless they have no names."""
    return list(values[NO_NAME]) if NO_NAME in values else row_objects(values)


def row_objects(values: Mapping[str, Values]) -> list[dict[str, Any]]:
    """Return an object for each row: the inverse of ``transposed``."""
    listed = [each.tolist() if isinstance(each, np.ndarray) else each for each in values.values()]
    return [dict(zip(values, row)) for row in zip(*listed)]


def copy_of(values: Values) -> Values:
    """Return values that do not change when the model changes its arrays."""
    if isinstance(values, np.ndarray):
        return values.copy()
    return [value.copy() if isinstance(value, np.ndarray) else value for value in values]


def joined_values(parts: Sequence[tuple[Sequence[int], Mapping[str, Values]]], rows: int) -> dict[str, Values]:
    """Return a batch's values, joined from those of its parts; none if the parts have different names.

    Rows that are in no part have zeros in an array, and None in a list.
    """
    names = list(parts[0][1]) if parts else []
    if any(list(values) != names for _, values in parts):
        return {}
    return {name: _joined([(places, values[name]) for places, values in parts], rows) for name in names}


def _joined(parts: Sequence[tuple[Sequence[int], Values]], rows: int) -> Values:
    first = parts[0][1]
    forms = {(each.dtype, each.shape[1:]) if isinstance(each, np.ndarray) else None for _, each in parts}
    whole: Any = [None] * rows
    if isinstance(first, np.ndarray) and len(forms) == 1:
        whole = np.zeros((rows, *first.shape[1:]), first.dtype)
    for places, each in parts:
        for place, value in zip(places, each):
            whole[place] = value
    return whole  # type: ignore[no-any-return]


def columns_of(values: Mapping[str, Values], failed: Collection[int] = ()) -> tuple[Column, ...]:
    """Return each name's column; none at all if a name's values, but for ``failed`` rows, are of several types."""
    if not are_columns(values):
        return ()
    columns = []
    for name, each in values.items():
        column = _column(name, each, failed)
        if column is None:
            return ()
        columns.append(column)
    return tuple(columns)


def are_columns(values: Mapping[str, Values]) -> bool:
    """Whether columns can have these names."""
    try:
        sizes = [len(name.encode()) for name in values]
    except UnicodeEncodeError:
        return False
    return len(sizes) <= MAX_FIELDS and all(1 <= size <= MAX_FIELD_NAME_BYTES for size in sizes)


def mixed_columns(values: Mapping[str, Values]) -> tuple[Column, ...]:
    """Return columns of values of any type: for each name one for each type, which has the rows of that type.

    ``values``: by name, or under ``NO_NAME``; as ``typed_value`` has made them, None for a missing value.
    """
    columns: list[Column | None] = []
    for name, each in values.items():
        if isinstance(each, np.ndarray):
            columns.append(_of_array(name, each))
            continue
        groups: dict[object, list[Any]] = {}
        for row, value in enumerate(each):
            if value is not None:
                is_array = isinstance(value, np.ndarray)
                kind = (DTYPES[value.dtype.str[1:]], value.ndim) if is_array else type(value)
                groups.setdefault(kind, [None] * len(each))[row] = value
        columns += [_of_list(name, group, is_open=len(groups) > 1) for group in groups.values()]
        if not groups:
            columns.append(_of_texts(name, each))
    return tuple(column for column in columns if column is not None)


def typed_value(value: Any, encode: Callable[[object], bytes]) -> Any:
    """Return a value that a column may have, or its JSON text, by ``encode``."""
    if isinstance(value, JsonText):
        return value
    if type(value) not in _PLAIN_TYPES:
        value = unwrapped(value)
    if isinstance(value, list) and value:
        tensor = tensor_of([value], is_mixed=True)
        value = value if tensor is None else tensor[0]
    if isinstance(value, (np.ndarray, np.generic)) and dtype_of(np.asarray(value)) is not None:
        return value if np.ndim(value) <= MAX_DIMENSIONS else JsonText(encode(value))
    dtype = _PLAIN_DTYPES.get(type(value))
    is_sent = dtype is not None and (dtype is not DType.INT64 or -(2**63) <= value < 2**63)
    is_sent = is_sent and not (dtype is DType.STRING and _has_surrogate(value))
    return value if is_sent else JsonText(encode(value))


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _column(name: str, values: Values, failed: Collection[int]) -> Column | None:
    try:
        if isinstance(values, np.ndarray):
            return _of_array(name, values)
        if failed:
            values = [None if row in failed else value for row, value in enumerate(values)]
        return _of_list(name, values)
    except (UnicodeEncodeError, OverflowError):  # a value is half of a surrogate pair, or an int of over 64 bits
        return None


def _of_array(name: str, array: Array, present: bytes | None = None) -> Column:
    dtype = DTYPES[array.dtype.str[1:]]
    # Python writes these numbers with the digits of a float64.
    written_as = DType.FLOAT64 if dtype is DType.FLOAT32 else dtype
    payload = array.data.cast("B")
    return Column(name, _type(dtype, array.shape[1:]), len(array), payload, None, present, written_as)


# Each batch of a model has the same few types.
_type = lru_cache(1024)(InputType)


def _of_list(name: str, values: Sequence[Any], *, is_open: bool = False) -> Column | None:
    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    present = _present(values)
    if issubclass(kind, list):
        tensor = None if present is not None else tensor_of(values)
        return None if tensor is None else _of_array(name, tensor)
    if issubclass(kind, np.ndarray):
        return _of_arrays(name, values, present, is_open=is_open)
    if issubclass(kind, JsonText):
        return _of_texts(name, values)
    if issubclass(kind, np.generic) and DTYPES.get(np.dtype(kind).str[1:]) is not None:
        array = as_array(np.array([kind(0) if value is None else value for value in values]), least_dimensions=1)
        return None if array is None else _of_array(name, array, present)
    dtype = next((dtype for plain, dtype in _PLAIN if issubclass(kind, plain)), None)
    if dtype is None:
        return None
    if dtype.is_numeric:
        numbers = np.array([0 if value is None else value for value in values], NUMPY_DTYPES[dtype])
        return _of_array(name, numbers, present)
    encode: Callable[[Any], bytes] = str.encode if dtype is DType.STRING else bytes
    parts = [b"" if value is None else encode(value) for value in values]
    return _of_parts(name, _type(dtype, ()), parts, present)


def _of_texts(name: str, texts: Sequence[JsonText | None]) -> Column:
    parts = [b"" if each is None else each.text for each in texts]
    return _of_parts(name, _type(DType.STRING, ()), parts, _present(texts))._replace(is_json=True)


def _present(values: Sequence[Any]) -> bytes | None:
    """Return the bits of the rows that have a value; None if all have one."""
    is_there = [value is not None for value in values]
    return None if all(is_there) else np.packbits(is_there, bitorder="little").tobytes()


def _of_parts(name: str, of_type: InputType, parts: Sequence[bytes], present: bytes | None) -> Column:
    lengths = tuple(map(len, parts))
    return Column(name, of_type, len(parts), b"".join(parts), lengths, present, None)


def _of_arrays(
    name: str, arrays: Sequence[Array | None], present: bytes | None, *, is_open: bool = False
) -> Column | None:
    """Return a column of arrays whose shapes may differ. ``is_open``: absent rows, which are many, take no place."""
    of_type = type_of_arrays([array for array in arrays if array is not None])
    if of_type is None:
        return None
    if is_open:
        of_type = InputType(of_type.dtype, (None,) * len(of_type.shape))
    dtype = NUMPY_DTYPES[of_type.dtype]
    if of_type.row_bytes is not None:
        absent = np.zeros([size or 0 for size in of_type.shape], dtype)
        return _of_array(name, np.stack([absent if array is None else array for array in arrays], dtype=dtype), present)
    dimensions = of_type.leading_dimensions
    parts = [
        b""
        if array is None
        else struct.pack(f"<{dimensions}I", *array.shape[:dimensions]) + array.astype(dtype).tobytes()
        for array in arrays
    ]
    written_as = DType.FLOAT64 if of_type.dtype is DType.FLOAT32 else None
    return _of_parts(name, of_type, parts, present)._replace(written_as=written_as)


def tensor_of(values: Sequence[Any], *, is_mixed: bool = False) -> Array | None:
    """Return lists of one shape as an array, else None. ``is_mixed``: whole numbers among floats count as floats."""
    flat: Sequence[Any] = values
    shape = [len(values)]
    while isinstance(flat[0], list):
        length = len(flat[0])
        if not length or not all(isinstance(part, list) and len(part) == length for part in flat):
            return None
        shape.append(length)
        if len(shape) > MAX_DIMENSIONS + 1:
            return None
        flat = list(chain.from_iterable(flat))
    kinds = set(map(type, flat))
    if is_mixed and kinds == {int, float}:
        kinds = {float}
    dtype = {bool: DType.BOOL, int: DType.INT64, float: DType.FLOAT64}.get(kinds.pop()) if len(kinds) == 1 else None
    return None if dtype is None else np.array(flat, NUMPY_DTYPES[dtype]).reshape(shape)


def sizes_of(columns: Sequence[Column]) -> list[int]:
    """Return the size of each row's values in bytes."""
    rows = columns[0].rows
    return [sum(sizes) for sizes in zip(*(column.lengths or (column.row_bytes or 0,) * rows for column in columns))]


def learn_columns(values: Mapping[str, Values], columns: Sequence[Column]) -> ValueType | None:
    """Return the type of outputs in these columns, as ``outputs.learn_type`` does. A number of Python is a float64,
    since the next may be one. If a name has several types, the first output decides."""
    types: dict[str, InputType | None] = {}
    for name, each in values.items():
        own = [column for column in columns if column.name == name]
        if len(own) > 1:
            own = [column for column in own if _has_first(column)]
        if own and own[0].is_json and _has_first(own[0]):
            text, (length, *_) = own[0].payload, own[0].lengths or (0,)
            types[name] = type_of_text(bytes(text[:length]))
        elif own and not own[0].is_json:
            types[name] = _learn_type(own[0].type, each)
        elif name != NO_NAME:
            raise NoType
    if NO_NAME in values:
        return types.get(NO_NAME)
    nullable = [name for name, each in values.items() if isinstance(each, list) and any(one is None for one in each)]
    return record_of(types, nullable)


def _has_first(column: Column) -> bool:
    return column.present is None or bool(column.present[0] & 1)


def _learn_type(of_type: InputType, values: Values) -> InputType:
    is_own = isinstance(values, np.ndarray) or any(isinstance(value, (np.ndarray, np.generic)) for value in values)
    return InputType(DType.FLOAT64, of_type.shape) if of_type.dtype is DType.INT64 and not is_own else of_type
