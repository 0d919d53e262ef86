"""Where the parts of a JSON text stand, against the json module; with pieces so small that all is cut."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import MalformedRequest
from clipper.values.inputs import json_parts
from clipper.values.inputs.json_parts import MAX_KEYS, find_fields, find_items, find_lone_field
from tests.example_counts import share_of
from tests.worker.frontend.steps import finish

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='\\"[]{},:aé\n') | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.sampled_from([1, 2, 3, 7, 1000])


def text_of(value: Any, indent: int | None) -> bytearray:
    return bytearray(json.dumps(value, ensure_ascii=indent is None, indent=indent).encode("utf-8", "surrogatepass"))


@settings(max_examples=share_of(400), deadline=None)
@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), PIECES)
def test_items_are_those_of_the_list(values: list[Any], indent: int | None, piece_bytes: int) -> None:
    text = text_of(values, indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_parts, "_PIECE_BYTES", piece_bytes)
        extents = finish(find_items(text, 0, len(text), 5))
        assert extents is not None and [json.loads(text[start:stop]) for start, stop in extents] == values
        if values:
            assert finish(find_items(text, 0, len(text), len(values) - 1)) is None


@settings(max_examples=share_of(400), deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.sampled_from([None, 1]), PIECES)
def test_fields_are_those_of_the_object(values: dict[str, Any], indent: int | None, piece_bytes: int) -> None:
    text = text_of(values, indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_parts, "_PIECE_BYTES", piece_bytes)
        found = finish(find_fields(text, 0, len(text)))
    assert {key: json.loads(text[start:stop]) for key, (start, stop) in found.items()} == values


@settings(max_examples=share_of(400), deadline=None)
@given(
    st.dictionaries(st.sampled_from(["input", "a", ""]), VALUES, max_size=2),
    st.sampled_from([None, 1]),
    st.text(alphabet='{}"\\:, a', max_size=2),
)
def test_lone_field_is_found_as_among_others(values: dict[str, Any], indent: int | None, behind: str) -> None:
    text = text_of(values, indent) + behind.encode()
    found = find_lone_field(text)
    if found is None:
        return
    try:
        value = json.loads(text)
    except ValueError:
        return  # what reads the field will tell
    assert {key: json.loads(text[start:stop]) for key, (start, stop) in found.items()} == value


@pytest.mark.parametrize("text", ['{"input": [1, 2]}', ' { "input" : "abc" } ', '{"input_batch":[[1],[2]]}'])
def test_lone_field_of_most_bodies_is_found(text: str) -> None:
    found = find_lone_field(bytearray(text.encode()))
    assert found is not None
    assert {key: json.loads(text[start:stop]) for key, (start, stop) in found.items()} == json.loads(text)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "b": 2}', '{"a": "b", "c": "d"}', '{"a": "\\""}', '{"a": ["b"]}', "[1]", "", "{"]
)
def test_lone_field_is_not_found_where_there_may_be_more(text: str) -> None:
    assert find_lone_field(bytearray(text.encode())) is None


def test_last_of_equal_keys_counts() -> None:
    text = bytearray(b'{"a": 1, "a": 2}')
    (extent,) = finish(find_fields(text, 0, len(text))).values()
    assert text[slice(*extent)].strip() == b"2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1",
        "[",
        "]",
        "[1",
        "1]",
        "[1][2]",
        "[1],",
        "[1:2]",
        '["]',
        '["\\"]',
        "{}",
        "[1] x",
        "[[1]",
        "[1]]",
        "[1}",
    ],
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(MalformedRequest):
        finish(find_items(bytearray(text.encode()), 0, len(text), 10))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a"}', '{"a":}x', '{"a":1', '{"a":1,}', '{"a":1:2}', '{"a","b"}', "{1:2}", '{"a":1}{}']
)
def test_what_is_no_object(text: str) -> None:
    with pytest.raises(MalformedRequest):
        finish(find_fields(bytearray(text.encode()), 0, len(text)))


def test_keys_have_a_bound() -> None:
    for count in (MAX_KEYS, MAX_KEYS + 1):
        text = text_of({str(number): 1 for number in range(count)}, None)
        if count == MAX_KEYS:
            assert len(finish(find_fields(text, 0, len(text)))) == count
        else:
            with pytest.raises(MalformedRequest, match="over 1000 keys"):
                finish(find_fields(text, 0, len(text)))
