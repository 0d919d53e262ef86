"""The elements and the shape of lists in a long text."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.values.inputs import long_text
from clipper.values.outputs.long_lists import Ragged, elements, shape_of

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def read(text: str, monkeypatch: pytest.MonkeyPatch | None = None) -> tuple[list[Any], tuple[int, ...]]:
    marks = bytearray()
    values = [value for piece in elements(text.encode(), marks) for value in piece]
    return values, shape_of(bytes(marks), len(values))


@given(SHAPES, st.sampled_from([0.5, 7, True, 'a"],[\\']), st.booleans())
def test_lists_of_one_shape(shape: tuple[int, ...], element: Any, is_spaced: bool) -> None:
    before, long_text.PIECE_BYTES = long_text.PIECE_BYTES, 12
    try:
        nested = np.full(shape, None, object)
        nested[...] = element
        separators = (", ", ": ") if is_spaced else (",", ":")
        values, found = read(json.dumps(nested.tolist(), separators=separators))
    finally:
        long_text.PIECE_BYTES = before
    assert found == shape and values == [element] * int(np.prod(shape, dtype=int))


@pytest.mark.parametrize(
    "text", ["[]", "[[],[]]", "[[1],[2,3]]", "[1,[2]]", "[[1,2],3]", '[{"a":1}]', "[[[1]],[2]]", "[[1],[]]"]
)
def test_other_texts_have_no_shape(text: str) -> None:
    with pytest.raises(Ragged):
        read(text)
