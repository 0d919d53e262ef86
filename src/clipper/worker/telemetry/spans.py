"""Makes the spans of requests, queries and batches. All facts come in as arguments.

A request's span is the parent of its queries' spans. A query's span is the parent of the selection of its models and of
its wait in a queue. A batch serves queries of many traces: its span belongs to the trace of the first, and links to
all.
"""

from collections.abc import Sequence
from random import Random
from typing import Literal

import msgspec

from clipper.model.protocol.trace import BatchTrace
from clipper.worker.telemetry.request_note import EndedQuery, RequestNote
from clipper.worker.telemetry.trace_context import Parent, SpanContext, write_context

Kind = Literal["server", "client", "internal"]
Value = str | int | float | bool | tuple[str, ...]

# OpenTelemetry's own bound. The span of a larger batch still has the number of its queries.
MAX_LINKS = 128


class Span(msgspec.Struct, frozen=True, gc=False):
    """A span of a trace.

    Attributes:
        parent_id: the id of the span above it in the trace; 0 if there is none.
        start_s, end_s: its beginning and end, on the loop's clock.
        links: related spans, also of other traces.
    """

    name: str
    context: SpanContext
    parent_id: int
    kind: Kind
    start_s: float
    end_s: float
    attributes: dict[str, Value]
    links: tuple[SpanContext, ...] = ()
    error: str = ""


class Tracer:
    """Decides which requests are traced, and makes the spans' ids.

    ``share`` is the share of requests without a parent that is traced. A request with a parent follows its sampled
    flag.
    """

    def __init__(self, share: float, random: Random) -> None:
        self._share = share
        self._random = random

    def begin(self, parent: Parent | None, chance: float) -> tuple[SpanContext | None, int]:
        """Return the span of a request, or None if it is not traced, and the id of its parent, or 0.

        ``chance`` is a random number from 0 to below 1, drawn for this request.
        """
        if parent is not None:
            return (self.child(parent.context), parent.context.span_id) if parent.is_sampled else (None, 0)
        if chance >= self._share:
            return None, 0
        return SpanContext(self._random.getrandbits(128) or 1, self._id()), 0

    def child(self, context: SpanContext) -> SpanContext:
        return SpanContext(context.trace_id, self._id(), context.state)

    def _id(self) -> int:
        return self._random.getrandbits(64) or 1  # 0 means no span

    # -- spans -----------------------------------------------------------------------------------------------

    def request(self, note: RequestNote, status: str, is_error: bool, now_s: float, system: str) -> Span | None:
        """Make the span of a request; None if it is not traced. ``system`` is ``http`` or ``grpc``."""
        if note.span is None:
            return None
        attributes: dict[str, Value] = {"url.path": note.path}
        if system == "http":
            attributes |= {"http.request.method": note.method, "http.response.status_code": int(status)}
        else:
            attributes |= {"rpc.system": "grpc", "rpc.response.status_code": status}
        if note.id:
            attributes["clipper.request_id"] = note.id
        # Traces are grouped by name, and there are endless wrong paths.
        name = f"{note.method} {note.path}" if note.application else note.method
        error = status if is_error else ""
        return Span(name, note.span, note.parent_id, "server", note.arrived_s, now_s, attributes, (), error)

    def query(self, query: EndedQuery) -> list[Span]:
        """Make the spans of a query and of the selection of its models; none if it is not traced."""
        note = query.note
        if note is None or note.span is None or note.request.span is None:
            return []
        attributes: dict[str, Value] = {
            "clipper.application": query.application,
            "clipper.query_id": query.query_id,
            "clipper.models": query.models,
            "clipper.stages": query.stage,
            "clipper.cache_hits": note.cache_hits,
            "clipper.slo_ms": query.slo_s * 1000,
        }
        if query.reason:
            attributes["clipper.reason"] = query.reason
        context, parent_id = note.span, note.parent_id or note.request.span.span_id
        name = f"query {query.application}"
        spans = [
            Span(name, context, parent_id, "internal", query.arrival_s, query.ended_s, attributes, (), query.reason)
        ]
        if note.selected_s:
            name = f"select {query.application}"
            start_s, own = query.arrival_s, self.child(context)
            spans.append(Span(name, own, context.span_id, "internal", start_s, note.selected_s, {}))
        return spans

    def queued(self, model: str, version: str, context: SpanContext, since_s: float, batch: "BatchNote") -> Span:
        """Make the span of a query's wait in a queue, until ``batch`` was sent."""
        attributes: dict[str, Value] = {"clipper.model": model, "clipper.version": version}
        name, own = f"queue {model}", self.child(context)
        return Span(name, own, context.span_id, "internal", since_s, batch.sent_s, attributes, (batch.context,))

    def batch(
        self, model: str, version: str, batch: "BatchNote", queries: Sequence[SpanContext], end: "BatchEnd"
    ) -> list[Span]:
        """Make the spans of a batch and of its computation in the container, for the queries that waited for it."""
        links = tuple(dict.fromkeys((*batch.queries, *queries)))
        attributes: dict[str, Value] = {
            "clipper.model": model,
            "clipper.version": version,
            "clipper.replica": batch.replica,
            "clipper.batch_size": batch.size,
            "clipper.traced_queries": len(links),
        }
        parent_id = links[0].span_id
        spans = [
            Span(
                f"batch {model}",
                batch.context,
                parent_id,
                "client",
                batch.sent_s,
                end.at_s,
                attributes,
                links[:MAX_LINKS],
                "" if end.compute_s is not None else "no results came",
            )
        ]
        if end.compute_s is not None:
            # The container says how long it computed, not when: assume that each way took half of the rest.
            way_s = max(0.0, end.at_s - batch.sent_s - end.compute_s) / 2
            start_s, end_s = batch.sent_s + way_s, end.at_s - way_s
            own = self.child(batch.context)
            spans.append(
                Span(f"compute {model}", own, batch.context.span_id, "internal", start_s, end_s, {**attributes})
            )
        return spans


class BatchNote(msgspec.Struct, frozen=True, gc=False):
    """A batch in progress that has traced queries: their spans, and its own."""

    context: SpanContext
    sent_s: float
    replica: str
    size: int
    queries: tuple[SpanContext, ...]

    @property
    def trace(self) -> BatchTrace:
        """The trace that the worker sends to the container."""
        return BatchTrace(write_context(self.context), tuple(map(write_context, self.queries[:MAX_LINKS])))


class BatchEnd(msgspec.Struct, frozen=True, gc=False):
    """The time at which a batch came back, and how long its container computed; None if no results came."""

    at_s: float
    compute_s: float | None
