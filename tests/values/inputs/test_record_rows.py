import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.model.protocol.batches import make_encoder
from clipper.model.protocol.columns import decode_predict_columns, encode_predict_columns
from clipper.values.columns import Column
from clipper.values.inputs import record_rows
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import Field, RecordType
from clipper.values.types import InputType
from tests.worker.frontend.steps import finish

# The text of a type to its values as a row has them.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float64[]": st.floats(allow_nan=False),
    "float32[]": st.floats(width=32, allow_nan=False),
    "int32[]": st.integers(-(2**31), 2**31 - 1),
    "int64[]": st.integers(-(2**63), 2**63 - 1),
    "uint8[]": st.integers(0, 255),
    "bool[]": st.booleans(),
    "uint8[2,2]": st.binary(min_size=4, max_size=4),
    "int32[*]": st.binary(max_size=3).map(lambda data: data * 4),
    "string": st.text(max_size=9).map(str.encode),
    "bytes": st.binary(max_size=9),
}


@st.composite
def batches(draw: st.DrawFn) -> tuple[RecordType, list[list[Any]]]:
    texts = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=12))
    record = RecordType(
        tuple(Field(f"field {index}", InputType.parse(text), draw(st.booleans())) for index, text in enumerate(texts))
    )
    values = [
        VALUES[text] | st.none() if field.is_nullable else VALUES[text] for text, field in zip(texts, record.fields)
    ]
    return record, draw(st.lists(st.tuples(*values).map(list), min_size=1, max_size=20))


@given(batches())
def test_a_row_has_the_values_of_its_record(batch: tuple[RecordType, list[list[Any]]]) -> None:
    record, records = batch
    rows = RecordRows(record)
    assert [rows.values(rows.row(values)) for values in records] == records


@given(batches())
def test_rows_of_columns_are_the_rows_of_their_records(batch: tuple[RecordType, list[list[Any]]]) -> None:
    record, records = batch
    rows = RecordRows(record)
    expected = [rows.row(values) for values in records]
    columns: list[Any] = [list(values) for values in zip(*records)]
    arrays = [
        np.array(values, field.type.dtype.numpy_code)
        if field.type.dtype.is_numeric and not field.type.shape and None not in values
        else values
        for field, values in zip(record.fields, columns)
    ]
    for few in (0, 1000):  # by numpy, and one after another
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_rows, "_FEW_ROWS", few)
            assert rows.rows(columns, len(records)) == rows.rows(arrays, len(records)) == expected


@pytest.mark.parametrize(
    ("name", "value"), [("uint8", 256), ("int32", 2**31), ("int64", -(2**63) - 1), ("float32", 1e300), ("bytes", 1)]
)
@pytest.mark.parametrize("count", [1, 50])
def test_a_value_that_is_not_of_its_field_makes_no_row(name: str, value: object, count: int) -> None:
    rows = RecordRows(RecordType.parse(f"a: {name}"))
    with pytest.raises((struct.error, OverflowError, TypeError)):
        rows.rows([[value] * count], count)


@given(batches(), st.sampled_from([0, 1000]), st.sampled_from([0, 1000]))
def test_columns_are_cut_from_rows_in_any_way(
    batch: tuple[RecordType, list[list[Any]]], few: int, short_bytes: int
) -> None:
    record, records = batch
    rows = RecordRows(record)
    made = [rows.row(values) for values in records]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_rows, "_FEW_CUT_ROWS", few)
        patch.setattr(record_rows, "_SHORT_VALUE_BYTES", short_bytes)
        assert [values_of(column) for column in rows.columns(made)] == [list(values) for values in zip(*records)]


@given(batches())
def test_columns_have_the_values_of_all_rows_also_on_the_wire(batch: tuple[RecordType, list[list[Any]]]) -> None:
    record, records = batch
    rows = RecordRows(record)
    sent = rows.columns([rows.row(values) for values in records])
    came = decode_predict_columns(b"".join(encode_predict_columns(1, sent))[16:]).columns
    assert [column.name for column in came] == list(record.names)
    assert [values_of(column) for column in came] == [list(values) for values in zip(*records)]


@given(batches(), st.binary(max_size=9))
def test_a_records_encoder_makes_the_same_frames_sooner(
    batch: tuple[RecordType, list[list[Any]]], trace: bytes
) -> None:
    record, records = batch
    rows = RecordRows(record)
    made = [rows.row(values) for values in records]
    encoder = make_encoder(record)
    for count in (len(made), 1):  # what it keeps of one batch must not show in the next
        sent = b"".join(encoder.encode(7, made[:count], trace))
        assert sent == b"".join(encode_predict_columns(7, rows.columns(made[:count]), trace))


@given(batches(), st.sampled_from([1, 7, 1000]))
def test_long_rows_are_made_in_steps_and_sent_without_copies(
    batch: tuple[RecordType, list[list[Any]]], step_bytes: int
) -> None:
    record, records = batch
    rows = RecordRows(record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_rows, "STEP_BYTES", step_bytes)
        for values in records:
            row = finish(rows.row_in_steps(values))
            assert row == rows.row(values)
            frame = b"".join(make_encoder(record).encode(7, [row]))
            assert frame == b"".join(encode_predict_columns(7, rows.columns([row])))
            are_long = rows.are_long([[value] for value in values])
            assert are_long == (sum(len(value) for value in values if isinstance(value, bytes)) > step_bytes)


def test_a_long_row_takes_several_steps() -> None:
    rows = RecordRows(RecordType.parse("a: string, b: uint8[*]?"))
    values = [b"x" * 3_000_000, None]
    steps = rows.row_in_steps(values)
    next(steps)  # raises StopIteration if it took one
    assert finish(steps) == rows.row(values)


def values_of(column: Column) -> list[Any]:
    """Read a column one value at a time, by the rules of the protocol's page."""
    found: list[Any] = []
    start = 0
    for row in range(column.rows):
        size = column.type.row_bytes if column.lengths is None else column.lengths[row]
        assert size is not None
        data = bytes(column.payload[start : start + size])
        start += size
        is_there = column.present is None or column.present[row // 8] >> row % 8 & 1
        if not is_there:
            assert not data.strip(b"\0")
            found.append(None)
        elif column.lengths is None and not column.type.shape:
            found.append(np.frombuffer(data, column.dtype.numpy_code)[0].item())
        else:
            found.append(data)
    assert start == len(column.payload)
    return found


def test_missing_and_zero_are_not_equal() -> None:
    rows = RecordRows(RecordType((Field("age", InputType.parse("float64[]"), is_nullable=True),)))
    assert rows.row([None]) != rows.row([0.0])
