"""Outputs with names: what a model may return them in, the columns that come of it, and the objects in JSON."""

import dataclasses
import enum
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.model.protocol.columns import decode_column_results, encode_column_results
from clipper.model.protocol.frames import HEADER_BYTES
from clipper.model.runtime.outputs import Encoded, encode_outputs
from clipper.values.columns import Column
from clipper.values.types import DType


@dataclasses.dataclass
class Scores:
    label: Any
    scores: Any


class Named(NamedTuple):
    label: Any
    scores: Any


LABELS, SCORES = ["a", "b"], np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
ROWS = [{"label": label, "scores": scores} for label, scores in zip(LABELS, SCORES)]
FORMS: dict[str, Any] = {
    "dict": {"label": LABELS, "scores": SCORES},
    "mapping": MappingProxyType({"label": np.array(LABELS), "scores": list(SCORES)}),
    "dataclass": Scores(tuple(LABELS), SCORES),
    "named tuple": Named(LABELS, SCORES),
    "dicts": ROWS,
    "dataclasses": [Scores(**row) for row in ROWS],
    "named tuples": [Named(**row) for row in ROWS],
    "frame": pandas.DataFrame({"label": LABELS, "scores": list(SCORES)}),
}


def wire(encoded: Encoded) -> tuple[Column, ...]:
    """The columns, once they went over the wire."""
    body = b"".join(encode_column_results(1, encoded.columns))[HEADER_BYTES:]
    return decode_column_results(body).columns


def parts(column: Column) -> list[bytes]:
    sizes: Sequence[int] = column.lengths or (column.row_bytes or 0,) * column.rows
    ends = np.cumsum(sizes)
    return [bytes(column.payload[end - size : end]) for end, size in zip(ends, sizes)]


def objects(encoded: Encoded) -> list[Any]:
    return [json.loads(line) for line in encoded.lines().split(b"\n")]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_column_for_each_name(form: str) -> None:
    encoded = encode_outputs(FORMS[form], 2)
    label, scores = wire(encoded)
    assert (label.name, str(label.type), parts(label)) == ("label", "string", [b"a", b"b"])
    assert (scores.name, str(scores.type), scores.written_as) == ("scores", "float32[2]", DType.FLOAT64)
    assert bytes(scores.payload) == SCORES.tobytes()
    assert objects(encoded) == [{"label": "a", "scores": [0.25, 0.75]}, {"label": "b", "scores": [0.5, 0.5]}]


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("values", "of_type", "expected"),
    [
        ([True, False], "bool[]", b"\1\0"),
        (np.array([True, False]), "bool[]", b"\1\0"),
        ([1, -2], "int64[]", np.array([1, -2]).tobytes()),
        ([-0.0, math.nan], "float64[]", np.array([-0.0, math.nan]).tobytes()),
        (np.array([1, 2], np.int8), "int32[]", np.array([1, 2], np.int32).tobytes()),
        (np.array([[1], [2]], ">i8"), "int64[1]", np.array([1, 2]).tobytes()),
        ([np.float16(0.5), np.float16(1)], "float32[]", np.array([0.5, 1], np.float32).tobytes()),
        ([b"\0\xff", bytearray(b"")], None, None),
        ([b"\0\xff", b""], "bytes", b"\0\xff"),
        (["é", ""], "string", "é".encode()),
        ([Colour.RED, Colour.RED], "string", b"redred"),
        ([[0.5, 1.0], [2.0, 3.0]], "float64[2]", np.array([0.5, 1.0, 2.0, 3.0]).tobytes()),
        ([[[1], [2]], [[3], [4]]], "int64[2,1]", np.array([1, 2, 3, 4]).tobytes()),
        ([np.array(1.0), np.array(2.0)], "float64[]", np.array([1.0, 2.0]).tobytes()),
        (np.zeros((2, 0), np.float32), "float32[*]", b""),
        ([np.array([1.0]), np.array([])], "float64[*]", np.array([1.0]).tobytes()),
        (
            [np.ones((1, 2), np.uint8), np.ones((0, 2), np.uint8)],
            "uint8[*,2]",
            b"\1\0\0\0\2\0\0\0\1\1\0\0\0\0\2\0\0\0",
        ),
        # No column: each value stays as the model gave it; an int does not become a float since its neighbour is one.
        ([1, 0.5], None, None),
        ([[1, 0.5], [1, 2]], None, None),
        ([[1], [1, 2]], None, None),
        ([1, 2**63], None, None),
        (["\ud800", "a"], None, None),
        ([None, None], None, None),
        ([{"b": 1}, {"b": 2}], None, None),
        ([np.array([1.0]), np.array([[1.0]])], None, None),
        ([np.array([1.0]), np.array([1], np.int64)], None, None),
        (np.array([2**63, 1], np.uint64), None, None),
        (np.array([["a"], ["b"]]), None, None),
    ],
)
def test_values_of_one_type_are_a_column(values: Any, of_type: str | None, expected: bytes | None) -> None:
    encoded = encode_outputs({"v": values}, 2)
    if of_type is None:
        assert encoded.columns == () and encoded.failures == {}
    else:
        (column,) = wire(encoded)
        assert (str(column.type), bytes(column.payload)) == (of_type, expected)
    assert [list(each) for each in objects(encoded)] == [["v"], ["v"]]
    by_row = encode_outputs([{"v": value} for value in values], 2)
    assert by_row.columns == encoded.columns and by_row.lines() == encoded.lines()


def test_values_that_are_missing() -> None:
    values = {
        "text": [None, "b", None],
        "number": [1, None, 3],
        "scores": [np.array([0.5, 1.0]), None, np.array([2.0, 3.0])],
        "ragged": [np.array([[1.0]]), None, np.array([[2.0], [3.0]])],
    }
    encoded = encode_outputs(values, 3)
    text, number, scores, ragged = wire(encoded)
    assert [column.present for column in (text, number, scores, ragged)] == [b"\2", b"\5", b"\5", b"\5"]
    assert (text.lengths, parts(text)) == ((0, 1, 0), [b"", b"b", b""])
    assert bytes(number.payload) == np.array([1, 0, 3]).tobytes()
    assert bytes(scores.payload) == np.array([0.5, 1.0, 0, 0, 2.0, 3.0]).tobytes()
    assert ragged.lengths == (16, 0, 24)
    assert objects(encoded)[1] == {"text": "b", "number": None, "scores": None, "ragged": None}


def test_frames_as_pandas_has_them() -> None:
    frame = pandas.DataFrame(
        {
            "number": [1.5, math.nan],
            "kind": pandas.Categorical(["a", None]),
            "whole": pandas.array([1, None], "Int64"),
            "text": ["x", None],
        }
    )
    encoded = encode_outputs(frame, 2)
    assert [str(column.type) for column in wire(encoded)] == ["float64[]", "string", "int64[]", "string"]
    assert objects(encoded)[1] == {"number": None, "kind": None, "whole": None, "text": None}
    # Names that pandas counts are none.
    assert objects(encode_outputs(pandas.DataFrame([[1, 2], [3, 4]]), 2)) == [[1, 2], [3, 4]]
    with pytest.raises(ModelFailed, match="two columns of one name"):
        encode_outputs(pandas.DataFrame([[1, 2]], columns=["a", "a"]), 1)


def test_objects_of_other_names_or_none_are_json() -> None:
    for rows in ([{"a": 1}, {"b": 1}], [{"a": 1}, None], [{1: 1}, {1: 2}], [{}, {}], [{"": 1}, {"": 2}]):
        encoded = encode_outputs(rows, 2)
        assert encoded.columns == () and encoded.failures == {}
    assert objects(encode_outputs([Scores(1, None), 2], 2)) == [{"label": 1, "scores": None}, 2]
    many = {f"n{number}": [1] for number in range(1001)}
    assert encode_outputs(many, 1).columns == () and len(objects(encode_outputs(many, 1))[0]) == 1001


class Evil(Mapping[str, int]):
    def __getitem__(self, name: str) -> int:
        raise RuntimeError("no item")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def test_what_cannot_be_read_fails_its_row_alone() -> None:
    encoded = encode_outputs([{"a": 1}, Evil()], 2)
    assert encoded.text == b'{"a":1}\n' and "no item" in encoded.failures[1]
    nested: Any = 0.5
    for _ in range(10):
        nested = [nested]
    assert objects(encode_outputs([{"a": nested}] * 2, 2)) == [{"a": nested}] * 2


def test_a_value_that_cannot_be_json_fails_its_row_alone() -> None:
    encoded = encode_outputs({"a": ["x", object()], "b": [1, 2]}, 2)
    assert objects(encoded._replace(text=encoded.text + b"null"))[0] == {"a": "x", "b": 1}
    assert list(encoded.failures) == [1] and "object" in encoded.failures[1]


numbers = st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(), st.binary()
columns = st.integers(1, 5).flatmap(
    lambda rows: st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name.isprintable()),
        st.one_of(*(st.lists(each, min_size=rows, max_size=rows) for each in numbers)),
        min_size=1,
        max_size=4,
    )
)


@given(columns)
def test_columns_say_what_the_model_said(values: dict[str, list[Any]]) -> None:
    encoded = encode_outputs(values, len(next(iter(values.values()))))
    for column, (name, said) in zip(wire(encoded), values.items(), strict=True):
        assert column.name == name
        if column.dtype.is_numeric:
            read = np.frombuffer(column.payload, column.dtype.numpy_code).tolist()
            assert all(mine == other or (mine != mine and other != other) for mine, other in zip(read, said))
        else:
            assert parts(column) == [each if isinstance(each, bytes) else each.encode() for each in said]
