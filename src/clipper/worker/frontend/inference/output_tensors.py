"""Makes an application's output tensors: the tensors and their elements, by the type of its models' outputs.

The type does not depend on a request: rows of another type fail, and outputs without a type are texts of their JSON.
Scalars and texts form a column, ``[n,1]``, as in Triton and MLServer. Rows of different lengths are padded at their
ends: floats with NaN, other numbers with 0, booleans with false, texts with nothing.
"""

import base64
import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from clipper.errors import ModelFailed, TooLarge, WrongInput
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.numbers import FLOATS, NUMPY
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.json_text import json_elements
from clipper.values.outputs.output import Output, Part, RecordOutput, TypedOutput, make_array
from clipper.values.records import Field, RecordType
from clipper.values.types import DType, InputType
from clipper.worker.frontend import limits
from clipper.worker.frontend.http.responses import too_long
from clipper.worker.frontend.inference.requests import COLUMNS, OUTPUT, AnswerForm
from clipper.worker.frontend.inference.tensors import batch_shape, datatype_of

_Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_DECODE_LISTS: dict[DType, Callable[[bytes], list[Any]]] = {
    **dict.fromkeys(FLOATS, msgspec.json.Decoder(list[float]).decode),
    **dict.fromkeys((DType.INT32, DType.INT64, DType.UINT8), msgspec.json.Decoder(list[int]).decode),
}
# Whole numbers from here on may be no floats.
_MOST_EXACT = 2.0**53


class OutputTensor(NamedTuple):
    """A tensor of a model's outputs.

    Attributes:
        shape: the shape of a row; -1 is any length.
        field: the values; None if each element is the JSON of a whole output.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    field: Field | None


# The tensor that fits any output: the text of its JSON.
ANY = OutputTensor(OUTPUT, "BYTES", (1,), None)


class OutputTensors:
    """The output tensors of an application.

    Args:
        conversion: converts outputs to their type; None if they have no type, or it is not known yet.

    Attributes:
        tensors: the tensors for a request that asks for none by name.
        plain: the only tensor, if it has numbers and no field's name; else None.
    """

    def __init__(self, conversion: Conversion | None, *, nan_as_text: bool = False) -> None:
        self.conversion, self.nan_as_text = conversion, nan_as_text
        of_type = None if conversion is None else conversion.type
        fields: Sequence[Field] = ()
        if isinstance(of_type, RecordType):
            fields = of_type.fields
        elif of_type is not None:
            fields = (Field(OUTPUT, of_type),)
        self.tensors = tuple(
            OutputTensor(field.name, datatype_of(field.type.dtype).name, tuple(batch_shape(field.type)[1:]), field)
            for field in fields
        ) or (ANY,)
        self._by_name = {tensor.name: tensor for tensor in self.tensors}
        # This name also gives a whole record.
        self._by_name.setdefault(OUTPUT, ANY)
        # The application's default, and what it was converted to: many rows have it where models are late.
        self._default: tuple[Output, Output] | None = None
        self.plain = self.tensors[0] if isinstance(of_type, InputType) and of_type.dtype.is_numeric else None

    def check(self, name: str) -> None:
        """Raise WrongInput if a request cannot ask for an output by this name."""
        if self.conversion is not None and name not in self._by_name and name not in COLUMNS:
            known = ", ".join(dict.fromkeys((*(tensor.name for tensor in self.tensors), OUTPUT, *COLUMNS)))
            raise WrongInput(f"request asks for output {name[:100]!r}: expected one of {known[:1000]}")

    def asked(self, form: AnswerForm) -> list[tuple[str, bool, OutputTensor | None]]:
        """Return each asked output's name, whether it is binary, and its tensor; None if about the answer."""
        if not form.outputs:
            return [(tensor.name, form.is_binary, tensor) for tensor in self.tensors]
        found = []
        for name, is_binary in form.outputs:
            tensor = self._by_name.get(name)
            if tensor is None and name not in COLUMNS:
                raise WrongInput(f"request asks for output {name[:100]!r}, which the model does not have")
            found.append((name, is_binary, tensor))
        return found

    def at_once(self, outputs: Sequence[Output]) -> TypedOutput | None:
        """Return outputs of numbers in the type, as one array, whose first dimension counts them.

        Return None for other outputs, and those of which one may not be of the type. Containers send single numbers as
        texts: to convert 32 in a step takes as long as one alone.
        """
        if self.plain is None or self.conversion is None or self.plain.field is None:
            return None
        if isinstance(outputs[0], TypedOutput):
            return joined(outputs) if self.conversion.keeps(outputs[0].form) else None
        of_type = self.plain.field.type
        return None if of_type.shape else _numbers_of(outputs, of_type.dtype)

    def are_texts_of_type(self, outputs: Sequence[Output]) -> bool:
        """Whether outputs are texts of numbers that are exactly of the type, float64 or int64, as they are written."""
        of_type = None if self.plain is None or self.plain.field is None else self.plain.field.type
        if of_type is None or of_type.shape or of_type.dtype not in (DType.FLOAT64, DType.INT64):
            return False
        values = _values_of(outputs, of_type.dtype)
        return values is not None and _are_exact(values)

    def converted(self, output: Output, *, is_default: bool) -> Generator[None, None, Output]:
        """Return the output in the type, in steps. Raises ModelFailed if the type cannot hold it."""
        conversion = self.conversion
        if conversion is None or (isinstance(output, TypedOutput) and conversion.keeps(output.form)):
            return output
        if is_default and self._default is not None and self._default[0] == output:
            return self._default[1]
        try:
            found = yield from conversion.steps(output)
            if is_default:
                self._default = output, found
            return found
        except ModelFailed as error:
            if is_default:
                raise ModelFailed(
                    f"the application's default output {bytes(output)[:60].decode(errors='replace')} is not of the "
                    f"models' output type {str(conversion.type)[:200]}: change it with clipper app update --default"
                ) from error
            raise


class OutputColumn(NamedTuple):
    """An output tensor over all rows.

    Attributes:
        shape: the shape of the whole tensor.
        dtype: the type of the elements. An element of bytes is base64 in JSON.
        rows: the numbers of each row, of any shape that fits into the tensor's; the JSON of a text; or whole outputs.
        has_outputs: whether each element is the JSON of a whole output.
        whole: the numbers of all rows, in place of ``rows``.
    """

    datatype: str
    shape: tuple[int, ...]
    dtype: DType
    rows: Sequence[Output] = ()
    has_outputs: bool = False
    nan_as_text: bool = False
    whole: TypedOutput | None = None

    @property
    def is_base64(self) -> bool:
        return self.dtype is DType.BYTES

    def _arrays(self) -> "Iterator[tuple[OutputForm, _Array]]":
        """Yield rows' numbers, padded to one shape: small rows that came together at once, others in pieces."""
        of_row, layout = self.shape[1:], NUMPY[self.dtype]
        if self.whole is not None:
            yield self.whole.form, np.frombuffer(self.whole.data, layout)
            return
        for row in self.rows:
            own, written_as = None, self.dtype
            if isinstance(row, TypedOutput):
                form, own = row.form, np.frombuffer(row.data, layout)
                if of_row in (form.shape, form.shape or (1,)):
                    yield form, own
                    continue
                own, written_as = own.reshape(form.shape), form.written_as
            for piece in _padded(own, layout, of_row):
                yield OutputForm(self.dtype, piece.shape, written_as), piece

    def chunks(self) -> "Iterator[_Array | list[bytes]]":
        """Yield the elements in pieces: numbers, or texts."""
        if self.dtype.is_numeric:
            yield from (numbers for _, numbers in self._arrays())
            return
        for row in self.rows:
            if self.has_outputs:
                yield [bytes(row)]
                continue
            text = _decode(bytes(row)) or ""
            yield [base64.b64decode(text) if self.is_base64 else text.encode()]

    def json_pieces(self) -> Iterator[bytes]:
        """Return the elements as JSON, with a comma before each."""
        if self.has_outputs:
            yield from (b"," + _encode(str(bytes(row), "utf-8")) for row in self.rows)
            return
        if not self.dtype.is_numeric:
            yield from (b',""' if row == b"null" else b"," + bytes(row) for row in self.rows)
            return
        for form, numbers in self._arrays():
            is_as_asked = form.nan_as_text is self.nan_as_text
            shown = form if is_as_asked else replace(form, nan_as_text=self.nan_as_text)
            yield from (b"," + text for text in json_elements(shown, numbers.data))


def joined(outputs: Sequence[Output]) -> TypedOutput | None:
    """Return small arrays of one form as one array, whose first dimension counts them; None for other outputs."""
    # A form's equality takes longer than its identity, and those of a batch share one.
    forms = {id(output.form): output.form for output in outputs if isinstance(output, TypedOutput)}
    data = [output.data for output in outputs if isinstance(output, TypedOutput)]
    form = next(iter(forms.values()), None)
    if form is None or len(data) < len(outputs) or any(other != form for other in forms.values()):
        return None
    if len(data) * form.row_bytes > limits.WRITE_BYTES:
        return None
    return make_array(replace(form, shape=(len(data), *form.shape)), b"".join(data))


def _numbers_of(texts: Sequence[Output], dtype: DType) -> TypedOutput | None:
    """Return short texts of one number each as an array; None if one is another, or may not be exactly of the dtype."""
    values = _values_of(texts, dtype)
    if values is None or (dtype in FLOATS and not _are_exact(values)):
        return None
    try:
        if dtype is DType.FLOAT64:
            data = struct.pack(f"<{len(values)}d", *values)
        else:
            numbers = np.array(values)
            cast = numbers.astype(NUMPY[dtype])
            if (cast != numbers).any():
                return None
            data = cast.tobytes()
    except (OverflowError, TypeError):
        return None
    return make_array(OutputForm(dtype, (len(values),), dtype), data)


def _values_of(texts: Sequence[Output], dtype: DType) -> list[Any] | None:
    """Return the numbers of short texts of one each, whole ones for a dtype of these; None if one is another."""
    decode = _DECODE_LISTS.get(dtype)
    if decode is None or sum(map(len, texts)) > limits.WRITE_BYTES:
        return None
    try:
        values = decode(b"[%b]" % b",".join(texts))  # type: ignore[arg-type]  # raises TypeError for an array
    except (*NOT_JSON, TypeError):
        return None
    return values if len(values) == len(texts) else None


def _are_exact(values: Sequence[Any]) -> bool:
    return bool(min(values) > -_MOST_EXACT and max(values) < _MOST_EXACT)


def about(values: Sequence[Any], dtype: DType) -> OutputColumn:
    """Return a tensor with a value about the answer of each row."""
    shape = (len(values),)
    if dtype is DType.STRING:
        return OutputColumn("BYTES", shape, dtype, [_encode(value) for value in values])
    whole = make_array(OutputForm(dtype, shape, dtype), np.array(values, NUMPY[dtype]).tobytes())
    return OutputColumn(datatype_of(dtype).name, shape, dtype, whole=whole)


def column_of(tensor: OutputTensor, whole: TypedOutput, *, nan_as_text: bool = False) -> OutputColumn:
    """Make a tensor of numbers of the type, those of all rows in one array."""
    rows, *of_row = whole.form.shape
    shape = (rows, *(of_row or (1,)))
    return OutputColumn(tensor.datatype, shape, whole.form.dtype, nan_as_text=nan_as_text, whole=whole)


def column(tensor: OutputTensor, outputs: Sequence[Output], *, nan_as_text: bool = False) -> OutputColumn:
    """Make a tensor of outputs of the type, or of the JSON of whole outputs.

    Raises ModelFailed if a whole number or a truth value is missing, and TooLarge if rows of different lengths take too
    much when they are padded.
    """
    field, rows = tensor.field, len(outputs)
    if field is None:
        return OutputColumn(tensor.datatype, (rows, 1), DType.STRING, outputs, has_outputs=True)
    parts: list[Part] = []
    for output in outputs:
        part = output.part(tensor.name) if isinstance(output, RecordOutput) else output
        assert part is not None  # the part was converted to the type
        parts.append(part)
    dtype = field.type.dtype
    if not dtype.is_numeric:
        return OutputColumn(tensor.datatype, (rows, 1), dtype, parts)
    if dtype not in FLOATS and any(isinstance(part, bytes) for part in parts):
        raise ModelFailed(f"output {tensor.name!r} is missing in a row, and {tensor.datatype} has no number for that")
    if (whole := joined(parts)) is not None:
        return column_of(tensor, whole, nan_as_text=nan_as_text)
    shape = tensor.shape
    if -1 in shape:
        came = [part.form.shape for part in parts if isinstance(part, TypedOutput)]
        lengths = [max((each[place] for each in came), default=0) for place in range(len(shape))]
        shape = tuple(length if size < 0 else size for size, length in zip(shape, lengths))
        if (size_bytes := rows * prod(shape) * dtype.size_bytes) > limits.MAX_ANSWER_BYTES:
            raise TooLarge(f"rows of different lengths are padded to the longest: {too_long(size_bytes)}")
    return OutputColumn(tensor.datatype, (rows, *shape), dtype, parts, nan_as_text=nan_as_text)


def _padded(own: "_Array | None", layout: np.dtype[Any], shape: tuple[int, ...]) -> "Iterator[_Array]":
    """Yield the elements of an array that is padded at its ends, in pieces of at most ``limits.WRITE_BYTES``.

    Args:
        own: the array, of as many dimensions as the shape and no longer in any; None if there is none.
        layout: the type of the elements.
        shape: the lengths to pad to; at least one.
    """
    each, most = prod(shape[1:]), limits.WRITE_BYTES // layout.itemsize
    if each > most:
        for index in range(shape[0]):
            yield from _padded(None if own is None or index >= len(own) else own[index], layout, shape[1:])
        return
    step = most // max(each, 1)
    for start in range(0, shape[0], step):
        piece = np.full((min(step, shape[0] - start), *shape[1:]), np.nan if layout.kind == "f" else 0, layout)
        if own is not None:
            part = own[start : start + step]
            piece[tuple(map(slice, part.shape))] = part
        yield piece.reshape(-1)
