"""Parquet with added columns: the rows are as they were in the inputs, whatever forms these have."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from clipper.cli.score.answers import Answers
from clipper.cli.score.inputs import Inputs
from clipper.cli.score.output import Layout
from clipper.cli.score.parquet_output import check_alike
from clipper.cli.score.sources import Chunk
from clipper.errors import InvalidArgument
from clipper.values.records import parse_type

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(first: int, rows: int) -> Any:
    numbers = list(range(first, first + max(rows, 1)))
    columns = {
        "a": numbers,
        "text": [f"x{number}" if number % 3 else None for number in numbers],
        "list": [[number, None] for number in numbers],
        "record": [{"q": number, "w": [{"z": 1.5}]} for number in numbers],
        "time": pa.array([datetime.datetime(2020, 1, 1)] * len(numbers), pa.timestamp("ns", tz="Europe/Berlin")),
        "word": pa.array([b"w"] * len(numbers)).dictionary_encode(),
        "is_even": [number % 2 == 0 for number in numbers],
    }
    made = pa.table(columns).slice(0, rows)
    return made.replace_schema_metadata({"whose": "mine"})


def scored(folder: Path, sources: list[Path], chunks: tuple[int, ...]) -> Any:
    """Return the output whose added column numbers the rows."""
    layout = Layout("parquet", sources[0], parse_type("int64[]"), "")
    first, partial = 0, b""
    for rows in chunks:
        texts = [b"%d" % number for number in range(first, first + rows)]
        partial += layout.encode(Chunk(0, rows, lambda: Inputs(b"")), Answers(texts, {}, "m", "1"))
        first += rows
    (folder / "partial").write_bytes(partial)
    layout.make(sources, folder / "partial", folder / "made")
    return pq.read_table(folder / "made")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"write_page_index": True, "compression": "zstd", "data_page_version": "2.0"},
        {"use_deprecated_int96_timestamps": True, "store_schema": False},
        {"column_encoding": {"a": "DELTA_BINARY_PACKED"}, "use_dictionary": False, "version": "1.0"},
        {"sorting_columns": [pq.SortingColumn(0)]},
    ],
)
def test_rows_are_what_they_were_wherever_chunks_and_groups_end(tmp_path: Path, options: dict[str, Any]) -> None:
    sources, first = [], 0
    for name, rows in (("a", 1000), ("b", 1), ("none", 0), ("c", 377)):
        sources.append(tmp_path / f"{name}.parquet")
        pq.write_table(table(first, rows), sources[-1], row_group_size=300, **options)
        first += rows
    made = scored(tmp_path, sources, (1, 600, 399, 1, 200, 177))
    made.validate(full=True)
    inputs = pa.concat_tables([pq.read_table(source) for source in sources])
    assert made.select(inputs.column_names).equals(inputs)
    assert made.schema.metadata == inputs.schema.metadata
    assert made.column("output").to_pylist() == list(range(1378))
    assert pq.read_table(tmp_path / "made", filters=[("a", "=", 1200)]).num_rows == 1
    # Their very bytes: nothing of them was read and written again.
    assert (tmp_path / "made").read_bytes().startswith(sources[0].read_bytes()[:1000])
    # And again: the output is a file as others are.
    again = tmp_path / "again"
    again.mkdir()
    layout = Layout("parquet", tmp_path / "made", None, "second_")
    data = layout.encode(Chunk(0, 1378, lambda: Inputs(b"")), Answers([b"0"] * 1378, {}, "m", "2"))
    (again / "partial").write_bytes(data)
    layout.make([tmp_path / "made"], again / "partial", again / "made")
    twice = pq.read_table(again / "made")
    assert twice.select(made.column_names).equals(made) and twice.column("second_version")[1377].as_py() == "2"


def test_no_row_at_all_makes_a_file_of_none(tmp_path: Path) -> None:
    pq.write_table(table(0, 0), tmp_path / "in.parquet")
    made = scored(tmp_path, [tmp_path / "in.parquet"], ())
    assert made.num_rows == 0 and made.column_names[-4:] == ["output", "model", "version", "error"]


def test_files_that_keep_a_column_in_another_way_get_the_first_one_s(tmp_path: Path) -> None:
    tables = [
        pa.table({"a": [1, 2], "b": ["x", None]}),
        pa.table({"a": pa.array([3], pa.int32()), "b": pa.nulls(1)}),
        pa.table({"a": pa.array([4], pa.int64()), "b": pa.array(["y"], pa.large_string())}),
    ]
    sources = [tmp_path / f"{number}.parquet" for number in range(3)]
    for source, one in zip(sources, tables):
        pq.write_table(one, source)
    made = scored(tmp_path, sources, (4,))
    assert made.column("a").to_pylist() == [1, 2, 3, 4] and made.column("b").to_pylist() == ["x", None, None, "y"]
    assert made.column("output").to_pylist() == [0, 1, 2, 3] and made.schema.field("a").type == pa.int64()


def test_files_with_other_columns_are_refused_before_any_row(tmp_path: Path) -> None:
    sources = [tmp_path / "first.parquet", tmp_path / "other.parquet"]
    for source, names in zip(sources, ("ab", "ba")):
        pq.write_table(pa.table({name: [1] for name in names}), source)
    with pytest.raises(InvalidArgument, match=r"other\.parquet has the columns b, a: expected those of .*first"):
        check_alike(sources)
