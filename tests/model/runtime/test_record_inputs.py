"""Batches of records, from their columns to what a model gets."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import WrongInput
from clipper.model.protocol.columns import PredictColumns, encode_predict_columns
from clipper.model.protocol.frames import RECORDS_VERSION
from clipper.model.protocol.trace import BatchTrace, TraceContext, write_trace
from clipper.model.runtime.evaluate import evaluate
from clipper.model.runtime.inputs import input_reader
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType, parse_type
from tests.model.runtime.caller import Refused, code, running


def columns_of(input_type: str, *records: tuple[Any, ...]) -> Any:
    record = RecordType.parse(input_type)
    rows = RecordRows(record)
    columns = rows.columns([rows.row(values) for values in records])
    return input_reader(record)(PredictColumns(len(records), tuple(columns)))


def test_each_field_is_an_array_or_a_list() -> None:
    made = columns_of(
        "age: int64, height: float32, is_new: bool, job: string, raw: bytes, pixels: uint8[2,2]",
        (31, 1.5, True, "Bäcker".encode(), b"\xff", bytes(4)),
        (32, 2.5, False, b"", b"", bytes(range(4))),
    )
    assert list(made) == ["age", "height", "is_new", "job", "raw", "pixels"]
    assert [(values.dtype.name, values.tolist()) for values in (made["age"], made["height"], made["is_new"])] == [
        ("int64", [31, 32]),
        ("float32", [1.5, 2.5]),
        ("bool", [True, False]),
    ]
    assert made["job"] == ["Bäcker", ""]
    assert made["raw"] == [b"\xff", b""]
    assert made["pixels"].tolist() == [[[0, 0], [0, 0]], [[0, 1], [2, 3]]]
    # A model may change what it gets.
    made["age"] += 1


@given(st.lists(st.one_of(st.none(), st.integers(-(2**53), 2**53)), min_size=1, max_size=70))
def test_numbers_that_may_be_missing_are_floats_whether_some_are_or_not(values: list[int | None]) -> None:
    made = columns_of("a: int64?, b: int64", *((value, 7) for value in values))
    assert made["a"].dtype == np.float64
    assert [None if math.isnan(value) else int(value) for value in made["a"].tolist()] == values
    assert made["b"].tolist() == [7] * len(values)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.text()),
            st.one_of(st.none(), st.booleans()),
            st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=3)),
            st.one_of(st.none(), st.binary(min_size=2, max_size=2)),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_missing_texts_truths_and_tensors_are_none(records: list[tuple[Any, ...]]) -> None:
    packed = (
        (
            None if text is None else text.encode(),
            truth,
            None if numbers is None else np.array(numbers, "<i4").tobytes(),
            pair,
        )
        for text, truth, numbers, pair in records
    )
    made = columns_of("t: string?, b: bool?, n: int32[*]?, p: uint8[2]?", *packed)
    found = zip(made["t"], made["b"], made["n"], made["p"])
    assert [
        (text, truth, None if numbers is None else numbers.tolist(), None if pair is None else pair.tobytes())
        for text, truth, numbers, pair in found
    ] == records
    assert isinstance(made["t"], list) and isinstance(made["b"], list)
    assert made["n"].dtype == made["p"].dtype == object


def test_a_batch_of_other_columns_is_the_callers_fault() -> None:
    record = RecordType.parse("a: float64, b: string?")
    read = input_reader(record)
    rows = RecordRows(RecordType.parse("a: float64, b: string?"))
    good = rows.columns([rows.row((1.0, None))])
    assert read(PredictColumns(1, tuple(good))) == {"a": np.array([1.0]), "b": [None]}
    for columns in (good[:1], good[::-1], [good[0]._replace(name="c"), good[1]]):
        with pytest.raises(WrongInput, match=r"takes a record \(a: float64, b: string\?\), got the columns"):
            read(PredictColumns(1, tuple(columns)))
    with pytest.raises(WrongInput, match="a has missing values, but is not nullable"):
        read(PredictColumns(1, (good[0]._replace(present=b"\0"), good[1])))
    with pytest.raises(WrongInput, match="got columns: a, b"):
        input_reader(parse_type("float64[2]"))(PredictColumns(1, tuple(good)))


def test_rows_whose_open_tensors_differ_reach_the_model_shape_by_shape() -> None:
    shapes = []

    def model(inputs: Any) -> list[float]:
        shapes.append(inputs["x"].shape)
        assert len(inputs["name"]) == len(inputs["x"])
        return [float(row.sum()) for row in inputs["x"]]

    def inputs() -> Any:
        rows = (np.arange(size, dtype="<f8") for size in (2, 3, 2))
        return columns_of("x: float64[*], name: string", *((row.tobytes(), b"n") for row in rows))

    assert evaluate(model, inputs).text == b"1.0\n3.0\n1.0"
    assert shapes == [(2, 2), (1, 3)]


@given(st.sets(st.integers(0, 12)), st.integers(1, 13))
def test_bad_records_fail_alone(bad: set[int], rows: int) -> None:
    def model(inputs: Any) -> Any:
        assert len(inputs["a"]) == len(inputs["b"])
        if bad.intersection(inputs["a"].tolist()):
            raise ValueError("bad")
        return inputs["b"]

    records = [(row, b"%d" % row) for row in range(rows)]
    encoded = evaluate(model, lambda: columns_of("a: int64, b: string", *records), lambda: 0.0)
    assert set(encoded.failures) == bad & set(range(rows))
    lines = encoded.lines().split(b"\n")
    assert [lines[row] for row in range(rows) if row not in bad] == [
        b'"%d"' % row for row in range(rows) if row not in bad
    ]


SUMMING = """
class model:
    input_type = "a: int64?, b: string"
    def __init__(self, model_data): pass
    def predict_batch(self, inputs):
        return [f"{type(inputs).__name__} {a} {b}" for a, b in zip(inputs["a"], inputs["b"])]
"""


def test_container_of_records_answers_columns_and_refuses_older_callers(tmp_path: Path) -> None:
    with running(tmp_path, *code(tmp_path, SUMMING)) as container:
        with container.caller(version=RECORDS_VERSION) as caller:
            results = caller.predict_columns("a: int64?, b: string", (1, b"x"), (None, b"y"))
            assert [json.loads(bytes(output)) for output in results.outputs] == ["dict 1.0 x", "dict nan y"]
            # A batch of anything else fails, and the connection stays.
            with pytest.raises(Refused, match="got the columns a: int64"):
                caller.predict_columns("a: int64", (1,))
            with pytest.raises(Refused, match="got rows of float64"):
                caller.predict([[1.0]])
            assert len(caller.predict_columns("a: int64?, b: string", (1, b"x")).outputs) == 1
        for version in range(1, RECORDS_VERSION):
            with (
                pytest.raises(Refused, match="takes records, which need protocol 4"),
                container.caller(version=version),
            ):
                pass


TRACED = """
from clipper.model.runtime.trace import current_trace
class model:
    input_type = "a: int64"
    def __init__(self, model_data): pass
    def predict_batch(self, inputs):
        return [current_trace() is not None] * len(inputs["a"])
"""


def test_a_batch_of_records_belongs_to_its_trace(tmp_path: Path) -> None:
    rows = RecordRows(RecordType.parse("a: int64"))
    span = TraceContext(f"00-{7:032x}-{8:016x}-01")
    with running(tmp_path, *code(tmp_path, TRACED)) as container, container.caller(version=RECORDS_VERSION) as caller:
        for trace, said in ((write_trace(BatchTrace(span, (span,))), b"true"), (b"", b"false")):
            columns = rows.columns([rows.row((1,))])
            caller.socket.sendall(b"".join(encode_predict_columns(1, columns, trace)))
            assert list(caller.results(1).outputs) == [said]


def test_container_says_its_record(tmp_path: Path) -> None:
    with running(tmp_path, *code(tmp_path, SUMMING)) as container, container.caller(greet=False) as caller:
        welcome = caller.greet(version=RECORDS_VERSION)
    assert (welcome.input_type, welcome.protocol) == (RecordType.parse("a: int64?, b: string"), RECORDS_VERSION)
