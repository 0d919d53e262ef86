"""Turns the return value of ``predict_batch`` into arrays, columns, or JSON texts, a line for each output.

Outputs that are arrays of numbers stay numbers, which is faster, and exact for clients that take them raw. A single
number for each input is as fast as text, and answers in JSON copy the text. Outputs with names become a column for
each name.

The other outputs of a batch are mostly numbers or texts of one type, which become text in a step. The rest are encoded
one by one, so that an output that cannot be JSON fails alone. JSON has null for NaN and infinity, so a batch that has
these becomes columns, and so does one of arrays that differ.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

import numpy as np

from clipper.errors import ModelFailed
from clipper.model.model import Array, Values
from clipper.model.protocol.columns import encode_column_results
from clipper.model.protocol.messages import encode_results
from clipper.model.protocol.typed import encode_typed_results
from clipper.model.runtime import named_outputs
from clipper.model.runtime.arrays import DTYPES, NUMERIC_KINDS, as_array, as_list, described, dtype_of, unwrapped
from clipper.model.runtime.named_outputs import NO_NAME, JsonText
from clipper.values.columns import Column
from clipper.values.json_types import NoType, record_of, type_of_json, type_of_text
from clipper.values.output_arrays import OutputForm
from clipper.values.records import ValueType
from clipper.values.types import DType, InputType

_NO_FAILURES: Mapping[int, str] = {}


class Encoded(NamedTuple):
    """The outputs of a batch.

    Attributes:
        text: a JSON text for each output, joined by line feeds; empty for rows in ``failures``.
        failures: the messages of rows that fail.
        array: the outputs, if all are arrays of one shape, in a type of the protocol; then there is no ``text``.
        values: the values of each name, if the outputs have names; outputs that are columns without a name, under "".
        columns: the columns of each name; then there is no ``text``.
        type: the type of outputs that are text, if it is known from what they were before.
    """

    text: bytes
    failures: Mapping[int, str] = _NO_FAILURES
    array: Array | None = None
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

    def by_name(self) -> Mapping[str, Values]:
        """Return the values of each name, or under "" the outputs, which may be JSON texts."""
        if self.values:
            return self.values
        return {NO_NAME: list(map(JsonText, self.text.split(b"\n"))) if self.array is None else self.array}

    def frame(self, batch_id: int, rows: int, evaluation_us: int = 0) -> bytes:
        """Return the frame that has the outputs, of the newest version."""
        if self.columns:
            return b"".join(encode_column_results(batch_id, self.columns, evaluation_us, self.failures))
        if self.form is not None and self.array is not None:
            data = self.array.data.cast("B")
            return encode_typed_results(batch_id, rows, self.form, data, evaluation_us, self.failures)
        return encode_results(batch_id, rows, self.text, evaluation_us, self.failures)

    def lines(self) -> bytes:
        """Return the outputs as texts for callers that take no arrays, or no columns."""
        if self.columns:
            rows = named_outputs.rows_of(self.values)
        elif self.array is not None:
            rows = self.array.tolist()
            if not self.failures and self.array.ndim == 2 and (text := _matrix(rows)) is not None:
                return text
        else:
            return self.text
        lines = ("" if row in self.failures else _encode(value) for row, value in enumerate(rows))
        return "\n".join(lines).encode()


def encode_outputs(outputs: object, rows: int) -> Encoded:
    """Encode what ``predict_batch`` returned. Raises ModelFailed if that is not ``rows`` outputs, or so by name."""
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
        return _one_by_one({NO_NAME: values}) if array is None else Encoded(b"", array=array)
    dtype = dtype_of(outputs)
    shows_type = dtype is not None and all(outputs.shape)
    return Encoded(text, type=InputType(dtype, outputs.shape[1:]) if dtype is not None and shows_type else None)


def _encode_named(values: Mapping[str, Values]) -> Encoded:
    has_no_name = NO_NAME in values  # one that the model has given, which no column can have
    return _one_by_one({NO_NAME: named_outputs.row_objects(values)}) if has_no_name else encode_values(values)


def encode_values(values: Mapping[str, Values], failures: Mapping[int, str] = _NO_FAILURES) -> Encoded:
    """Encode values by name, or without names. ``failures``: messages of rows whose values mean nothing."""
    if NO_NAME in values:
        return _mixed(values, failures)
    columns = named_outputs.columns_of(values, failures)
    return Encoded(b"", failures, values=values, columns=columns) if columns else _one_by_one(values, failures)


def _encode_list(values: list[Any]) -> Encoded:
    """Encode outputs that are no array: values of a simple type, with names, of several shapes, or anything else."""
    if (text := _uniform(values)) is not None:
        return Encoded(text, type=InputType(DType.BYTES) if type(values[0]) in _BYTES else None)
    if any(isinstance(value, np.ndarray) for value in values):
        return encode_values({NO_NAME: values})
    try:
        records = [named_outputs.fields_of(value) for value in values]
    except Exception:  # noqa: BLE001  an object of the user may raise anything, and fails alone
        return _one_by_one({NO_NAME: values})
    if (named := named_outputs.transposed(records)) is not None:
        return _encode_named(named)
    # JSON has neither NaN nor infinity, and arrays have both.
    array = named_outputs.tensor_of(values, is_mixed=True)
    if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        return Encoded(b"", array=array)
    return _one_by_one({NO_NAME: [value if record is None else record for value, record in zip(values, records)]})


def learn_type(encoded: Encoded) -> ValueType | None:
    """Return the type of a model's outputs, as the first of a batch without failures shows it; None if it does not show
    all of it: an empty list or null, or an empty list under a name.

    The types are numbers, booleans, texts or bytes, in lists of one shape; and records of these. A number in JSON is a
    float64, since the next may be one. Raises NoType if the first output has no such type.
    """
    if encoded.columns:
        return named_outputs.learn_columns(encoded.values, encoded.columns)
    if encoded.form is not None:
        return InputType(encoded.form.dtype, encoded.form.shape)
    if encoded.type is not None:
        return encoded.type
    text = encoded.text.split(b"\n", 1)[0]
    if not text.startswith(b"{"):
        return type_of_text(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise NoType from None
    if None in value.values():
        raise NoType
    return record_of({name: type_of_json(part) for name, part in value.items()})


def widened(parts: Sequence[Encoded]) -> InputType | None:
    """Return the type of outputs of these parts, whose lengths may differ; None without one, or after a failure."""
    try:
        types = [None if part.failures else learn_type(part) for part in parts]
    except NoType:
        return None
    first = types[0] if types else None
    if not isinstance(first, InputType):
        return None
    for other in types:
        if not isinstance(other, InputType) or (other.dtype, len(other.shape)) != (first.dtype, len(first.shape)):
            return None
        lengths = zip(first.shape, other.shape)
        first = InputType(first.dtype, tuple(mine if mine == theirs else None for mine, theirs in lengths))
    return first


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


def _one_by_one(values: Mapping[str, Values], failed: Mapping[int, str] = _NO_FAILURES) -> Encoded:
    lines: list[str] = []
    failures = dict(failed)
    is_exact = True
    for row, value in enumerate(named_outputs.rows_of(values)):
        line = ""
        if row not in failures:
            try:
                line, has_nulls = _encoded(value)
                is_exact = is_exact and not has_nulls
            except Exception as error:  # noqa: BLE001  converting an object of the user may raise anything
                failures[row] = _cause(value, error)
        lines.append(line)
    if not is_exact and (NO_NAME in values or named_outputs.are_columns(values)):
        return _mixed(values, failures)
    return Encoded("\n".join(lines).encode(), failures, values={} if NO_NAME in values else values)


def _mixed(values: Mapping[str, Values], failures: Mapping[int, str]) -> Encoded:
    """Encode values as columns, whatever their types."""
    found = dict(failures)
    typed = {name: each if isinstance(each, np.ndarray) else _typed(each, found) for name, each in values.items()}
    return Encoded(b"", found, values=values, columns=named_outputs.mixed_columns(typed))


def _typed(values: Sequence[Any], failures: dict[int, str]) -> list[Any]:
    """Return values for columns, None for a row that has failed or fails now."""
    typed: list[Any] = []
    for row, value in enumerate(values):
        typed.append(None)
        if row not in failures and value is not None:
            try:
                typed[row] = named_outputs.typed_value(value, lambda other: _encode(other).encode())
            except Exception as error:  # noqa: BLE001  as in ``_one_by_one``
                failures[row] = _cause(value, error)
    return typed


def _cause(value: object, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"output of type {type(value).__name__} is nested too deeply for JSON"
    return f"output of type {type(value).__name__} cannot be JSON: {error}"


def _encode(value: object) -> str:
    """Return the JSON text of an output, with null for NaN and infinity."""
    return value.text.decode() if isinstance(value, JsonText) else _encoded(value)[0]


def _encoded(value: object) -> tuple[str, bool]:
    """Return the JSON text of an output, and whether it has null for NaN or infinity."""
    try:
        return _strict(value), False
    except ValueError as error:
        if not str(error).startswith("Out of range float"):
            raise
    return _strict(_with_nulls(value)), True


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
