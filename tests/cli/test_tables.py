"""Inputs from ``NAME=VALUE``, CSV and Parquet."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipper.cli.commands.predict import _input_type, _read
from clipper.cli.output import shown_type
from clipper.cli.tables import read_table
from clipper.errors import InvalidArgument
from clipper.values.inputs.cells import record_of_texts
from clipper.values.inputs.record_reader import RecordReader
from clipper.values.records import RecordType, parse_type

PERSON = RecordType.parse("age: float64?, job: string?, visits: int64 = 1, member: bool, pixels: uint8[2]?")


def test_fields_are_what_people_mean() -> None:
    texts = {"age": "31", "job": "null", "member": "yes", "pixels": "[1, 2]", "visits": ""}
    record = record_of_texts(texts, PERSON)
    assert record == {"age": 31, "job": "null", "member": True, "pixels": [1, 2]}
    assert RecordReader(PERSON).row_of(record)
    assert record_of_texts({"age": "NaN", "job": "", "member": "0"}, PERSON) == {"age": None, "member": False}
    with pytest.raises(InvalidArgument, match="age=old is not valid: expected age: float64"):
        record_of_texts({"age": "old"}, PERSON)


def test_a_csv_file_has_an_input_a_line(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text('\ufeffmember,age,survived,job\ntrue,31,1,"smith, and more"\nfalse,,0,\n\n', encoding="utf-8")
    assert list(read_table(path, PERSON)) == [{"member": True, "age": 31, "job": "smith, and more"}, {"member": False}]
    path.write_text("a,b\n1,2.5\n")
    assert list(read_table(path, parse_type("float64[2]"))) == [[1, 2.5]]
    path.write_text("text\nhello\n")
    assert list(read_table(path, parse_type("string"))) == ["hello"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("age,job\n1,2\n", "has no column 'member'"),
        ("member,age\ntrue\n", "line 2 of"),
        ("member,member\n", "or one twice"),
        ("", "has no names in its first line"),
        ("member,age\ntrue,old\n", "line 2 of"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "people.csv"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        list(read_table(path, PERSON))
    assert says in str(caught.value)


def test_parquet_has_values_and_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    pq.write_table(pa.table({"member": [True, False], "age": [31.5, None], "label": [1, 2]}), path)
    assert list(read_table(path, PERSON)) == [{"member": True, "age": 31.5}, {"member": False, "age": None}]
    assert list(read_table(path, parse_type("float64[3]"))) == [[True, 31.5, 1], [False, None, 2]]


def test_what_predict_is_given(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text('{"age": 1}')
    for value, expected in (
        (["[1, 2]"], [1, 2]),
        (['{"a": "b=c"}'], {"a": "b=c"}),
        (["age=31", "job=a=b", "petal length=3"], {"age": "31", "job": "a=b", "petal length": "3"}),
        ([f"@{path}"], {"age": 1}),
    ):
        found: Any = _read(value, path if value[0].startswith("@") else None)
        assert found == expected
    with pytest.raises(InvalidArgument, match="'job' is no field: expected NAME=VALUE"):
        _read(["age=1", "job"], None)


def test_an_unknown_application_is_named_before_its_fields_are_read() -> None:
    assert _input_type(str(PERSON), "people") == PERSON
    with pytest.raises(InvalidArgument, match="does not tell the input type of 'peple': check the name"):
        _input_type("", "peple")


def test_a_long_type_is_cut_between_fields() -> None:
    assert shown_type("age: float64, job: string?") == "age: float64, job: string?"
    long = ", ".join(f"field{number}: float64" for number in range(100))
    assert shown_type(long).startswith("field0: float64, ") and shown_type(long).endswith(": float64, …")
    assert len(shown_type(long)) <= 124
