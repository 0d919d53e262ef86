"""Inputs of every type and shape, against a slow reading of the same text with the json module and numpy."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_reference import LEAVES, NUMBERS, NUMERIC_TYPES, Refused, inputs, reference
from steps import finish

from clipper.errors import MalformedRequest, RequestError, WrongInput
from clipper.frontend.inputs import make_reader
from clipper.frontend.predict_body import BodyReader
from clipper.types import DType, InputType

# -- by table ----------------------------------------------------------------------------------------------

TYPES = ["int32", "int64", "float32", "float64", "uint8", "bool", "string", "bytes"]
SHAPES = ["", "[]", "[1]", "[2]", "[1,1]", "[2,3]", "[2,*]", "[*,*]", "[*,2,1]"]
ALL_TYPES = [InputType.parse(name + shape) for name in TYPES for shape in SHAPES if name not in TYPES[6:] or not shape]

TEXTS = [
    "", " ", "null", "true", "false", "{}", '{"a": [1, 2]}', "nan", "NaN", "[NaN]", "Infinity", "[-Infinity]", "[",
    "1", "0", "-1", "1.0", "1.5", "-0", "-0.0", "1e0", "1E+2", "1e-400", "1e308", "1e309", "1e400", "01", "+1",
    ".5", "1.", "[]", "[[]]", "[[],[]]", "[1]", "[1,2]", "[ 1 , 2 ]", "\n[\t1\r,2 ]\n", "[1,2,3]", "[1,]", "[,1]",
    "[1 2]", "[1,,2]", "[1][2]", "[1] [2]", "[1,2]]", "[[1,2]", "[1,2", "[0,1]", "[true,false]", "[true,1]",
    "[1,null]", '[1,"2"]', "[1,[2]]", "[[1],2]", "[[1]]", "[[1],[2]]", "[[1,2,3],[4,5,6]]", "[[1,2,3],[4,5]]",
    "[[1,2],[3,4,5]]", "[[1,2,3],[]]", "[[],[1]]", "[[1,2],[3]]", "[[[1],[2]],[[3],[4]]]", "[[[1],[2]],[[3],4]]",
    "[[[]]]", "[[1.5,2,3],[4,5,6]]", "[1,{}]", "[255]", "[256]", "[-1]", "[255,0]", "[1.0,2.0]", "[1.5,2]",
    "[1e2,3]", "[2147483647,-2147483648]", "[2147483648,0]", "[9223372036854775807,-9223372036854775808]",
    "[9223372036854775808,1]", "[18446744073709551615,1]", "[18446744073709551616,1]", "[1e18,1]", "[1e19,1]",
    "[1" + "0" * 400 + "]", "[1" + "0" * 30 + ",1]", "[3.4028235e38,1]", "[3.5e38,1]", "[1e-46,1]",
    "[1e308,1e-308]", "[1e400,1]", "[4.9e-324,2.2250738585072014e-308]", "[0.1,0.30000000000000004]", '""', '"a"',
    '"\\u00e9\\ud83d\\ude00"', '"\\ud800"', '"é"', '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000"', '"a\nb"', '"\\x"', '"',
    '"AA=="', '"AAA="', '"AAAA"', '"AA"', '"A A="', '"_-8="', '"/+8="', '"QUJD\\n"', '"[1,2]"', '["a"]', '"a" "b"',
    "[" * 2000 + "]" * 2000, "[" * 50_000, "[1,2] x", "[1,2]\0", "// 1\n[1,2]", "'a'", "[1_0,2]", "[0x1,2]",
    "[１,2]",
]  # fmt: skip


@pytest.mark.parametrize("input_type", ALL_TYPES, ids=str)
def test_every_type_reads_every_text_as_the_reference_does(input_type: InputType) -> None:
    reader = make_reader(input_type)
    for text in [each.encode() for each in TEXTS] + [b'"\xff"', b"\xff", b"[1,2\xff]"]:
        assert_like_reference(input_type, reader.read, text, text)


@pytest.mark.parametrize("input_type", ALL_TYPES, ids=str)
def test_whole_bodies_are_read_as_the_reference_does(input_type: InputType) -> None:
    reader = BodyReader(make_reader(input_type))

    def read(body: bytes) -> bytes:
        row = reader.read_plain(body)
        return finish(reader.read(body)).rows[0] if row is None else row

    for text in [each.encode() for each in TEXTS if each.strip()] + [b'"\xff"', b"\xff", b"[1,2\xff]"]:
        assert_like_reference(input_type, read, text, b'{"input": ' + text + b"}")


def assert_like_reference(input_type: InputType, read: Any, text: bytes, given_text: bytes) -> None:
    try:
        expected = reference(input_type, text)
    except (Refused, RecursionError, UnicodeDecodeError):
        with pytest.raises(RequestError) as caught:
            read(given_text)
        assert isinstance(caught.value, MalformedRequest | WrongInput)
        assert 0 < len(str(caught.value)) < 500
    else:
        assert read(given_text) == expected, text


# -- by property -------------------------------------------------------------------------------------------


@settings(max_examples=1500, deadline=None)
@given(inputs())
def test_numbers_of_any_shape_are_read_as_the_reference_does(case: tuple[InputType, bytes]) -> None:
    input_type, text = case
    assert_like_reference(input_type, make_reader(input_type).read, text, text)


@settings(max_examples=500, deadline=None)
@given(NUMERIC_TYPES, st.text(alphabet='[]{},:. 0123eE+-"nulltrfas\n', max_size=30))
def test_near_json_is_read_as_the_reference_does(input_type: InputType, text: str) -> None:
    assert_like_reference(input_type, make_reader(input_type).read, text.encode(), text.encode())


@settings(max_examples=200, deadline=None)
@given(st.text(), st.booleans())
def test_strings_are_read_as_the_reference_does(text: str, as_escapes: bool) -> None:
    raw = json.dumps(text, ensure_ascii=as_escapes).encode()
    for input_type in (InputType(DType.STRING), InputType(DType.BYTES)):
        assert_like_reference(input_type, make_reader(input_type).read, raw, raw)


@settings(max_examples=200, deadline=None)
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


# -- what is beside the input ------------------------------------------------------------------------------


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A JSON body with some of the keys that are known, and others, in any order, perhaps twice."""
    value = st.lists(NUMBERS, max_size=3) | st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=2), max_leaves=4
    )
    pairs = st.tuples(
        st.sampled_from(["input", "input_batch", "context", "uid", "version", "other", "inputs", ""]),
        value | st.dictionaries(st.text(max_size=2), value, max_size=2),
    )
    parts = [f"{json.dumps(key)}: {json.dumps(each)}" for key, each in draw(st.lists(pairs, max_size=4))]
    return ("{" + ", ".join(parts) + "}").encode()


def expected_rows(input_type: InputType, body: bytes) -> list[bytes]:
    """What a body asks for, the last of equal keys counting, or ``Refused``."""
    fields: dict[str, Any] = json.loads(body)
    pairs: tuple[tuple[str, Any], ...] = json.loads(body, object_pairs_hook=tuple)
    for key, value in pairs:
        if key in ("context", "uid", "version"):
            is_number = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not isinstance(value, str) and not is_number:
                raise Refused(f"{key} is {value!r}")
        if key == "input_batch" and not isinstance(value, list):
            raise Refused("input_batch is no list")
    if ("input" in fields) == ("input_batch" in fields):
        raise Refused("not one of both")
    values = fields["input_batch"] if "input_batch" in fields else [fields["input"]]
    if not values:
        raise Refused("empty batch")
    return [reference(input_type, json.dumps(value).encode()) for value in values]


@settings(max_examples=400, deadline=None)
@given(bodies(), st.sampled_from(["float64", "float64[2]", "int32", "bool[1]", "string"]))
def test_bodies_are_read_as_the_reference_does(body: bytes, type_name: str) -> None:
    input_type = InputType.parse(type_name)
    reader = BodyReader(make_reader(input_type))
    plain = reader.read_plain(body)
    try:
        rows = expected_rows(input_type, body)
    except Refused:
        assert plain is None
        with pytest.raises(RequestError):
            finish(reader.read(body))
        return
    if plain is not None:
        # The short way sees the input alone, so it must leave every body with more in it to the other.
        assert [plain] == rows
        assert {key for key, _ in json.loads(body, object_pairs_hook=tuple)} == {"input"}
    assert finish(reader.read(body)).rows == rows


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1), max_size=25))
def test_plain_list_of_numbers_goes_the_short_way(numbers: list[float]) -> None:
    reader = BodyReader(make_reader(InputType(DType.FLOAT64)))
    assert reader.read_plain(json.dumps({"input": numbers}).encode()) == np.array(numbers, "<f8").tobytes()


def test_as_many_numbers_as_a_body_can_hold_go_either_way() -> None:
    reader = BodyReader(make_reader(InputType(DType.FLOAT64)))
    for count in range(60, 100):
        body = b'{"input":[' + b",".join([b"7"] * count) + b"]}"
        assert reader.read_plain(body) == np.full(count, 7.0, "<f8").tobytes()


@pytest.mark.parametrize(
    "text", ['{"version": "2", "input": [1]}', '{"input": [1], "version": "2"}', '{"a": [1]}', "[1]"]
)
def test_body_with_more_than_an_input_does_not_go_the_short_way(text: str) -> None:
    assert BodyReader(make_reader(InputType(DType.FLOAT64))).read_plain(text.encode()) is None


@pytest.mark.parametrize(
    ("fields", "context", "version"),
    [
        ({}, None, None),
        ({"context": "a"}, "a", None),
        ({"context": 5}, "5", None),
        ({"uid": 0, "version": 2}, "0", "2"),
        ({"uid": "b", "context": "a", "version": "v"}, "a", "v"),
        ({"context": None, "uid": "b", "version": None}, "b", None),
        ({"context": "", "version": ""}, None, ""),
    ],
)
def test_context_and_version(fields: dict[str, object], context: str | None, version: str | None) -> None:
    request = finish(
        BodyReader(make_reader(InputType(DType.FLOAT64))).read(json.dumps({"input": [1], **fields}).encode())
    )
    assert (request.context, request.version, request.is_batch) == (context, version, False)


def test_pictures_may_come_as_base64() -> None:
    reader = make_reader(InputType.parse("uint8[1,2,2]"))
    assert reader.read(b'"AAEC/w=="') == reader.read(b"[[[0, 1], [2, 255]]]") == bytes([0, 1, 2, 255])
    assert reader.read(b' "AAEC/w==" ') == bytes([0, 1, 2, 255])
    with pytest.raises(WrongInput, match=r"input is base64 of 2 bytes: expected 4 of uint8\[1,2,2\]"):
        reader.read(b'"AAE="')
    with pytest.raises(WrongInput, match="expected a JSON string of base64"):
        reader.read(b'"not base64"')
    with pytest.raises(WrongInput):
        make_reader(InputType.parse("uint8[*]")).read(b'"AAEC"')
