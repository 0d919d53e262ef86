"""traceparent and tracestate, by the examples and the rules of W3C Trace Context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.telemetry.trace_context import MAX_STATE_BYTES, SpanContext, read_parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def header(flags: str = "01", version: str = "00", trace: str = TRACE, span: str = SPAN, more: str = "") -> bytes:
    return f"{version}-{trace}-{span}-{flags}{more}".encode()


@pytest.mark.parametrize(("flags", "is_sampled"), [("01", True), ("00", False), ("03", True), ("fe", False)])
def test_a_valid_parent(flags: str, is_sampled: bool) -> None:
    parent = read_parent([header(flags)])
    assert parent is not None
    assert parent.context == SpanContext(int(TRACE, 16), int(SPAN, 16))
    assert parent.is_sampled == is_sampled


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        header(version="ff"),
        header(trace="0" * 32),
        header(span="0" * 16),
        header(trace=TRACE.upper()),
        header(more="-later"),  # version 00 has no more
        header(version="cc", more="later"),
        header(trace=TRACE[:-1]),
        header(flags="1"),
        header(flags="0x"),
        header() + b" ",
        header() + b"\n",
        "00-٤٤f92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01".encode(),
        b"00-" + b"a" * 65536,
    ],
)
def test_what_is_no_parent(value: bytes) -> None:
    assert read_parent([value]) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read_parent([header(version="cc", more="-what-the-future-will-be")]) is not None


def test_two_parents_are_none() -> None:
    assert read_parent([header(), header()]) is None
    assert read_parent([]) is None


def test_states_are_joined_and_an_invalid_one_is_dropped_alone() -> None:
    parent = read_parent([header()], [b"a=1", b"b=2"])
    assert parent is not None and parent.context.state == "a=1,b=2"
    for states in ([b"a=\n1"], [b"a=\xff"], [b"a" * (MAX_STATE_BYTES + 1)]):
        parent = read_parent([header()], states)
        assert parent is not None and parent.context.state == ""


@given(st.binary(max_size=80))
def test_any_bytes_are_a_parent_or_none(value: bytes) -> None:
    read_parent([value], [value])
