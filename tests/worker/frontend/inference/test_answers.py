"""Outputs, which are JSON texts, become tensors that say the same."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import make_array
from clipper.values.records import parse_type
from clipper.values.types import DType
from clipper.worker.frontend.inference.answers import Answer, Encoded, encode, encode_usual, opening
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.requests import COLUMNS, AnswerForm
from clipper.worker.frontend.inference.tensors import DATATYPES
from clipper.worker.frontend.limits import WRITE_BYTES
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
    usual = encode_usual(opening("m", version), answer, form, typed(of_type))
    assert usual is not None
    text, size = whole(usual)
    other, other_size = whole(finish(encode("m", version, [answer], form, typed(of_type))))
    assert (
        json.loads(text[:size]) == json.loads(other[:other_size])
        and text[size or len(text) :] == other[other_size or len(other) :]
    )


@pytest.mark.parametrize("output", [b"true", b"null", b'"a"', b"[1]", b"1e999", b"9223372036854775808"])
def test_what_is_no_number_is_not_the_usual_answer(output: bytes) -> None:
    number = typed("float64[]")
    assert encode_usual(b"{", Answer(7, output, 0.5), PLAIN, number) is None
    assert encode_usual(b"{", Answer(7, b"1", 0.5, "timeout"), PLAIN, number) is None
    assert encode_usual(b"{", Answer(7, b"1", 0.5), AnswerForm(id="i"), number) is None
    assert encode_usual(b"{", Answer(7, b"1", 0.5), AnswerForm((("query_id", False),)), number) is None
    # Of another type than its own it is converted, and what has no type is a text.
    for other in (typed("float32[]"), typed("float64[1]"), typed("a: float64"), UNTYPED):
        assert encode_usual(b"{", Answer(7, b"1", 0.5), PLAIN, other) is None


def test_large_outputs_are_put_together_in_pieces() -> None:
    outputs = [json.dumps([0.5] * 1000).encode()] * 300
    for tensors in (UNTYPED, typed("float64[*]")):
        steps = encode("m", None, [Answer(1, output, 1.0) for output in outputs], BINARY, tensors)
        assert sum(1 for _ in steps) > 50


def test_a_large_array_is_copied_in_pieces() -> None:
    """At once it held the loop for some ten milliseconds."""
    form = OutputForm(DType.FLOAT32, (1024, 1024), DType.FLOAT32)
    array = make_array(form, np.arange(1024 * 1024, dtype="<f4").tobytes())
    steps, encoded = 0, Encoded([], None)
    making = encode("m", None, [Answer(1, array, 1.0)], BINARY, typed("float32[1024,1024]"))
    try:
        while True:
            next(making)
            steps += 1
    except StopIteration as end:
        encoded = end.value
    assert steps >= len(array.data) // WRITE_BYTES and max(map(len, encoded.parts)) <= WRITE_BYTES
    assert b"".join(encoded.parts)[encoded.json_bytes :] == array.data


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
