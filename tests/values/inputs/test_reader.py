"""Inputs of every type and shape, against a slow reading of the same text with the json module and numpy."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import WrongInput
from clipper.values.inputs.reader import make_reader
from clipper.values.types import DType, InputType
from tests.example_counts import share_of
from tests.values.inputs.input_reference import ALL_TYPES, NUMERIC_TYPES, TEXTS, assert_like_reference, inputs

# -- by table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("input_type", ALL_TYPES, ids=str)
def test_every_type_reads_every_text_as_the_reference_does(input_type: InputType) -> None:
    reader = make_reader(input_type)
    for text in [each.encode() for each in TEXTS] + [b'"\xff"', b"\xff", b"[1,2\xff]"]:
        assert_like_reference(input_type, reader.read, text, text)


# -- by property -------------------------------------------------------------------------------------------


@settings(max_examples=share_of(1500), deadline=None)
@given(inputs())
def test_numbers_of_any_shape_are_read_as_the_reference_does(case: tuple[InputType, bytes]) -> None:
    input_type, text = case
    assert_like_reference(input_type, make_reader(input_type).read, text, text)


@settings(max_examples=share_of(500), deadline=None)
@given(NUMERIC_TYPES, st.text(alphabet='[]{},:. 0123eE+-"nulltrfas\n', max_size=30))
def test_near_json_is_read_as_the_reference_does(input_type: InputType, text: str) -> None:
    assert_like_reference(input_type, make_reader(input_type).read, text.encode(), text.encode())


@settings(max_examples=share_of(200), deadline=None)
@given(st.text(), st.booleans())
def test_strings_are_read_as_the_reference_does(text: str, as_escapes: bool) -> None:
    raw = json.dumps(text, ensure_ascii=as_escapes).encode()
    for input_type in (InputType(DType.STRING), InputType(DType.BYTES)):
        assert_like_reference(input_type, make_reader(input_type).read, raw, raw)


@settings(max_examples=share_of(200), deadline=None)
@given(st.binary())
def test_bytes_are_what_was_encoded(data: bytes) -> None:
    text = json.dumps(base64.b64encode(data).decode()).encode()
    assert make_reader(InputType(DType.BYTES)).read(text) == data


@pytest.mark.parametrize("shape", ["[999999999]", "[1000000,1000000]"])
def test_shape_that_no_body_can_hold_costs_nothing_and_is_refused(shape: str) -> None:
    reader = make_reader(InputType.parse("float64" + shape))
    for text in (b"[1]", b"[[1]]", b"[]"):
        with pytest.raises(WrongInput):
            reader.read(text)


def test_pictures_may_come_as_base64() -> None:
    reader = make_reader(InputType.parse("uint8[1,2,2]"))
    assert reader.read(b'"AAEC/w=="') == reader.read(b"[[[0, 1], [2, 255]]]") == bytes([0, 1, 2, 255])
    assert reader.read(b' "AAEC/w==" ') == bytes([0, 1, 2, 255])
    with pytest.raises(WrongInput, match=r"input is base64 of 2 bytes: expected 4 bytes, of uint8\[1,2,2\]"):
        reader.read(b'"AAE="')
    with pytest.raises(WrongInput, match="expected a JSON string of base64"):
        reader.read(b'"not base64"')
    with pytest.raises(WrongInput):
        make_reader(InputType.parse("uint8[*]")).read(b'"AAEC"')
