"""An output of a model, in the form in which it goes through a query worker.

Most outputs are JSON texts, which answers copy. A container that speaks version 2 of the protocol sends arrays: such an
output keeps its numbers, and makes its text only when a reader of text needs it. From version 4 on, an output may have
several values with names, each of which is a text or an array.

An array may have NaN and infinities. Its JSON text has ``null`` for them.
"""

import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from clipper.errors import ModelFailed
from clipper.values.decoding import NOT_JSON
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.outputs.json_text import json_pieces, json_text, most_text_bytes
from clipper.values.types import DType

# An output whose text may be longer than this is long. Making a text of this size takes a millisecond. The text of a
# long output is made in pieces, and not kept.
LONG_TEXT_BYTES = 256 * 1024
# The longest text of an output that a policy combines, and that feedback is scored against: Python reads it in some ten
# milliseconds.
MAX_READ_BYTES = 1024 * 1024
# An output whose ``len()`` is at most this is not long, and so can be read, whatever its type is. So short outputs need
# no call. The text of a bool has 20 times its byte, with the most brackets around it.
SURELY_SHORT_BYTES = 8 * 1024
# A text may have this many times the bound of an output: a container of an older version sends arrays of a batch of
# unequal outputs as texts, and float32 numbers as JSON are 6.25 times as long.
TEXT_TIMES = 7
# The memory of an object and of its place among the values of a record, beside its content.
OVERHEAD_BYTES = 100
# To copy and check this much of an array takes a quarter of a millisecond.
PIECE_BYTES = 512 * 1024
_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class TypedOutput(msgspec.Struct, gc=False, eq=False):
    """An output as raw numbers. Its ``bytes()`` are its JSON text, and its ``len()`` is its size with the text.

    The text is kept, since an answer, a policy, feedback and the decision log read the same text. Its size is counted
    from the beginning, so that the sizes in caches and join tables do not change. Like the works that have them,
    outputs are not tracked by the garbage collector.

    Attributes:
        form: shared by the outputs of a batch.
        data: the elements in C order, little-endian.
        most_bytes: a bound on the size of ``data`` with its text; for a long output, whose text is not kept, the size
            of ``data``.
        is_long: whether its text may have more than ``LONG_TEXT_BYTES``.
        text: the JSON text; None until it is first read.
    """

    form: OutputForm
    data: bytes
    most_bytes: int
    is_long: bool = False
    text: bytes | None = None

    def __bytes__(self) -> bytes:
        text = self.text or json_text(self.form, self.data)
        if not self.is_long:
            self.text = text
        return text

    def __len__(self) -> int:
        return self.most_bytes


class OutputNames:
    """The names of a record of outputs, shared by the outputs of a version.

    Attributes:
        keys: the text before each value in the JSON object: a bracket or a comma, the name and a colon.
        of_bytes: the names whose values are bytes, which are base64 in their texts, if that is known.
    """

    __slots__ = ("key_bytes", "keys", "names", "of_bytes")

    def __init__(self, names: tuple[str, ...], of_bytes: frozenset[str] = frozenset()) -> None:
        self.names = names
        self.of_bytes = of_bytes
        self.keys = [(b"," if index else b"{") + _encode(name) + b":" for index, name in enumerate(names)]
        self.key_bytes = sum(map(len, self.keys)) + 1  # count the bracket at the end, too


class RecordOutput(msgspec.Struct, gc=False, eq=False):
    """An output of several values with names. A missing value is the text ``null``.

    Its ``bytes()`` are its JSON object, and its ``len()`` is its size with the text, as for ``TypedOutput``.

    Attributes:
        of: the names.
        parts: the value of each name.
        most_bytes, is_long, text: the same as for ``TypedOutput``.
    """

    of: OutputNames
    parts: "tuple[bytes | TypedOutput, ...]"
    most_bytes: int
    is_long: bool = False
    text: bytes | None = None

    def __bytes__(self) -> bytes:
        if self.text is not None:
            return self.text
        text = b"".join([piece for key, part in zip(self.of.keys, self.parts) for piece in (key, bytes(part))]) + b"}"
        if not self.is_long:
            self.text = text
        return text

    def __len__(self) -> int:
        return self.most_bytes

    def part(self, name: str) -> "bytes | TypedOutput | None":
        """Return the value of a name; None if there is no such name."""
        names = self.of.names
        return self.parts[names.index(name)] if name in names else None


def make_record(of: OutputNames, parts: "tuple[bytes | TypedOutput, ...]") -> RecordOutput:
    """Return the output of these values, a value for each name."""
    most_text, size = of.key_bytes, OVERHEAD_BYTES * len(parts)
    for part in parts:
        size += len(part)
        if isinstance(part, bytes):
            most_text += len(part)
        else:  # a short array is counted with its text
            most_text += text_bytes(part) if part.is_long else len(part) - len(part.data)
    is_long = most_text > LONG_TEXT_BYTES
    # The names may be most of a record, and may be no other record's.
    return RecordOutput(of, parts, size + (of.key_bytes if is_long else most_text), is_long)


# JSON text, or numbers that become JSON text by ``bytes()``; ``bytes()`` of a text is the text itself.
Part = bytes | TypedOutput
Output = bytes | TypedOutput | RecordOutput
# Replaces an output that is not readable among the outputs that are kept for feedback. Its text is null.
NOT_KEPT = TypedOutput(OutputForm(DType.BOOL, (0,), DType.BOOL), b"", 0, text=b"null")


def read_outputs(results: TypedResults) -> tuple[Sequence[TypedOutput | None], Mapping[int, str]]:
    """Return the outputs of a batch, None for a failed row; and the message for each failed row."""
    form, data, failures = results.form, results.data, dict(results.failures)
    if form.dtype is DType.BOOL and not are_bools(data):
        is_valid: np.ndarray[Any, np.dtype[np.bool_]] = np.frombuffer(data, np.uint8) <= 1
        for row in np.flatnonzero(~is_valid.reshape(results.rows, -1).all(1)).tolist():
            failures.setdefault(row, NO_BOOL)
    size, most_bytes, is_long = sizes(form)
    # The rows are copied, because a row that is cached must not keep the whole batch.
    outputs: list[TypedOutput | None] = [
        TypedOutput(form, bytes(data[start : start + size]), most_bytes, is_long) for start in range(0, len(data), size)
    ]
    for row in failures:
        outputs[row] = None
    return outputs, failures


def read_output(results: TypedResults, row: int) -> Generator[None, None, TypedOutput]:
    """Return an output, in steps of less than a millisecond. Raises ModelFailed if it is not valid."""
    size = results.form.row_bytes
    return (yield from read_array(results.form, results.data[row * size : (row + 1) * size]))


def read_array(form: OutputForm, data: memoryview) -> Generator[None, None, TypedOutput]:
    """Return an array of this form, in steps of less than a millisecond. Raises ModelFailed if it is not valid."""
    copy = io.BytesIO()
    for start in range(0, len(data), PIECE_BYTES):
        piece = data[start : start + PIECE_BYTES]
        if form.dtype is DType.BOOL and not are_bools(piece):
            raise ModelFailed(NO_BOOL)
        copy.write(piece)
        yield
    return make_array(form, copy.getvalue())  # this makes no further copy


def make_array(form: OutputForm, data: bytes) -> TypedOutput:
    """Return the output with these elements, as many as the form has."""
    _, most_bytes, is_long = sizes(form)
    return TypedOutput(form, data, most_bytes, is_long)


def with_nan_as_text(output: Output) -> Output:
    """Return the output with names of NaN and infinity in the JSON of its floats, in place of null."""
    if isinstance(output, RecordOutput):
        return make_record(output.of, tuple(_with_nan_as_text(part) for part in output.parts))
    return _with_nan_as_text(output)


def _with_nan_as_text(part: Part) -> Part:
    if isinstance(part, bytes) or part.form.dtype not in (DType.FLOAT32, DType.FLOAT64):
        return part
    return make_array(replace(part.form, nan_as_text=True), part.data)


def is_long(output: Output) -> bool:
    """Whether the output's text may have more than ``LONG_TEXT_BYTES``."""
    return len(output) > LONG_TEXT_BYTES if isinstance(output, bytes) else output.is_long


def text_pieces(output: Output) -> Iterator[bytes]:
    """Return the text in pieces, each of which takes less than a millisecond to make."""
    if isinstance(output, RecordOutput):
        return _record_pieces(output)
    return iter((output,)) if isinstance(output, bytes) else json_pieces(output.form, output.data)


def _record_pieces(output: RecordOutput) -> Iterator[bytes]:
    for key, part in zip(output.of.keys, output.parts):
        yield key
        yield from text_pieces(part)
    yield b"}"


def text_bytes(output: Output) -> int:
    """Return a bound on the size of the output's text."""
    if isinstance(output, RecordOutput):
        return output.of.key_bytes + sum(map(text_bytes, output.parts))
    return len(output) if isinstance(output, bytes) else most_text_bytes(output.form)


def is_readable(output: Output) -> bool:
    """Whether a policy may combine the output, and feedback be scored against it."""
    if isinstance(output, bytes):
        return len(output) <= MAX_READ_BYTES
    if output is NOT_KEPT:
        return False
    return not output.is_long or text_bytes(output) <= MAX_READ_BYTES


def judged_names(label_field: str | None, *, is_log: bool) -> tuple[str, ...]:
    """Return the names of which ``judged_text`` takes the first that there is.

    Args:
        label_field: the one that the application names; None if it names none.
        is_log: whether outputs are judged by the loss ``log``, which is about probabilities.
    """
    if label_field is not None:
        return (label_field,)
    return ("probabilities", "label") if is_log else ("label",)


def read_record(text: bytes) -> Output:
    """Return a JSON object as a record of its values; any other text, and one that was cut, unchanged."""
    try:
        values = _decode_object(text) if text.startswith(b"{") else {}
    except NOT_JSON:
        return text
    return make_record(OutputNames(tuple(values)), tuple(map(bytes, values.values()))) if values else text


def judged_text(output: Output, names: Sequence[str], *, is_named: bool, kept_with: Sequence[str] = ()) -> bytes:
    """Return the text that policies combine, and that labels are compared with: the whole output's, or the one of a
    value with a name.

    Args:
        names: of that value; the first that there is.
        is_named: whether the application's settings name it, so that it is also taken from a text that is an object.
            Otherwise the only number or text among the values is taken, if no name is there.
        kept_with: names that say how sure the model is of its label. If one is present, the label is not taken alone.
    """
    if isinstance(output, RecordOutput):
        for name in names:
            if (part := output.part(name)) is not None:
                is_kept = name == "label" and any(each in output.of.names for each in kept_with)
                return bytes(output if is_kept else part)
        single = [part for part in output.parts if _is_single(part)]
        return bytes(single[0]) if len(single) == 1 and not is_named else bytes(output)
    text = bytes(output)
    record = read_record(text) if is_named else text
    return judged_text(record, names, is_named=True) if isinstance(record, RecordOutput) else text


def _is_single(part: Part) -> bool:
    return not part.form.shape if isinstance(part, TypedOutput) else part[:1] not in (b"[", b"{")


def text_start(output: Output, most: int) -> bytes:
    """Return the text, or its beginning, of this many bytes at most."""
    if isinstance(output, bytes) or not output.is_long:
        return bytes(output)[:most]
    start = b""
    for piece in text_pieces(output):
        start += piece
        if len(start) >= most:
            break
    return start[:most]


NO_BOOL = "output contains a bool that is not 0 or 1"


def are_bools(data: bytes | memoryview) -> bool:
    """Whether each byte is a bool, 0 or 1."""
    return len(data) == 0 or int(np.frombuffer(data, np.uint8).max()) <= 1


def sizes(form: OutputForm) -> tuple[int, int, bool]:
    """Return an output's ``row_bytes``, ``most_bytes`` and ``is_long``."""
    size, most_text = form.row_bytes, most_text_bytes(form)
    is_long = most_text > LONG_TEXT_BYTES
    return size, size if is_long else size + most_text, is_long
