"""The trace of a PREDICT as text, and back."""

from hypothesis import given
from hypothesis import strategies as st

from clipper.model.protocol.messages import MAX_TRACE_BYTES
from clipper.model.protocol.trace import BatchTrace, TraceContext, read_trace, write_trace
from clipper.worker.telemetry.spans import MAX_LINKS
from clipper.worker.telemetry.trace_context import MAX_STATE_BYTES, SpanContext, read_parent, write_context

contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    # Blanks and commas, too, but none at its ends, where a reader of headers drops them.
    st.from_regex(r"([!-~]([ -~]{0,20}[!-~])?)?", fullmatch=True),
)


@given(contexts, st.lists(contexts, max_size=5))
def test_what_is_written_reads_as_the_same_spans(batch: SpanContext, queries: list[SpanContext]) -> None:
    trace = BatchTrace(write_context(batch), tuple(map(write_context, queries)))
    assert read_trace(write_trace(trace)) == trace
    for context, written in zip((batch, *queries), (trace.batch, *trace.queries)):
        parent = read_parent([written.traceparent.encode()], [written.tracestate.encode()])
        assert parent is not None and parent.is_sampled and parent.context == context


def test_the_longest_trace_fits_a_predict() -> None:
    longest = write_context(SpanContext(2**128 - 1, 2**64 - 1, "x" * MAX_STATE_BYTES))
    assert len(write_trace(BatchTrace(longest, (longest,) * MAX_LINKS))) <= MAX_TRACE_BYTES


@given(st.binary(max_size=50))
def test_any_bytes_are_a_trace(text: bytes) -> None:
    trace = read_trace(text)
    assert len(trace.queries) == text.count(b"\n")


def test_a_line_without_a_blank_has_no_state() -> None:
    assert read_trace(b"00-1-2-01") == BatchTrace(TraceContext("00-1-2-01"), ())
    assert read_trace(b"a b c\nd") == BatchTrace(TraceContext("a", "b c"), (TraceContext("d"),))
