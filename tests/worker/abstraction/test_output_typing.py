"""The type of a version's outputs: what is declared binds, and what is learned binds no length."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from clipper.control.snapshot import VersionSnapshot
from clipper.model.protocol.messages import Welcome
from clipper.values.inputs.numbers import NUMPY
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import learning
from clipper.values.outputs.output import Output, TypedOutput, make_array, make_record
from clipper.values.outputs.record_columns import names_of
from clipper.values.records import parse_type, with_open_lengths
from clipper.values.types import DType
from clipper.worker.abstraction.output_typing import OutputTyping
from tests.worker.frontend.steps import finish

NUMBERS = [dtype for dtype in DType if dtype.is_numeric]
shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


def array(dtype: DType, shape: tuple[int, ...]) -> TypedOutput:
    numbers = np.ones(shape, NUMPY[dtype])
    return make_array(OutputForm(dtype, shape, dtype), numbers.tobytes())


def text(shape: tuple[int, ...]) -> bytes:
    return json.dumps(np.ones(shape).tolist()).encode()


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Output, Output]:
    """Two outputs of one kind, which differ in their lengths alone."""
    count = draw(st.integers(1, 3))
    firsts: list[Any] = []
    others: list[Any] = []
    for _ in range(count):
        first = draw(shapes)
        other = tuple(draw(st.integers(1, 5)) for _ in first)
        dtype = draw(st.sampled_from([*NUMBERS, None]))
        for made, shape in ((firsts, first), (others, other)):
            made.append(text(shape) if dtype is None else array(dtype, shape))
    if count == 1:
        return firsts[0], others[0]
    names = names_of(tuple(f"field{place}" for place in range(count)))
    return make_record(names, tuple(firsts)), make_record(names, tuple(others))


def snapshot(output_type: str | None = None, *, is_declared: bool = False) -> VersionSnapshot:
    return VersionSnapshot("1", "float64[2]", output_type=output_type, output_is_declared=is_declared)


def learn(typing: OutputTyping, output: Output) -> None:
    finish(typing.learning(output))


@given(pairs(), st.sampled_from(["record", "container", "answer"]))
def test_a_learned_type_refuses_no_output_for_its_length(pair: tuple[Output, Output], learned_by: str) -> None:
    first, other = pair
    of_first = finish(learning(first))
    assert of_first is not None
    typing = OutputTyping(snapshot(str(of_first) if learned_by == "record" else None))
    if learned_by == "container":
        typing.take(Welcome("m", "1", parse_type("float64[2]"), output_type=of_first))
    if learned_by == "answer":
        learn(typing, first)
    conversion = typing.conversion()
    assert conversion is not None
    for output in (first, other):
        converted = conversion.convert(output)
        assert json.loads(bytes(converted)) == json.loads(bytes(output))
    assert conversion.type == with_open_lengths(of_first)


def test_a_declared_length_stays() -> None:
    typing = OutputTyping(snapshot("float64[3]", is_declared=True))
    assert str(typing.type) == "float64[3]"
    typing = OutputTyping(snapshot("float64[3]"))
    assert str(typing.type) == "float64[*]"
    typing.take(
        Welcome("m", "1", parse_type("float64[2]"), output_type=parse_type("float64[4]"), output_is_declared=True)
    )
    assert str(typing.type) == "float64[4]"


def test_the_record_comes_before_what_a_worker_has_learned() -> None:
    typing = OutputTyping(snapshot())
    assert typing.news is None
    learn(typing, array(DType.INT32, (2,)))
    assert typing.news == "int32[*]"
    typing.take(Welcome("m", "1", parse_type("float64[2]"), output_type=parse_type("float32[2]")))
    assert typing.news == "int32[*]"
    typing.follow(snapshot("float64[3]"))
    assert str(typing.type) == "float64[*]" and typing.news is None
    # No later answer, container or snapshot without a type changes it.
    learn(typing, b"true")
    typing.follow(snapshot())
    typing.take(Welcome("m", "1", parse_type("float64[2]"), output_type=parse_type("string")))
    conversion = typing.conversion()
    assert conversion is not None and (str(conversion.type), conversion.is_declared) == ("float64[*]", False)


def test_a_declared_type_is_not_reported() -> None:
    typing = OutputTyping(snapshot())
    learn(typing, b"1.5")
    typing.take(
        Welcome("m", "1", parse_type("float64[2]"), output_type=parse_type("float64[]"), output_is_declared=True)
    )
    assert typing.news is None


@pytest.mark.parametrize("first", [b'["a"]', b'{"a":{"b":1}}', b"[[1],[1,2]]"])
def test_no_type_is_learned_for_good(first: bytes) -> None:
    typing = OutputTyping(snapshot())
    learn(typing, first)
    for later in (b'"text"', b"1.5", array(DType.INT32, (2,))):
        learn(typing, later)
    typing.take(Welcome("m", "1", parse_type("float64[2]"), output_type=parse_type("string")))
    assert (typing.news, typing.type, typing.conversion()) == ("", None, None)
    # A type that another worker has learned is in the record first, and a declared type comes before all.
    followed = OutputTyping(snapshot())
    learn(followed, first)
    followed.follow(snapshot("string"))
    assert str(followed.type) == "string" and followed.news is None
    typing.take(
        Welcome("m", "1", parse_type("float64[2]"), output_type=parse_type("float64[]"), output_is_declared=True)
    )
    assert str(typing.type) == "float64[]" and typing.news is None


def test_the_record_says_that_there_is_no_type() -> None:
    typing = OutputTyping(snapshot())
    learn(typing, b'"text"')
    typing.follow(replace(snapshot(), output_is_untyped=True))
    assert (typing.news, typing.type, typing.is_known) == (None, None, True)
    typing.follow(snapshot("string"))
    typing.take(Welcome("m", "1", parse_type("float64[2]"), output_type=parse_type("string")))
    assert typing.type is None


def test_a_container_says_that_its_first_answer_was_of_no_type() -> None:
    typing = OutputTyping(snapshot())
    typing.take(Welcome("m", "1", parse_type("float64[2]"), output_is_untyped=True))
    learn(typing, b'"text"')
    assert (typing.news, typing.type) == ("", None)


def test_what_shows_nothing_leaves_the_type_to_the_next() -> None:
    typing = OutputTyping(snapshot())
    for output in (b"null", b"[]", b"[[]]", make_record(names_of(("a", "b")), (b"[]", b"1"))):
        learn(typing, output)
        assert not typing.is_known and typing.news is None and typing.conversion() is None
    learn(typing, b'"text"')
    assert typing.news == "string"
