"""A policy's view of a query's input, by every type that an application may take."""

import struct

import numpy as np
import pytest

from clipper.learning.policies.policy import JudgedQuery, QueryView
from clipper.values.types import InputType


@pytest.mark.parametrize(
    ("input_type", "row", "expected"),
    [
        ("float64[2]", struct.pack("<2d", 0.5, -1.0), [0.5, -1.0]),
        ("float64[*]", struct.pack("<3d", 1.0, 2.0, 3.0), [1.0, 2.0, 3.0]),
        ("int32[2,2]", struct.pack("<4i", 1, 2, 3, 4), [[1, 2], [3, 4]]),
        ("uint8[1,*]", struct.pack("<2I3B", 1, 3, 7, 8, 9), [[7, 8, 9]]),
        ("bool[2]", b"\x01\x00", [True, False]),
        ("int64[]", struct.pack("<q", -5), -5),
    ],
)
def test_numbers_are_an_array_of_the_inputs_dtype_and_shape(input_type: str, row: bytes, expected: object) -> None:
    kind = InputType.parse(input_type)
    found = QueryView(row=row, input_type=kind).input
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.dtype(kind.dtype.label)
    assert found.tolist() == expected
    assert not found.flags.writeable


def test_texts_and_bytes_are_themselves() -> None:
    assert QueryView(row="ä".encode(), input_type=InputType.parse("string")).input == "ä"
    assert QueryView(row=b"\x00\xff", input_type=InputType.parse("bytes")).input == b"\x00\xff"


def test_what_a_query_did_not_bring_is_none() -> None:
    query = JudgedQuery("ada")
    assert (query.context, query.features, query.input, query.label) == ("ada", None, None, None)


def test_features_are_numbers_that_cannot_be_written_to() -> None:
    features = QueryView(packed_features=struct.pack("<2d", 0.25, -3.0)).features
    assert features is not None
    assert features.tolist() == [0.25, -3.0]
    assert not features.flags.writeable
