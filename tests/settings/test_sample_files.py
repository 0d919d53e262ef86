"""Samples from tables, and the records that they are."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipper.errors import InvalidArgument
from clipper.settings.sample_files import MAX_SAMPLE_ROWS, open_parquet, read_sample_table
from clipper.settings.texts import read_sample
from clipper.values.inputs.sample_types import sample_rows, sample_type

ROWS = [{"age": 31, "job": "baker", "new": True}, {"age": None, "job": None, "new": False}]


def test_tables_of_each_form_are_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffage,job,new\n31,baker,True\nNaN,,False\n")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert read_sample(f"@{tmp_path / name}") == ROWS
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    assert read_sample(f"@{tmp_path / 'a.json'}") == ROWS


def test_a_long_table_gives_its_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "1.5\n" * 1000)
    assert read_sample_table(path) == [{"n": 1.5}] * MAX_SAMPLE_ROWS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ""),
        ("a.csv", "a,b\n"),
        ("a.csv", "a,b\n1\n"),
        ("a.csv", "a\n1,2\n"),
        ("a.jsonl", "[1]\n"),
        ("a.jsonl", "{"),
        ("a.jsonl", "[" * 100_000),
        ("a.parquet", "PAR1"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidArgument, match=r"is not a \w+ file with at least one row|has no row"):
        read_sample(f"@{tmp_path / name}")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_sample(f"@{tmp_path / 'absent.csv'}")


def test_type_of_a_sample() -> None:
    assert sample_type(json.dumps(ROWS)) == "age: float64?, job: string?, new: bool"
    rows = [{"v": [1, 2], "m": [[1.5], [2]], "o": {"x": 1}, "n": None, "mixed": 1}, {"v": [], "mixed": "x"}]
    assert sample_type(json.dumps(rows[:1])) == "v: float64[*], m: float64[*,*], mixed: float64"
    assert sample_type(json.dumps(rows)) == "m: float64[*,*]?"
    assert sample_type("[1, 2]") is sample_type('"text"') is sample_type("{}") is sample_type("[]") is None
    assert sample_rows([{"a": 1}]) == [{"a": 1}]


def test_a_large_row_group_is_read_a_piece_at_a_time(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.parquet", 200_000
    random = np.random.default_rng(0)
    pq.write_table(
        pa.table({f"f{number}": random.normal(size=rows) for number in range(16)}),
        path,
        use_dictionary=False,
        compression="none",
        data_page_size=64 * 1024,
    )
    before = pa.total_allocated_bytes()
    most = read = 0
    with open_parquet(path) as file:
        assert file.num_row_groups == 1
        for batch in file.iter_batches(1000):
            read += len(batch)
            most = max(most, pa.total_allocated_bytes() - before)
    assert read == rows
    assert most < path.stat().st_size / 4
