"""A long text is checked in pieces, and the pieces accept what a check of the whole text does."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.values.inputs import long_text
from clipper.values.outputs.checks import NOT_JSON, check_output
from clipper.values.outputs.long_texts import read_long_text
from tests.worker.frontend.steps import finish

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)
# Texts that are nearly JSON: characters that decide where a piece ends, and whether it does.
NEARLY = st.text(st.sampled_from('[]{},:" \\u0d8e1.-\té"'), max_size=80).map(str.encode)


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pieces of twelve bytes, so that short texts have many."""
    monkeypatch.setattr(long_text, "PIECE_BYTES", 12)
    yield


def is_taken(text: bytes) -> bool:
    try:
        assert finish(read_long_text(memoryview(text))) == text
    except ModelFailed as error:
        assert str(error).startswith("the container's output is not JSON: ")
        return False
    return True


def is_json(text: bytes) -> bool:
    try:
        check_output(text)
    except NOT_JSON:
        return False
    return True


@given(VALUES, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_json_is_taken(value: Any, separators: tuple[str, str], is_ascii: bool) -> None:
    text = json.dumps(value, separators=separators, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert is_taken(text) == is_json(text)


@given(VALUES, st.data())
def test_damaged_json_is_taken_only_if_it_is_json_still(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 2))
    damaged = text[:at] + data.draw(NEARLY)[:3] + text[at + cut :]
    assert is_taken(damaged) == is_json(damaged)


@given(NEARLY)
def test_what_is_nearly_json_is_judged_as_a_whole_text_is(text: bytes) -> None:
    assert is_taken(text) == is_json(text)


@pytest.mark.parametrize(
    "text",
    [
        *("[,1]", "[1,]", "[1,,2]", "1,2", "[1],2", "[1,2]]", '{"a":1,"b"}', '{"a":1,2}', '[{"a":1,]', '{"a":[1,2},3]'),
        *(
            "",
            "[",
            '["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
            '[1,"aaaaaaaaaaaaaaaaaaa\\x"]',
            "[1e999,1]",
        ),
    ],
)
def test_what_is_not_json_is_refused_wherever_it_is_cut(text: str) -> None:
    for padding in range(14):
        padded = text.replace(",", "," + " " * padding)
        assert not is_taken(padded.encode()), padded


@pytest.mark.parametrize(
    "filler", ["a" * 500, "é" * 300, "\\u00e9" * 90, "\\\\" * 200, "\\ud83d\\ude00" * 50, ",]}" * 99]
)
def test_a_long_string_is_a_key_or_a_value(filler: str) -> None:
    for text in (f'"{filler}"', f'["{filler}",1]', f'{{"{filler}":"{filler}","b":["{filler}"]}}'):
        assert is_taken(text.encode())
        assert not is_taken(text.encode()[:-1])


def test_a_long_number_or_gap_is_refused() -> None:
    assert not is_taken(b"[1," + b" " * 1000 + b"1]")
    assert not is_taken(b"[" * 1000 + b"]" * 1000)
