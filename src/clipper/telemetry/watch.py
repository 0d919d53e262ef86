"""What a worker notes of its requests and queries, for its logs and for spans. A worker without these has no watch.

The query path asks it only for requests that have a note, and about queries that took long.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from clipper.control.statistics import TelemetryStatistics
from clipper.settings.telemetry import TelemetrySettings
from clipper.telemetry.exporter import Exporter
from clipper.telemetry.lines import ACCESS, SLOW_QUERY, Formatter, access_said, as_json, as_text, slow_said
from clipper.telemetry.log_file import LogFile
from clipper.telemetry.rate_bound import RateBound
from clipper.telemetry.request_note import EndedQuery, QueryNote, RequestNote
from clipper.telemetry.spans import MAX_LINKS, BatchEnd, BatchNote, Span, Tracer
from clipper.telemetry.trace_context import SpanContext, read_parent

# Lines a second of a worker in each log. A log of 8 MiB then reaches back half a minute, or, of slow queries, an hour.
ACCESS_LINES = 1000
SLOW_LINES = 10
# What is shown of a path.
MAX_PATH_CHARACTERS = 200


class Watch:
    """
    Attributes:
        slow_s: queries that took longer are slow.
        draw: draws a random number from 0 to below 1 for a request.
        most: requests with such a number, or a higher one, are noted only for what they bring.
        traced_until_s: by then all traced queries so far have ended, on the loop's clock.
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
        """``logs`` is the folder of the logs, and ``index`` the worker's."""
        self._share = settings.access_log
        self._access = LogFile(logs / f"access-{index}.log") if settings.access_log else None
        slow_ms = settings.slow_query_ms
        self._slow = None if slow_ms is None else LogFile(logs / f"slow-{index}.log")
        self.slow_s = float("inf") if slow_ms is None else slow_ms / 1000
        self._access_rate = RateBound(ACCESS_LINES, ACCESS_LINES)
        self._slow_rate = RateBound(SLOW_LINES, SLOW_LINES)
        self._format: Formatter = as_json if settings.log_format == "json" else as_text
        self._exporter = exporter
        self._tracer = Tracer(settings.trace_share, random) if exporter is not None else None
        self._random = random
        self.draw = random.random
        self.most = max(settings.access_log, settings.trace_share if exporter is not None else 0.0)
        self._wall_s = wall_s
        self._left_out = {"access": 0, "slow": 0}
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
        """Note a request that has arrived; None if nobody wants to know of it.

        Args:
            chance: what ``draw`` has drawn for it.
            arrived_s: when, on the loop's clock.
            request_id: what its client sent; empty if it sent none.
            traceparents, tracestates: what it sent of these headers.
            about: returns its method, its path and its client's address.
            may_begin: whether a trace may begin with it, as with no probe of the server's health.
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
        """Tell of a request that was answered, or whose client has left.

        Args:
            note: its note.
            status: of HTTP or gRPC.
            is_error: whether the server is to blame for it.
            now_s: the loop's time.
            answer_bytes: the answer's size.
            system: ``http`` or ``grpc``.
        """
        if note.is_logged and self._access is not None and self._access_rate.lets(now_s):
            left_out = self._access_rate.take_left_out()
            self._left_out["access"] += left_out
            message, said = access_said(note, status, now_s, answer_bytes, left_out)
            self._access.add(self._format(self._wall_s(), ACCESS, message, said))
        if note.span is not None and self._tracer is not None:
            self._add([self._tracer.request(note, status, is_error, now_s, system)])

    # -- queries -----------------------------------------------------------------------------------------------

    def begin(self, request: RequestNote, application: str, query_id: int, deadline_s: float) -> QueryNote:
        """Note a query of a request that has a note."""
        request.application = application
        request.queries += 1
        request.query_id = request.query_id or query_id
        if request.span is None or self._tracer is None:
            return QueryNote(request)
        self.traced_until_s = max(self.traced_until_s, deadline_s)
        return QueryNote(request, self._tracer.child(request.span))

    def ended(self, query: EndedQuery) -> None:
        """Tell of a query that is slow, or whose request has a note."""
        is_slow = query.ended_s - query.arrival_s > self.slow_s
        if is_slow and self._slow is not None and self._slow_rate.lets(query.ended_s):
            left_out = self._slow_rate.take_left_out()
            self._left_out["slow"] += left_out
            message, said = slow_said(query, left_out)
            self._slow.add(self._format(self._wall_s(), SLOW_QUERY, message, said))
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
        """Tell of the traced queries that a batch has taken from their queue: each one's span, and when it arrived."""
        if self._tracer is None or not queries:
            return None
        contexts = tuple(dict.fromkeys(context for context, _ in queries))
        batch = BatchNote(self._tracer.child(contexts[0]), sent_s, replica, size, contexts)
        # Of more queries the loop would make spans for milliseconds.
        shown = queries[:MAX_LINKS]
        self._add([self._tracer.queued(model, version, context, since_s, batch) for context, since_s in shown])
        return batch

    def batch_ended(
        self, model: str, version: str, batch: BatchNote, queries: Sequence[SpanContext], end: BatchEnd
    ) -> None:
        """Tell of a batch that came back, and of all traced queries that wait for it now."""
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
        problems = [f"cannot write {file.problem}" for file in found.values() if file.problem is not None]
        if exporter is not None and exporter.problem is not None:
            problems.append(f"cannot send spans: {exporter.problem}")
        return TelemetryStatistics(
            lines_written={name: file.written for name, file in found.items()},
            lines_left_out={
                name: file.dropped + self._left_out[name] + rates[name].left_out for name, file in found.items()
            },
            spans_exported=None if exporter is None else exporter.exported,
            spans_dropped={} if exporter is None else exporter.dropped,
            spans_waiting=0 if exporter is None else exporter.waiting,
            problems=tuple(problems),
        )

    async def close(self) -> None:
        """Write and send what waits, for seconds at most."""
        parts = [part for part in (self._access, self._slow, self._exporter) if part is not None]
        await asyncio.gather(*(asyncio.to_thread(part.close) for part in parts))
