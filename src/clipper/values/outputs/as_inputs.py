"""Makes inputs of outputs, and outputs of inputs: the answer of one model becomes the input of the next.

An array stays an array: its numbers are copied, or cast if the input has another type of numbers.
"""

import base64
import io
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import numpy as np

from clipper.errors import ModelFailed, OutputTooLarge
from clipper.values.columns import Column
from clipper.values.decoding import NOT_JSON
from clipper.values.inputs.numbers import NUMPY
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import (
    MAX_READ_BYTES,
    PIECE_BYTES,
    Output,
    Part,
    RecordOutput,
    TypedOutput,
    is_readable,
    make_array,
    make_record,
)
from clipper.values.outputs.record_columns import RecordColumns, names_of
from clipper.values.records import RecordType, ValueType
from clipper.values.types import DType, InputType

# The largest array to make of several: the default bound on an output has this size.
MAX_LIST_BYTES = 32 * 1024 * 1024
NULL = b"null"
T = TypeVar("T")
_decode_text = msgspec.json.Decoder(str).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class InputRows:
    """Makes rows of a type of inputs."""

    def __init__(self, of_type: ValueType) -> None:
        self.type = of_type
        self._conversion = Conversion(of_type, is_input=True)
        self._rows = RecordRows(of_type) if isinstance(of_type, RecordType) else None

    def row(self, output: Output) -> Generator[None, None, bytes]:
        """Return the row of an output, in steps of a millisecond or so. Raises ModelFailed if it is not of the type."""
        converted = yield from self._conversion.steps(output)
        if self._rows is None or not isinstance(self.type, RecordType):
            assert isinstance(self.type, InputType)
            assert not isinstance(converted, RecordOutput)
            if converted == NULL:
                raise ModelFailed(f"its input is null: expected {self.type}")
            return _row(converted, self.type)
        assert isinstance(converted, RecordOutput)
        fields = zip(self.type.fields, converted.parts)
        return self._rows.row([_field(part, field.type) for field, part in fields])


def record_of(values: Mapping[str, Output | None]) -> RecordOutput:
    """Return an output of these values, without those that are missing. Raises OutputTooLarge as ``as_part``."""
    there = {name: as_part(value) for name, value in values.items() if value is not None}
    return make_record(names_of(tuple(there)), tuple(there.values()))


def as_part(output: Output) -> Part:
    """Return an output as a value of a record: one with names as its text. Raises OutputTooLarge for a large one."""
    if not isinstance(output, RecordOutput):
        return output
    if not is_readable(output):
        raise OutputTooLarge(
            f"an output with names has over {MAX_READ_BYTES} bytes as JSON: refer to one of its values instead"
        )
    return bytes(output)


def _row(part: Part, of_type: InputType) -> bytes:
    if isinstance(part, TypedOutput):
        sizes = part.form.shape if of_type.leading_dimensions else ()
        return np.array(sizes, "<u4").tobytes() + part.data if sizes else part.data
    text = _decode_text(part)
    return base64.b64decode(text) if of_type.dtype is DType.BYTES else text.encode()


def _field(part: Part, of_type: InputType) -> Any:
    """Return the value of a field in the form of ``RecordRows``."""
    if isinstance(part, TypedOutput) and not of_type.shape:
        return np.frombuffer(part.data, NUMPY[of_type.dtype])[0].item()
    return None if part == NULL else _row(part, of_type)


def output_of(row: bytes, of_type: ValueType) -> Output:
    """Return an input as an output: the inverse of ``InputRows.row``."""
    if isinstance(of_type, RecordType):
        columns = _record_rows(of_type).columns([row])
    else:
        columns = [Column("", of_type, 1, row, None if of_type.row_bytes is not None else (len(row),))]
    (output,), _ = RecordColumns(columns).outputs({})
    assert output is not None
    return output


# The types of the applications of a worker.
_record_rows = lru_cache(256)(RecordRows)
input_rows = lru_cache(256)(InputRows)


def field_of(output: Output, name: str) -> Part | None:
    """Return the value of this name; None if there is none. Raises OutputTooLarge if a text is too large."""
    if isinstance(output, RecordOutput):
        return output.part(name)
    if isinstance(output, TypedOutput) or output[:1] != b"{":
        return None
    if not is_readable(output):
        raise OutputTooLarge(
            f"the object has {len(output)} bytes as JSON, too many to read a field: expected at most {MAX_READ_BYTES}; "
            "have the model answer its outputs by name"
        )
    found = _decoded(_decode_object, output).get(name)
    return None if found is None else bytes(found)


class Elements:
    """The elements of an array, each of which is copied when it is read: all at once may take tens of milliseconds."""

    __slots__ = ("_output",)

    def __init__(self, output: TypedOutput) -> None:
        self._output = output

    def __len__(self) -> int:
        return self._output.form.shape[0]

    def __iter__(self) -> Iterator[Part]:
        form, data = self._output.form, self._output.data
        of_element = OutputForm(form.dtype, form.shape[1:], form.written_as)
        size = of_element.row_bytes
        return (make_array(of_element, data[place * size : (place + 1) * size]) for place in range(len(self)))


def items_of(output: Output) -> Elements | Sequence[bytes] | None:
    """Return the elements of a list; None if the output is no list. Raises OutputTooLarge if a text is too large."""
    if isinstance(output, TypedOutput):
        return None if not output.form.shape else Elements(output)
    if isinstance(output, RecordOutput) or output[:1] != b"[":
        return None
    if not is_readable(output):
        raise OutputTooLarge(
            f"the list has {len(output)} bytes as JSON: expected at most {MAX_READ_BYTES}; have the model answer an "
            "array"
        )
    return [bytes(item) for item in _decoded(_decode_list, output)]


def _decoded(decode: Callable[[bytes], T], text: bytes) -> T:
    """Decode a text that was checked on arrival; with more calls on the stack, it may be too deep now."""
    try:
        return decode(text)
    except RecursionError:
        raise ModelFailed(f"{text[:60].decode(errors='replace')}… is nested too deeply to be read") from None


def count_of(output: Output) -> int | None:
    """Return the number of elements of a list that is an array; None if the output is no array."""
    return output.form.shape[0] if isinstance(output, TypedOutput) and output.form.shape else None


def list_of(outputs: Sequence[Output]) -> Generator[None, None, Output]:
    """Return several outputs as a list, an array if all have one form, in short steps. Raises OutputTooLarge."""
    arrays = [each for each in outputs if isinstance(each, TypedOutput)]
    of_one = arrays[0].form if arrays else None
    if of_one is not None and len(arrays) == len(outputs) and all(each.form == of_one for each in arrays):
        if (size := of_one.row_bytes * len(outputs)) > MAX_LIST_BYTES:
            raise OutputTooLarge(f"the answers have {size} bytes together: expected at most {MAX_LIST_BYTES}")
        form = OutputForm(of_one.dtype, (len(outputs), *of_one.shape), of_one.written_as)
        joined = io.BytesIO()
        for each in arrays:
            for start in range(0, len(each.data), PIECE_BYTES):
                before = joined.tell() // PIECE_BYTES
                joined.write(memoryview(each.data)[start : start + PIECE_BYTES])
                if joined.tell() // PIECE_BYTES > before:
                    yield
        return make_array(form, joined.getvalue())  # this makes no further copy
    if (size := sum(map(len, outputs))) > MAX_READ_BYTES or not all(map(is_readable, outputs)):
        raise OutputTooLarge(f"the answers have {size} bytes together: expected at most {MAX_READ_BYTES} as JSON")
    return b"[" + b",".join(map(bytes, outputs)) + b"]"


def value_of(output: Output) -> Any:
    """Return a number, a text, a boolean or None, also if it stands alone in a list; any other output as it is."""
    if len(output) > MAX_READ_BYTES:
        return output
    try:
        value = msgspec.json.decode(bytes(output))
    except NOT_JSON:  # a number beyond float64
        return output
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value
