"""W3C Trace Context, level 1: ``traceparent`` and ``tracestate``, https://www.w3.org/TR/trace-context-1/."""

import re
from collections.abc import Sequence

import msgspec

from clipper.model.protocol.trace import TraceContext

# Version, trace id, parent id, flags. A later version may go on after another dash.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_SAMPLED = 1
# The length up to which the recommendation requires a state to be passed on. It allows that a longer state is dropped.
MAX_STATE_BYTES = 512
_STATE = re.compile(rb"[ -~]*")


class SpanContext(msgspec.Struct, frozen=True, gc=False):
    """Names a span: ``trace_id`` has 128 bits, ``span_id`` 64. ``state`` is the trace's ``tracestate``."""

    trace_id: int
    span_id: int
    state: str = ""


def write_context(context: SpanContext) -> TraceContext:
    """Return the headers that name a span as the parent of others. All spans here are sampled."""
    return TraceContext(f"00-{context.trace_id:032x}-{context.span_id:016x}-01", context.state)


class Parent(msgspec.Struct, frozen=True, gc=False):
    """The caller's span, with the flag that says whether the caller records it."""

    context: SpanContext
    is_sampled: bool


def read_parent(traceparents: Sequence[bytes], tracestates: Sequence[bytes] = ()) -> Parent | None:
    """Return the caller's span; None without a single valid ``traceparent``. A wrong ``tracestate`` is dropped."""
    if len(traceparents) != 1 or (found := _TRACEPARENT.fullmatch(traceparents[0])) is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    if not trace or not span:
        return None
    state = b",".join(tracestates)
    is_kept = len(state) <= MAX_STATE_BYTES and _STATE.fullmatch(state)
    context = SpanContext(trace, span, state.decode() if is_kept else "")
    return Parent(context, bool(int(flags, 16) & _SAMPLED))
