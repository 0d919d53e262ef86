"""Which JSON texts are one value, and which are numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.mathematics.json_values import Array, is_same, parse_array
from clipper.values.types import MAX_DIMENSIONS

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        (b"3", b"3", True),
        (b"3", b"3.0", True),
        (b"3", b"3e0", True),
        (b"0", b"-0.0", True),
        (b"3", b'"3"', False),
        (b"1", b"true", False),
        (b"0", b"false", False),
        (b"[1]", b"[true]", False),
        (b"0", b"null", False),
        (b"[1, 2]", b"[1,2.0]", True),
        (b"[1,2]", b"[2,1]", False),
        (b'{"a":1,"b":[2]}', b'{"b": [2.0], "a": 1}', True),
        (b'{"a":1}', b'{"a":2}', False),
        (b"9007199254740993", b"9007199254740992", False),
        (b"[]", b"{}", False),
        (b'"\\u0061"', b'"a"', True),
        (b"NaN", b"NaN", True),
        (b"NaN", b"Infinity", False),
        (b"[" * 5000, b"[" * 5001, False),
    ],
)
def test_what_is_one_value(text: bytes, other: bytes, same: bool) -> None:
    assert is_same(text, other) is same
    assert is_same(other, text) is same


@given(values)
def test_spelling_does_not_matter(value: object) -> None:
    spread = json.dumps(value, indent=2, sort_keys=True).encode()
    escaped = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert is_same(spread, escaped)


@pytest.mark.parametrize(
    ("text", "array"),
    [
        (b"3", Array((), (3.0,))),
        (b"[1, 2.5]", Array((2,), (1.0, 2.5))),
        (b"[[1,2],[3,4],[5,6]]", Array((3, 2), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))),
        (b"[[1,2],[3]]", None),
        (b"[1,[2]]", None),
        (b"[[1],2]", None),
        (b"[]", None),
        (b"[[],[]]", None),
        (b"true", None),
        (b"[1,true]", None),
        (b"null", None),
        (b'"3"', None),
        (b"nonsense", None),
        (b"1" * 400, None),
        (b"[" * MAX_DIMENSIONS + b"1" + b"]" * MAX_DIMENSIONS, Array((1,) * MAX_DIMENSIONS, (1.0,))),
        (b"[" * (MAX_DIMENSIONS + 1) + b"1" + b"]" * (MAX_DIMENSIONS + 1), None),
    ],
)
def test_what_is_an_array(text: bytes, array: Array | None) -> None:
    assert parse_array(text) == array


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_arrays_keep_their_nesting(rows: int, columns: int, depth: int) -> None:
    nested = [[[100.0 * i + 10 * j + k for k in range(depth)] for j in range(columns)] for i in range(rows)]
    array = parse_array(json.dumps(nested).encode())
    assert array is not None
    assert json.loads(array.encode()) == nested
