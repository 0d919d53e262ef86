"""Outputs with names agree with the columns of their batch, row by row."""

import base64
import json
import math
import struct
from itertools import starmap
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.model.protocol.columns import decode_column_results, encode_column_results
from clipper.model.protocol.frames import HEADER_BYTES
from clipper.values.columns import Column
from clipper.values.outputs import record_columns as module
from clipper.values.outputs.output import (
    RecordOutput,
    TypedOutput,
    is_long,
    is_readable,
    text_bytes,
    text_pieces,
    text_start,
)
from clipper.values.outputs.record_columns import RecordColumns
from clipper.values.records import MAX_FIELD_NAME_BYTES
from clipper.values.types import DType, InputType
from tests.worker.frontend.steps import finish

TYPES = [
    InputType.parse(text)
    for text in ("float32[]", "float64[2]", "int64[*]", "uint8[*,2]", "bool[3]", "bool[]", "string", "bytes")
]


def column(name: str, of_type: InputType, values: list[Any]) -> Column:
    """The column of values: numpy's arrays, texts, bytes, or None for one that is missing."""
    parts = []
    for value in values:
        if value is None:
            parts.append(bytes(of_type.row_bytes or 0))
        elif isinstance(value, np.ndarray):
            count = of_type.leading_dimensions
            parts.append(struct.pack(f"<{count}I", *value.shape[:count]) + value.tobytes())
        else:
            parts.append(value.encode() if isinstance(value, str) else value)
    lengths = None if of_type.row_bytes is not None else tuple(map(len, parts))
    present = None
    if None in [type(value) if isinstance(value, np.ndarray) else value for value in values]:
        present = np.packbits([value is not None for value in values], bitorder="little").tobytes()
    written_as = DType.FLOAT64 if of_type.dtype is DType.FLOAT32 else None  # as Python's numbers are written
    return Column(name, of_type, len(values), b"".join(parts), lengths, present, written_as)


@st.composite
def values_of(draw: st.DrawFn, of_type: InputType) -> Any:
    if draw(st.integers(0, 9)) == 0:
        return None
    if of_type.dtype is DType.STRING:
        return draw(st.text())
    if of_type.dtype is DType.BYTES:
        return draw(st.binary())
    shape = [draw(st.integers(0, 3)) if size is None else size for size in of_type.shape]
    size = math.prod(shape) * of_type.dtype.size_bytes
    data = draw(st.binary(min_size=size, max_size=size))
    if of_type.dtype is DType.BOOL:
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, of_type.dtype.numpy_code).reshape(shape)


def as_json(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, list):
        return list(map(as_json, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[InputType], list[list[Any]]]:
    types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
    rows = draw(st.integers(1, 9))
    return types, [[draw(values_of(of_type)) for _ in range(rows)] for of_type in types]


@given(batches(), st.integers(2, 7))  # a piece has room for the longest character
def test_each_row_has_the_values_of_its_columns(batch: tuple[list[InputType], list[list[Any]]], piece: int) -> None:
    types, values = batch
    names = [f'"{index} ä' for index in range(len(types))]
    frame = b"".join(encode_column_results(1, list(map(column, names, types, values)), 5))
    reader = RecordColumns(decode_column_results(frame[HEADER_BYTES:]).columns)
    outputs, failures = reader.outputs({})
    assert not failures
    before, module._PIECE_BYTES = module._PIECE_BYTES, 3 * piece
    try:
        alone = [finish(reader.output(row)) for row in range(len(outputs))]
    finally:
        module._PIECE_BYTES = before
    for row, (output, same) in enumerate(zip(outputs, alone)):
        assert output is not None and output.of.names == tuple(names)
        expected = {name: as_json(of_name[row]) for name, of_name in zip(names, values)}
        for each in (output, same):
            assert json.loads(bytes(each)) == expected and bytes(each) == b"".join(text_pieces(each))
            for part, of_name in zip(each.parts, values):
                if isinstance(of_name[row], np.ndarray):
                    assert isinstance(part, TypedOutput) and part.data == of_name[row].tobytes()
                    assert part.form.shape == of_name[row].shape
            assert len(bytes(each)) <= text_bytes(each) and len(each) >= len(bytes(each))
            assert text_start(each, 5) == bytes(each)[:5]


def test_a_value_that_is_not_valid_fails_its_row_alone() -> None:
    texts = Column("t", InputType(DType.STRING), 3, b"a\xffb", (1, 1, 1))
    outputs, failures = RecordColumns([texts]).outputs({})
    assert [output and bytes(output) for output in outputs] == [b'{"t":"a"}', None, b'{"t":"b"}']
    assert list(failures) == [1] and "output 't' is not UTF-8" in failures[1]
    bools = Column("b", InputType(DType.BOOL, ()), 3, b"\0\1\2")
    assert list(RecordColumns([bools]).outputs({1: "no such user"})[1].items()) == [
        (1, "no such user"),
        (2, "output contains a bool that is not 0 or 1"),
    ]
    # Dimensions that are missing, and others than the elements'.
    boxes = InputType(DType.UINT8, (None, 2))
    wrong = [b"\1\0\0", struct.pack("<II", 2, 2) + b"abc", struct.pack("<II", 2, 3) + bytes(6)]
    for data in wrong:
        outputs, failures = RecordColumns([Column("boxes", boxes, 1, data, (len(data),))]).outputs({})
        assert outputs == [None] and "output 'boxes' has" in failures[0]
        with pytest.raises(ModelFailed, match="output 'boxes' has"):
            finish(RecordColumns([Column("boxes", boxes, 1, data, (len(data),))]).output(0))


def test_a_long_record_keeps_no_text() -> None:
    numbers = np.arange(40_000, dtype="<f8")
    (output,), _ = RecordColumns(
        list(starmap(column, [("a", InputType(DType.FLOAT64, (40_000,)), [numbers]), ("b", TYPES[6], ["x"])]))
    ).outputs({})
    assert isinstance(output, RecordOutput) and is_long(output) and len(output) < 8 * 40_000 + 1000
    whole = bytes(output)
    assert output.text is None and b"".join(text_pieces(output)) == whole and whole.endswith(b'39999.0],"b":"x"}')
    assert text_start(output, 10) == b'{"a":[0.0,' and is_readable(output)


def test_names_are_bounded_and_count_as_memory() -> None:
    """A container may send other names in each batch, and what is remembered of them must not fill the memory."""
    text = TYPES[6]
    long = "x" * MAX_FIELD_NAME_BYTES
    frame = b"".join(encode_column_results(1, [column(long, text, ["a"])], 5))
    assert decode_column_results(frame[HEADER_BYTES:]).columns[0].name == long
    frame = b"".join(encode_column_results(1, [column(long + "x", text, ["a"])], 5))
    with pytest.raises(ModelFailed, match="name has 256 bytes: expected at most 255"):
        decode_column_results(frame[HEADER_BYTES:])

    module.names_of.cache_clear()
    some = [column(f"{number:03}{long[3:]}", text, ["a"]) for number in range(999)]
    RecordColumns(some[:10])
    RecordColumns(some)
    assert module.names_of.cache_info().currsize == 1
    numbers = column("numbers", InputType(DType.FLOAT64, (40_000,)), [np.zeros(40_000)])
    (alone,), _ = RecordColumns([numbers]).outputs({})
    (named,), _ = RecordColumns([numbers, *some]).outputs({})
    assert alone is not None and named is not None and is_long(alone) and is_long(named)
    assert len(named) - len(alone) > 999 * MAX_FIELD_NAME_BYTES
