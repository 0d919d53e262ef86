"""One output of a model, as it goes through a query worker.

Most outputs are JSON texts, which answers copy. A container that speaks version 2 of the protocol sends arrays as they
are: such an output keeps its numbers, and makes its text only when a reader of text asks for it.
"""

import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from clipper.errors import ModelFailed
from clipper.values.inputs.numbers import NUMPY
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.outputs.json_text import json_pieces, json_text, most_text_bytes
from clipper.values.types import DType

# An output that may have a longer text is long. Up to here making the text takes a millisecond; the text of a long one
# is made in pieces, and not kept.
LONG_TEXT_BYTES = 256 * 1024
# What a policy combines, and feedback is scored against, may have a text of this size: Python reads it in some ten
# milliseconds.
MAX_READ_BYTES = 1024 * 1024
# An output whose ``len()`` is at most this is not long, and so can be read, whatever its type is: no call is needed to
# know it. The text of a bool has 20 times its byte, with the most brackets around it.
SURELY_SHORT_BYTES = 8 * 1024
# Copying and checking so much of an array takes a quarter of a millisecond.
_PIECE_BYTES = 512 * 1024


class TypedOutput(msgspec.Struct, gc=False, eq=False):
    """An output as raw numbers. ``bytes()`` of it is its JSON text, and ``len()`` what it takes with its text.

    The text is kept, since an answer, a policy, feedback and the decision log read the same one. Its size is counted
    from the beginning, so that the size of what caches and join tables hold does not change under them. Like the works
    that have them, outputs are not tracked by the garbage collector.

    Attributes:
        form: shared by the outputs of a batch.
        data: the elements in C order, little-endian.
        most_bytes: a bound of the size of ``data`` with its text; of a long output, whose text is not kept, the size of
            ``data``.
        is_long: whether its text may have more than ``LONG_TEXT_BYTES``.
        text: JSON text; None until somebody reads it.
    """

    form: OutputForm
    data: bytes
    most_bytes: int
    is_long: bool = False
    text: bytes | None = None

    def __bytes__(self) -> bytes:
        if self.is_long:
            return json_text(self.form, self.data)
        if self.text is None:
            self.text = json_text(self.form, self.data)
        return self.text

    def __len__(self) -> int:
        return self.most_bytes


# JSON text, or an array that becomes JSON text by ``bytes()``; ``bytes()`` of a text is the text itself.
Output = bytes | TypedOutput
# Stands for an output that is not readable where outputs are kept for feedback. Its text is null.
NOT_KEPT = TypedOutput(OutputForm(DType.BOOL, (0,), DType.BOOL), b"", 0, text=b"null")


def read_outputs(results: TypedResults) -> tuple[Sequence[TypedOutput | None], Mapping[int, str]]:
    """Return the outputs of a batch, None for a failed row, and the message for each failed row.

    Rows that JSON could not carry fail, as they do in a container that sends text: whether an output is valid must not
    depend on who reads it.
    """
    form, data, failures = results.form, results.data, dict(results.failures)
    is_valid = _are_valid(form.dtype, data)
    if is_valid is not None and not is_valid.all():
        for row in np.flatnonzero(~is_valid.reshape(results.rows, -1).all(1)).tolist():
            failures.setdefault(row, _PROBLEMS[form.dtype])
    size, most_bytes, is_long = _sizes(form)
    # Copies: a row that is cached must not keep the whole batch.
    outputs: list[TypedOutput | None] = [
        TypedOutput(form, bytes(data[start : start + size]), most_bytes, is_long) for start in range(0, len(data), size)
    ]
    for row in failures:
        outputs[row] = None
    return outputs, failures


def read_output(results: TypedResults, row: int) -> Generator[None, None, TypedOutput]:
    """Return one output, in steps of less than a millisecond. Raises ModelFailed if JSON could not carry it."""
    form = results.form
    size, most_bytes, is_long = _sizes(form)
    data, copy = results.data[row * size : (row + 1) * size], io.BytesIO()
    for start in range(0, size, _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        is_valid = _are_valid(form.dtype, piece)
        if is_valid is not None and not is_valid.all():
            raise ModelFailed(_PROBLEMS[form.dtype])
        copy.write(piece)
        yield
    return TypedOutput(form, copy.getvalue(), most_bytes, is_long)  # without another copy


def shown(output: Output) -> Output:
    """Return what shows the type of an output, and does not keep a long one in memory."""
    if not is_long(output):
        return output
    return b"" if isinstance(output, bytes) else TypedOutput(output.form, b"", 0, True)


def is_long(output: Output) -> bool:
    """Whether the output's text may have more than ``LONG_TEXT_BYTES``."""
    return len(output) > LONG_TEXT_BYTES if isinstance(output, bytes) else output.is_long


def text_pieces(output: Output) -> Iterator[bytes]:
    """Return the text in pieces, each of which takes less than a millisecond to make."""
    return iter((output,)) if isinstance(output, bytes) else json_pieces(output.form, output.data)


def text_bytes(output: Output) -> int:
    """Return a bound of the size of the output's text."""
    return len(output) if isinstance(output, bytes) else most_text_bytes(output.form)


def is_readable(output: Output) -> bool:
    """Whether a policy may combine the output, and feedback be scored against it."""
    if isinstance(output, bytes):
        return len(output) <= MAX_READ_BYTES
    if output is NOT_KEPT:
        return False
    return not output.is_long or text_bytes(output) <= MAX_READ_BYTES


def text_start(output: Output, most: int) -> bytes:
    """Return the text, or how it begins: at most so many bytes."""
    if isinstance(output, bytes) or not output.is_long:
        return bytes(output)[:most]
    start = b""
    for piece in text_pieces(output):
        start += piece
        if len(start) >= most:
            break
    return start[:most]


_NOT_FINITE = "output contains NaN or infinity, which JSON cannot carry"
_PROBLEMS = {
    DType.FLOAT32: _NOT_FINITE,
    DType.FLOAT64: _NOT_FINITE,
    DType.BOOL: "output contains a bool that is not 0 or 1",
}


def _are_valid(dtype: DType, data: memoryview) -> "np.ndarray[Any, np.dtype[Any]] | None":
    """Return which elements JSON can carry, as bools; None if it can carry all of the type."""
    match dtype:
        case DType.FLOAT32 | DType.FLOAT64:
            finite: np.ndarray[Any, np.dtype[Any]] = np.isfinite(np.frombuffer(data, NUMPY[dtype]))
            return finite
        case DType.BOOL:
            return np.frombuffer(data, np.uint8) <= 1
    return None


def _sizes(form: OutputForm) -> tuple[int, int, bool]:
    """Return an output's ``row_bytes``, ``most_bytes`` and ``is_long``."""
    size, most_text = form.row_bytes, most_text_bytes(form)
    is_long = most_text > LONG_TEXT_BYTES
    return size, size if is_long else size + most_text, is_long
