"""Tables as inputs of the Python clients."""

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from clipper.client.calls import to_list
from clipper.client.tables import array_of, columns_of, record_of
from clipper.errors import InvalidArgument


class NAType:
    """As ``pandas.NA``."""


class Series(list[Any]):
    """As a column of a data frame whose values are objects."""

    dtype = "object"

    def tolist(self) -> list[Any]:
        return list(self)


class Frame:
    """As a data frame."""

    dtypes = ()

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = list(columns)
        self._columns = columns

    def __getitem__(self, name: str) -> Series:
        return Series(self._columns[name])

    def to_numpy(self) -> Any:
        return np.array(list(self._columns.values())).T


def as_json(table: Any) -> Any:
    columns = columns_of(table)
    assert columns is not None
    return columns.rows, msgspec.json.decode(msgspec.json.encode(columns.by_name, enc_hook=to_list))


def test_tables_are_columns_with_null_for_what_is_missing() -> None:
    expected = 2, {"age": [1.5, None], "job": ["a", None]}
    assert as_json(pa.table({"age": [1.5, None], "job": ["a", None]})) == expected
    assert as_json({"age": np.array([1.5, np.nan]), "job": ["a", None]}) == expected
    assert as_json(Frame({"age": [1.5, NAType()], "job": [np.str_("a"), float("nan")]})) == expected
    assert columns_of([{"age": 1}]) is None and columns_of(np.zeros((2, 2))) is None


def test_columns_have_one_length() -> None:
    with pytest.raises(InvalidArgument, match="2 of 'a', 1 of 'b'"):
        columns_of({"a": [1, 2], "b": [1]})


def test_a_record_is_a_mapping_or_the_only_row_of_a_table() -> None:
    assert record_of({"age": 1}) == {"age": 1}
    assert record_of(pa.table({"age": [1]})) == {"age": 1}
    assert record_of([1, 2]) == [1, 2]
    with pytest.raises(InvalidArgument, match="has 2 rows: expected one"):
        record_of(pa.table({"age": [1, 2]}))


def test_a_data_frame_is_an_array_for_an_application_of_lists() -> None:
    assert array_of(Frame({"a": [1, 2], "b": [3, 4]})).tolist() == [[1, 3], [2, 4]]
    assert array_of([1]) == [1]
