"""The trace of a PREDICT: which spans a batch belongs to. See proto/container-protocol.md.

It is the text of W3C Trace Context's headers, so that libraries for traces take it unchanged.
"""

from typing import NamedTuple


class TraceContext(NamedTuple):
    """Names a span, by the headers of W3C Trace Context; ``tracestate`` is empty if the trace has none."""

    traceparent: str
    tracestate: str = ""


class BatchTrace(NamedTuple):
    """The trace that a batch belongs to.

    Attributes:
        batch: the span of the batch, the parent of what happens while it is evaluated.
        queries: the spans of the traced queries that the batch serves, of one or more traces; at most 128.
    """

    batch: TraceContext
    queries: tuple[TraceContext, ...]


def write_trace(trace: BatchTrace) -> bytes:
    """Encode the trace of a PREDICT: a line for each context, the batch's first."""
    return "\n".join(" ".join(filter(None, context)) for context in (trace.batch, *trace.queries)).encode()


def read_trace(text: bytes) -> BatchTrace:
    """Decode the trace of a PREDICT. Bytes that are no text become text: a trace never fails a batch."""
    first, *others = text.decode("utf-8", "replace").split("\n")
    return BatchTrace(_read_context(first), tuple(map(_read_context, others)))


def _read_context(line: str) -> TraceContext:
    traceparent, _, tracestate = line.partition(" ")
    return TraceContext(traceparent, tracestate)
