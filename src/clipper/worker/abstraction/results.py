"""Reads the results of a batch: which rows have an output, and why the others have none.

Results of more than ``LARGE_RESULTS_BYTES`` are read a row at a time, in steps: to copy and check the outputs of a
batch may take seconds.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from clipper.errors import DeadlineExceeded, ModelFailed, NoReplica, OutputTooLarge, Overloaded, Unavailable
from clipper.model.protocol.asks import ASK_FAILED
from clipper.model.protocol.columns import BatchResults, ColumnResults
from clipper.model.protocol.messages import (
    BATCH_TOO_LARGE,
    MAX_ROWS,
    OUTPUT_TOO_LARGE,
    Buffer,
    Results,
    too_large,
)
from clipper.values.output_arrays import TypedResults
from clipper.values.outputs.checks import read_texts
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.long_texts import read_long_text
from clipper.values.outputs.output import TEXT_TIMES, Output, read_output, read_outputs
from clipper.values.outputs.record_columns import RecordColumns
from clipper.values.records import RecordType, ValueType
from clipper.values.types import InputType
from clipper.worker.abstraction.output_typing import OutputTyping
from clipper.worker.abstraction.work import Work

# The rows, and the numbers of arrays, that go into answers in a turn of the loop: a millisecond or two, if they are
# JSON.
MAX_STEP, MAX_ELEMENTS = 128, 16_384
# The bound for named outputs, by the size of their values.
MAX_COLUMN_BYTES = 4 * MAX_ELEMENTS
# The failure of a batch with inputs of several applications, whose error may quote another application's input.
NOT_TOLD_APART = (
    "the model failed for a batch with this input, and there was no time to try this input without the others"
)
# How an ask may fail without any fault of the model that asks.
ASK_CODES = (DeadlineExceeded.code, NoReplica.code, Overloaded.code, Unavailable.code)
# The most bytes of outputs of a batch. The worker holds them until all are read, and then frees them at once, which
# takes 4 ms. A larger output comes alone.
MAX_BATCH_BYTES = 32 * 1024 * 1024


def read_results(
    works: Sequence[Work], results: BatchResults, max_output_bytes: int, declared: Conversion | None = None
) -> tuple[Sequence[Work], Sequence[Output], Mapping[int, str], int]:
    """Read the results of a batch, which are not large, and give each work its output.

    Args:
        declared: converts outputs to the declared type; None if none is declared.

    Returns:
        The works that have an output, and their outputs; the error messages of the other rows; and the number of rows
        whose answers are written in a turn.
    """
    count, step = len(works), MAX_STEP
    outputs: Sequence[Any] = ()
    is_kept = declared is None
    failures: Mapping[int, str]
    if results.rows != count:
        failures = dict.fromkeys(range(count), _other_number(results, count))
    elif isinstance(results, Results):
        texts: Sequence[Any] = results.outputs  # the outputs are bytes, since the results are not large
        outputs, failures = texts, read_texts(texts, results.failures)
    elif isinstance(results, TypedResults):
        if (size := results.form.row_bytes) > max_output_bytes:
            failures = dict.fromkeys(range(count), too_large(size, max_output_bytes))
        else:
            outputs, failures = read_outputs(results)
            step = max(1, min(MAX_STEP, MAX_ELEMENTS // results.form.elements))
            is_kept = declared is None or declared.keeps(results.form)
    else:
        outputs, failures = _read_columns(results, max_output_bytes)
        step = max(1, min(MAX_STEP, MAX_COLUMN_BYTES * count // (results.size_bytes or 1)))
        is_kept = declared is None or declared.keeps_columns(results.columns)
    if not is_kept and outputs:
        outputs, failures = _converted(outputs, failures, declared)
    if failures:
        works = [work for row, work in enumerate(works) if row not in failures]
        outputs = [output for row, output in enumerate(outputs) if row not in failures]
    for work, output in zip(works, outputs):
        work.output = output
    return works, outputs, failures, step


def _read_columns(results: ColumnResults, max_output_bytes: int) -> tuple[Sequence[Output | None], Mapping[int, str]]:
    reader, failures = RecordColumns(results.columns), dict(results.failures)
    for row in range(results.rows):
        if (size := reader.row_bytes(row)) > max_output_bytes:
            failures.setdefault(row, too_large(size, max_output_bytes))
    return reader.outputs(failures)


def _converted(
    outputs: Sequence[Output], failures: Mapping[int, str], declared: Conversion | None
) -> tuple[Sequence[Output], Mapping[int, str]]:
    assert declared is not None
    converted, found = list(outputs), dict(failures)
    for row, output in enumerate(outputs):
        if row not in failures:
            try:
                converted[row] = declared.convert(output)
            except ModelFailed as error:
                found[row] = str(error)
    return converted, found


class RowReader:
    """Reads large results, a row at a time. ``rows``: the expected number of rows."""

    def __init__(
        self, results: BatchResults, rows: int, max_output_bytes: int, typing: OutputTyping | None = None
    ) -> None:
        self._results, self._rows, self._most_bytes, self._typing = results, rows, max_output_bytes, typing
        self._columns = RecordColumns(results.columns) if isinstance(results, ColumnResults) else None

    def read(self, row: int) -> Generator[None, None, Output]:
        """Return an output, in steps of less than a millisecond. Raises ModelFailed if the row has none."""
        results, most_bytes = self._results, self._most_bytes
        if results.rows != self._rows:
            raise ModelFailed(_other_number(results, self._rows))
        if row in results.failures:
            raise ModelFailed(results.failures[row])
        text: Buffer = b""
        if self._columns is not None:
            size = self._columns.row_bytes(row)
        elif isinstance(results, TypedResults):
            size = results.form.row_bytes
        else:
            assert not isinstance(results, ColumnResults)
            text = results.outputs[row]
            size, most_bytes = len(text), TEXT_TIMES * most_bytes
        if size > most_bytes:
            raise OutputTooLarge(too_large(size, most_bytes))
        output: Output
        if self._columns is not None:
            output = yield from self._columns.output(row)
        elif isinstance(results, TypedResults):
            output = yield from read_output(results, row)
        else:
            output = yield from read_long_text(memoryview(text))
        if (typing := self._typing) is None:
            return output
        if typing.declared is not None:
            return (yield from typing.declared.steps(output))
        if not typing.is_known:
            yield from typing.learning(output)
        return output


def read_each(
    reader: RowReader, works: Sequence[Work], settle: Callable[[Sequence[Work], Sequence[Output]], None]
) -> Generator[None, None, Mapping[int, str]]:
    """Read large outputs in steps, and ``settle`` each once it is read. Return the error messages of the others."""
    failures: dict[int, str] = {}
    for row, work in enumerate(works):
        try:
            work.output = output = yield from reader.read(row)
        except ModelFailed as error:
            failures[row] = str(error)
        else:
            settle((work,), (output,))
    return failures


def rows_within(results: BatchResults, most: int) -> int:
    """Return how many rows the next batch may have, ``most`` at most, if outputs stay as large as these."""
    return max(1, min(most, MAX_BATCH_BYTES * results.rows // results.size_bytes))


def rows_of_type(output_type: ValueType | None) -> int:
    """Return how many rows a batch may have by the type of the outputs, if their size follows from it."""
    types = [output_type] if isinstance(output_type, InputType) else []
    if isinstance(output_type, RecordType):
        types = [field.type for field in output_type.fields]
    size = sum(each.row_bytes or 0 for each in types)
    return MAX_ROWS if not size else max(1, MAX_BATCH_BYTES // size)


def told_apart(
    works: Sequence[Work], failures: Mapping[int, str], now_s: float, *, is_unclear: bool, is_mixed: bool
) -> tuple[list[Work], list[tuple[Work, str]]]:
    """Return the failed rows that have to be evaluated again, apart, and the message for each other failed row.

    ``is_unclear``, ``is_mixed``: see ``Suspects.are_unclear``. An output that is too large says nothing of other rows.
    """
    again: list[Work] = []
    told: list[tuple[Work, str]] = []
    for row, message in failures.items():
        work = works[row]
        is_own = not is_unclear or message.startswith((OUTPUT_TOO_LARGE, ASK_FAILED))
        if not is_own and work.due_s > now_s and work.is_wanted:
            again.append(work)
        else:
            told.append((work, message if is_own or not is_mixed else NOT_TOLD_APART))
    return again, told


def blamed(failures: Mapping[int, str]) -> list[int]:
    """Return the rows for which the model itself failed."""
    return [row for row, message in failures.items() if not message.startswith(ASK_FAILED)]


def code_of(message: str) -> tuple[str, str]:
    """Return the error code of a row's failure, and its message without it."""
    for start in (OUTPUT_TOO_LARGE, BATCH_TOO_LARGE):
        if message.startswith(start):
            return OutputTooLarge.code, message.removeprefix(start)
    if message.startswith(ASK_FAILED):
        code, _, told = message.removeprefix(ASK_FAILED).partition(": ")
        if code in ASK_CODES:
            return code, told
    return ModelFailed.code, message


def _other_number(results: BatchResults, rows: int) -> str:
    return f"the container answered {results.rows} outputs for {rows} inputs"
