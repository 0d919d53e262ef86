"""Makes the rows of inputs from tensors: a single tensor, or a tensor for each field of a record.

For a record, numbers are converted as in JSON: whole numbers of any size, and floats, if the field has such a value.
"""

from collections.abc import Generator, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

import numpy as np

from clipper.errors import MalformedRequest, WrongInput
from clipper.values.decoding import parsed
from clipper.values.inputs.field_reader import FieldReader
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES, read_base64, read_string
from clipper.values.inputs.numbers import FLOATS, NUMPY, show
from clipper.values.inputs.record_reader import RecordReader
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType
from clipper.worker.frontend.inference.json_data import element_extents, flat_items, read_json, read_texts
from clipper.worker.frontend.inference.tensors import (
    BASE64_ELEMENTS,
    DATATYPES,
    JSON_ELEMENTS,
    MAX_ROWS,
    PIECE_BYTES,
    PIECE_ROWS,
    Datatype,
    Rows,
    Tensor,
    TensorReader,
    Values,
    check_range,
    numbers_of,
    quick_elements,
)

# Elements of a tensor of BOOL for a field of numbers.
_TRUTHS = {b"true": 1, b"false": 0}
_NUMERIC = tuple(name for name in DATATYPES if name != "BYTES")


class InputTensors(Protocol):
    """Makes inputs of tensors."""

    def readers(self, names: Sequence[str]) -> Mapping[str, TensorReader]:
        """Return a reader for each distinct name of a tensor. Raises WrongInput if no input is made so."""
        ...

    def rows(self, found: Mapping[str, Sequence[Any]], count: int, most_bytes: float = inf) -> Rows:
        """Return the rows of ``count`` inputs, in steps. Raises TooLarge.

        ``found``: the readers' results, by the tensors' names. ``most_bytes``: a bound on them.
        """
        ...


def input_tensors(
    input_type: ValueType, must_be_finite: bool = False, null_is_nan: bool = False, ignores_unknown: bool = False
) -> InputTensors:
    """Return a maker of inputs of this type. The arguments are those of ``reader_of`` and ``TensorReader``."""
    if isinstance(input_type, RecordType):
        return RecordTensors(RecordReader(input_type, null_is_nan, ignores_unknown))
    return OneTensor(TensorReader(input_type, must_be_finite, null_is_nan))


class OneTensor:
    """Makes inputs of a single tensor, whatever its name."""

    def __init__(self, reader: TensorReader) -> None:
        self.reader = reader

    def readers(self, names: Sequence[str]) -> Mapping[str, TensorReader]:
        if len(names) != 1:
            raise WrongInput(f"request has the inputs {', '.join(map(repr, names[:20]))[:200]}: expected one")
        return {names[0]: self.reader}

    def rows(self, found: Mapping[str, Sequence[Any]], count: int, most_bytes: float = inf) -> Rows:
        (rows,) = found.values()
        return list(rows)
        yield


class RecordTensors:
    """Makes records of a tensor for each field. Tensors of fields that are nullable or have a default may be absent."""

    def __init__(self, reader: RecordReader) -> None:
        self._reader = reader
        self._readers = {field.field.name: FieldTensor(field) for field in reader.fields}

    def readers(self, names: Sequence[str]) -> Mapping[str, TensorReader]:
        self._reader.places_of(names)
        return {name: self._readers.get(name) or _IGNORED for name in names}

    def rows(self, found: Mapping[str, Sequence[Any]], count: int, most_bytes: float = inf) -> Rows:
        columns = [found.get(field.field.name) for field in self._reader.fields]
        return (yield from self._reader.rows_of(columns, count, most_bytes))


class FieldTensor(TensorReader):
    """Makes values of a field of a record, as ``FieldReader`` does. NaN is a missing value if the field is nullable."""

    def __init__(self, reader: FieldReader) -> None:
        super().__init__(reader.field.type, null_is_nan=reader.null_is_nan)
        self.reader = reader
        self._is_scalar = self.type.dtype.is_numeric and not self.type.shape
        if self._is_scalar:
            self.taken = _NUMERIC
        if reader.categories:
            self.known = frozenset((None, *reader.categories.values()))

    def is_quick(self, tensor: Tensor) -> bool:
        """Whether ``Together`` may read the tensor's binary data."""
        if type(self) is not FieldTensor or self.type.shape:
            return False
        is_own = tensor.datatype is self._own and self.type.dtype is not DType.BOOL and self.known is None
        return is_own or not self._is_scalar

    def rows(self, tensor: Tensor, data: memoryview) -> Values:
        """Return the values of a tensor with binary data. Raises WrongInput."""
        values: Sequence[Any]
        if not self._is_scalar:
            values = yield from super().rows(tensor, data)
        else:
            self.check_size(tensor, data)
            values = self._numbers(tensor, numbers_of(tensor.datatype, data))
            if self.known is not None and isinstance(values, np.ndarray):
                values = values.tolist()
        if self.known is not None and (unknown := set(values) - self.known):
            value = unknown.pop()
            self.reader.take(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)  # raises
        return values

    def _numbers(self, tensor: Tensor, numbers: "np.ndarray[Any, Any]") -> Any:
        """Return the values in the field's dtype: an array if none is missing."""
        dtype = self.type.dtype
        missing: Any = None
        if numbers.dtype.kind == "f" and self.reader.field.is_nullable:
            missing = np.isnan(numbers)
            missing = missing if missing.any() else None
            if missing is not None:
                numbers = np.where(missing, numbers.dtype.type(0), numbers)
        if missing is None and tensor.datatype is self._own and dtype is not DType.BOOL:
            return numbers
        if dtype not in FLOATS:
            if numbers.dtype.kind == "f":
                if not (np.isfinite(numbers) & (np.trunc(numbers) == numbers)).all():
                    raise WrongInput(f"input {tensor.name!r} has a number that is not whole: expected {dtype.label}")
                if len(numbers) and np.abs(numbers).max() >= 2.0**63:
                    raise WrongInput(f"input {tensor.name!r} has {np.abs(numbers).max():g}: expected {dtype.label}")
                numbers = numbers.astype(np.int64)
            if dtype is DType.BOOL and len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) <= 1:
                raise WrongInput(f"input {tensor.name!r} has a number other than 0 and 1: expected bool")
            if len(numbers) and dtype is not DType.BOOL:
                check_range(tensor.name, numbers, NUMPY[dtype], dtype.label)
        with np.errstate(over="ignore"):
            own = (numbers != 0) if dtype is DType.BOOL else numbers.astype(NUMPY[dtype])
        if dtype is DType.FLOAT32 and np.isinf(own).any() and np.isfinite(numbers[np.isinf(own)]).any():
            raise WrongInput(f"input {tensor.name!r} has a number that is too large: expected float32")
        if missing is None:
            return own
        values = own.tolist()
        for index in np.flatnonzero(missing).tolist():
            values[index] = None
        return values

    def read_json(self, tensor: Tensor, text: bytearray, start: int, stop: int) -> Values:
        """Return the values of a tensor with JSON data. Raises MalformedRequest or WrongInput."""
        if self.type.shape:
            return (yield from read_json(self, tensor, text, start, stop))
        is_bytes = self.type.dtype is DType.BYTES
        is_truth = self._is_scalar and tensor.datatype.name == "BOOL"
        values: list[Any] = []
        if stop - start <= SHORT_TEXT_BYTES:
            # The reader takes another form of bytes and of truths.
            quick = None if is_bytes or is_truth else self.reader.quick_column(bytes(text[start:stop]))
            if quick is not None and len(quick) == tensor.rows:
                return quick
            for item in flat_items(tensor, parsed(text[start:stop], "data"), tensor.rows):
                # A truth is a number, as in the tensor's bytes.
                value = int(item) if is_truth and isinstance(item, bool) else item
                values.append(self._encoded(value) if is_bytes else self.reader.take(value))
            return values
        for index, extent in enumerate((yield from element_extents(tensor, text, start, stop))):
            values.append((yield from self._long(text, *extent, is_truth)))
            if index % PIECE_ROWS == 0:
                yield
        return values

    def _long(self, text: bytearray, start: int, stop: int, is_truth: bool) -> Generator[None, None, Any]:
        if self.type.dtype is not DType.BYTES:
            if is_truth and (number := _TRUTHS.get(bytes(text[start : min(stop, start + 100)]).strip())) is not None:
                return self.reader.take(number)
            return (yield from self.reader.read_long(text, start, stop))
        if bytes(text[start : min(stop, start + 100)]).strip() == b"null":
            return self._encoded(None)
        return (yield from read_string(text, start, stop))

    def _encoded(self, item: Any) -> bytes | None:
        """Return an element of BYTES, which in the protocol's JSON is a text and not base64."""
        if item is None and self.reader.field.is_nullable:
            return None
        if not isinstance(item, str):
            raise WrongInput(f"field {self.reader.field.name!r:.100} has {show(item)}: expected a string")
        try:
            return item.encode()
        except UnicodeError as error:
            raise MalformedRequest(f"data is not JSON: {error}") from error


class EncodedTensor(FieldTensor):
    """Makes values of a tensor of BYTES whose elements are encoded, as clients of MLServer say by its content type."""

    def __init__(self, reader: FieldReader, content_type: str) -> None:
        super().__init__(reader)
        self._is_json = content_type == JSON_ELEMENTS
        if self._is_json:
            self.taken = ("BYTES",)

    def _fits(self, shape: Sequence[int]) -> bool:
        return super()._fits(shape) or (self._is_json and tuple(shape[1:]) in ((), (1,)))

    def rows(self, tensor: Tensor, data: memoryview) -> Values:
        return (yield from self._decoded((yield from _BYTES.rows(tensor, data))))

    def read_json(self, tensor: Tensor, text: bytearray, start: int, stop: int) -> Values:
        return (yield from self._decoded((yield from read_texts(tensor, text, start, stop))))

    def _decoded(self, elements: Sequence[bytes]) -> Values:
        values: list[Any] = []
        for index, element in enumerate(elements):
            text = bytearray(element if self._is_json else b'"%b"' % element)
            if self._is_json or self.type.dtype is DType.BYTES:
                values.append((yield from self.reader.read_long(text, 0, len(text))))
            else:
                values.append(self._text((yield from read_base64(text, 0, len(text)))))
            if index % PIECE_ROWS == 0:
                yield
        return values

    def _text(self, data: bytes) -> Any:
        try:
            return self.reader.take(data.decode())
        except UnicodeDecodeError as error:
            raise WrongInput(
                f"field {self.reader.field.name!r:.100} is not UTF-8 ({error}): expected a string"
            ) from error


class Together(NamedTuple):
    """How tensors of one datatype whose data follow one another are read in one step.

    Attributes:
        rows: those of each tensor.
        is_text: whether elements of BYTES have to be UTF-8.
        takes_nan: whether NaN stands for a missing value in one of them.
        known: the place of each tensor that may have some values alone, and these.
    """

    datatype: Datatype
    rows: int
    is_text: bool
    takes_nan: bool
    known: tuple[tuple[int, frozenset[Any]], ...]

    def columns(self, sizes: Sequence[int], data: memoryview) -> list[Sequence[Any]] | None:
        """Return each tensor's values, by their ``sizes``; None if they are long, or one needs a look by itself."""
        rows = self.rows
        if len(data) > PIECE_BYTES or rows * len(sizes) > MAX_ROWS:
            return None
        if self.datatype.numpy is not None:
            block = np.frombuffer(data, self.datatype.numpy).reshape(len(sizes), rows)
            return None if self.takes_nan and np.isnan(block).any() else list(block)
        elements = quick_elements(bytes(data), sizes, rows, is_text=self.is_text)
        if elements is None:
            return None
        columns: list[Sequence[Any]] = [elements[at : at + rows] for at in range(0, len(elements), rows)]
        return columns if all(known.issuperset(columns[place]) for place, known in self.known) else None


def together(readers: Sequence[TensorReader], tensor: Tensor) -> Together:
    """Return how these readers' tensors are read in one step. ``tensor``: one of them. All are ``is_quick``."""
    types = [reader.type.dtype for reader in readers]
    takes_nan = any(isinstance(reader, FieldTensor) and reader.reader.field.is_nullable for reader in readers)
    known = tuple((place, reader.known) for place, reader in enumerate(readers) if reader.known is not None)
    is_float = tensor.datatype.numpy is not None and tensor.datatype.numpy.kind == "f"
    return Together(tensor.datatype, tensor.rows, DType.STRING in types, takes_nan and is_float, known)


def decoding(reader: TensorReader, content_type: object) -> TensorReader:
    """Return the reader of a tensor of BYTES with this content type: ``reader``, unless its elements are encoded."""
    is_field = isinstance(reader, FieldTensor)
    encoded = (JSON_ELEMENTS, BASE64_ELEMENTS) if "BYTES" in reader.taken else (JSON_ELEMENTS,) if is_field else ()
    if reader.is_ignored or content_type not in encoded:
        return reader
    field = reader.reader if isinstance(reader, FieldTensor) else FieldReader(Field("input", reader.type))
    return EncodedTensor(field, str(content_type))


class _IgnoredTensor(FieldTensor):
    """Skips a tensor that belongs to no field."""

    is_ignored = True

    def announce(self, name: str, datatype: str, shape: Sequence[int]) -> Tensor:
        return Tensor(name, DATATYPES.get(datatype, DATATYPES["BYTES"]), shape)

    def size_bytes(self, tensor: Tensor) -> int | None:
        return None

    def rows(self, tensor: Tensor, data: memoryview) -> Values:
        return []
        yield

    def read_json(self, tensor: Tensor, text: bytearray, start: int, stop: int) -> Values:
        return []
        yield


_BYTES = TensorReader(InputType(DType.BYTES))
_IGNORED = _IgnoredTensor(FieldReader(Field("ignored", InputType(DType.BYTES))))
