"""Turns the return value of ``predict_batch`` into arrays, columns, or JSON texts, a line for each output.

Outputs that are arrays of numbers stay numbers, which is faster, and exact for clients that take them raw. A single
number for each input is as fast as text, and answers in JSON copy the text. Outputs with names become a column for
each name.

The other outputs of a batch are mostly numbers or texts of one type, which become text in a step. The rest are encoded
one by one, so that an output that cannot be JSON fails alone. JSON has null for NaN and infinity.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

import numpy as np

from clipper.errors import InvalidArgument, ModelFailed
from clipper.model.model import Array, Values
from clipper.model.runtime import named_outputs
from clipper.model.runtime.arrays import (
    DTYPES,
    NUMERIC_KINDS,
    array_bytes,
    as_array,
    as_list,
    described,
    type_of_arrays,
    unwrapped,
)
from clipper.values.columns import Column
from clipper.values.output_arrays import OutputForm
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

_NO_FAILURES: Mapping[int, str] = {}


class Encoded(NamedTuple):
    """The outputs of a batch.

    Attributes:
        text: a JSON text for each output, joined by line feeds; empty for rows in ``failures``.
        failures: the messages of rows that fail.
        array: the outputs, if all are arrays of one shape, in a type of the protocol; then there is no ``text``.
        array_bytes: the sizes, by row, of outputs that are arrays though the batch is text. Whether an output is too
            large must not depend on the other outputs of its batch.
        values: the values of each name, if the outputs have names.
        columns: the column of each name, if the values of each name are of one type; then there is no ``text``.
        type: the type of outputs that are text, if it is known from what they were before.
    """

    text: bytes
    failures: Mapping[int, str] = _NO_FAILURES
    array: Array | None = None
    array_bytes: Mapping[int, int] = {}
    values: Mapping[str, Values] = {}
    columns: Sequence[Column] = ()
    type: InputType | None = None

    @property
    def form(self) -> OutputForm | None:
        """The form of each output, if the outputs are arrays."""
        if self.array is None:
            return None
        dtype = DTYPES[self.array.dtype.str[1:]]
        # Python writes these numbers with the digits of a float64.
        written_as = DType.FLOAT64 if dtype is DType.FLOAT32 else dtype
        return OutputForm(dtype, self.array.shape[1:], written_as)

    @property
    def size_bytes(self) -> int:
        """The size of all outputs together."""
        if self.array is not None:
            return self.array.nbytes
        return sum(len(column.payload) for column in self.columns) or len(self.text)

    def lines(self) -> bytes:
        """Return the outputs as texts for callers that take no arrays, or no columns."""
        if self.columns:
            rows: list[Any] = named_outputs.row_objects(self.values)
        elif self.array is not None:
            rows = self.array.tolist()
            if not self.failures and self.array.ndim == 2 and (text := _matrix(rows)) is not None:
                return text
        else:
            return self.text
        lines = ("" if row in self.failures else _encode(value) for row, value in enumerate(rows))
        return "\n".join(lines).encode()


def encode_outputs(outputs: object, rows: int) -> Encoded:
    """Encode the return value of ``predict_batch`` for ``rows`` inputs.

    Raises:
        ModelFailed: it is not a sequence of ``rows`` outputs, nor a sequence for each of some names.
    """
    is_plain = type(outputs) in (list, np.ndarray)
    if not is_plain and (named := named_outputs.by_name(outputs)) is not None:
        return _encode_named(named_outputs.read_values(named, rows))
    outputs = unwrapped(outputs)
    array = as_array(outputs)
    if array is not None and len(array) == rows:
        return Encoded(b"", array=array)
    values = outputs.tolist() if isinstance(outputs, np.ndarray) else as_list(outputs)
    if not isinstance(values, list):
        raise ModelFailed(f"predict_batch returned {described(outputs)}: expected a sequence of {rows} outputs")
    if len(values) != rows:
        raise ModelFailed(f"predict_batch returned {len(values)} outputs for {rows} inputs: expected one for each")
    if isinstance(values[0], np.generic) and len(set(map(type, values))) == 1:
        outputs = np.array(values)
        values = outputs.tolist()
    if not isinstance(outputs, np.ndarray) or outputs.dtype.kind not in NUMERIC_KINDS:
        return _encode_list(values)
    text = _matrix(values) if outputs.ndim == 2 else _uniform(values)
    if text is None:
        # JSON has neither NaN nor infinity.
        array = as_array(outputs, least_dimensions=1)
        return _one_by_one(values) if array is None else Encoded(b"", array=array)
    dtype = DTYPES.get(outputs.dtype.str[1:])
    shows_type = dtype is not None and all(outputs.shape)
    return Encoded(text, type=InputType(dtype, outputs.shape[1:]) if dtype is not None and shows_type else None)


def _encode_named(values: Mapping[str, Values]) -> Encoded:
    columns = named_outputs.columns_of(values)
    if columns:
        return Encoded(b"", values=values, columns=columns)
    return _one_by_one(named_outputs.row_objects(values))._replace(values=values)


def _encode_list(values: list[Any]) -> Encoded:
    """Encode outputs that are no array: values of a simple type, with names, of several shapes, or anything else."""
    if (text := _uniform(values)) is not None:
        return Encoded(text, type=InputType(DType.BYTES) if type(values[0]) in _BYTES else None)
    arrays = {row: array for row, array in enumerate(values) if isinstance(array, np.ndarray)}
    if arrays:
        of_type = type_of_arrays(list(arrays.values())) if len(arrays) == len(values) else None
        sizes = {row: array_bytes(array) for row, array in arrays.items()}
        return _one_by_one(values)._replace(array_bytes=sizes, type=of_type)
    try:
        records = [named_outputs.fields_of(value) for value in values]
    except Exception:  # noqa: BLE001  an object of the user may raise anything, and fails alone
        return _one_by_one(values)
    if (named := named_outputs.transposed(records)) is not None:
        return _encode_named(named)
    # JSON has neither NaN nor infinity, and arrays have both.
    array = named_outputs.tensor_of(values, is_mixed=True)
    if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        return Encoded(b"", array=array)
    return _one_by_one([value if record is None else record for value, record in zip(values, records)])


def with_numbers(encoded: Encoded, dtype: np.dtype[Any]) -> Encoded:
    """Return outputs whose texts are all numbers as an array; return others unchanged."""
    try:
        numbers = np.array(json.loads(b"[%b]" % encoded.text.replace(b"\n", b",")))
    except (ValueError, RecursionError):
        return encoded
    is_array = numbers.ndim == 1 and numbers.size and numbers.dtype.kind in "iuf"
    return Encoded(b"", array=numbers.astype(dtype)) if is_array else encoded


def learn_type(encoded: Encoded) -> ValueType | None:
    """Return the type of a model's outputs, as the first output shows it; None if it failed, or has no such type.

    The types are numbers, booleans, texts or bytes, in lists of one shape; and records of these. A number in JSON is a
    float64, since the next may be one.
    """
    if encoded.failures:
        return None
    if encoded.columns:
        return named_outputs.learn_record(encoded.values, encoded.columns)
    if encoded.form is not None:
        return InputType(encoded.form.dtype, encoded.form.shape)
    if encoded.type is not None:
        return encoded.type
    try:
        value = json.loads(encoded.text.split(b"\n", 1)[0])
        if not isinstance(value, dict):
            return _type_of_json(value)
        "".join(value).encode()  # refuse half of a surrogate pair, which is no name
        types = {name: of_type for name, part in value.items() if (of_type := _type_of_json(part)) is not None}
        return RecordType(tuple(map(Field, types, types.values()))) if len(types) == len(value) else None
    except (ValueError, RecursionError, InvalidArgument):
        return None


def widened(types: Sequence[ValueType | None]) -> InputType | None:
    """Return the type of all arrays of these types, whose lengths may differ; None if there is none."""
    first = types[0] if types else None
    if not isinstance(first, InputType):
        return None
    for other in types:
        if not isinstance(other, InputType) or (other.dtype, len(other.shape)) != (first.dtype, len(first.shape)):
            return None
        lengths = zip(first.shape, other.shape)
        first = InputType(first.dtype, tuple(mine if mine == theirs else None for mine, theirs in lengths))
    return first


def _type_of_json(value: Any) -> InputType | None:
    flat, shape = [value], []
    while isinstance(flat[0], list):
        length = len(flat[0])
        if not length or not all(isinstance(part, list) and len(part) == length for part in flat):
            return None
        shape.append(length)
        flat = [item for part in flat for item in part]
    kinds = set(map(type, flat))
    if len(shape) > MAX_DIMENSIONS or not (kinds <= _NUMBERS or kinds in ({bool}, {str})):
        return None
    if kinds == {str}:
        return InputType(DType.STRING) if not shape else None
    return InputType(DType.BOOL if kinds == {bool} else DType.FLOAT64, tuple(shape))


def _matrix(rows: list[list[Any]]) -> bytes | None:
    """Encode lists of numbers in a step; return None if a number cannot be JSON."""
    try:
        text = _strict(rows)
    except (ValueError, TypeError):
        return None
    return text[1:-1].replace("],[", "]\n[").encode()


def _uniform(values: list[Any]) -> bytes | None:
    """Encode values of a simple type in a step; return None if their types differ, or a number cannot be JSON."""
    types = set(map(type, values))
    if not types <= _NUMBERS:
        encode = _SIMPLE.get(types.pop()) if len(types) == 1 else None
        return "\n".join(map(encode, values)).encode() if encode is not None else None
    try:
        text = "\n".join(map(repr, values))
    except ValueError:  # an integer with more digits than Python converts
        return None
    # Among numbers only nan and inf have an n in their text.
    return None if "n" in text else text.encode()


def _in_base64(value: bytes | bytearray | memoryview) -> str:
    return f'"{base64.b64encode(value).decode()}"'


_NUMBERS = {int, float}
_BYTES = (bytes, bytearray, memoryview)
_SIMPLE: dict[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    **dict.fromkeys(_BYTES, _in_base64),
    bool: {True: "true", False: "false"}.__getitem__,
}


def _one_by_one(values: list[Any]) -> Encoded:
    lines: list[str] = []
    failures: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            lines.append(_encode(value))
        except Exception as error:  # noqa: BLE001  converting an object of the user may raise anything
            lines.append("")
            failures[row] = _cause(value, error)
    return Encoded("\n".join(lines).encode(), failures)


def _cause(value: object, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"output of type {type(value).__name__} is nested too deeply for JSON"
    return f"output of type {type(value).__name__} cannot be JSON: {error}"


def _encode(value: object) -> str:
    """Return the JSON text of an output, with null for NaN and infinity."""
    try:
        return _strict(value)
    except ValueError as error:
        if not str(error).startswith("Out of range float"):
            raise
    return _strict(_with_nulls(value))


def _with_nulls(value: Any) -> object:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _with_nulls(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(each) for each in value]
    return _with_nulls(_plain(value))


def _plain(value: Any) -> object:
    """Return the JSON form of an object that JSON does not know."""
    if isinstance(value, _BYTES):
        return base64.b64encode(value).decode()
    if (fields := named_outputs.fields_of(value)) is not None:
        return fields
    to_list = getattr(value, "tolist", None)
    plain = to_list() if callable(to_list) else value
    # tolist() of a numpy scalar without a counterpart in Python returns that scalar itself.
    if type(plain) is type(value):
        raise TypeError(f"expected a number, text, bytes, list, dict, array or None, got {type(value).__name__}")
    return plain


_strict = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode
