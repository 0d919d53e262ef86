"""Blocks of inputs: whole columns give the same bytes as single rows; what cannot be read is an error of its row."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from clipper.cli.score import sources
from clipper.cli.score.inputs import InputMaker, Inputs
from clipper.cli.score.sources import READERS, Chunk
from clipper.errors import InvalidArgument
from clipper.model.protocol.columns import decode_predict_columns
from clipper.model.protocol.frames import HEADER_BYTES
from clipper.model.protocol.messages import decode_predict
from clipper.values.records import parse_type

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pc = pytest.importorskip("pyarrow.csv")

RECORD = "age: float64?, job: string?, count: int32, flag: bool"
ROWS: list[dict[str, Any]] = [
    {"age": 1.5, "job": "a, b", "count": 3, "flag": True, "label": "x"},
    {"age": None, "job": 'é\n"q"', "count": -3, "flag": False, "label": ""},
    {"age": 2.0, "job": None, "count": 0, "flag": True, "label": "z"},
]


def read(path: Path, input_type: str, position: int = 0) -> list[Chunk]:
    maker = InputMaker(parse_type(input_type))
    form = path.suffix.removeprefix(".")
    return list(READERS[form](path, maker, position, 100))


def columns(inputs: Inputs) -> list[tuple[Any, ...]]:
    found = decode_predict_columns(inputs.frame[HEADER_BYTES:]).columns
    return [(one.name, one.rows, bytes(one.payload), one.lengths, one.present) for one in found]


def test_all_formats_give_the_same_inputs(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS).cast(
        pa.schema([("age", "float64"), ("job", "string"), ("count", "int64"), ("flag", "bool"), ("label", "string")])
    )
    pq.write_table(table, tmp_path / "t.parquet")
    pc.write_csv(table, tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_bytes(b"".join(_json(row) + b"\n" for row in ROWS))
    maker = InputMaker(parse_type(RECORD))
    expected = columns(maker.of_values(ROWS))
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        (chunk,) = read(tmp_path / name, RECORD)
        assert columns(chunk.make_inputs()) == expected, name
        assert chunk.rows == 3 and not chunk.make_inputs().errors


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def test_the_lines_of_a_csv_file_stay_what_they_are(tmp_path: Path) -> None:
    lines = [b'1.50,"a""\n,b",007', b" 2,c,8", b"3,d,9"]
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfage,job,id\r\n" + b"\r\n\r\n".join(lines))
    chunks = read(tmp_path / "t.csv", "age: float64, job: string")
    assert [line for chunk in chunks for line in chunk.lines] == lines
    got = [decode_predict_columns(chunk.make_inputs().frame[HEADER_BYTES:]).columns for chunk in chunks]
    assert struct.unpack("<3d", b"".join(each[0].payload for each in got)) == (1.5, 2.0, 3.0)
    assert b"".join(bytes(each[1].payload) for each in got) == b'a"\n,bcd'


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_that_cannot_be_read_have_errors_of_their_own(tmp_path: Path, form: str) -> None:
    bad = {"csv": b"f0,f1\n1,2\nx,2\n1,2,3\n3,4\n", "jsonl": b'[1,2]\n["x",2]\n[1,2,3]\nnull\n[3,4]\n'}
    (tmp_path / f"t.{form}").write_bytes(bad[form])
    (chunk,) = read(tmp_path / f"t.{form}", "float64[2]")
    batch = decode_predict(chunk.make_inputs().frame[HEADER_BYTES:])
    assert struct.unpack("<4d", batch.payload) == (1, 2, 3, 4)
    assert sorted(chunk.make_inputs().errors) == ([1, 2] if form == "csv" else [1, 2, 3])
    assert all(":" in text for text in chunk.make_inputs().errors.values())


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_reading_goes_on_at_the_position_of_each_chunk(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(sources, "CHUNK_ROWS", 100)
    path = tmp_path / f"t.{form}"
    numbers = [float(number) for number in range(1234)]
    if form == "parquet":
        pq.write_table(pa.table({"f0": numbers, "f1": numbers}), path, row_group_size=300)
    elif form == "csv":
        path.write_text("f0,f1\n" + "".join(f"{number},{number}\n" for number in numbers))
    else:
        path.write_text("".join(f"[{number},{number}]\n" for number in numbers))

    def values(chunks: list[Chunk]) -> list[float]:
        found: list[float] = []
        for chunk in chunks:
            batch = decode_predict(chunk.make_inputs().frame[HEADER_BYTES:])
            found += struct.unpack(f"<{2 * batch.rows}d", batch.payload)[::2]
        return found

    chunks = read(path, "float64[2]")
    assert values(chunks) == numbers and len(chunks) > 5
    for count in (1, 3, len(chunks)):
        rows = sum(chunk.rows for chunk in chunks[:count])
        assert values(read(path, "float64[2]", chunks[count - 1].position)) == numbers[rows:]


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidArgument, match="no column 'age'"):
        read(tmp_path / "t.csv", "age: float64")
    (tmp_path / "e.csv").write_text("")
    with pytest.raises(InvalidArgument, match="no first line"):
        read(tmp_path / "e.csv", "age: float64")


@pytest.mark.parametrize(
    ("column", "input_type"),
    [
        (lambda: pa.array([1.5, 2.0]), "n: int32"),  # not whole: told by row
        (lambda: pa.array([2**40, 1]), "n: int32"),
        (lambda: pa.array(["a", "b"]), "n: float64"),
        (lambda: pa.array([None, 1.0]), "n: float64"),
    ],
)
def test_values_that_a_field_cannot_hold_are_read_one_by_one(column: Any, input_type: str) -> None:
    maker = InputMaker(parse_type(input_type))
    assert maker.of_batch(pa.record_batch({"n": column()})) is None
    made = maker.of_values([{"n": value} for value in column().to_pylist()])
    assert made.errors


@pytest.mark.parametrize(
    ("columns", "input_type", "expected"),
    [
        ([pa.array([1, 2], pa.int8()), pa.array([0.5, 1.5])], "float64[2]", [[1, 0.5], [2, 1.5]]),
        ([pa.array([1, 2], pa.uint16()), pa.array([3, 4], pa.int8())], "int64[2]", [[1, 3], [2, 4]]),
        ([pa.array([1, 2]), pa.array([0.5, 1.5])], "int64[2]", None),
        ([pa.array([1.0, None]), pa.array([0.5, 1.5])], "float64[2]", None),
        ([pa.array([True, False]), pa.array([0.5, 1.5])], "float64[2]", None),
        ([pa.array([1.0, 2.0])], "float64[2]", None),
    ],
)
def test_columns_of_numbers_are_the_elements_of_each_row(
    columns: list[Any], input_type: str, expected: list[list[float]] | None
) -> None:
    maker = InputMaker(parse_type(input_type))
    names = [f"c{place}" for place in range(len(columns))]
    whole = pa.RecordBatch.from_arrays(columns, names)
    made = maker.of_batch(pa.concat_batches([whole, whole]).slice(2))
    assert (made is None) == (expected is None)
    if made is not None and expected is not None:
        numbers = np.frombuffer(decode_predict(memoryview(made.frame)[HEADER_BYTES:]).payload, input_type.split("[")[0])
        assert numbers.reshape(2, 2).tolist() == expected


@pytest.mark.parametrize("kind", ["float32", "float64", "int8", "uint16", "int64", "bool"])
def test_a_part_of_a_column_is_that_part_with_and_without_missing_values(kind: str) -> None:
    values = [None if row % 7 == 3 else row % 2 == 0 if kind == "bool" else row for row in range(40)]
    for given in (values, [value or values[1] for value in values]):
        batch = pa.record_batch({"n": pa.array(given).cast(pa.type_for_alias(kind))}).slice(5, 21)
        maker = InputMaker(parse_type("n: bool?" if kind == "bool" else "n: float64?"))
        made = maker.of_batch(batch)
        assert made is not None
        assert columns(made) == columns(maker.of_values(batch.to_pylist()))


def test_a_job_does_without_pandas(tmp_path: Path) -> None:
    """To load it takes longer than to read a million rows."""
    pytest.importorskip("pandas")
    pq.write_table(pa.table({"a": [1.0, None, 3.0], "b": [True, False, True]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": [3, 4]}), tmp_path / "m.parquet")
    (tmp_path / "t.csv").write_text("a,b\n1,true\n,false\n3,true\n")
    (tmp_path / "m.csv").write_text("a,b\n1,3\n2,4\n")
    done = subprocess.run(
        [sys.executable, "-c", _JOBS],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT_S,
    )
    assert done.returncode == 0 and done.stdout == "False\n", done.stderr


PROCESS_TIMEOUT_S = 120.0
_JOBS = """
import sys
from pathlib import Path

import numpy as np

from clipper.cli.score.answers import Answers, Numbers
from clipper.cli.score.inputs import InputMaker
from clipper.cli.score.output import Layout
from clipper.cli.score.parquet_output import check_alike
from clipper.cli.score.sources import READERS
from clipper.values.records import parse_type

for form in ("parquet", "csv"):
    for name, input_type in (("t", "a: float64?, b: bool"), ("m", "float64[2]")):
        source = Path(f"{name}.{form}")
        (chunk,) = READERS[form](source, InputMaker(parse_type(input_type)), 0, 16)
        assert chunk.make_inputs().frame
        for output_type, numbers in (("int64[]", [1, 2, 3]), ("bool[]", [True] * 3), ("float64[]", [1, np.nan, 3])):
            array = np.array(numbers[: chunk.rows])
            layout = Layout(form, source, parse_type(output_type), "")
            Path("partial").write_bytes(layout.encode(chunk, Answers(Numbers(array), {}, "m", "1")))
            if form == "parquet":
                check_alike([source])
                layout.make([source], Path("partial"), Path("made"))
print("pandas" in sys.modules)
"""
