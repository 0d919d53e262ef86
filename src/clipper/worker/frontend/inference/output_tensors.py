"""Makes an application's output tensors: the tensors and their elements, by the type of its models' outputs.

The type does not depend on a request: rows of another type fail, and outputs without a type are texts of their JSON.
Scalars and texts form a column, ``[n,1]``, as in Triton and MLServer. Rows of different lengths are padded at their
ends: floats with NaN, other numbers with 0, booleans with false, texts with nothing.
"""

import base64
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clipper.errors import ModelFailed, TooLarge, WrongInput
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

_decode = msgspec.json.decode
_encode = msgspec.json.encode


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
        nan_as_text: whether NaN and infinity are texts in JSON, and not null.

    Attributes:
        conversion, nan_as_text: see above.
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
        self.plain = self.tensors[0] if isinstance(of_type, InputType) and of_type.dtype.is_numeric else None

    def check(self, name: str) -> None:
        """Raise WrongInput if a request cannot ask for an output by this name."""
        if self.conversion is not None and name not in self._by_name and name not in COLUMNS:
            known = ", ".join(dict.fromkeys((*(tensor.name for tensor in self.tensors), OUTPUT, *COLUMNS)))
            raise WrongInput(f"request asks for output {name[:100]!r}: expected one of {known[:1000]}")

    def asked(self, form: AnswerForm) -> list[tuple[str, bool, OutputTensor | None]]:
        """Return the name of each output for a request, whether it is binary, and its tensor.

        The tensor is None for an output about the answer itself.
        """
        if not form.outputs:
            return [(tensor.name, form.is_binary, tensor) for tensor in self.tensors]
        found = []
        for name, is_binary in form.outputs:
            tensor = self._by_name.get(name)
            if tensor is None and name not in COLUMNS:
                raise WrongInput(f"request asks for output {name[:100]!r}, which the model does not have")
            found.append((name, is_binary, tensor))
        return found

    def converted(self, output: Output, *, is_default: bool) -> Generator[None, None, Output]:
        """Return the output in the type, in steps. Raises ModelFailed if the type cannot hold it."""
        conversion = self.conversion
        if conversion is None or (isinstance(output, TypedOutput) and conversion.keeps(output.form)):
            return output
        try:
            return (yield from conversion.steps(output))
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
        nan_as_text: whether NaN and infinity are texts in JSON, and not null.
    """

    datatype: str
    shape: tuple[int, ...]
    dtype: DType
    rows: Sequence[Output]
    has_outputs: bool = False
    nan_as_text: bool = False

    @property
    def is_base64(self) -> bool:
        """Whether its JSON has bytes as base64."""
        return self.dtype is DType.BYTES

    def _arrays(self) -> Iterator[TypedOutput]:
        """Return the numbers of each row, padded to the shape of all."""
        of_row = self.shape[1:]
        for row in self.rows:
            array = row if isinstance(row, TypedOutput) else None
            if array is not None and of_row in (array.form.shape, array.form.shape or (1,)):
                yield array
            else:
                yield _padded(array, self.dtype, of_row)

    def chunks(self) -> "Iterator[np.ndarray[Any, Any] | list[bytes]]":
        """Return the elements in pieces: numbers, or texts."""
        if self.dtype.is_numeric:
            yield from (np.frombuffer(array.data, NUMPY[self.dtype]) for array in self._arrays())
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
        for array in self._arrays():
            form = array.form
            if form.nan_as_text is not self.nan_as_text:
                form = replace(form, nan_as_text=self.nan_as_text)
            yield from (b"," + text for text in json_elements(form, array.data))


def about(values: Sequence[Any], dtype: DType) -> OutputColumn:
    """Return a tensor with a value about the answer of each row."""
    shape = (len(values),)
    if dtype is DType.STRING:
        return OutputColumn("BYTES", shape, dtype, [_encode(value) for value in values])
    one = OutputForm(dtype, (), dtype)
    rows = [make_array(one, np.array(value, NUMPY[dtype]).tobytes()) for value in values]
    return OutputColumn(datatype_of(dtype).name, shape, dtype, rows)


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
    shape = tensor.shape
    if -1 in shape:
        came = [part.form.shape for part in parts if isinstance(part, TypedOutput)]
        lengths = [max((each[place] for each in came), default=0) for place in range(len(shape))]
        shape = tuple(length if size < 0 else size for size, length in zip(shape, lengths))
        if (size_bytes := rows * prod(shape) * dtype.size_bytes) > limits.MAX_ANSWER_BYTES:
            raise TooLarge(f"rows of different lengths are padded to the longest: {too_long(size_bytes)}")
    return OutputColumn(tensor.datatype, (rows, *shape), dtype, parts, nan_as_text=nan_as_text)


def _padded(row: TypedOutput | None, dtype: DType, shape: tuple[int, ...]) -> TypedOutput:
    whole = np.full(shape, np.nan if dtype in FLOATS else 0, NUMPY[dtype])
    written_as = dtype
    if row is not None:
        written_as = row.form.written_as
        own = np.frombuffer(row.data, NUMPY[dtype]).reshape(row.form.shape)
        whole[tuple(slice(length) for length in row.form.shape)] = own
    return make_array(OutputForm(dtype, shape, written_as), whole.tobytes())
