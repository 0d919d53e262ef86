"""Turns the return value of ``predict_batch`` into an array, or into JSON texts, one line for each output.

Outputs that are arrays of numbers stay numbers, which is faster, and exact for whoever takes them raw. A single number
for each input is as fast as text, and text is what answers in JSON copy.

The other outputs of a batch are mostly numbers or texts of one type, which become text in one step. The rest are
encoded one by one, so that an output that cannot be JSON fails alone.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

import numpy as np

from clipper.errors import ModelFailed
from clipper.model.model import Array
from clipper.model.runtime.inputs import NUMPY_DTYPES
from clipper.values.output_arrays import OutputForm
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

_NO_FAILURES: Mapping[int, str] = {}


class Encoded(NamedTuple):
    """The outputs of a batch.

    Attributes:
        text: one JSON text for each output, joined by line feeds; empty for rows in ``failures``.
        failures: row to message.
        array: the outputs, if all are arrays of one shape, in a type of the protocol; then there is no ``text``.
        array_bytes: row to size, of the outputs that are arrays nevertheless. Whether an output is too large must not
            depend on what it is in a batch with.
    """

    text: bytes
    failures: Mapping[int, str] = _NO_FAILURES
    array: Array | None = None
    array_bytes: Mapping[int, int] = {}

    @property
    def form(self) -> OutputForm | None:
        """The form of each output, if outputs are arrays."""
        if self.array is None:
            return None
        dtype = _DTYPES[self.array.dtype.str[1:]]
        # As which Python writes them.
        written_as = DType.FLOAT64 if dtype is DType.FLOAT32 else dtype
        return OutputForm(dtype, self.array.shape[1:], written_as)

    def lines(self) -> bytes:
        """Return the outputs as texts, for callers that take no arrays."""
        if self.array is None:
            return self.text
        rows = self.array.tolist()
        if not self.failures and self.array.ndim == 2 and (text := _matrix(rows)) is not None:
            return text
        lines = ("" if row in self.failures else _encode(value) for row, value in enumerate(rows))
        return "\n".join(lines).encode()


def encode_outputs(outputs: object, rows: int) -> Encoded:
    """Encode the return value of ``predict_batch`` for ``rows`` inputs.

    Raises:
        ModelFailed: it is not a sequence of ``rows`` outputs.
    """
    array = _as_array(outputs)
    if array is not None and len(array) == rows:
        return _encode_array(array)
    if isinstance(outputs, np.ndarray):
        values, kind, dimensions = outputs.tolist(), outputs.dtype.kind, outputs.ndim
    else:
        values, kind, dimensions = _as_list(outputs), "", 0
    if not isinstance(values, list):
        raise ModelFailed(f"predict_batch returned {_article(outputs)}: expected a sequence of {rows} outputs")
    if len(values) != rows:
        raise ModelFailed(f"predict_batch returned {len(values)} outputs for {rows} inputs: expected one for each")
    text = _matrix(values) if dimensions == 2 and kind in _NUMERIC_KINDS else _uniform(values)
    if text is not None:
        return Encoded(text)
    arrays = {row: _array_bytes(value) for row, value in enumerate(values) if isinstance(value, np.ndarray)}
    return _one_by_one(values)._replace(array_bytes=arrays)


def learn_type(encoded: Encoded) -> InputType | None:
    """Learn the type of a model's outputs from the first: numbers, truths or texts, in lists of one shape.

    None if it is nothing of these, or failed.
    """
    if encoded.form is not None:
        return InputType(encoded.form.dtype, encoded.form.shape)
    try:
        value = json.loads(encoded.text.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return None
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
    return InputType(DType.BOOL if kinds == {bool} else DType.FLOAT64 if float in kinds else DType.INT64, tuple(shape))


_NUMERIC_KINDS = "biuf"
# What each type of an array becomes, by numpy's code for it: the narrowest type of the protocol with all its numbers.
_DTYPES = {"f2": DType.FLOAT32, "f4": DType.FLOAT32, "f8": DType.FLOAT64, "u1": DType.UINT8, "b1": DType.BOOL}
_DTYPES |= dict.fromkeys(("i1", "i2", "i4", "u2"), DType.INT32) | dict.fromkeys(("i8", "u4", "u8"), DType.INT64)
_MAX_INT64 = 2**63 - 1


def _array_bytes(array: Array) -> int:
    """Return what an array takes in its type of the protocol."""
    dtype = _DTYPES.get(array.dtype.str[1:])
    return array.nbytes if dtype is None else array.size * dtype.size_bytes


def _as_array(outputs: object) -> Array | None:
    """Return the outputs as one array of a type of the protocol; None if they are not arrays of numbers."""
    if isinstance(outputs, list):
        first = outputs[0] if outputs else None
        if type(first) is not np.ndarray or not first.ndim:
            return None
        if any(
            type(each) is not np.ndarray or each.shape != first.shape or each.dtype != first.dtype for each in outputs
        ):
            return None
        array = np.stack(outputs)
    elif type(outputs) is np.ndarray:
        array = outputs
    else:
        convert = None if isinstance(outputs, np.generic) else getattr(outputs, "numpy", None)
        try:
            converted = convert() if callable(convert) else None
        except Exception:  # noqa: BLE001  as a tensor that has a gradient does; what follows knows more ways
            return None
        if type(converted) is not np.ndarray:
            return None
        array = converted
    dtype = _DTYPES.get(array.dtype.str[1:])
    if dtype is None or not 2 <= array.ndim <= MAX_DIMENSIONS + 1 or not array.size:
        return None
    if array.dtype == np.uint64 and array.max() > _MAX_INT64:
        return None
    return np.ascontiguousarray(array, NUMPY_DTYPES[dtype])


def _encode_array(array: Array) -> Encoded:
    if array.dtype.kind != "f" or (is_finite := np.isfinite(array)).all():
        return Encoded(b"", _NO_FAILURES, array)
    failed = np.flatnonzero(~is_finite.reshape(len(array), -1).all(1)).tolist()
    return Encoded(b"", dict.fromkeys(failed, _NOT_FINITE), array)


def _as_list(outputs: object) -> object:
    """Return the outputs as a list if they are a sequence of some kind, else None or as they are."""
    if isinstance(outputs, list):
        return outputs
    if isinstance(outputs, (str, bytes, bytearray, memoryview, Mapping)):
        return None
    # pandas Series and frames, torch and TensorFlow tensors, array.array: each has one of these.
    if not isinstance(outputs, np.generic):
        for name in ("tolist", "to_numpy", "numpy"):
            convert = getattr(outputs, name, None)
            if callable(convert):
                return _as_list(converted.tolist() if isinstance(converted := convert(), np.ndarray) else converted)
    return list(outputs) if isinstance(outputs, Sequence) else None


def _article(outputs: object) -> str:
    name = type(outputs).__name__
    return "None" if outputs is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _matrix(rows: list[list[Any]]) -> bytes | None:
    """Encode lists of numbers in one step; None if a number is not JSON."""
    try:
        text = _encode(rows)
    except (ValueError, TypeError):
        return None
    return text[1:-1].replace("],[", "]\n[").encode()


def _uniform(values: list[Any]) -> bytes | None:
    """Encode values of one simple type in one step; None if they are not of one."""
    types = set(map(type, values))
    if not types <= _NUMBERS:
        only = types.pop() if len(types) == 1 else object
        if not issubclass(only, np.number):
            encode = _SIMPLE.get(only)
            return "\n".join(map(encode, values)).encode() if encode is not None else None
        values = np.array(values).tolist()
    try:
        text = "\n".join(map(repr, values))
    except ValueError:  # an integer with more digits than Python converts
        return None
    # Among numbers only nan and inf have an n in their text.
    return None if "n" in text else text.encode()


_NUMBERS = {int, float}
_SIMPLE: dict[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    bool: {True: "true", False: "false"}.__getitem__,
    np.bool_: {True: "true", False: "false"}.__getitem__,
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
    if isinstance(value, float) and isinstance(error, ValueError):
        return f"output is {_NOT_A_NUMBER.get(str(float(value)), value)}, which JSON cannot carry"
    if isinstance(error, ValueError) and str(error).startswith("Out of range float"):
        return _NOT_FINITE
    if isinstance(error, RecursionError):
        return f"output of type {type(value).__name__} is nested too deeply for JSON"
    return f"output of type {type(value).__name__} cannot be JSON: {error}"


_NOT_FINITE = "output contains NaN or infinity, which JSON cannot carry"
_NOT_A_NUMBER = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity"}


def _plain(value: Any) -> object:
    """Return the JSON form of an object that JSON does not know."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    to_list = getattr(value, "tolist", None)
    plain = to_list() if callable(to_list) else value
    # tolist() of a numpy scalar without a counterpart in Python returns that scalar itself.
    if type(plain) is type(value):
        raise TypeError(f"expected a number, text, bytes, list, dict, array or None, got {type(value).__name__}")
    return plain


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode
