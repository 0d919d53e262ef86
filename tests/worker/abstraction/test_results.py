"""Results are read row by row, in steps, and each row fails alone."""

import struct

import pytest

from clipper.control.snapshot import VersionSnapshot
from clipper.errors import ModelFailed, OutputTooLarge
from clipper.model.protocol.asks import ASK_FAILED
from clipper.model.protocol.columns import ColumnResults
from clipper.model.protocol.messages import Results, decode_results, encode_results, too_large
from clipper.values.columns import Column
from clipper.values.output_arrays import LARGE_RESULTS_BYTES, OutputForm, TypedResults
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import TEXT_TIMES, TypedOutput
from clipper.values.records import parse_type
from clipper.values.types import DType, InputType
from clipper.worker.abstraction.output_typing import OutputTyping
from clipper.worker.abstraction.results import (
    RowReader,
    blamed,
    code_of,
    read_results,
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
        assert results.is_large and [bytes(line) for line in results.outputs] == lines
        assert all(isinstance(line, memoryview) for line in results.outputs)
    assert not texts(b"1", b"2").is_large


def test_each_row_is_an_output_or_an_error_of_its_own() -> None:
    results = arrays(3, {1: "no such user"})
    assert results.is_large
    first = finish(RowReader(results, 3, MOST).read(0))
    assert isinstance(first, TypedOutput) and first.data == bytes(200_000)
    with pytest.raises(ModelFailed, match="no such user"):
        finish(RowReader(results, 3, MOST).read(1))
    with pytest.raises(OutputTooLarge, match="200000 bytes: expected at most 199999"):
        finish(RowReader(results, 3, 199_999).read(2))
    with pytest.raises(ModelFailed, match="3 outputs for 4 inputs"):
        finish(RowReader(results, 4, MOST).read(0))
    long = texts(b"[%b1]" % (b"1," * 200_000), b"[%b]" % (b"1," * 200_000))
    assert finish(RowReader(long, 2, MOST).read(0)) == bytes(long.outputs[0])
    with pytest.raises(ModelFailed, match="not JSON"):
        finish(RowReader(long, 2, MOST).read(1))
    with pytest.raises(OutputTooLarge, match="400003 bytes: expected at most 399994"):
        finish(RowReader(long, 2, 399_994 // TEXT_TIMES).read(0))


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
    assert rows_within(results, 1024) == 4
    assert rows_within(results, 3) == 3
    assert rows_within(texts(b"1"), 1024) == 1024
    assert rows_of_type(InputType(DType.FLOAT32, (2048, 2048))) == 2
    assert rows_of_type(InputType(DType.FLOAT32, (8192, 8192))) == 1
    assert rows_of_type(InputType(DType.STRING)) == rows_of_type(None) == 65_536


def test_a_row_that_is_too_large_says_so_whatever_batch_it_was_in() -> None:
    failures = {0: too_large(9, 8), 1: "KeyError: 'the input of another one'"}
    again, told = told_apart(works(2), failures, 2.0, is_unclear=True, is_mixed=True)
    assert again == []
    assert [code_of(message)[0] for _, message in told] == ["output_too_large", "model_error"]
    assert code_of(told[0][1])[1].startswith("output has 9 bytes: expected at most 8")
    assert "another one" not in told[1][1]


def test_an_ask_that_failed_has_its_own_code_and_blames_no_input() -> None:
    failures = {0: f"{ASK_FAILED}timeout: tone: too late", 1: f"{ASK_FAILED}not_found: nobody", 2: "KeyError: 'x'"}
    assert blamed(failures) == [2]
    again, told = told_apart(works(3), {0: failures[0]}, 0.0, is_unclear=True, is_mixed=True)
    assert again == [] and [code_of(message) for _, message in told] == [("timeout", "tone: too late")]
    # A container may not give any code.
    assert code_of(failures[1]) == ("model_error", failures[1])


def columns(rows: int, size: int, failures: dict[int, str] | None = None) -> ColumnResults:
    """A label and ``size`` scores for each row."""
    scores = b"".join(struct.pack("<f", row) * size for row in range(rows))
    labels = Column("label", InputType(DType.STRING), rows, b"x" * rows, (1,) * rows)
    of_scores = Column("scores", InputType(DType.FLOAT32, (size,)), rows, memoryview(scores))
    return ColumnResults(rows, (labels, of_scores), 5, failures or {})


def test_columns_become_outputs_with_names() -> None:
    read, outputs, failures, step = read_results(works(3), columns(3, 2, {1: "no such user"}), MOST)
    assert [(work.row, bytes(work.output or b"")) for work in read] == [
        (b"0", b'{"label":"x","scores":[0.0,0.0]}'),
        (b"2", b'{"label":"x","scores":[2.0,2.0]}'),
    ]
    assert len(outputs) == 2 and failures == {1: "no such user"} and step == 128
    _, _, failures, _ = read_results(works(3), columns(3, 2), 8)
    assert code_of(failures[2]) == code_of(too_large(9, 8))
    assert read_results(works(2), columns(3, 2), MOST)[2] == {
        0: "the container answered 3 outputs for 2 inputs",
        1: "the container answered 3 outputs for 2 inputs",
    }
    large = columns(2, 50_000)
    assert large.is_large and rows_within(large, 1024) == 167
    assert bytes(finish(RowReader(large, 2, MOST).read(1))).startswith(b'{"label":"x","scores":[1.0,1.0,')
    with pytest.raises(OutputTooLarge, match="200001 bytes: expected at most 200000"):
        finish(RowReader(large, 2, 200_000).read(1))
    assert rows_of_type(parse_type("label: string, image: float32[2048,2048]")) == 2


def test_outputs_are_of_the_declared_type_whatever_form_they_came_in() -> None:
    """Each row that does not fit fails alone; outputs that are of the type already are as they came."""
    declared = Conversion(parse_type("float32[2]"))
    form = OutputForm(DType.FLOAT32, (2,), DType.FLOAT64)
    data = struct.pack("<4f", 1, 2, 3, 4)
    _, typed, _, _ = read_results(works(2), TypedResults(form, 2, memoryview(data), 5, {}), MOST, declared)
    _, of_texts, failures, _ = read_results(works(3), texts(b"[1,2]", b"[1]", b"[3.0,4.0]"), MOST, declared)
    wide = TypedResults(
        OutputForm(DType.FLOAT64, (1, 2), DType.FLOAT64), 2, memoryview(struct.pack("<4d", 1, 2, 3, 4)), 5, {}
    )
    _, of_wide, _, _ = read_results(works(2), wide, MOST, declared)
    assert list(failures) == [1] and failures[1].startswith("the model answered [1], and its output type, declared, is")
    for outputs in (typed, of_texts, of_wide):
        assert (
            [(output.form.dtype, output.form.shape, output.data) for output in outputs]
            == [  # type: ignore[union-attr]
                (DType.FLOAT32, (2,), data[:8]),
                (DType.FLOAT32, (2,), data[8:]),
            ]
        )
    of_record = Conversion(parse_type("scores: float64[2], label: string"))
    _, (first, _), _, _ = read_results(works(2), columns(2, 2), MOST, of_record)
    assert bytes(first) == b'{"scores":[0.0,0.0],"label":"x"}'
    long = texts(b"[%b1]" % (b"1," * 200_000), b"2")
    typing = OutputTyping(VersionSnapshot("1", "doubles", output_type="int64[*]", output_is_declared=True))
    whole = finish(RowReader(long, 2, MOST, typing).read(0))
    assert isinstance(whole, TypedOutput) and whole.data == struct.pack("<q", 1) * 200_001
    learning = OutputTyping(VersionSnapshot("1", "doubles"))
    assert finish(RowReader(long, 2, MOST, learning).read(0)) == bytes(long.outputs[0])
    assert str(learning.type) == "float64[*]", "a long text teaches its type in steps"
