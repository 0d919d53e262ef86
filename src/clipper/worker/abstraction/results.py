"""Reads the results of a batch: which rows have an output, and why the others have none.

Results of more than ``LARGE_RESULTS_BYTES`` are read a row at a time, in steps: to copy and check the outputs of one
batch may take seconds.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from clipper.errors import ModelFailed, OutputTooLarge
from clipper.model.protocol.messages import (
    BATCH_TOO_LARGE,
    LARGE_RESULTS_BYTES,
    MAX_ROWS,
    OUTPUT_TOO_LARGE,
    Results,
    too_large,
)
from clipper.values.output_arrays import TypedResults
from clipper.values.outputs.checks import read_texts
from clipper.values.outputs.long_texts import read_long_text
from clipper.values.outputs.output import Output, read_output, read_outputs
from clipper.values.records import ValueType
from clipper.values.types import InputType
from clipper.worker.abstraction.work import Work

# So many rows, and numbers of arrays, go into answers in one turn of the loop: a millisecond or two, if they are JSON.
MAX_STEP, MAX_ELEMENTS = 128, 16_384
# An error of a batch with other applications' inputs may quote one of these.
NOT_TOLD_APART = (
    "the model failed for a batch with this input, and there was no time to try this input without the others"
)
# A text may have so many times the bound: in a batch of unequal outputs an array is one, and float32 as JSON are 6.25
# times as long. Clipper's runtime knows which texts these are, and refuses others over the bound.
TEXT_TIMES = 7
# The outputs of a batch may have this size together, or a batch has one row: a worker holds them until all are read.
MAX_BATCH_BYTES = 64 * 1024 * 1024


def is_large(results: Results | TypedResults) -> bool:
    return results.is_large if isinstance(results, Results) else len(results.data) > LARGE_RESULTS_BYTES


def read_results(
    works: Sequence[Work], results: Results | TypedResults, max_output_bytes: int
) -> tuple[Sequence[Work], Sequence[Output], Mapping[int, str], int]:
    """Read the results of a batch, that are not large, and give each work its output.

    Returns:
        The works that have an output, and their outputs; row to error message, for the others; and of how many rows the
        answers are written in one turn.
    """
    count, step = len(works), MAX_STEP
    outputs: Sequence[Any] = ()
    if results.rows != count:
        failures: Mapping[int, str] = dict.fromkeys(range(count), _other_number(results, count))
    elif not isinstance(results, TypedResults):
        texts: Sequence[Any] = results.outputs  # bytes, since the results are not large
        outputs, failures = texts, read_texts(texts, results.failures)
    elif (size := results.form.row_bytes) > max_output_bytes:
        failures = dict.fromkeys(range(count), too_large(size, max_output_bytes))
    else:
        outputs, failures = read_outputs(results)
        step = max(1, min(MAX_STEP, MAX_ELEMENTS // results.form.elements))
    if failures:
        works = [work for row, work in enumerate(works) if row not in failures]
        outputs = [output for row, output in enumerate(outputs) if row not in failures]
    for work, output in zip(works, outputs):
        work.output = output
    return works, outputs, failures, step


def read_row(
    results: Results | TypedResults, row: int, rows: int, max_output_bytes: int
) -> Generator[None, None, Output]:
    """Return one output of large results, in steps of less than a millisecond. Raises ModelFailed if the row has
    none."""
    if results.rows != rows:
        raise ModelFailed(_other_number(results, rows))
    if row in results.failures:
        raise ModelFailed(results.failures[row])
    text = None if isinstance(results, TypedResults) else memoryview(results.outputs[row])
    size = results.form.row_bytes if isinstance(results, TypedResults) else len(text or b"")
    most_bytes = max_output_bytes if text is None else TEXT_TIMES * max_output_bytes
    if size > most_bytes:
        raise OutputTooLarge(too_large(size, most_bytes))
    if isinstance(results, TypedResults):
        return (yield from read_output(results, row))
    return (yield from read_long_text(memoryview(text or b"")))


def rows_within(results: Results | TypedResults, most: int) -> int:
    """Return how many rows the next batch may have, at most ``most``, if outputs stay as large as these."""
    size = sum(map(len, results.outputs)) if isinstance(results, Results) else len(results.data)
    return max(1, min(most, MAX_BATCH_BYTES * results.rows // size))


def rows_of_type(output_type: ValueType | None) -> int:
    """Return how many rows a batch may have by the type of the outputs, if their size follows from it."""
    size = output_type.row_bytes if isinstance(output_type, InputType) else None
    return MAX_ROWS if not size else max(1, MAX_BATCH_BYTES // size)


def told_apart(
    works: Sequence[Work], failures: Mapping[int, str], now_s: float, *, is_unclear: bool, is_mixed: bool
) -> tuple[list[Work], list[tuple[Work, str]]]:
    """Return which failed rows are evaluated again, apart, and the message for each of the others.

    ``is_unclear``, ``is_mixed``: see ``Suspects.are_unclear``. That an output is too large says nothing of other rows.
    """
    again: list[Work] = []
    told: list[tuple[Work, str]] = []
    for row, message in failures.items():
        work = works[row]
        is_own = not is_unclear or message.startswith(OUTPUT_TOO_LARGE)
        if not is_own and work.due_s > now_s and work.is_wanted:
            again.append(work)
        else:
            told.append((work, message if is_own or not is_mixed else NOT_TOLD_APART))
    return again, told


def code_of(message: str) -> tuple[str, str]:
    """Return the error code of a row's failure, and its message without it."""
    for start in (OUTPUT_TOO_LARGE, BATCH_TOO_LARGE):
        if message.startswith(start):
            return OutputTooLarge.code, message.removeprefix(start)
    return ModelFailed.code, message


def _other_number(results: Results | TypedResults, rows: int) -> str:
    return f"the container answered {results.rows} outputs for {rows} inputs"
