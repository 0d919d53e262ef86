"""Fields that the decision log leaves out."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.learning.decisions.redaction import MAX_DEPTH, MAX_TEXT_BYTES, Redaction
from clipper.learning.policies.policy import decode_row
from clipper.values.inputs.record_features import RecordFeatures
from clipper.values.inputs.record_rows import RecordRows
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.output import OutputNames, make_array, make_record
from clipper.values.records import RecordType, parse_type
from clipper.values.types import DType
from tests.example_counts import share_of

NUMBERS = parse_type("float64[2]")
PERSON = RecordType.parse(
    'age: float64, name: string = "x", job: string{"smith","cook"}?, scores: float32[2], note: bytes?'
)
NAMES = ("name", "mail", "\u00e4")


def test_without_fields_nothing_changes() -> None:
    nothing = Redaction(None, PERSON)
    row = RecordRows(PERSON).row([1.0, b"ada", None, bytes(8), b"n"])
    assert nothing.is_empty and nothing.row(row) == row
    assert nothing.output(b'{"name": 1}') == b'{"name": 1}'
    # Only what rows depend on: neither defaults nor categories, which may be long.
    assert str(nothing.input_type) == "age: float64, name: string, job: string?, scores: float32[2], note: bytes?"


@given(st.sets(st.sampled_from(PERSON.names), min_size=1), st.data())
@settings(max_examples=share_of(200))
def test_an_input_keeps_its_other_fields(names: set[str], data: st.DataObject) -> None:
    values = [
        data.draw(st.floats(-1e9, 1e9)),
        data.draw(st.text().map(str.encode)),
        data.draw(st.sampled_from([None, b"smith", b"cook"])),
        np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2)), "<f4").tobytes(),
        data.draw(st.none() | st.binary(max_size=9)),
    ]
    redaction = Redaction(",".join(names), PERSON)
    if names == set(PERSON.names):
        assert redaction.input_type is None
        return
    row = RecordRows(PERSON).row(values)
    kept: Any = redaction.input_type
    assert set(kept.names) == set(PERSON.names) - names
    whole, left = decode_row(row, PERSON), decode_row(redaction.row(row), kept)
    assert left.keys() == set(kept.names)
    assert all(np.array_equal(left[name], whole[name]) for name in kept.names)


def test_features_that_come_from_a_field_go_with_it() -> None:
    features = RecordFeatures(PERSON, "job,age,scores")
    assert features.fields == ("job", "job", "age", "scores", "scores")
    packed = np.arange(5, dtype="<f8").tobytes()
    redaction = Redaction("job", PERSON, features)
    assert redaction.feature_names == ("age", "scores[0]", "scores[1]")
    assert np.frombuffer(redaction.features(packed) or b"").tolist() == [2.0, 3.0, 4.0]
    all_gone = Redaction("job,age,scores", PERSON, features)
    assert all_gone.feature_names == () and all_gone.features(packed) is None
    assert Redaction("name", PERSON, features).features(packed) == packed
    # Features that came with the query have no names.
    assert Redaction("age", PERSON).features(packed) == packed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, "x", 'say "name"', "a\\b"]), inner, max_size=3)
    ),
    max_leaves=20,
)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(each) for name, each in value.items() if name not in NAMES}
    return [_without(each) for each in value] if isinstance(value, list) else value


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
@settings(max_examples=share_of(300))
def test_no_object_has_the_field_however_it_is_written(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert json.loads(Redaction(",".join(NAMES), NUMBERS).text(text)) == _without(value)


def test_names_in_other_letters_and_twice_are_found() -> None:
    redaction = Redaction("name", NUMBERS)
    assert redaction.text(rb'{"n\u0061me": "ada", "x": 1}') == b'{"x":1}'
    assert redaction.text(b' {"name": "ada", "name": "bob"}') == b"{}"
    assert redaction.text(b'"name"') == b'"name"'
    # Digits stay as they are.
    assert redaction.text(b'{"name": 1, "x": 1.50, "y": 123456789012345678901}') == (
        b'{"x":1.50,"y":123456789012345678901}'
    )


@pytest.mark.parametrize(
    "text",
    [
        b'{"x": "' + b"y" * MAX_TEXT_BYTES + b'", "name": 1}',
        b'{"x":' * (MAX_DEPTH + 1) + b'{"name":1}' + b"}" * (MAX_DEPTH + 1),
        b"[" * 100_000 + b'{"name":1}' + b"]" * 100_000,
        b"[" * 5_000 + b'{"name":1}' + b"]" * 5_000,
        b'{"name": ',
    ],
)
def test_of_a_text_in_which_it_cannot_be_looked_for_nothing_is_kept(text: bytes) -> None:
    redaction = Redaction("name", NUMBERS)
    assert redaction.text(text) == b""
    assert redaction.output(make_record(OutputNames(("x",)), (text,))) == b""


def test_an_output_with_names_loses_them_and_keeps_its_arrays() -> None:
    array = make_array(OutputForm(DType.FLOAT64, (2,), DType.FLOAT64), np.array([0.5, 1.0]).tobytes())
    output = make_record(OutputNames(("name", "p", "more")), (b'"ada"', array, b'[{"name": 1, "z": 2}]'))
    redaction = Redaction("name", NUMBERS)
    assert msgspec.json.decode(bytes(redaction.output(output))) == {"p": [0.5, 1.0], "more": [{"z": 2}]}
    assert redaction.output(array) is array
    assert redaction.output(make_record(OutputNames(("name",)), (b"1",))) == b"{}"


@pytest.mark.parametrize(
    ("redacted", "label_field", "kept"),
    [
        ("mail", None, True),
        ("label", None, False),
        ("kind", "kind", False),
        ("label", "kind", True),
        ("kind", None, True),
    ],
)
def test_a_label_is_left_out_with_the_field_that_it_is(redacted: str, label_field: str | None, kept: bool) -> None:
    redaction = Redaction(redacted, NUMBERS, label_field=label_field)
    assert redaction.label(b'"flu"') == (b'"flu"' if kept else b"")
    assert redaction.label(b'{"x": 1, "%b": 2}' % redacted.encode()) == b'{"x":1}'
