"""The type of a version's outputs: what is declared binds, and what is learned binds no length."""

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipper.control.snapshot import VersionSnapshot
from clipper.model.protocol.messages import Welcome
from clipper.values.inputs.numbers import NUMPY
from clipper.values.output_arrays import OutputForm
from clipper.values.outputs.conversion import learn_type
from clipper.values.outputs.output import Output, TypedOutput, make_array, make_record
from clipper.values.outputs.record_columns import names_of
from clipper.values.records import parse_type, with_open_lengths
from clipper.values.types import DType
from clipper.worker.abstraction.output_typing import OutputTyping

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


@given(pairs(), st.sampled_from(["record", "container", "answer"]))
def test_a_learned_type_refuses_no_output_for_its_length(pair: tuple[Output, Output], learned_by: str) -> None:
    first, other = pair
    of_first = learn_type(first)
    assert of_first is not None
    typing = OutputTyping(snapshot(str(of_first) if learned_by == "record" else None))
    if learned_by == "container":
        typing.take(Welcome("m", "1", parse_type("float64[2]"), output_type=of_first))
    conversion = typing.conversion(first if learned_by == "answer" else None)
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
