"""The lines of the access log and of the slow-query log, as text or as JSON objects.

They never contain inputs, outputs, contexts, keys (only their names) or a URL's query.
"""

import json
from collections.abc import Callable

from clipper.base.log_format import one_line, utc
from clipper.worker.telemetry.request_note import EndedQuery, RequestNote
from clipper.worker.telemetry.trace_context import SpanContext

Said = dict[str, object]
Formatter = Callable[[float, str, str, Said], bytes]

ACCESS = "clipper.access"
SLOW_QUERY = "clipper.slow_query"


def access_said(note: RequestNote, status: str, now_s: float, answer_bytes: int, left_out: int) -> tuple[str, Said]:
    """Return the message and the fields of an answered request."""
    duration_ms = round((now_s - note.arrived_s) * 1000, 3)
    said: Said = {
        "application": note.application,
        "request_id": note.id,
        "query_id": note.query_id or None,
        "queries": note.queries if note.queries > 1 else None,
        "trace_id": _trace_id(note.span),
        "client": note.client,
        "key": note.key,
        "method": note.method,
        "path": note.path,
        "status": status,
        "duration_ms": duration_ms,
        "answer_bytes": answer_bytes,
        "left_out": left_out or None,
    }
    return f"{note.method} {note.path} {status} in {duration_ms:g} ms", _known(said)


def slow_said(query: EndedQuery, left_out: int) -> tuple[str, Said]:
    """Return the message and the fields of a slow query."""
    duration_ms = round((query.ended_s - query.arrival_s) * 1000, 3)
    said: Said = {
        "application": query.application,
        "request_id": query.note.request.id if query.note else None,
        "query_id": query.query_id,
        "trace_id": _trace_id(query.note.span) if query.note else None,
        "duration_ms": duration_ms,
        "slo_ms": round(query.slo_s * 1000, 3),
        "models": ",".join(query.models),
        "stages": query.stage if query.stage > 1 else None,
        "reason": query.reason,
        "left_out": left_out or None,
    }
    why = f", without an answer: {query.reason}" if query.reason else ""
    return f"a query of {query.application} took {duration_ms:g} ms{why}", _known(said)


def as_json(at_s: float, logger: str, message: str, said: Said) -> bytes:
    line = {"time": utc(at_s), "level": "info", "logger": logger, "message": message} | said
    return json.dumps(line).encode() + b"\n"


def as_text(at_s: float, logger: str, message: str, said: Said) -> bytes:
    fields = " ".join(f"{name}={value}" for name, value in said.items() if str(value) not in message.split())
    return one_line(f"{utc(at_s)} INFO {logger}: {message} {fields}").encode("utf-8", "replace") + b"\n"


def _known(said: Said) -> Said:
    return {name: value for name, value in said.items() if value is not None and value != ""}


def _trace_id(span: SpanContext | None) -> str | None:
    return None if span is None else f"{span.trace_id:032x}"
