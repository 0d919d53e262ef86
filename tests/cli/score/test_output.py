"""Rows with what was predicted for them: each format reads back as what went in."""

import csv
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clipper.cli.score.answers import Answers, read_answers
from clipper.cli.score.inputs import Inputs
from clipper.cli.score.output import Layout
from clipper.cli.score.sources import Chunk, cells_of
from clipper.errors import InvalidArgument, ProtocolViolation
from clipper.model.protocol.frames import PROTOCOL_VERSION
from clipper.model.protocol.messages import Welcome, encode_error, encode_results, encode_welcome
from clipper.model.protocol.typed import encode_typed_results
from clipper.values.output_arrays import OutputForm
from clipper.values.records import ValueType, parse_type
from clipper.values.types import DType


def chunk(lines: list[bytes]) -> Chunk:
    return Chunk(0, len(lines), lambda: Inputs(b""), lines)


def of_csv(
    tmp_path: Path, texts: list[bytes | None], output_type: str | None, errors: dict[int, str]
) -> list[list[str]]:
    source = tmp_path / "in.csv"
    source.write_bytes(b"a\n")
    told = None if output_type is None else parse_type(output_type)
    layout = Layout("csv", source, told, "")
    rows = chunk([b"%d" % row for row in range(len(texts))])
    data = layout.header() + layout.encode(rows, Answers(texts, errors, "m", "1"))
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_csv_has_texts_as_they_are(tmp_path: Path) -> None:
    texts = [msgspec.json.encode(text) for text in ("plain", 'a "b", c', "two\nlines", "")]
    rows = of_csv(tmp_path, [*texts, b"[1,2]", b"null", None], None, {6: "model_error: it\nsaid, no"})
    assert rows[0] == ["a", "output", "model", "version", "error"]
    assert [row[1] for row in rows[1:]] == ["plain", 'a "b", c', "two\nlines", "", "[1,2]", "", ""]
    assert rows[7] == ["6", "", "m", "1", "model_error: it said, no"]
    assert all(len(row) == 5 for row in rows)


def test_a_line_with_too_few_or_many_cells_keeps_the_columns(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b"a,b,c\n")
    layout = Layout("csv", source, None, "")
    lines = [b"1", b"1,2,3,4", b"", b'"x,y",2,3']
    answers = Answers([None] * 4, dict.fromkeys(range(4), "e"), "m", "1")
    rows = list(csv.reader(io.StringIO(layout.encode(chunk(lines), answers).decode(), newline="")))
    assert [row[:3] for row in rows] == [["1", "", ""], ["1", "2", "3,4"], ["", "", ""], ["x,y", "2", "3"]]
    assert all(row[3:] == ["", "m", "1", "e"] for row in rows)


def test_csv_has_a_column_for_each_output_with_a_name(tmp_path: Path) -> None:
    rows = of_csv(tmp_path, [b'{"label":"x","scores":[0.5,1]}', None], "label: string, scores: float32[2]", {1: "e"})
    assert rows[0][1:3] == ["output_label", "output_scores"]
    assert rows[1][1:3] == ["x", "[0.5,1]"] and rows[2] == ["1", "", "", "m", "1", "e"]


def test_json_lines_keep_their_objects_and_wrap_all_else(tmp_path: Path) -> None:
    layout = Layout("jsonl", tmp_path, None, "")
    lines = [b'{"a": 1}', b"{}", b"[1, 2]", b"not JSON"]
    data = layout.encode(chunk(lines), Answers([b"1.5", b"2", b'"x"', None], {3: "malformed_request: no"}, "m", "1"))
    found = [msgspec.json.decode(line) for line in data.splitlines()]
    assert [one["output"] for one in found] == [1.5, 2, "x", None]
    assert found[0] == {"a": 1, "output": 1.5, "model": "m", "version": "1", "error": None}
    assert found[2]["input"] == [1, 2] and found[3]["input"] == "not JSON"
    assert found[3]["error"] == "malformed_request: no"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_column_that_is_there_already_is_refused(tmp_path: Path, form: str) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,model\n")
    answers = Answers([b"1"], {}, "m", "1")
    line = b'{"model":1}' if form == "jsonl" else b"1,2"
    with pytest.raises(InvalidArgument, match="--prefix"):
        Layout(form, source, None, "").encode(chunk([line]), answers)
    assert b"model" in Layout(form, source, None, "my_").encode(chunk([line]), answers) or form == "csv"


@pytest.mark.parametrize(
    ("output_type", "texts", "expected", "errors"),
    [
        ("float64[]", [b"1.5", b"null", None], [1.5, None, None], [2]),
        ("int64[]", [b"1", b'"x"', b"3"], [1, None, 3], [1]),
        ("float32[2]", [b"[1,2]", b"[3]"], [[1.0, 2.0], [3.0]], []),
        (None, [b"[1,2]", b'"x"'], ["[1,2]", '"x"'], []),
    ],
)
def test_parquet_has_the_type_of_the_outputs(
    tmp_path: Path, output_type: str | None, texts: list[bytes | None], expected: list[object], errors: list[int]
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = pa.table({"a": list(range(len(texts)))})
    pq.write_table(table, source)
    told: ValueType | None = None if output_type is None else parse_type(output_type)
    layout = Layout("parquet", source, told, "")
    answers = Answers(texts, {row: "no" for row, text in enumerate(texts) if text is None}, "m", "1")
    partial = tmp_path / "partial"
    partial.write_bytes(layout.encode(Chunk(0, len(texts), lambda: Inputs(b"")), answers))
    layout.make([source], partial, target)
    made = pq.read_table(target)
    assert made.column("output").to_pylist() == expected
    assert [row for row, text in enumerate(made.column("error").to_pylist()) if text] == errors
    assert made.column("a").to_pylist() == list(range(len(texts)))


def test_answers_come_in_any_order_and_are_all_there() -> None:
    welcome = encode_welcome(
        Welcome("m", "1", parse_type("float64"), output_type=parse_type("float64[]"), protocol=PROTOCOL_VERSION)
    )
    numbers = encode_typed_results(2, 2, OutputForm(DType.FLOAT64, (), DType.FLOAT64), memoryview(bytes(16)))
    texts = encode_results(0, 1, b'"a"')
    body = b"".join((welcome, numbers, texts, encode_error(1, "the model said no")))
    answers = read_answers(body, 4)
    assert answers.texts == [b'"a"', None, b"0.0", b"0.0"]
    assert answers.errors == {1: "model_error: the model said no"} and (answers.model, answers.version) == ("m", "1")
    for rows in (3, 5):
        with pytest.raises(ProtocolViolation):
            read_answers(body, rows)
    wrong = read_answers(b"".join((welcome, encode_results(0, 1, b"nonsense"))), 1)
    assert "not JSON" in wrong.errors[0]


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        ([b"1", b"[1,2]", b'"a,b"', b"true"], []),
        ([b"1", b"nonsense", b"2"], [1]),
        ([b"[1", b"2]", b"3"], [0, 1]),
        ([b'"a', b'b"', b"1,2"], [0, 1, 2]),
        ([b"1,2", b"[3", b"4]"], [0, 1, 2]),
        ([b"", b"1"], [0]),
    ],
)
def test_only_outputs_that_are_json_by_themselves_are_taken(texts: list[bytes], wrong: list[int]) -> None:
    welcome = encode_welcome(Welcome("m", "1", parse_type("float64"), protocol=PROTOCOL_VERSION))
    answers = read_answers(welcome + encode_results(0, len(texts), b"\n".join(texts)), len(texts))
    assert sorted(answers.errors) == wrong
    assert answers.texts == [None if row in wrong else text for row, text in enumerate(texts)]


def test_truths_that_come_as_an_array_are_texts_of_json() -> None:
    welcome = encode_welcome(Welcome("m", "1", parse_type("float64"), protocol=PROTOCOL_VERSION))
    truths = encode_typed_results(0, 3, OutputForm(DType.BOOL, (), DType.BOOL), memoryview(b"\1\0\1"))
    assert list(read_answers(welcome + truths, 3).texts) == [b"true", b"false", b"true"]


@pytest.mark.parametrize(
    ("form", "numbers", "output_type", "expected"),
    [
        (
            OutputForm(DType.FLOAT64, (), DType.FLOAT64),
            [1.5, float("nan"), float("inf")],
            "float64[]",
            [1.5, None, None],
        ),
        (OutputForm(DType.INT64, (), DType.INT64), [2**53 + 1, -1, 0], "int64[]", [2**53 + 1, -1, 0]),
        (OutputForm(DType.BOOL, (), DType.BOOL), [True, False, True], "bool[]", [True, False, True]),
        (OutputForm(DType.FLOAT64, (), DType.FLOAT64), [1.0, 1.5, 2.0], "int64[]", [1, None, 2]),
        (OutputForm(DType.BOOL, (), DType.BOOL), [True, False, True], "int64[]", [None, None, None]),
        (OutputForm(DType.INT64, (), DType.INT64), [1, 2, 3], None, ["1", "2", "3"]),
    ],
)
def test_numbers_in_arrays_get_into_parquet_as_their_texts_would(
    tmp_path: Path, form: OutputForm, numbers: list[float], output_type: str | None, expected: list[object]
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    welcome = encode_welcome(Welcome("m", "1", parse_type("float64"), protocol=PROTOCOL_VERSION))
    data = np.array(numbers, form.dtype.numpy_code).tobytes()
    frames = [
        encode_typed_results(first, rows, form, memoryview(data)[first * len(data) // 3 :][: rows * len(data) // 3])
        for first, rows in ((1, 2), (0, 1))
    ]
    answers = read_answers(welcome + b"".join(frames), 3)
    pq.write_table(pa.table({"a": [0, 1, 2]}), tmp_path / "in.parquet")
    layout = Layout("parquet", tmp_path / "in.parquet", None if output_type is None else parse_type(output_type), "")
    for name, given in (("arrays", answers), ("texts", Answers(list(answers.texts), {}, "m", "1"))):
        (tmp_path / "partial").write_bytes(layout.encode(Chunk(0, 3, lambda: Inputs(b"")), given))
        layout.make([tmp_path / "in.parquet"], tmp_path / "partial", tmp_path / name)
    made = pq.read_table(tmp_path / "arrays")
    assert made.column("output").to_pylist() == expected
    assert made.equals(pq.read_table(tmp_path / "texts"))


def test_cells_of_any_length_are_read() -> None:
    assert cells_of("a" * 200_000 + ',"b\nc"') == ["a" * 200_000, "b\nc"]
    assert cells_of("") == []
