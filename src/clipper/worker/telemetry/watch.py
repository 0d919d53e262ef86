"""Notes on a worker's requests and queries, for its logs and for spans. A worker without these has no ``Watch``.

The query path calls it only for requests that have a note, and for slow queries.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from clipper.control.statistics import TelemetryStatistics
from clipper.settings.server import TelemetrySettings
from clipper.worker.telemetry.exporter import Exporter
from clipper.worker.telemetry.lines import ACCESS, SLOW_QUERY, Formatter, access_said, as_json, as_text, slow_said
from clipper.worker.telemetry.log_file import LogFile
from clipper.worker.telemetry.request_note import EndedQuery, QueryNote, RequestNote
from clipper.worker.telemetry.spans import MAX_LINKS, BatchEnd, BatchNote, Span, Tracer
from clipper.worker.telemetry.trace_context import SpanContext, read_parent

# Bounds on lines per second and worker. A log of 8 MiB then covers half a minute; the log of slow queries, an hour.
ACCESS_LINES = 1000
SLOW_LINES = 10
# The length at which a path is cut.
MAX_PATH_CHARACTERS = 200


class RateBound:
    """Bounds the lines of a log by a bucket of tokens for a second. ``left_out`` counts the omitted lines."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._tokens = float(per_second)
        self._last_s = 0.0
        self.left_out = self._told = 0

    def lets(self, now_s: float) -> bool:
        self._tokens = min(self._per_second, self._tokens + max(0.0, now_s - self._last_s) * self._per_second)
        self._last_s = now_s
        if self._tokens < 1:
            self.left_out += 1
            return False
        self._tokens -= 1
        return True

    def left_out_since(self) -> int:
        """Return how many lines were omitted since the last call."""
        since, self._told = self.left_out - self._told, self.left_out
        return since


class Watch:
    """Notes on requests, queries and batches.

    Attributes:
        slow_s: the time above which a query is slow.
        draw: draws a random number from 0 to below 1 for a request.
        most: a request whose drawn number is at least this gets a note only if it has an id or a parent span.
        traced_until_s: the time by which all traced queries so far have ended, on the loop's clock.
    """

    def __init__(
        self,
        settings: TelemetrySettings,
        logs: Path,
        index: int,
        exporter: Exporter | None,
        random: Random,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Make a watch. ``logs`` is the folder of the logs, and ``index`` the worker's index."""
        self._share = settings.access_log
        self._access = LogFile(logs / f"access-{index}.log") if settings.access_log else None
        slow_ms = settings.slow_query_ms
        self._slow = None if slow_ms is None else LogFile(logs / f"slow-{index}.log")
        self.slow_s = float("inf") if slow_ms is None else slow_ms / 1000
        self._access_rate, self._slow_rate = RateBound(ACCESS_LINES), RateBound(SLOW_LINES)
        self._format: Formatter = as_json if settings.log_format == "json" else as_text
        self._exporter = exporter
        self._tracer = Tracer(settings.trace_share, random) if exporter is not None else None
        self._random = random
        self.draw = random.random
        self.most = max(settings.access_log, settings.trace_share if exporter is not None else 0.0)
        self._wall_s = wall_s
        self.traced_until_s = 0.0

    # -- requests ----------------------------------------------------------------------------------------------

    def note(
        self,
        chance: float,
        arrived_s: float,
        request_id: str,
        traceparents: Sequence[bytes],
        tracestates: Sequence[bytes],
        about: Callable[[], tuple[str, str, str]],
        *,
        may_begin: bool = True,
    ) -> RequestNote | None:
        """Make a note on a request that has arrived; None if neither a log nor a trace needs it.

        Args:
            chance: the number that ``draw`` returned for the request.
            request_id: the id that its client sent; empty if there is none.
            about: returns its method, its path and its client's address.
            may_begin: whether a trace may begin with it; probes of the server's health begin none.
        """
        is_logged = self._access is not None and chance < self._share
        span, parent_id = None, 0
        if self._tracer is not None:
            parent = read_parent(traceparents, tracestates) if traceparents else None
            if parent is not None or may_begin:
                span, parent_id = self._tracer.begin(parent, chance)
        if span is None and not is_logged:
            return RequestNote(arrived_s, request_id) if request_id else None
        method, path, client = about()
        made = f"{self._random.getrandbits(64):016x}" if is_logged and not request_id else request_id
        path = path.partition("?")[0][:MAX_PATH_CHARACTERS]
        return RequestNote(arrived_s, made, method, path, client, is_logged, span, parent_id)

    def answered(
        self, note: RequestNote, status: str, is_error: bool, now_s: float, answer_bytes: int, system: str
    ) -> None:
        """Log and trace a request that was answered, or whose client has disconnected.

        Args:
            status: the status of HTTP or gRPC.
            is_error: whether the status is the server's fault.
            system: ``http`` or ``grpc``.
        """
        if note.is_logged and self._access is not None and self._access_rate.lets(now_s):
            message, said = access_said(note, status, now_s, answer_bytes, self._access_rate.left_out_since())
            line = self._format(self._wall_s(), ACCESS, message, said)
            self._access.add(line, len(line))
        if note.span is not None and self._tracer is not None:
            self._add([self._tracer.request(note, status, is_error, now_s, system)])

    # -- queries -----------------------------------------------------------------------------------------------

    def begin(self, request: RequestNote, application: str, query_id: int, deadline_s: float) -> QueryNote:
        """Make a note on a query of a request that has a note."""
        request.application = application
        request.queries += 1
        request.query_id = request.query_id or query_id
        if request.span is None or self._tracer is None:
            return QueryNote(request)
        self.traced_until_s = max(self.traced_until_s, deadline_s)
        return QueryNote(request, self._tracer.child(request.span))

    def begin_part(self, note: QueryNote) -> QueryNote | None:
        """Make a note on a query of a pipeline's step. ``note``: of the pipeline's query. None if it is not traced."""
        if note.span is None or self._tracer is None:
            return None
        return QueryNote(note.request, self._tracer.child(note.span), parent_id=note.span.span_id)

    def begin_asked(self, batch: BatchNote) -> QueryNote | None:
        """Make a note on a query that a model asks while it evaluates a batch. None if it is not traced."""
        if self._tracer is None:
            return None
        request = RequestNote(batch.sent_s, span=batch.context)
        return QueryNote(request, self._tracer.child(batch.context), parent_id=batch.context.span_id)

    def ended(self, query: EndedQuery) -> None:
        """Log and trace a query that is slow, or whose request has a note."""
        is_slow = query.ended_s - query.arrival_s > self.slow_s
        if is_slow and self._slow is not None and self._slow_rate.lets(query.ended_s):
            message, said = slow_said(query, self._slow_rate.left_out_since())
            line = self._format(self._wall_s(), SLOW_QUERY, message, said)
            self._slow.add(line, len(line))
        if self._tracer is not None and query.note is not None:
            self._add(self._tracer.query(query))

    # -- batches -----------------------------------------------------------------------------------------------

    def batch_note(
        self,
        model: str,
        version: str,
        replica: str,
        sent_s: float,
        size: int,
        queries: Sequence[tuple[SpanContext, float]],
    ) -> BatchNote | None:
        """Trace the waits of a batch's queries. ``queries`` are the spans and times of arrival of traced queries."""
        if self._tracer is None or not queries:
            return None
        contexts = tuple(dict.fromkeys(context for context, _ in queries))
        batch = BatchNote(self._tracer.child(contexts[0]), sent_s, replica, size, contexts)
        # Spans of more queries would hold up the loop for milliseconds.
        shown = queries[:MAX_LINKS]
        self._add([self._tracer.queued(model, version, context, since_s, batch) for context, since_s in shown])
        return batch

    def batch_ended(
        self, model: str, version: str, batch: BatchNote, queries: Sequence[SpanContext], end: BatchEnd
    ) -> None:
        """Trace a batch that came back. ``queries`` are the spans of all queries that wait for it now."""
        if self._tracer is not None:
            self._add(self._tracer.batch(model, version, batch, queries, end))

    # -- the worker --------------------------------------------------------------------------------------------

    def _add(self, spans: Sequence[Span | None]) -> None:
        for span in spans:
            if span is not None and self._exporter is not None:
                self._exporter.add(span)

    def statistics(self) -> TelemetryStatistics:
        files = {"access": self._access, "slow": self._slow}
        rates = {"access": self._access_rate, "slow": self._slow_rate}
        found = {name: file for name, file in files.items() if file is not None}
        exporter = self._exporter
        parts: list[LogFile | Exporter] = [*found.values(), *([] if exporter is None else [exporter])]
        return TelemetryStatistics(
            lines_written={name: file.done for name, file in found.items()},
            lines_left_out={name: file.over + file.failed + rates[name].left_out for name, file in found.items()},
            spans_exported=None if exporter is None else exporter.done,
            spans_dropped={} if exporter is None else {"queue_full": exporter.over, "export_failed": exporter.failed},
            spans_waiting=0 if exporter is None else exporter.waiting,
            problems=tuple(f"cannot {part.task}: {part.problem}" for part in parts if part.problem is not None),
        )

    async def close(self) -> None:
        """Write the lines and send the spans that wait, for seconds at most."""
        parts = [part for part in (self._access, self._slow, self._exporter) if part is not None]
        await asyncio.gather(*(asyncio.to_thread(part.close) for part in parts))
