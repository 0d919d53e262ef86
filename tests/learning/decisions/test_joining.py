"""Logs read again and joined, whatever became of their files."""

import json
import resource
import time
import tracemalloc
from pathlib import Path
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace

from clipper.errors import InvalidArgument, Unavailable
from clipper.learning.decisions import joining
from clipper.learning.decisions.export import export, row_of, training_rows
from clipper.learning.decisions.joining import joined
from clipper.learning.decisions.reading import LogReader
from clipper.learning.decisions.records import Setting
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.records import RecordType, parse_type
from tests.learning.decisions.log_files import SETTING, block_of, decision, judgement, write_log

AGES = RecordType.parse("age: string")


def read(folder: Path, **limits: object) -> dict[int, float | None]:
    """By query, the loss of its answer."""
    return {each["query_id"]: each["loss"] for each in map(row_of, joined(LogReader(folder, **limits)))}  # type: ignore[arg-type]


def test_feedback_is_found_in_any_file_and_the_last_counts(tmp_path: Path) -> None:
    write_log(tmp_path, block_of(judgement(1, answer_loss=0.25), judgement(9)), writer="w2")
    write_log(tmp_path, block_of(SETTING, decision(1), decision(2), decision(3)), writer="w1")
    write_log(
        tmp_path,
        block_of(judgement(2, time_s=9.0, answer_loss=0.75), judgement(2, time_s=8.0, answer_loss=0.5)),
        writer="w3",
    )
    assert read(tmp_path) == {1: 0.25, 2: 0.75, 3: None}
    counts = [each.feedback_count for each in joined(LogReader(tmp_path))]
    assert counts == [1, 2, 0]


def test_a_file_may_end_anywhere(tmp_path: Path) -> None:
    first, second = block_of(SETTING, decision(1)), block_of(SETTING, decision(2))
    path = write_log(tmp_path, first, second)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        reader = LogReader(tmp_path)
        found = [each.query_id for piece in reader.decisions() for _, each in piece]
        assert found == ([1] if end >= len(whole) - len(second) else [])
        assert reader.damaged == {}
        assert reader.torn <= {path.name}


def test_damage_costs_what_follows_in_that_file_and_is_named(tmp_path: Path) -> None:
    path = write_log(tmp_path, *(block_of(SETTING, decision(number)) for number in range(3)))
    write_log(tmp_path, block_of(SETTING, decision(7)), writer="w2")
    data = bytearray(path.read_bytes())
    size_bytes = len(block_of(SETTING, decision(1)))
    data[-size_bytes - 5] ^= 1
    path.write_bytes(data)
    reader = LogReader(tmp_path)
    assert sorted(each.query_id for piece in reader.decisions() for _, each in piece) == [0, 7]
    assert reader.damaged == {path.name: "its checksum is wrong"}
    for text, why in ((b"something else", "does not know"), (data[:20] + b"\xff" * 8, "claims 4294967295 bytes")):
        path.write_bytes(text)
        reader = LogReader(tmp_path)
        assert [each.query_id for piece in reader.decisions() for _, each in piece] == [7]
        assert why in reader.damaged[path.name]


def test_a_time_and_an_application_alone(tmp_path: Path) -> None:
    other = Setting("other", "single", ("a",), ("1",))
    # They came a little before the file was begun.
    now_s = time.time() - 20.0
    decisions = [decision(n, setting=n % 2, time_s=now_s + n) for n in range(10)]
    write_log(tmp_path, block_of(SETTING, other, *decisions, judgement(4)))
    found = read(tmp_path, application="app", since_s=now_s + 2, until_s=now_s + 8)
    assert found == {2: None, 4: 0.0, 6: None}
    # The file was not written since, nor begun before.
    assert read(tmp_path, since_s=1e12) == {} == read(tmp_path, until_s=1.0)
    assert read(tmp_path / "none") == {}


def many(folder: Path, queries: int) -> None:
    blocks = []
    for start in range(0, queries, 500):
        numbers = range(start, start + 500)
        blocks.append(block_of(SETTING, *map(decision, numbers)))
        blocks.append(block_of(*(judgement(number) for number in numbers)))
    Random(1).shuffle(blocks)
    write_log(folder, *blocks)


@pytest.mark.long
def test_memory_is_bounded_by_blocks_and_not_by_the_log(tmp_path: Path) -> None:
    peaks = []
    for queries in (5_000, 20_000):
        many(tmp_path / str(queries), queries)
        tracemalloc.start()
        assert export(map(row_of, joined(LogReader(tmp_path / str(queries)))), tmp_path / "out.jsonl") == queries
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_parquet_and_json_lines_say_the_same(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    records = (
        decision(1, context="me", outputs=(b'{"x":[1]}',)),
        decision(2, models=("a", "b"), shares=(0.5, 0.5), outputs=(b"1", None), answer=b"1", steps=((1, 0.5, 1.0),)),
        decision(3, outputs=(None,), reason="timeout"),
        decision(4, beliefs=((1.0, 2.0), (3.0, 4.0)), shares=(1.0,)),
        decision(5, outputs=(b'"cut',), is_cut=True, pinned="1"),
    )
    write_log(
        tmp_path, block_of(SETTING, *records, judgement(1), judgement(2, losses=None, answer_loss=None, reward=0.3))
    )

    def rows() -> object:
        return map(row_of, joined(LogReader(tmp_path)))

    assert export(rows(), tmp_path / "out.parquet") == export(rows(), tmp_path / "out.jsonl") == 5  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    compared = ("query_id", "context", "models", "shares", "beliefs", "loss", "default", "reason", "learned", "steps")
    for line, row in zip(lines, table, strict=True):
        assert row["time"].timestamp() == line["time_s"]
        assert dict(row["losses"]) == line["losses"] if line["losses"] else not row["losses"]
        for name in compared:
            assert row[name] == line[name], name
        for model, text in zip(row["models"], row["outputs"]):
            whole = line["outputs"].get(model)
            assert text is None if whole is None else text == whole or json.loads(text) == whole
    assert [line["output"] for line in lines] == [{"x": [1]}, 1, "default", 1, '"cut']
    assert [row["output.x"] for row in table] == ["[1]", None, None, None, None]
    assert [line["steps"] for line in lines[:2]] == [[], [[1, 0.5, 1.0]]]
    assert lines[1]["loss"] == 0.7 and lines[1]["learned"] is False


def test_a_file_that_cannot_be_written_is_not_there_in_part(tmp_path: Path) -> None:
    write_log(tmp_path / "log", block_of(SETTING, decision(1)))
    rows = map(row_of, joined(LogReader(tmp_path / "log")))
    with pytest.raises(InvalidArgument, match=r"\.parquet or \.jsonl"):
        export(rows, tmp_path / "out.csv")
    with pytest.raises(Unavailable, match="cannot be written"):
        export(rows, tmp_path / "no folder" / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_what_cannot_be_read_is_named_and_costs_no_other_file(tmp_path: Path) -> None:
    write_log(tmp_path, block_of(SETTING, decision(1)))
    folder = tmp_path / "0000000000001-w9.decisions"
    folder.mkdir()
    reader = LogReader(tmp_path)
    assert [each.decision.query_id for each in joined(reader)] == [1]
    assert set(reader.damaged) == {folder.name} and "cannot be read" in reader.damaged[folder.name]


def test_a_log_whose_folder_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "decisions").write_text("a file, where a folder should be")
    with pytest.raises(Unavailable, match="the decision log cannot be read"):
        list(joined(LogReader(tmp_path / "decisions")))


def test_without_room_for_what_is_kept_aside_it_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(0, 20_000, 2_000):
        write_log(tmp_path, block_of(*(judgement(number) for number in range(start, start + 2_000))))
    monkeypatch.setattr(joining, "_CACHE_KIB", 16)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        with pytest.raises(Unavailable, match="TMPDIR"):
            list(joined(LogReader(tmp_path)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (
        tmp_path / f"{'x' * 255}.jsonl",
        tmp_path / "file" / "out.jsonl",
        tmp_path / "nowhere" / "out.jsonl",
    ):
        with pytest.raises(Unavailable, match="cannot be written"):
            export([], output)


def with_types(tmp_path: Path, *of_types: str) -> LogReader:
    """A log with an input of each type, and one query without."""
    examples = {
        "age": 3.5,
        "job": b"smith",
        "seen": True,
        "pixels": np.arange(4, dtype=np.uint8).tobytes(),
        "raw": b"\xff",
    }
    for number, text in enumerate(of_types):
        of_type = parse_type(text)
        if isinstance(of_type, RecordType):
            row = RecordRows(of_type).row([examples[name] for name in of_type.names])
        else:
            row = np.arange(2, dtype=of_type.dtype.numpy_code).tobytes()
        setting = replace(SETTING, input_type=text)
        write_log(
            tmp_path,
            block_of(setting, decision(number, input=row), decision(100), judgement(number)),
            writer=f"w{number}",
        )
    return LogReader(tmp_path)


def train(reader: LogReader, output: Path) -> int:
    return export(filter(None, training_rows(joined(reader))), output, reader.input_types())


def test_a_training_set_has_a_column_for_each_field_and_the_label(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    reader = with_types(tmp_path, "age: float64, job: string?, seen: bool, pixels: uint8[2,2], raw: bytes")
    assert train(reader, tmp_path / "out.parquet") == train(reader, tmp_path / "out.jsonl") == 1
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    inputs = {name: value for name, value in row.items() if name.startswith("input")}
    assert inputs == {
        "input.age": 3.5,
        "input.job": "smith",
        "input.seen": True,
        "input.pixels": [[0, 1], [2, 3]],
        "input.raw": b"\xff",
    }
    assert (row["label"], row["output"], row["query_id"]) == ("1", "1", 0)
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert line["input"] == {"age": 3.5, "job": "smith", "seen": True, "pixels": [[0, 1], [2, 3]], "raw": "/w=="}
    assert line["label"] == 1


def test_inputs_whose_type_changed_share_a_table_if_they_can(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    grown = with_types(tmp_path / "a", "float32[2]", "float64[*]", "age: float64", "age: float64, seen: bool")
    assert train(grown, tmp_path / "out.parquet") == 4
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["input"] for row in table] == [[0.0, 1.0], [0.0, 1.0], None, None]
    assert [(row["input.age"], row["input.seen"]) for row in table[2:]] == [(3.5, None), (3.5, True)]
    other = with_types(tmp_path / "b", "age: float64", "float64[2]")
    write_log(
        tmp_path / "b",
        block_of(replace(SETTING, input_type="age: string"), decision(7, input=RecordRows(AGES).row([b"old"]))),
        writer="w9",
    )
    with pytest.raises(InvalidArgument, match=r"the type of the inputs has changed.*--until or --since"):
        train(other, tmp_path / "no.parquet")
    assert train(other, tmp_path / "no.jsonl") == 3
