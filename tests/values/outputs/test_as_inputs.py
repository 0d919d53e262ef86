"""Inputs that are made of outputs, and outputs that are made of inputs."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.errors import ModelFailed, OutputTooLarge
from clipper.values.inputs.record_reader import reader_of
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.as_inputs import InputRows, field_of, items_of, list_of, output_of, record_of, value_of
from clipper.values.outputs.output import MAX_READ_BYTES, Output, TypedOutput, make_array, make_record
from clipper.values.outputs.record_columns import names_of
from clipper.values.records import parse_type
from clipper.values.types import DType
from tests.example_counts import share_of
from tests.worker.frontend.steps import finish

RECORD = "n: int64, x: float32?, t: string, b: bytes, v: float64[2,*], u: uint8[2]"


def row_of(of_type: str, output: Output) -> bytes:
    steps = InputRows(parse_type(of_type)).row(output)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            row: bytes = end.value
            return row


def array(dtype: DType, shape: tuple[int, ...], data: bytes) -> TypedOutput:
    return make_array(OutputForm(dtype, shape, dtype), data)


@given(
    st.one_of(
        st.tuples(st.just("float64[*]"), st.lists(st.floats(allow_nan=False, allow_infinity=False))),
        st.tuples(st.just("int32[*,2]"), st.lists(st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2), min_size=1)),
        st.tuples(st.just("bool[]"), st.booleans()),
        st.tuples(st.just("string"), st.text()),
        st.tuples(st.just("bytes"), st.sampled_from(["", "AAEC", "/w=="])),
        st.tuples(
            st.just(RECORD),
            st.fixed_dictionaries(
                {
                    "n": st.integers(-(2**63), 2**63 - 1),
                    "x": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
                    "t": st.text(),
                    "b": st.just("AAEC"),
                    "v": st.lists(st.integers(-9, 9), min_size=1, max_size=3).map(lambda row: [row, row]),
                    "u": st.just([0, 255]),
                }
            ),
        ),
    )
)
@settings(max_examples=share_of(300))
def test_an_input_is_the_same_row_after_it_was_an_output(drawn: tuple[str, Any]) -> None:
    of_type, value = drawn
    row = reader_of(parse_type(of_type), False, False).read(json.dumps(value).encode())
    output = output_of(row, parse_type(of_type))
    assert row_of(of_type, output) == row
    # The text of the output is the input's JSON, as numbers are written.
    assert row_of(of_type, bytes(output)) == row


def test_arrays_are_copied_or_cast_and_never_cut() -> None:
    halves = array(DType.FLOAT32, (2,), b"\0\0\0?\0\0\0?")
    assert row_of("float32[2]", halves) == halves.data
    assert row_of("float64[2]", halves) == b"\0\0\0\0\0\0\xe0?" * 2
    assert row_of("float64[1,2]", halves) == b"\0\0\0\0\0\0\xe0?" * 2
    assert row_of("float64[*,*]", halves) == b"\2\0\0\0\1\0\0\0" + b"\0\0\0\0\0\0\xe0?" * 2
    with pytest.raises(ModelFailed, match=r"its input has float32 0.5: expected int64\[2\]"):
        row_of("int64[2]", halves)
    with pytest.raises(ModelFailed, match=r"its input has float32\[2\]: expected float64\[3\]"):
        row_of("float64[3]", halves)


@pytest.mark.parametrize(
    ("of_type", "output", "told"),
    [
        ("string", b"3", "its input has 3: expected string"),
        ("string", b"null", "its input has null: expected string"),
        ("float64[]", b"null", ""),
        ("a: int64, b: string", b'{"a":1}', "its input has no value as 'b': expected string"),
        ("a: int64", b'{"a":1,"c":2}', "its input has the outputs 'a', 'c': expected a: int64"),
        ("bytes", b'"no base64"', "which is not base64"),
    ],
)
def test_what_does_not_fit_is_told_with_what_came(of_type: str, output: bytes, told: str) -> None:
    if not told:  # NaN
        assert row_of(of_type, output) == b"\0\0\0\0\0\0\xf8\x7f"
        return
    with pytest.raises(ModelFailed) as refused:
        row_of(of_type, output)
    assert told in str(refused.value)


def test_record_of_several_outputs_leaves_out_what_is_missing() -> None:
    vector = array(DType.FLOAT64, (1,), b"\0" * 8)
    made = record_of({"v": vector, "gone": None, "named": make_record(names_of(("a",)), (b"1",))})
    assert bytes(made) == b'{"v":[0.0],"named":{"a":1}}'


def test_values_of_outputs() -> None:
    named = make_record(names_of(("a", "b")), (b"1", b"2"))
    assert [field_of(named, "b"), field_of(b'{"b": [3]}', "b"), field_of(named, "c"), field_of(b"[1]", "b")] == [
        b"2",
        b"[3]",
        None,
        None,
    ]
    assert items_of(b'[1, "a", [2]]') == [b"1", b'"a"', b"[2]"]
    assert [bytes(item) for item in items_of(array(DType.UINT8, (2, 2), b"abcd")) or ()] == [b"[97,98]", b"[99,100]"]
    assert [items_of(b'"text"'), items_of(named), items_of(array(DType.UINT8, (), b"a"))] == [None, None, None]
    assert [value_of(b"[[3]]"), value_of(b'"de"'), value_of(b"null"), value_of(b"[1,2]")] == [3, "de", None, [1, 2]]


def test_lists_of_outputs_are_bounded() -> None:
    same = array(DType.UINT8, (2,), b"ab")
    joined = finish(list_of([same, same]))
    assert isinstance(joined, TypedOutput)
    assert (joined.form.shape, joined.data) == ((2, 2), b"abab")
    assert finish(list_of([same, b"1"])) == b"[[97,98],1]"
    text = b'"%b"' % (b"x" * (MAX_READ_BYTES // 2))
    with pytest.raises(OutputTooLarge, match="together"):
        finish(list_of([text, text, text]))
    big = array(DType.UINT8, (2**24,), b"\0" * 2**24)
    with pytest.raises(OutputTooLarge, match="together"):
        finish(list_of([big, big, big]))
    long = b"[%b]" % b",".join([b"1"] * MAX_READ_BYTES)
    for refuse in (items_of, lambda output: field_of(b'{"a":%b}' % output, "a")):
        with pytest.raises(OutputTooLarge):
            refuse(long)
