"""An output becomes one of the declared type if that loses nothing, and is refused with both types' names if not."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import ModelFailed
from clipper.values.json_types import NoType
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs import output as output_module
from clipper.values.outputs.conversion import Conversion, learning
from clipper.values.outputs.output import Output, TypedOutput, make_array, make_record
from clipper.values.outputs.record_columns import names_of
from clipper.values.records import parse_type
from clipper.values.types import DType
from tests.worker.frontend.steps import finish

DTYPES = {"i4": DType.INT32, "i8": DType.INT64, "f4": DType.FLOAT32, "f8": DType.FLOAT64, "u1": DType.UINT8}
DTYPES["b1"] = DType.BOOL


def array(value: Any, code: str) -> TypedOutput:
    numbers = np.array(value, code)
    return make_array(OutputForm(DTYPES[code], numbers.shape, DTYPES[code]), numbers.tobytes())


def record(**parts: Any) -> Output:
    return make_record(names_of(tuple(parts)), tuple(parts.values()))


def converted(declared: str, output: Output) -> Output:
    conversion = Conversion(parse_type(declared))
    result = conversion.convert(output)
    assert bytes(finish(conversion.steps(output))) == bytes(result)
    return result


@pytest.mark.parametrize(
    ("declared", "output", "expected"),
    [
        ("float32[4]", array([1, 2, 3, 4], "f8"), array([1, 2, 3, 4], "f4")),
        ("float32[4]", array([0.5, np.nan, np.inf, -np.inf], "f8"), array([0.5, np.nan, np.inf, -np.inf], "f4")),
        ("float64[2]", array([1, 2**53], "i8"), array([1, 2**53], "f8")),
        ("int64[2]", array([3.0, -1.0], "f8"), array([3, -1], "i8")),
        ("int32[2]", array([3, 255], "u1"), array([3, 255], "i4")),
        ("uint8[2]", b"[3,255]", array([3, 255], "u1")),
        ("float64[]", b"1", array(1.0, "f8")),
        ("float32[]", b"0.1", array(0.1, "f4")),  # the shortest text of the float32
        ("float32[]", b"0.10000000149011612", array(0.1, "f4")),  # the same number as a float64
        ("float64[2]", b"[1,null]", array([1, np.nan], "f8")),
        ("int64[]", b"3.0", array(3, "i8")),
        ("bool[]", b"true", array(True, "b1")),
        ("bool[2]", b"[true,false]", array([True, False], "b1")),
        # Dimensions of length 1.
        ("string", b'["a"]', b'"a"'),
        ("string", rb'[ [ "a\"],\\" ] ]', rb'"a\"],\\"'),
        ("bytes", b'["AAA="]', b'"AAA="'),
        ("a: string", b'{"a":["x"]}', record(a=b'"x"')),
        ('a: string{"x","y"}', b'{"a":["x"]}', record(a=b'"x"')),
        ("float64[]", b"[[2.5]]", array(2.5, "f8")),
        ("float64[1]", b"2.5", array([2.5], "f8")),
        ("float64[3]", b"[[1.0],[2.0],[3.0]]", array([1, 2, 3], "f8")),
        ("float64[3,1]", array([1, 2, 3], "f8"), array([[1], [2], [3]], "f8")),
        ("float64[*,4]", b"[1.0,2.0,3.0,4.0]", array([[1, 2, 3, 4]], "f8")),
        # Open lengths, also of 0.
        ("float32[*,4]", array([[1, 2, 3, 4]] * 3, "f4"), array([[1, 2, 3, 4]] * 3, "f4")),
        ("float32[*,4]", b"[]", array(np.empty((0, 4)), "f4")),
        ("float32[*,4]", array(np.empty((0, 4)), "f4"), array(np.empty((0, 4)), "f4")),
        ("string", b'"cat"', b'"cat"'),
        ("bytes", b'"AAE="', b'"AAE="'),
        ("bytes", rb'"\/\/\/\/"', b'"////"'),
        # Records: in the declared order, from columns or from an object; one value needs no name.
        ("a: float32, b: string", record(b=b'"x"', a=array(1, "i8")), record(a=array(1, "f4"), b=b'"x"')),
        ("a: float32, b: string", b'{"b":"x","a":1}', record(a=array(1, "f4"), b=b'"x"')),
        ("a: float64, b: int64?", b'{"a":null}', record(a=array(np.nan, "f8"), b=b"null")),
        ("a: float64, b: int64 = 7", b'{"a":1}', record(a=array(1, "f8"), b=array(7, "i8"))),
        ("a: float64[2]", array([1, 2], "f8"), record(a=array([1, 2], "f8"))),
        ("float64[2]", record(a=array([1, 2], "f8")), array([1, 2], "f8")),
        ('a: string{"x","y"}', b'{"a":"x"}', record(a=b'"x"')),
    ],
)
def test_what_loses_nothing_is_converted(declared: str, output: Output, expected: Output) -> None:
    result = converted(declared, output)
    assert bytes(result) == bytes(expected) and type(result) is type(expected)
    for part, wanted in zip(getattr(result, "parts", (result,)), getattr(expected, "parts", (expected,))):
        if isinstance(wanted, TypedOutput):
            assert (part.data, part.form.dtype, part.form.shape) == (wanted.data, wanted.form.dtype, wanted.form.shape)


@pytest.mark.parametrize(
    ("declared", "output", "message"),
    [
        ("float32[2]", array([0.5, 0.1], "f8"), r"the model answered float64 0.1, .* declared, is float32\[2\]"),
        ("float32[]", b"0.30000000000000004", r"answered 0.30000000000000004, "),
        ("float32[]", b"1e300", "answered 1e\\+300, "),
        ("float64[]", str(2**53 + 1).encode(), "answered 9007199254740993, "),
        ("float64[1]", array([2**53 + 1], "i8"), "answered int64 9007199254740993, "),
        ("float64[1]", array([2**63 - 1], "i8"), "answered int64 9223372036854775807, "),
        ("int64[1]", array([2.0**63], "f8"), "answered float64 9.2"),
        ("int64[]", b"2.5", "answered 2.5, "),
        ("int64[]", b"9223372036854775808", "answered 9223372036854775808, "),
        (
            "int64[]",
            b"null",
            r"answered null, .* is int64\[\]: have it answer that, or deploy it with another --output",
        ),
        ("int32[1]", array([np.nan], "f8"), "answered float64 nan, "),
        ("uint8[1]", array([-1], "i8"), "answered int64 -1, "),
        ("uint8[1]", array([256], "i4"), "answered int32 256, "),
        ("bool[]", b"1", "answered 1, "),
        ("float64[]", b"true", "answered true, "),
        ("float64[1]", array([True], "b1"), r"answered bool\[1\], "),
        ("float64[]", b'"1"', 'answered "1", '),
        ("string", b"1", "answered 1, .* is string"),
        ("string", array([1.0], "f8"), r"answered float64\[1\], .* is string"),
        ("string", b'["a","b"]', r"answered \["),
        ("string", rb'["a\\","b"]', r"answered \["),
        ("string", b'[["a"],["b"]]', r"answered \["),
        ("string", b'["a",1]', r"answered \["),
        ("string", b"[]", r"answered \[\], "),
        ("string", b"[1]", r"answered \[1\], "),
        ("string", b"[" * 9 + b'"a"' + b"]" * 9, r"answered \["),
        ("bytes", b'"A"', "which is not base64, "),
        # Shapes.
        ("float64[3]", b"[1.0,2.0]", r"answered \[1.0,2.0\], .* is float64\[3\]"),
        ("float64[2,2]", b"[[1,2],[3]]", "lists of different lengths in one output are no tensor"),
        ("float64[*]", b"[[1,2],[3,4]]", r"answered \[\[1,2\],\[3,4\]\], "),
        ("float32[2,4]", b"[]", r"answered \[\], "),
        ("float64[]", b'{"a":1}', 'answered {"a":1}, '),
        # Records.
        ("a: float64, b: string", b'{"a":1}', "answered no value as 'b', .* is string"),
        ("a: float64, b: string", b'{"a":1,"b":null}', "answered null as 'b', "),
        ("a: float64, b: string", b'{"a":1,"b":"x","c":2}', "answered the outputs 'a', 'b', 'c', "),
        ("a: float64, b: string", b"[1,2]", r"answered \[1,2\], .* is a: float64, b: string"),
        ("a: float64, b: string", array([1, 2], "f8"), r"answered float64\[2\], "),
        ("a: int64[2], b: string", record(a=array([1], "i8"), b=b'"x"'), r"answered int64\[1\] as 'a', "),
        ("float64[]", record(a=b"1", b=b"2"), "answered the outputs 'a', 'b', "),
        ('a: string{"x","y"}', b'{"a":"z"}', "answered \"z\" as 'a', "),
    ],
)
def test_what_would_lose_something_is_refused(declared: str, output: Output, message: str) -> None:
    with pytest.raises(ModelFailed, match=message):
        converted(declared, output)


def test_a_learned_type_asks_for_a_declared_one() -> None:
    conversion = Conversion(parse_type("float64[2]"), is_declared=False)
    with pytest.raises(
        ModelFailed, match=r"learned from the version's first answer, .*: deploy it with --output-type$"
    ):
        conversion.convert(b"[1,2,3]")


@given(st.sampled_from(list(DTYPES)), st.sampled_from(list(DTYPES)), st.data())
def test_a_number_is_either_kept_or_refused(came: str, declared: str, data: st.DataObject) -> None:
    """Against numbers of Python, which are compared exactly whatever their types are."""
    of = np.dtype(came)
    numbers = np.frombuffer(data.draw(st.binary(min_size=4 * of.itemsize, max_size=4 * of.itemsize)), of)
    if came == "b1":
        numbers = numbers.view("u1") % 2 == 1
    elif data.draw(st.booleans()):  # of which most are kept
        numbers = np.array(data.draw(st.lists(st.integers(0, 300), min_size=4, max_size=4))).astype(of)
    output = array(numbers, came)
    try:
        result = converted(f"{DTYPES[declared].label}[4]", output)
    except ModelFailed:
        with np.errstate(all="ignore"):
            same = numbers.astype(declared).tolist()
        kept = all(a == b or (a != a and b != b) for a, b in zip(numbers.tolist(), same))
        assert "b1" in (came, declared) or not kept
    else:
        assert isinstance(result, TypedOutput)
        found = np.frombuffer(result.data, declared).tolist()
        assert all(a == b or (a != a and b != b) for a, b in zip(numbers.tolist(), found))


@given(st.lists(st.floats(width=32) | st.integers(-(2**60), 2**60), min_size=1, max_size=5), st.booleans())
def test_a_text_and_a_long_text_become_the_same_numbers(values: list[float], is_long: bool) -> None:
    text = json.dumps([value if value == value and abs(value) < 1e39 else None for value in values]).encode()
    before = output_module.LONG_TEXT_BYTES
    output_module.LONG_TEXT_BYTES = 0 if is_long else before
    try:
        result = converted("float64[*]", text)
    except ModelFailed:
        assert any(int(float(value)) != value for value in values if isinstance(value, int))
    else:
        assert isinstance(result, TypedOutput)
        found = np.frombuffer(result.data, "<f8").tolist()
        assert all(b == a or b != b for a, b in zip(values, found)) and len(found) == len(values)
    finally:
        output_module.LONG_TEXT_BYTES = before


@pytest.mark.parametrize(
    ("output", "learned"),
    [
        (b"1", "float64[]"),
        (b"[[1,2.5]]", "float64[1,2]"),
        (b"true", "bool[]"),
        (b'"cat"', "string"),
        (array([[1, 2]], "i4"), "int32[1,2]"),
        (array(np.empty((0, 4)), "f4"), "float32[*,4]"),
        (record(label=b'"cat"', scores=array([0.5, 0.5], "f4")), "label: string, scores: float32[2]"),
        (b"[0.5,null]", "float64[2]"),
        (array(np.zeros(40_000), "f8"), "float64[40000]"),
        (b"[%b1]" % (b"1," * 200_000), "float64[200001]"),
        (record(text=b'"%b"' % (b"x" * 300_000), scores=array([0.5], "f8")), "text: string, scores: float64[1]"),
        # The next answer may show what these do not.
        (b"[]", None),
        (b"[[],[]]", None),
        (b"null", None),
        (b"[null,null]", None),
        (record(boxes=b"[]", label=b'"cat"'), None),
    ],
)
def test_a_type_is_learned_from_an_output(output: Output, learned: str | None) -> None:
    assert finish(learning(output)) == (None if learned is None else parse_type(learned))


@pytest.mark.parametrize(
    "output",
    [
        b'["a","b"]',
        b'{"cat":0.5}',
        b"{}",
        b"[[1],[2,3]]",
        b"[[],[1]]",
        b"[1,true]",
        b"[true,null]",
        b"1e999",
        b"[18446744073709551615]",
        b"[" * 9 + b"1" + b"]" * 9,
        b"[" * 100_000,
        b'[%b"a"]' % (b"1," * 200_000),
        b'[{"a":1}%b]' % (b",1" * 200_000),
        record(a=b"null"),
        record(a=b'"x"', b=b'["a"]'),
        record(**{f"{number:04}" + "\1" * 250: b"1" for number in range(1000)}),
    ],
)
def test_no_type_describes_these(output: Output) -> None:
    with pytest.raises(NoType):
        finish(learning(output))
