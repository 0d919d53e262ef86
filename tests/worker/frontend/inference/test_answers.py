"""Outputs, which are JSON texts, become tensors that say the same."""

import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipper.values.inputs.numbers import FLOATS
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import TypedOutput, make_array
from clipper.values.records import parse_type
from clipper.values.types import DType
from clipper.worker.frontend import limits
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.inference.answers import (
    Answer,
    Encoded,
    encode,
    encode_usual,
    encode_usual_rows,
    opening,
)
from clipper.worker.frontend.inference.invocations import PredictionsCodec
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.requests import COLUMNS, AnswerForm
from clipper.worker.frontend.inference.tensors import DATATYPES
from clipper.worker.selection.query import NO_SOURCE, Source, make_source
from tests.worker.frontend.steps import finish

BINARY = AnswerForm((("output", True),))
UNTYPED = OutputTensors(None)
PLAIN = AnswerForm()
ONE, TWO = make_source(["a:2"]), make_source(["a:2", "b:1"])


def whole(encoded: Encoded) -> tuple[bytes, int | None]:
    return b"".join(encoded.parts), encoded.json_bytes


def outputs_of(form: AnswerForm, outputs: list[bytes]) -> Any:
    """The outputs of the answer by name, as Python has them, whatever form they came in."""
    encoded = finish(encode("m", None, [Answer(7, output, 0.5) for output in outputs], form, UNTYPED))
    body = b"".join(encoded.parts)
    text = body[: encoded.json_bytes]
    at = len(text)
    found = {}
    for output in json.loads(text)["outputs"]:
        values = output.get("data")
        if values is None:
            size = output["parameters"]["binary_data_size"]
            values = _values(output["datatype"], body[at : at + size])
            at += size
        found[output["name"]] = output["datatype"], output["shape"], values
    assert at == len(body)
    return found


def _values(datatype: str, data: bytes) -> list[Any]:
    kind = DATATYPES[datatype].numpy
    if kind is not None:
        values: list[Any] = np.frombuffer(data, kind).tolist()
        return values
    texts = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        texts.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return texts


VALUES = st.recursive(
    st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans() | st.text() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize("form", [PLAIN, BINARY])
@given(st.lists(VALUES, min_size=1, max_size=4))
@example([1])
@example([1, 2.5])
@example([2**63])
@example([["a", "b"]])
@example([[1], [1, 2]])
def test_what_has_no_type_is_text_of_its_json_in_any_batch(form: AnswerForm, values: list[Any]) -> None:
    outputs = [json.dumps(value).encode() for value in values]
    expected = "BYTES", [len(values), 1], [output.decode() for output in outputs]
    assert outputs_of(form, outputs)["output"] == expected


def typed(text: str) -> OutputTensors:
    return OutputTensors(Conversion(parse_type(text)))


@pytest.mark.parametrize(
    ("output", "of_type"),
    [
        (b"1.5", "float64[]"),
        (b"-7", "float64[]"),
        (b"1e-300", "float64[]"),
        (b"-7", "int64[]"),
        (b"9223372036854775807", "int64[]"),
    ],
)
@pytest.mark.parametrize("form", [PLAIN, BINARY, AnswerForm(is_binary=True)])
@pytest.mark.parametrize(("version", "source"), [(None, NO_SOURCE), ("2", NO_SOURCE), ("2", ONE), (None, TWO)])
def test_the_usual_answer_is_what_any_other_is(
    output: bytes, of_type: str, form: AnswerForm, version: str | None, source: Source
) -> None:
    answer = Answer(7, output, 0.5, None, source)
    usual = encode_usual(opening("m", version), (answer,), form, typed(of_type))
    assert usual is not None
    text, size = whole(usual)
    other, other_size = whole(finish(encode("m", version, [answer], form, typed(of_type))))
    assert (
        json.loads(text[:size]) == json.loads(other[:other_size])
        and text[size or len(text) :] == other[other_size or len(other) :]
    )


@pytest.mark.parametrize("form", [PLAIN, AnswerForm((("output", False),))])
@pytest.mark.parametrize(("version", "sources"), [(None, [ONE, ONE]), ("2", [ONE, ONE]), (None, [TWO, TWO])])
def test_the_usual_answer_to_several_rows_is_what_any_other_is(
    form: AnswerForm, version: str | None, sources: list[Source]
) -> None:
    for of_type, texts in (("float64[]", [b"1.5", b"-7"]), ("int64[]", [b"-7", b"9007199254740991"])):
        answers = [Answer(7, text, 0.5, None, source) for text, source in zip(texts, sources)]
        told = version or sources[0].version
        usual = encode_usual_rows(opening("m", told), answers, form, typed(of_type))
        other, _ = whole(finish(encode("m", version, answers, form, typed(of_type))))
        assert usual is None if told is None else usual is not None and json.loads(whole(usual)[0]) == json.loads(other)


@pytest.mark.parametrize(
    ("answers", "form", "of_type"),
    [
        ([Answer(1, b"1", 0.5, None, ONE), Answer(2, b"1", 0.0, "timeout")], PLAIN, "float64[]"),
        ([Answer(1, b"1", 0.5, None, ONE), Answer(2, b"1", 0.5, None, TWO)], PLAIN, "float64[]"),
        ([Answer(1, b"1", 0.5, None, ONE), Answer(2, b"null", 0.5, None, ONE)], PLAIN, "float64[]"),
        ([Answer(1, b"1", 0.5, None, ONE), Answer(2, b"1.5", 0.5, None, ONE)], PLAIN, "int64[]"),
        ([Answer(1, b"1,2", 0.5, None, ONE), Answer(2, b"", 0.5, None, ONE)], PLAIN, "float64[]"),
        ([Answer(1, b"1", 0.5, None, ONE), Answer(2, b"1e308", 0.5, None, ONE)], PLAIN, "float64[]"),
        ([Answer(1, b"1", 0.5, None, ONE)] * 2, AnswerForm(is_binary=True), "float64[]"),
        ([Answer(1, b"1", 0.5, None, ONE)] * 2, AnswerForm(id="i"), "float64[]"),
        ([Answer(1, b"1", 0.5, None, ONE)] * 2, PLAIN, "float32[]"),
        ([Answer(1, b"[1]", 0.5, None, ONE)] * 2, PLAIN, "float64[1]"),
    ],
)
def test_other_answers_to_several_rows_are_not_the_usual_one(
    answers: list[Answer], form: AnswerForm, of_type: str
) -> None:
    assert encode_usual_rows(b"{", answers, form, typed(of_type)) is None


@pytest.mark.parametrize("output", [b"true", b"null", b'"a"', b"[1]", b"1e999", b"9223372036854775808"])
def test_what_is_no_number_is_not_the_usual_answer(output: bytes) -> None:
    number = typed("float64[]")
    assert encode_usual(b"{", (Answer(7, output, 0.5),), PLAIN, number) is None
    assert encode_usual(b"{", (Answer(7, b"1", 0.5, "timeout"),), PLAIN, number) is None
    assert encode_usual(b"{", (Answer(7, b"1", 0.5),), AnswerForm(id="i"), number) is None
    assert encode_usual(b"{", (Answer(7, b"1", 0.5),), AnswerForm((("query_id", False),)), number) is None
    # Of another type than its own it is converted, and what has no type is a text.
    for other in (typed("float32[]"), typed("float64[1]"), typed("a: float64"), UNTYPED):
        assert encode_usual(b"{", (Answer(7, b"1", 0.5),), PLAIN, other) is None


def test_large_outputs_are_put_together_in_pieces() -> None:
    outputs = [json.dumps([0.5] * 1000).encode()] * 300
    for tensors in (UNTYPED, typed("float64[*]")):
        steps = encode("m", None, [Answer(1, output, 1.0) for output in outputs], BINARY, tensors)
        assert sum(1 for _ in steps) > 50


def test_a_long_output_is_written_in_steps_in_mlflows_form_too() -> None:
    """All at once, an output of 16 MB held the loop for seconds."""
    form = OutputForm(DType.FLOAT64, (100, 2048), DType.FLOAT64)
    array = make_array(form, np.arange(100 * 2048, dtype="<f8").tobytes())
    answers = [Answer(1, array, 1.0), Answer(2, b"7", 1.0)]
    steps, making = 0, PredictionsCodec().encode(False, None, answers, PLAIN, UNTYPED)
    try:
        while True:
            next(making)
            steps += 1
    except StopIteration as end:
        parts = end.value
    assert steps >= 40
    assert json.loads(b"".join(parts[1:])) == {"predictions": [np.arange(100 * 2048.0).reshape(100, -1).tolist(), 7]}


@given(
    st.sampled_from([DType.FLOAT32, DType.FLOAT64, DType.INT64, DType.BOOL]),
    st.lists(st.tuples(*[st.integers(0, 2)] * 2) | st.just(()), min_size=1, max_size=2),
    st.lists(st.sampled_from([0, 1, -0.0, 1e-7, 1.1, 1e22, np.nan, np.inf]), min_size=4, max_size=4),
    st.booleans(),
)
def test_outputs_of_several_batches_are_written_as_each_alone(
    dtype: DType, shapes: list[tuple[int, ...]], numbers: list[float], nan_as_text: bool
) -> None:
    rows = []
    for shape in [*shapes, *shapes]:  # a form for each batch
        form = OutputForm(dtype, shape, dtype, nan_as_text)
        own = np.resize(np.nan_to_num(numbers) if dtype not in FLOATS else numbers, form.elements)
        with np.errstate(invalid="ignore"):
            rows += [make_array(form, own.astype(dtype.numpy_code).tobytes())] * 2
    answers = [Answer(1, row, 1.0) for row in rows]
    parts = finish(PredictionsCodec().encode(False, None, answers, PLAIN, UNTYPED))
    assert b"".join(parts[1:]) == b'{"predictions":[%b]}' % b",".join(map(bytes, rows))


NUMBERS = ["1.5", "-0.0", "1", "1.0", "255", "256", "1e-300", "2147483648", "9007199254740993", "1.1"]
OTHERS = [
    "9223372036854775808",
    "1e30",
    "1e999",
    "true",
    "null",
    '"a"',
    '"\\u00e9"',
    "[1]",
    "1,2",
    "",
    "NaN",
    '{"a":1}',
]


@given(
    st.sampled_from(["float64[]", "float32[]", "int64[]", "int32[]", "uint8[]", "string", "bool[]", "bytes"]),
    st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=4),
    st.lists(st.sampled_from(OTHERS), max_size=2),
)
@example("float64[]", ["1.5", "1"], [])
@example("float32[]", ["9007199254740993"], [])
@example("uint8[]", ["255", "256"], [])
def test_texts_that_are_converted_together_are_what_each_is_alone(
    of_type: str, numbers: list[str], others: list[str]
) -> None:
    conversion = Conversion(parse_type(of_type))
    texts = [text.encode() for text in [*numbers, *others]]
    found = OutputTensors(conversion).at_once(texts)
    if found is not None:
        alone = [conversion.convert(text) for text in texts]
        assert all(isinstance(one, TypedOutput) and one.form.dtype is found.form.dtype for one in alone)
        assert found.data == b"".join([one.data for one in alone if isinstance(one, TypedOutput)])
        assert bytes(found) == b"[%b]" % b",".join(map(bytes, alone))
    if of_type == "float64[]" and not others:
        assert (found is None) == ("9007199254740993" in numbers)


def test_a_large_array_is_not_copied() -> None:
    """That held the loop for some ten milliseconds, and took twice the memory while a client did not read."""
    form = OutputForm(DType.FLOAT32, (1024, 1024), DType.FLOAT32)
    array = make_array(form, np.arange(1024 * 1024, dtype="<f4").tobytes())
    encoded = finish(encode("m", None, [Answer(1, array, 1.0)], BINARY, typed("float32[1024,1024]")))
    assert b"".join(encoded.parts)[encoded.json_bytes :] == array.data
    (view,) = [part for part in encoded.parts if isinstance(part, memoryview)]
    assert np.shares_memory(np.frombuffer(view, np.uint8), np.frombuffer(array.data, np.uint8))


@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=4),
    st.sampled_from([DType.FLOAT32, DType.FLOAT64, DType.BOOL]),
    st.integers(1, 30),
)
def test_rows_are_padded_in_pieces_to_the_longest(
    shapes: list[tuple[int, int, int]], dtype: DType, most_elements: int
) -> None:
    """At once it held the loop for as long as three copies of the whole take."""
    layout = dtype.numpy_code
    arrays = [np.ones(shape, layout) for shape in shapes]
    rows = [make_array(OutputForm(dtype, each.shape, dtype), each.tobytes()) for each in arrays]
    longest = tuple(map(max, zip(*shapes)))
    expected = np.full((len(rows), *longest), False if dtype is DType.BOOL else np.nan, layout)
    for row, each in zip(expected, arrays):
        row[tuple(map(slice, each.shape))] = each
    answers = [Answer(1, row, 1.0) for row in rows]
    tensors = typed(f"{dtype.label}[*,*,*]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "WRITE_BYTES", most_elements * dtype.size_bytes)
        patch.setattr(responses, "LARGE_PIECE_BYTES", 1)  # else the pieces are joined
        encoded = finish(encode("m", None, answers, BINARY, tensors))
        plain = finish(encode("m", None, answers, PLAIN, tensors))
    whole = b"".join(encoded.parts)
    text, data = whole[: encoded.json_bytes], whole[encoded.json_bytes :]
    assert json.loads(text)["outputs"][0]["shape"] == [len(rows), *longest]
    assert data == expected.tobytes()
    blocks = encoded.parts[encoded.parts.index(b"]}") + 1 :]
    assert sum(len(block) > most_elements * dtype.size_bytes for block in blocks) <= shapes.count(longest)
    (output,) = json.loads(b"".join(plain.parts))["outputs"]
    values = [None if isinstance(value, float) and value != value else value for value in expected.ravel().tolist()]
    assert output["data"] == values and output["shape"] == [len(rows), *longest]


def test_one_querys_details_are_in_parameters_and_several_ones_in_columns() -> None:
    one = json.loads(whole(finish(encode("m", "2", [Answer(7, b"1", 0.5, "timeout")], AnswerForm(id="i"), UNTYPED)))[0])
    assert one["parameters"] == {"query_id": 7, "default": True, "confidence": 0.5, "default_reason": "timeout"}
    assert (one["model_name"], one["model_version"], one["id"]) == ("m", "2", "i")
    answers = [Answer(7, b"1", 0.5, None, make_source(["a:1"])), Answer(8, b"2", 0.0, "timeout")]
    form = AnswerForm(tuple((name, False) for name in COLUMNS))
    several = json.loads(whole(finish(encode("m", None, answers, form, UNTYPED)))[0])
    assert several["parameters"] == {"default": True, "model": "a", "version": "1"}
    assert several["model_version"] == "1"
    assert {each["name"]: (each["datatype"], each["data"]) for each in several["outputs"]} == {
        "query_id": ("INT64", [7, 8]),
        "confidence": ("FP64", [0.5, 0.0]),
        "default": ("BOOL", [False, True]),
        "default_reason": ("BYTES", ["", "timeout"]),
        "models": ("BYTES", ["a:1", ""]),
    }


@pytest.mark.parametrize(
    ("sources", "version", "parameters"),
    [
        ([ONE], "2", {"model": "a", "version": "2"}),
        ([TWO], None, {"models": "a:2,b:1"}),
        ([ONE, make_source(["a:2"])], "2", {"model": "a", "version": "2"}),
        ([ONE, make_source(["a:1"])], None, {}),
        ([ONE, TWO], None, {}),
        ([ONE, NO_SOURCE], None, {}),
    ],
)
def test_an_answer_names_the_version_that_all_rows_are_from(
    sources: list[Source], version: str | None, parameters: dict[str, str]
) -> None:
    answers = [Answer(number, b"1", 1.0, None, source) for number, source in enumerate(sources)]
    reply = json.loads(whole(finish(encode("m", None, answers, PLAIN, UNTYPED)))[0])
    assert reply.get("model_version") == version
    told = reply["parameters"]
    assert {name: told[name] for name in ("model", "version", "models") if name in told} == parameters


def test_a_default_is_converted_once_and_a_changed_one_again() -> None:
    tensors = typed("float64[]")
    first = finish(tensors.converted(b"-1", is_default=True))
    assert isinstance(first, TypedOutput) and bytes(first) == b"-1.0"
    assert finish(tensors.converted(b"-1", is_default=True)) is first
    assert finish(tensors.converted(b"-1", is_default=False)) is not first
    assert bytes(finish(tensors.converted(b"2", is_default=True))) == b"2.0"


def test_rows_that_came_together_are_the_same_as_one_by_one() -> None:
    form = OutputForm(DType.FLOAT32, (2,), DType.FLOAT64)
    rows = [make_array(form, np.array([number, np.nan], "<f4").tobytes()) for number in range(5)]
    for is_binary in (False, True):
        found = []
        for outputs in (rows, [make_array(replace(form), row.data) for row in rows]):  # forms of their own
            answers = [Answer(7, output, 1.0) for output in outputs]
            found.append(finish(encode("m", None, answers, AnswerForm(is_binary=is_binary), typed("float32[2]"))))
        assert b"".join(found[0].parts) == b"".join(found[1].parts)
