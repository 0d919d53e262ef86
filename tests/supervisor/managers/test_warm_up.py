"""Warm-up batches against a container that answers as it is told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clipper.supervisor.managers.caller as warming
from clipper.control.snapshot import ReplicaAddress
from clipper.errors import ProtocolViolation
from clipper.model.protocol.columns import encode_column_results
from clipper.model.protocol.frames import RECORDS_VERSION, Kind, Splitter
from clipper.model.protocol.messages import (
    decode_predict,
    encode_error,
    encode_pong,
    encode_predict,
    encode_results,
    encode_welcome,
)
from clipper.model.protocol.typed import encode_typed_results
from clipper.model.runtime.inputs import input_reader
from clipper.supervisor.managers.caller import (
    MAX_MADE_BYTES,
    MAX_SEVERAL_S,
    WARM_UP_ROWS,
    Sample,
    made_row,
    rows_in_time,
    warm_up,
    warm_up_sizes,
)
from clipper.values.columns import Column
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.output_arrays import OutputForm
from clipper.values.records import RecordType
from clipper.values.types import DType, InputType
from tests.scripted_container import WELCOME, against

SAMPLE = Sample(bytes(8), origin="given", max_batch=1024)


@pytest.mark.parametrize(
    ("max_batch", "model_max_batch", "sizes"),
    [(1024, None, (1, WARM_UP_ROWS)), (1024, 4, (1, 4)), (2, 4, (1, 2)), (1, None, (1,)), (1024, 1, (1,))],
)
def test_one_row_and_several_where_there_may_be_several(
    max_batch: int, model_max_batch: int | None, sizes: tuple[int, ...]
) -> None:
    assert warm_up_sizes(max_batch, model_max_batch) == sizes


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("float64[784]", (2, 784)),
        ("bool[]", (2,)),
        ("uint8[3,8,8]", (2, 3, 8, 8)),
        ("float32[3,*,*]", (2, 3, 32, 32)),
        ("int64[*]", (2, 32)),
        ("float32[*]", (2, 32)),
    ],
)
def test_a_made_row_is_an_input_of_zeros(text: str, shape: tuple[int, ...]) -> None:
    input_type = InputType.parse(text)
    row = made_row(input_type)
    assert row is not None
    frame = b"".join(encode_predict(1, input_type.dtype, input_type.leading_dimensions, [row, row]))
    [(_, _, body)] = Splitter().feed(frame)
    inputs: Any = input_reader(input_type)(decode_predict(body))
    assert inputs.shape == shape and not np.any(inputs)


def test_a_made_record_has_defaults_categories_zeros_and_texts() -> None:
    record = RecordType.parse(
        'age: float64?, job: string, n: int32 = 7, kind: string{"a", "b"}, size: int64{5, 3}, is_new: bool, '
        'pixels: float32[2], raw: bytes?, name: string = "Ada"'
    )
    row = made_row(record)
    assert row is not None
    assert RecordRows(record).values(row) == [0, b"text", 7, b"a", 5, False, bytes(8), None, b"Ada"]
    assert made_row(RecordType.parse("a: float64, raw: bytes")) is None
    assert made_row(RecordType.parse(f"a: uint8[{MAX_MADE_BYTES}], b: uint8")) is None


def test_a_record_is_warmed_up_by_columns_whatever_answers_come(tmp_path: Path) -> None:
    record = RecordType.parse("age: float64, job: string?")
    sample = Sample(RecordRows(record).row((31.0, None)), origin="given", max_batch=1024)
    welcome = replace(WELCOME, input_type=record, protocol=RECORDS_VERSION)
    kinds: list[int] = []

    def reply(kind: int, batch_id: int) -> bytes:
        kinds.append(kind)
        if kind == Kind.HELLO:
            return encode_welcome(welcome)
        if batch_id == 1:
            form = OutputForm(DType.FLOAT64, (1,), DType.FLOAT64)
            return encode_typed_results(batch_id, 1, form, bytes(8))
        column = Column("x", InputType(DType.FLOAT64, ()), WARM_UP_ROWS, bytes(8 * WARM_UP_ROWS))
        return b"".join(encode_column_results(batch_id, [column], 0, {1: "one of several failed"}))

    async def test(address: ReplicaAddress) -> None:
        assert await warm_up(address, welcome, sample, lambda _: None) == "one of several failed"
        assert kinds == [Kind.HELLO, Kind.PREDICT_COLUMNS, Kind.PREDICT_COLUMNS]

    against(tmp_path, reply, test)


def test_a_container_that_refuses_is_asked_for_the_oldest_version(tmp_path: Path) -> None:
    asked: list[int] = []

    def reply(kind: int, batch_id: int) -> bytes:
        asked.append(kind)
        if kind == Kind.HELLO:
            return encode_error(0, "too new") if len(asked) == 1 else encode_welcome(WELCOME)
        return encode_results(
            batch_id, WARM_UP_ROWS if batch_id > 1 else 1, b"\n" * (WARM_UP_ROWS - 1) * (batch_id > 1)
        )

    async def test(address: ReplicaAddress) -> None:
        assert await warm_up(address, WELCOME, SAMPLE, lambda _: None) is None
        assert asked[:2] == [Kind.HELLO, Kind.HELLO]

    against(tmp_path, reply, test)


def test_no_row_is_made_where_nothing_says_what_an_input_is() -> None:
    assert made_row(InputType.parse("string")) == b"text"
    # A model that declares no input type takes lists of any length.
    assert made_row(InputType.parse("float64")) is None
    assert made_row(InputType.parse("bytes")) is None
    assert len(made_row(InputType.parse(f"uint8[{MAX_MADE_BYTES}]")) or b"") == MAX_MADE_BYTES
    assert made_row(InputType.parse(f"uint8[{MAX_MADE_BYTES + 1}]")) is None
    assert made_row(InputType.parse("uint8[*,*,*,*,*,*,*,*]")) is None


@pytest.mark.parametrize(
    ("one_row_s", "rows"),
    [(0.0, WARM_UP_ROWS), (MAX_SEVERAL_S / WARM_UP_ROWS, WARM_UP_ROWS), (MAX_SEVERAL_S / 3.5, 3), (8.0, 0)],
)
def test_several_rows_are_evaluated_only_if_they_take_little_time(one_row_s: float, rows: int) -> None:
    assert rows_in_time(WARM_UP_ROWS, one_row_s) == rows


def test_an_input_that_takes_seconds_is_not_evaluated_eight_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is twice: the first call might have loaded something."""
    monkeypatch.setattr(warming, "MAX_SEVERAL_S", 0.0)
    batches: list[int] = []

    async def test(address: ReplicaAddress) -> None:
        assert await warm_up(address, WELCOME, SAMPLE, batches.append) is None

    against(tmp_path, after_hello(lambda frame_id: encode_results(frame_id, 1, b"1")), test)
    assert batches == [1, 1]


def after_hello(answer: Callable[[int], bytes]) -> Callable[[int, int], bytes]:
    return lambda kind, frame_id: encode_welcome(WELCOME) if kind == Kind.HELLO else answer(frame_id)


def outcome(path: Path, answer: Callable[[int], bytes]) -> str | None:
    said: list[str | None] = []

    async def test(address: ReplicaAddress) -> None:
        batches: list[int] = []
        said.append(await warm_up(address, WELCOME, SAMPLE, batches.append))
        assert batches in ([1], [1, WARM_UP_ROWS])

    against(path, after_hello(answer), test)
    return said[0]


def rows_of(frame_id: int) -> int:
    return 1 if frame_id == 1 else WARM_UP_ROWS


def results(frame_id: int) -> bytes:
    return encode_results(frame_id, rows_of(frame_id), b"\n".join([b"1"] * rows_of(frame_id)))


def test_what_the_model_says_where_it_fails(tmp_path: Path) -> None:
    def fails_for_several(frame_id: int) -> bytes:
        if frame_id == 1:
            return results(frame_id)
        lines = b"\n".join([b"1"] * (WARM_UP_ROWS - 1) + [b""])
        return encode_results(frame_id, WARM_UP_ROWS, lines, failures={WARM_UP_ROWS - 1: "too many"})

    assert outcome(tmp_path, results) is None
    assert outcome(tmp_path, fails_for_several) == "too many"
    assert outcome(tmp_path, lambda frame_id: encode_error(frame_id, "out of memory")) == "out of memory"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda frame_id: encode_pong(frame_id, 0), "PREDICT 1 with PONG"),
        (lambda _: encode_results(7, 1, b"1"), "PREDICT 1 with RESULTS 7"),
        (lambda frame_id: encode_results(frame_id, 2, b"1\n1"), "2 outputs for 1 inputs"),
    ],
)
def test_a_container_that_answers_wrongly(tmp_path: Path, answer: Callable[[int], bytes], complaint: str) -> None:
    with pytest.raises(ProtocolViolation, match=complaint):
        outcome(tmp_path, answer)
