"""Checks tensors of the Open Inference Protocol, and turns them into rows of an application's input type.

The first dimension counts the inputs; the others are the shape of each input. Numbers are converted if that is
lossless. Tensors of any size are read in pieces: generators yield so that other requests get their turn.
"""

import codecs
import io
import struct
from collections.abc import Generator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from clipper.errors import WrongInput
from clipper.values.inputs.numbers import FLOATS, NUMPY
from clipper.values.types import MAX_DIMENSIONS, DType, InputType

# Copying or converting this many bytes takes a tenth of a millisecond.
PIECE_BYTES = 256 * 1024
# Making this many rows one by one takes about as long.
PIECE_ROWS = 256
# The most inputs in a request: as many as in a batch of a predict call.
MAX_ROWS = 10_000
_LENGTH, _ZEROS = struct.Struct("<I"), b"\0\0\0"
_MAX_SIZE = 2**63 - 1

Rows = Generator[None, None, list[bytes]]
# A tensor is read as rows, or as values of a record's field.
Values = Generator[None, None, Sequence[Any]]


class Datatype(NamedTuple):
    """A datatype of the protocol.

    Attributes:
        numpy: the layout of an element; None for BYTES, whose elements have lengths of their own.
        config: its name in a model's configuration.
    """

    name: str
    numpy: np.dtype[Any] | None
    config: str

    @property
    def size_bytes(self) -> int:
        """The size of an element; 0 for BYTES."""
        return 0 if self.numpy is None else self.numpy.itemsize


_NUMERIC = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_NUMERIC |= {f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)}
_NUMERIC |= {f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)}
DATATYPES = {name: Datatype(name, np.dtype(code), f"TYPE_{name}") for name, code in _NUMERIC.items()}
# numpy has no bfloat16. Its two bytes are the upper half of a float32.
DATATYPES["BF16"] = Datatype("BF16", np.dtype("<u2"), "TYPE_BF16")
DATATYPES["BYTES"] = Datatype("BYTES", None, "TYPE_STRING")

_OWN = {
    DType.INT32: "INT32",
    DType.INT64: "INT64",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
    DType.UINT8: "UINT8",
    DType.BOOL: "BOOL",
    DType.STRING: "BYTES",
    DType.BYTES: "BYTES",
}
_INTEGERS = tuple(name for name in DATATYPES if "INT" in name)
# As in JSON, an integer is a valid float; an integer of another size is valid if its value fits.
_TAKEN = {
    DType.INT32: _INTEGERS,
    DType.INT64: _INTEGERS,
    DType.UINT8: _INTEGERS,
    DType.FLOAT32: (*_INTEGERS, "FP16", "BF16", "FP32"),
    DType.FLOAT64: (*_INTEGERS, "FP16", "BF16", "FP32", "FP64"),
    DType.BOOL: ("BOOL",),
    DType.STRING: ("BYTES",),
    DType.BYTES: ("BYTES",),
}
# JSON cannot state these exactly, so the protocol only allows them as binary data.
ONLY_BINARY = frozenset({"FP16", "BF16"})

# Content types of BYTES, as MLServer's codecs write them, whose elements are not the values themselves. Columns of a
# DataFrame with missing texts, or with values of several kinds, have elements in JSON.
BASE64_ELEMENTS, JSON_ELEMENTS = "base64", "pd_json"


def datatype_of(dtype: DType) -> Datatype:
    """Return the protocol's datatype for the elements of an application's inputs."""
    return DATATYPES[_OWN[dtype]]


class Tensor(NamedTuple):
    """A tensor of a request, without its data. ``shape``: the first length is the number of inputs."""

    name: str
    datatype: Datatype
    shape: Sequence[int]

    @property
    def rows(self) -> int:
        return self.shape[0]


class TensorReader:
    """Makes rows of one type from tensors.

    Attributes:
        taken: the datatypes that the rows can be made of.
        is_ignored: whether it only reads over tensors.
        null_is_nan: whether null in JSON data of floats is NaN.
        known: the only values that rows may have; None if they may have any.
    """

    is_ignored = False
    known: frozenset[Any] | None = None

    def __init__(self, input_type: InputType, must_be_finite: bool = False, null_is_nan: bool = False) -> None:
        """``must_be_finite``: refuse NaN and infinities in binary data, which a model may handle."""
        self.type, self.null_is_nan = input_type, null_is_nan and not must_be_finite
        self.taken: Sequence[str] = _TAKEN[input_type.dtype]
        self._must_be_finite = must_be_finite and input_type.dtype in FLOATS
        self._own = datatype_of(input_type.dtype)

    def announce(self, name: str, datatype: str, shape: Sequence[int]) -> Tensor:
        """Check a tensor's description before its data. Raises WrongInput with what was expected and what came."""
        known = DATATYPES.get(datatype)
        if known is None:
            raise WrongInput(f"input {name!r} has datatype {datatype[:20]!r}: expected one of {', '.join(DATATYPES)}")
        if datatype not in self.taken:
            expected = ", ".join(self.taken)
            raise WrongInput(f"input {name!r} has datatype {datatype}: for {self.type} expected one of {expected}")
        if not self._fits(shape):
            raise WrongInput(f"input {name!r} has shape {_shown(shape)}: expected {_shown(batch_shape(self.type))}")
        if not 1 <= shape[0] <= MAX_ROWS:
            raise WrongInput(f"input {name!r} has {shape[0]} rows: expected 1 to {MAX_ROWS}")
        return Tensor(name, known, shape)

    def _fits(self, shape: Sequence[int]) -> bool:
        expected = self.type.shape
        # A flat list of scalars is as good as a column.
        if not expected and len(shape) == 2 and shape[1] == 1:
            return True
        return (
            len(shape) == len(expected) + 1
            and all(size >= 0 for size in shape)
            and all(want is None or want == got for want, got in zip(expected, shape[1:]))
        )

    def is_quick(self, tensor: Tensor) -> bool:
        """Whether the tensor's binary data can be read together with that of others of its datatype."""
        return False

    def size_bytes(self, tensor: Tensor) -> int | None:
        """Return the size of the tensor's data; None for BYTES, where only the data shows it."""
        own = tensor.datatype.size_bytes
        return own * prod(tensor.shape) if own else None

    def is_as_it_is(self, tensor: Tensor) -> bool:
        """Whether each row is a slice of the data, without a conversion or check."""
        is_own = tensor.datatype is self._own and self.type.dtype.is_numeric and self.type.dtype != DType.BOOL
        return is_own and not self.type.leading_dimensions and not self._must_be_finite

    def check_size(self, tensor: Tensor, data: memoryview) -> None:
        """Raises WrongInput if binary data has another size than the shape says."""
        expected = self.size_bytes(tensor)
        if expected is not None and len(data) != expected:
            raise WrongInput(
                f"input {tensor.name!r} has {len(data)} bytes: expected {expected} for shape {_shown(tensor.shape)} of "
                f"{tensor.datatype.name}"
            )

    def rows(self, tensor: Tensor, data: memoryview) -> Values:
        """Return rows of binary data: little-endian, without padding. Raises WrongInput for a wrong size or element."""
        expected = self.size_bytes(tensor)
        if expected is None:
            return (yield from self._elements(tensor, data))
        self.check_size(tensor, data)
        row_bytes = expected // tensor.rows
        # A row begins with its dimensions if its size does not determine them.
        prefix = np.array(tensor.shape[1:], "<u4").tobytes() if self.type.leading_dimensions else b""
        if not row_bytes:
            return [prefix] * tensor.rows
        if row_bytes > PIECE_BYTES:
            return (yield from self._large_rows(tensor, data, row_bytes, prefix))
        rows: list[bytes] = []
        step = row_bytes * min(PIECE_BYTES // row_bytes, PIECE_ROWS)
        for start in range(0, expected, step):
            piece = data[start : start + step]
            own = self._converted(tensor, piece)
            own_bytes = len(own) * row_bytes // len(piece)
            rows += [prefix + own[at : at + own_bytes] for at in range(0, len(own), own_bytes)]
            yield
        return rows

    def _large_rows(self, tensor: Tensor, data: memoryview, row_bytes: int, prefix: bytes) -> Rows:
        rows = []
        for start in range(0, len(data), row_bytes):
            row = io.BytesIO()  # returns its bytes without a copy
            row.write(prefix)
            for at in range(start, start + row_bytes, PIECE_BYTES):
                row.write(self._converted(tensor, data[at : min(at + PIECE_BYTES, start + row_bytes)]))
                yield
            rows.append(row.getvalue())
        return rows

    def _converted(self, tensor: Tensor, data: memoryview) -> bytes:
        """Convert elements to the row's type. Raises WrongInput if an element is not of the type."""
        if self.is_as_it_is(tensor):
            return bytes(data)
        wide = numbers_of(tensor.datatype, data)
        dtype = self.type.dtype
        if dtype == DType.BOOL:  # any byte but 0 is true, as to numpy and Triton; perf_analyzer makes up such bytes
            return np.frombuffer(data, np.uint8).astype(np.bool_).tobytes()
        if dtype in FLOATS:
            if self._must_be_finite and wide.dtype.kind == "f" and not np.isfinite(wide).all():
                raise WrongInput(f"input {tensor.name!r} has NaN or infinity: expected finite numbers")
        elif len(wide):
            check_range(tensor.name, wide, NUMPY[dtype], dtype.label)
        return wide.astype(NUMPY[dtype]).tobytes()

    def _elements(self, tensor: Tensor, data: memoryview) -> Rows:
        """Return the elements of BYTES; each comes after its length."""
        if len(data) <= PIECE_BYTES:
            quick = quick_elements(bytes(data), [len(data)], tensor.rows, is_text=self.type.dtype is DType.STRING)
            if quick is not None:
                return quick
        rows: list[bytes] = []
        at = 0
        for index in range(tensor.rows):
            start = at + _LENGTH.size
            at = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else len(data) + 1
            if at > len(data):
                raise WrongInput(f"input {tensor.name!r} ends within element {index} of {tensor.rows}")
            rows.append((yield from self.element(tensor, data[start:at])))
            if index % PIECE_ROWS == PIECE_ROWS - 1:
                yield
        if at != len(data):
            raise WrongInput(f"input {tensor.name!r} has {len(data) - at} bytes after its {tensor.rows} elements")
        return rows

    def element(self, tensor: Tensor, data: memoryview) -> Generator[None, None, bytes]:
        """Return the row of an element of BYTES. Raises WrongInput if the type is string, and the element not UTF-8."""
        is_text = self.type.dtype == DType.STRING
        try:
            if len(data) <= PIECE_BYTES:
                row = bytes(data)
                if is_text:
                    row.decode()
                return row
            whole, decoder = io.BytesIO(), codecs.getincrementaldecoder("utf-8")()
            for at in range(0, len(data), PIECE_BYTES):
                piece = bytes(data[at : at + PIECE_BYTES])
                if is_text:
                    decoder.decode(piece, final=at + PIECE_BYTES >= len(data))
                whole.write(piece)
                yield
            return whole.getvalue()
        except UnicodeDecodeError as error:
            raise WrongInput(f"input {tensor.name!r} is not UTF-8 ({error}): expected a string") from error


def quick_elements(data: bytes, sizes: Sequence[int], rows: int, *, is_text: bool) -> list[bytes] | None:
    """Return the elements of tensors of BYTES if each element has 1 to 255 bytes; None for any other data.

    Three zeros follow a length's first byte: they part the data into elements, each with the next one's length.

    Args:
        data: that of the tensors, one after another.
        sizes: the size of each tensor's data.
        rows: the number of elements of each tensor.
        is_text: whether elements have to be UTF-8.
    """
    parts = data.split(_ZEROS, rows * len(sizes))
    if len(parts) <= rows * len(sizes) or len(parts[0]) != 1 or b"" in parts:
        return None
    elements = [part[:-1] for part in parts[1:]]
    elements[-1] = parts.pop()
    lengths = [part[-1] for part in parts]
    if lengths != list(map(len, elements)):
        return None
    if any(sum(lengths[rows * at : rows * at + rows]) != size - _LENGTH.size * rows for at, size in enumerate(sizes)):
        return None
    if is_text and not data.isascii():
        try:
            b"\n".join(elements).decode()
        except UnicodeDecodeError:
            return None
    return elements


def batch_shape(input_type: InputType) -> list[int]:
    """Return the shape of tensors with such inputs; -1 is any length, as for the number of inputs.

    Scalars and strings form a column, as in clients: perf_analyzer cannot send an input without a shape.
    """
    return [-1, *(-1 if size is None else size for size in input_type.shape or (1,))]


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raises WrongInput for too many dimensions, or a length over 64 bits: Python cannot print a product of such."""
    if any(size > _MAX_SIZE for size in shape):
        raise WrongInput(f"{name!r} has a shape with a length over {_MAX_SIZE}: expected at most that")
    if not 1 <= len(shape) <= MAX_DIMENSIONS + 1:
        raise WrongInput(f"{name!r} has {len(shape)} dimensions: expected 1 to {MAX_DIMENSIONS + 1}")


def check_range(name: str, numbers: np.ndarray[Any, Any], wanted: Any, label: str, where: str = "") -> None:
    """Check that whole numbers, at least one, fit into a type of numpy. Raises WrongInput with one that does not."""
    bounds = np.iinfo(wanted)
    for number in (int(numbers.min()), int(numbers.max())):
        if not bounds.min <= number <= bounds.max:
            raise WrongInput(f"input {name!r} has {number}{where}: expected {label}")


def numbers_of(datatype: Datatype, data: memoryview) -> np.ndarray[Any, Any]:
    numbers = np.frombuffer(data, datatype.numpy)
    return (numbers.astype("<u4") << 16).view("<f4") if datatype.name == "BF16" else numbers


def _shown(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape[: MAX_DIMENSIONS + 1]))}{',…' if len(shape) > MAX_DIMENSIONS + 1 else ''}]"
