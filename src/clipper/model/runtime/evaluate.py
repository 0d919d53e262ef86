"""Calls the model with a batch, and answers whatever the model does.

A model always gets a single array. Chance decides which queries come together, and the model must not notice: so a
batch of inputs of several shapes is evaluated shape by shape. If the model raises for a batch, the batch is tried in
halves, so that only those inputs fail for which the model raises.
"""

import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clipper.base.masking import masked, secrets_of
from clipper.errors import (
    ClipperError,
    DeadlineExceeded,
    ModelFailed,
    NoReplica,
    Overloaded,
    Unavailable,
    WrongInput,
)
from clipper.model.model import Inputs, Values
from clipper.model.protocol.asks import ASK_FAILED
from clipper.model.protocol.frames import MIXED_VERSION, RECORDS_VERSION
from clipper.model.protocol.messages import BATCH_TOO_LARGE, MAX_OUTPUTS_BYTES, too_large
from clipper.model.runtime.asking import AskedModelFailed
from clipper.model.runtime.named_outputs import NO_NAME, columns_of, copy_of, joined_values, sizes_of
from clipper.model.runtime.outputs import Encoded, encode_outputs, encode_values, widened

log = logging.getLogger("clipper.runtime")

# To find a bad input among n takes up to 2·log2(n) extra calls. Their time is bounded, and not their number: other
# queries wait for the model meanwhile, and most SLOs allow no more.
MAX_EXTRA_S = 0.25
# The failure of inputs that were not told apart in that time. Another input's error may quote that other input, so it
# is not passed on.
NOT_ISOLATED = (
    "the model raised for a batch with this input, and there was no time to try this input without the others"
)
# Enough to recognise an error. The whole traceback is in the container's log.
MAX_MESSAGE_CHARACTERS = 1000
# No client may read these in an error.
_HIDDEN = secrets_of(os.environ)
_RUNTIME = Path(__file__).parent


def evaluate(
    predict_batch: Callable[[Inputs], object],
    read_inputs: Callable[[], Inputs],
    clock_s: Callable[[], float] = time.monotonic,
) -> Encoded:
    """Return the outputs of a batch, with a failure for each input for which the model raised. ``read_inputs``: returns
    a new copy of the batch's inputs each time, because a model may change them. Raises ModelFailed if the model broke
    its contract for the whole batch, e.g. returned too few outputs; KeyboardInterrupt if the model raised it, to end
    the process.
    """
    inputs = read_inputs()
    of_many = [
        values for values in _values_of(inputs) if isinstance(values, list) and isinstance(values[0], np.ndarray)
    ]
    if of_many:
        shapes = [tuple(array.shape for array in arrays) for arrays in zip(*of_many)]
        return _evaluate_by_shape(predict_batch, read_inputs, clock_s, shapes)
    return _evaluate(predict_batch, read_inputs, clock_s, inputs)


def _values_of(inputs: Inputs) -> list[Values]:
    """Return the values of each field; inputs that are not records have a single field."""
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


def _chosen(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """Return some rows of a batch, whose arrays are of one shape in each field."""
    if isinstance(inputs, dict):
        return {name: _of_rows(values, rows) for name, values in inputs.items()}
    return _of_rows(inputs, rows)


def _of_rows(values: Values, rows: Sequence[int]) -> Values:
    if isinstance(values, np.ndarray):
        return values[rows.start : rows.stop] if isinstance(rows, range) else values[rows]
    chosen = [values[row] for row in rows]
    return np.stack(chosen) if isinstance(chosen[0], np.ndarray) else chosen


def _evaluate_by_shape(
    predict_batch: Callable[[Inputs], object],
    read_inputs: Callable[[], Inputs],
    clock_s: Callable[[], float],
    shapes: Sequence[tuple[tuple[int, ...], ...]],
) -> Encoded:
    parts = _Parts(len(shapes))
    for shape in dict.fromkeys(shapes):
        rows = [row for row, each in enumerate(shapes) if each == shape]

        def read_group(rows: Sequence[int] = rows) -> Inputs:
            return _chosen(read_inputs(), rows)

        try:
            parts.add(rows, _evaluate(predict_batch, read_group, clock_s, read_group()))
        except ModelFailed as error:
            parts.fail(rows, str(error))
    return parts.joined()


def _evaluate(
    predict_batch: Callable[[Inputs], object],
    read_inputs: Callable[[], Inputs],
    clock_s: Callable[[], float],
    inputs: Inputs,
) -> Encoded:
    rows = len(_values_of(inputs)[0])
    try:
        outputs = _call(predict_batch, inputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the model may raise anything, also SystemExit; the error answers this batch
        log.warning("predict_batch raised for a batch of %(rows)d", {"rows": rows}, exc_info=error)
        if isinstance(error, ClipperError) and not isinstance(error, WrongInput | ModelFailed):
            # An ask that failed without a word on an input: halves would only ask again.
            is_no_fault = isinstance(error, DeadlineExceeded | NoReplica | Overloaded | Unavailable)
            message = f"{ASK_FAILED}{error.code}: {error}" if is_no_fault else describe(error)
            return Encoded(b"\n" * (rows - 1), dict.fromkeys(range(rows), message))
        return _bisected(predict_batch, read_inputs, clock_s, rows, describe(error))
    return _encode(outputs, rows)


def _call(predict_batch: Callable[[Inputs], object], inputs: Inputs) -> object:
    process = os.getpid()
    try:
        return predict_batch(inputs)
    except AskedModelFailed as error:  # an error of this model, as any other
        raise RuntimeError(str(error)) from error
    finally:
        # The model may fork and let the child return here. The child must not answer in place of its parent.
        if os.getpid() != process:
            os._exit(0)


def _encode(outputs: object, rows: int) -> Encoded:
    try:
        encoded = encode_outputs(outputs, rows)
    except ModelFailed:
        raise
    except Exception as error:  # outputs are objects of the user, and converting them may raise anything
        raise ModelFailed(f"outputs of type {type(outputs).__name__} cannot be read: {describe(error)}") from error
    _check_size(encoded.size_bytes)
    return encoded


def as_sent(encoded: Encoded, version: int) -> Encoded:
    """Return the outputs in the form of this version of the protocol: arrays need version 2, columns version 4, and
    columns without a name, or several of one name, version 5. Raises ModelFailed if an older caller needs texts, and
    these are too long.
    """
    needed = 2
    if encoded.columns:
        is_mixed = NO_NAME in encoded.values or len(encoded.columns) > len(encoded.values)
        needed = MIXED_VERSION if is_mixed or any(each.is_json for each in encoded.columns) else RECORDS_VERSION
    if version >= needed:
        return encoded
    text = encoded.lines()
    _check_size(len(text))
    return Encoded(text, encoded.failures)


def _check_size(size: int) -> None:
    if size > MAX_OUTPUTS_BYTES:
        raise ModelFailed(f"{BATCH_TOO_LARGE}outputs of a batch are {size} bytes: expected at most {MAX_OUTPUTS_BYTES}")


def bounded(encoded: Encoded, rows: int, max_output_bytes: int) -> Encoded:
    """Return the outputs without those over the bound, which never leave the container. Their rows fail.

    An output's size is that of its elements if it is an array, of its values if it is in columns, else of its text.
    """
    if encoded.columns:
        sizes = enumerate(sizes_of(encoded.columns))
        failures = {row: too_large(size, max_output_bytes) for row, size in sizes if size > max_output_bytes}
        return encode_values(encoded.values, {**failures, **encoded.failures}) if failures else encoded
    if encoded.array is not None:
        size = encoded.array.nbytes // rows
        if size <= max_output_bytes:
            return encoded
        failures = dict.fromkeys(range(rows), too_large(size, max_output_bytes))
        return Encoded(b"\n" * (rows - 1), {**failures, **encoded.failures})
    if len(encoded.text) <= max_output_bytes:
        return encoded
    lines, failures = encoded.text.split(b"\n"), dict(encoded.failures)
    for row, line in enumerate(lines):
        size = len(line)
        if size > max_output_bytes:
            # By itself, a row may be columns.
            alone = columns_of({name: values[row : row + 1] for name, values in encoded.values.items()})
            size = sizes_of(alone)[0] if alone else size
        if size > max_output_bytes:
            failures[row], lines[row] = too_large(size, max_output_bytes), b""
    return Encoded(b"\n".join(lines), failures)


class _Parts:
    """The outputs of a batch that was evaluated in parts."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._parts: list[tuple[Sequence[int], Encoded]] = []
        self._failures: dict[int, str] = {}

    def add(self, rows: Sequence[int], encoded: Encoded) -> None:
        # Copied, since a model may answer with the same array again.
        array = None if encoded.array is None else encoded.array.copy()
        values = {name: copy_of(each) for name, each in encoded.values.items()}
        self._parts.append((rows, encoded._replace(array=array, values=values)))
        self._failures.update({rows[index]: message for index, message in encoded.failures.items()})

    def fail(self, rows: Sequence[int], message: str) -> None:
        self._failures.update(dict.fromkeys(rows, message))

    def joined(self) -> Encoded:
        """Return the outputs of the whole batch: an array if all parts are arrays of one type and shape, or columns."""
        first = next((encoded.array for _, encoded in self._parts if encoded.array is not None), None)
        if first is not None and len({encoded.form for _, encoded in self._parts}) == 1:
            whole = np.zeros((self._rows, *first.shape[1:]), first.dtype)
            for rows, encoded in self._parts:
                whole[rows] = encoded.array
            return Encoded(b"", self._failures, whole)
        values = joined_values([(rows, encoded.by_name()) for rows, encoded in self._parts], self._rows)
        if values and (first is not None or any(encoded.values for _, encoded in self._parts)):
            return encode_values(values, self._failures)
        lines = [b""] * self._rows
        for rows, encoded in self._parts:
            for row, line in zip(rows, encoded.lines().split(b"\n")):
                lines[row] = line
        of_type = widened([encoded for _, encoded in self._parts])
        return Encoded(b"\n".join(lines), self._failures, type=of_type)


def _bisected(
    predict_batch: Callable[[Inputs], object],
    read_inputs: Callable[[], Inputs],
    clock_s: Callable[[], float],
    rows: int,
    message: str,
) -> Encoded:
    """Return the outputs of a batch for which the model raised ``message``: only inputs fail that fail by themselves.

    The largest parts are tried first, so that most of the good inputs have outputs if the time does not suffice.
    """
    until_s, parts = clock_s() + MAX_EXTRA_S, _Parts(rows)
    failed = deque([(range(rows), message)])
    while failed:
        part, message = failed.popleft()
        if len(part) == 1:
            parts.fail(part, message)
            continue
        middle = len(part) // 2
        for half in (part[:middle], part[middle:]):
            if clock_s() > until_s:
                parts.fail(half, NOT_ISOLATED)
                continue
            inputs = _chosen(read_inputs(), half)
            try:
                encoded = _encode(_call(predict_batch, inputs), len(half))
            except KeyboardInterrupt:
                raise
            except ModelFailed as error:
                parts.fail(half, str(error))
            except BaseException as error:  # noqa: BLE001  as in ``_evaluate``
                failed.append((half, describe(error)))
            else:
                parts.add(half, encoded)
    return parts.joined()


def describe(error: BaseException) -> str:
    """Return an exception as a short text: its message, and where in the model it was raised."""
    text = masked("".join(traceback.format_exception_only(type(error), error)).strip(), _HIDDEN)
    if len(text) > MAX_MESSAGE_CHARACTERS:
        text = text[:MAX_MESSAGE_CHARACTERS] + "…"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent != _RUNTIME]
    if not frames:
        return text
    last = frames[-1]
    return f"{text} ({Path(last.filename).name}:{last.lineno}, in {last.name})"
