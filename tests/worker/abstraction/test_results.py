"""Results are read row by row, in steps, and each row fails alone."""

import struct

import pytest

from clipper.errors import ModelFailed, OutputTooLarge
from clipper.model.protocol.messages import LARGE_RESULTS_BYTES, Results, decode_results, encode_results, too_large
from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.outputs.output import TypedOutput
from clipper.values.types import DType, InputType
from clipper.worker.abstraction.results import (
    TEXT_TIMES,
    code_of,
    is_large,
    read_results,
    read_row,
    rows_of_type,
    rows_within,
    told_apart,
)
from clipper.worker.abstraction.work import Work
from tests.worker.frontend.steps import finish

MOST = 10_000_000
FORM = OutputForm(DType.FLOAT32, (50_000,), DType.FLOAT32)


def works(count: int) -> list[Work]:
    return [Work(b"%d" % row, [], 0.0, 1.0, 1.0, 1.0, row) for row in range(count)]


def arrays(rows: int, failures: dict[int, str] | None = None) -> TypedResults:
    data = b"".join(struct.pack("<f", row) * 50_000 for row in range(rows))
    return TypedResults(FORM, rows, memoryview(data), 5, failures or {})


def texts(*lines: bytes, failures: dict[int, str] | None = None) -> Results:
    frame = encode_results(1, len(lines), b"\n".join(lines), 5, failures)
    return decode_results(memoryview(frame)[16:])


def test_large_texts_stay_in_their_frame_until_they_are_read() -> None:
    for lines in (
        [b"1" * 300_000, b"2"],
        [b'"%b"' % (b"x" * LARGE_RESULTS_BYTES)] * 3,
        [b"[%b1]" % (b"1," * 200_000), b"", b"3"],
    ):
        failures = {row: "no" for row, line in enumerate(lines) if not line}
        results = texts(*lines, failures=failures)
        assert is_large(results) and [bytes(line) for line in results.outputs] == lines
        assert all(isinstance(line, memoryview) for line in results.outputs)
    assert not is_large(texts(b"1", b"2"))


def test_each_row_is_an_output_or_an_error_of_its_own() -> None:
    results = arrays(3, {1: "no such user"})
    assert is_large(results)
    first = finish(read_row(results, 0, 3, MOST))
    assert isinstance(first, TypedOutput) and first.data == bytes(200_000)
    with pytest.raises(ModelFailed, match="no such user"):
        finish(read_row(results, 1, 3, MOST))
    with pytest.raises(OutputTooLarge, match="200000 bytes: expected at most 199999"):
        finish(read_row(results, 2, 3, 199_999))
    with pytest.raises(ModelFailed, match="3 outputs for 4 inputs"):
        finish(read_row(results, 0, 4, MOST))
    long = texts(b"[%b1]" % (b"1," * 200_000), b"[%b]" % (b"1," * 200_000))
    assert finish(read_row(long, 0, 2, MOST)) == bytes(long.outputs[0])
    with pytest.raises(ModelFailed, match="not JSON"):
        finish(read_row(long, 1, 2, MOST))
    with pytest.raises(OutputTooLarge, match="400003 bytes: expected at most 399994"):
        finish(read_row(long, 0, 2, 399_994 // TEXT_TIMES))


def test_small_results_are_read_at_once_and_rows_fail_alone() -> None:
    read, outputs, failures, _ = read_results(works(3), texts(b"1", b"nan", b"3"), 5)
    assert [(work.row, work.output) for work in read] == [(b"0", b"1"), (b"2", b"3")] and outputs == [b"1", b"3"]
    assert list(failures) == [1] and code_of(failures[1])[0] == "model_error"
    small = OutputForm(DType.INT32, (2,), DType.INT32)
    read, _, failures, _ = read_results(works(2), TypedResults(small, 2, memoryview(bytes(16)), 5, {}), 7)
    assert read == [] and code_of(failures[1])[0] == "output_too_large"


def test_a_batch_has_so_many_rows_that_its_outputs_fit_into_memory() -> None:
    large = OutputForm(DType.UINT8, (8_000_000,), DType.UINT8)
    results = TypedResults(large, 2, memoryview(bytes(16_000_000)), 5, {})
    assert rows_within(results, 1024) == 8
    assert rows_within(results, 4) == 4
    assert rows_within(texts(b"1"), 1024) == 1024
    assert rows_of_type(InputType(DType.FLOAT32, (2048, 2048))) == 4
    assert rows_of_type(InputType(DType.FLOAT32, (8192, 8192))) == 1
    assert rows_of_type(InputType(DType.STRING)) == rows_of_type(None) == 65_536


def test_a_row_that_is_too_large_says_so_whatever_batch_it_was_in() -> None:
    failures = {0: too_large(9, 8), 1: "KeyError: 'the input of another one'"}
    again, told = told_apart(works(2), failures, 2.0, is_unclear=True, is_mixed=True)
    assert again == []
    assert [code_of(message)[0] for _, message in told] == ["output_too_large", "model_error"]
    assert code_of(told[0][1])[1].startswith("output has 9 bytes: expected at most 8")
    assert "another one" not in told[1][1]
