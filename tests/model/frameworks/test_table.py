"""Records as the columns and matrices of models of tables."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from clipper.errors import WrongInput
from clipper.model.frameworks.frames import framing
from clipper.model.frameworks.table import as_columns, matrix, of_categories
from clipper.values.records import RecordType, parse_type

KNOWN = RecordType.parse('age: float64, job: string?, n: int32 = 7, kind: string{"a", "b"}?')


def columns(declared: str, inputs: Any, known: RecordType = KNOWN) -> Any:
    convert = as_columns(parse_type(declared), known)
    assert convert is not None
    return convert(inputs)


def test_declared_record_becomes_the_models_own() -> None:
    made = columns("n: int64, age: int64", {"n": np.array([1, 2]), "age": np.array([31, 32])})
    assert list(made) == ["age", "job", "n", "kind"]
    assert (made["age"].dtype, made["n"].dtype) == (np.float64, np.int32)
    assert made["job"] == made["kind"] == [None, None]
    assert columns("age: float64", {"age": np.array([1.0])})["n"].tolist() == [7]


@pytest.mark.parametrize(
    "declared", ["age: string", "job: string", "age: float64, more: bool", "float64[3]", "bytes", "age: float64[2]"]
)
def test_declared_types_that_do_not_suit_are_refused(declared: str) -> None:
    assert as_columns(parse_type(declared), KNOWN) is None


def test_text_of_an_object_has_all_that_is_required() -> None:
    made = columns("string", ['{"age": 31, "job": "x"}', '{"age": 32, "n": 1}'])
    assert [list(values) for values in made.values()] == [[31.0, 32.0], ["x", None], [7, 1], [None, None]]
    assert made["age"].dtype == np.float64


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"job": "x"}', "got job"),
        ('{"age": 1, "c": 3}', "got age, c"),
        ("[1]", "got a list"),
        ("{", "Expecting"),
        ('{"age": "x"}', "field age is of float64"),
    ],
)
def test_text_of_something_else_is_refused(text: str, says: str) -> None:
    with pytest.raises(WrongInput, match=says):
        columns("string", [text])


def test_list_of_numbers_goes_by_place() -> None:
    known = RecordType.parse("a: int64, b: float64?")
    made = columns("float64[2]", np.array([[1.0, 2.0], [3.0, np.nan]]), known)
    assert (made["a"].dtype, made["a"].tolist()) == (np.int64, [1, 3])
    assert np.isnan(made["b"][1])
    with pytest.raises(WrongInput, match="takes 2 numbers"):
        columns("float64[*]", np.array([[1.0]]), known)


def test_matrix_has_places_of_categories() -> None:
    record = RecordType.parse('a: float64?, kind: string{"x", "y"}?, is_new: bool?, n: int64{5, 3}?')
    made = matrix(record, np.float64)(
        {"a": np.array([1.5, np.nan]), "kind": ["y", "z"], "is_new": [True, None], "n": np.array([3.0, np.nan])}
    )
    assert made[0].tolist() == [1.5, 1.0, 1.0, 1.0]
    assert np.isnan(made[1]).all()


def test_categories_of_several_types_say_none() -> None:
    assert str(of_categories("a", np.array(["x", "y", np.nan], object), 5)) == 'a: string{"x", "y"}'
    assert str(of_categories("a", np.array([2, 1]), 1)) == "a: int64"
    assert of_categories("a", ["x", 1], 5) is of_categories("a", [], 5) is None


def test_frame_is_as_pandas_reads_a_table() -> None:
    record = RecordType.parse(
        'n: int64, f: float32, m: int64?, t: string?, b: bool?, k: string{"z", "a"}?, v: float64[2]'
    )
    frame = framing(record)(
        {
            "n": np.array([1, 2]),
            "f": np.array([1, 2], np.float32),
            "m": np.array([1.0, np.nan]),
            "t": ["x", None],
            "b": [True, None],
            "k": ["a", None],
            "v": np.zeros((2, 2)),
        }
    )
    read = pd.DataFrame({"t": ["x", np.nan]})
    assert frame.dtypes.astype(str).tolist() == [
        *("int64", "float32", "float64", str(read["t"].dtype), "object", "category", "object")
    ]
    assert frame["k"].cat.categories.tolist() == ["z", "a"]
    assert frame["k"].cat.codes.tolist() == [1, -1]
    assert frame.isna().sum().tolist() == [0, 0, 1, 1, 1, 1, 0]
    assert frame["t"].equals(read["t"])
    # Of a column without any value nothing could be guessed.
    none = framing(RecordType.parse("t: string?, k: int64{1, 2}?"))({"t": [None], "k": np.array([np.nan])})
    assert none["t"].dtype == read["t"].dtype and none["k"].cat.categories.tolist() == [1, 2]
