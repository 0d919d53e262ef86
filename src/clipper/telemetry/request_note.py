"""What is noted of a request, and of a query, for logs, traces and the client."""

import re

import msgspec

from clipper.telemetry.trace_context import SpanContext

# Ids that clients send are at most this long: a UUID has 36 characters, a trace id 32.
MAX_REQUEST_ID_BYTES = 128
# What needs no escape in a header, a URL, JSON or a shell.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,%d}" % MAX_REQUEST_ID_BYTES)


def read_request_id(value: bytes) -> str:
    """The id that a client sent; empty if what it sent is not a valid id, which counts as none."""
    return value.decode() if _REQUEST_ID.fullmatch(value) else ""


class RequestNote(msgspec.Struct, gc=False, eq=False):
    """Of one request. Nothing in it refers back, so the collector need not look at it.

    Attributes:
        arrived_s: when it was read, on the loop's clock.
        id: the request's id, which its answer has; empty if it has none.
        method, path: without the query; empty if nothing needs them.
        client: its address.
        is_logged: whether the access log contains it.
        span, parent_id: the request's span, and the id of the caller's, 0 if there is none. None if it is not traced.
        application: whose query it asked; empty if it asked none.
        queries, query_id: number of the queries that it asked, and the first one's id.
        key: the name of the key that it was let in by; empty if none was needed.
    """

    arrived_s: float
    id: str = ""
    method: str = ""
    path: str = ""
    client: str = ""
    is_logged: bool = False
    span: SpanContext | None = None
    parent_id: int = 0
    application: str = ""
    queries: int = 0
    query_id: int = 0
    key: str = ""


class QueryNote(msgspec.Struct, gc=False, eq=False):
    """Of one query of a request that has a note.

    Attributes:
        span: the query's span; None if it is not traced.
        selected_s: when a policy had selected its models; 0 if there was nothing to select.
        cache_hits: outputs that were in the cache.
    """

    request: RequestNote
    span: SpanContext | None = None
    selected_s: float = 0.0
    cache_hits: int = 0


class EndedQuery(msgspec.Struct, frozen=True, gc=False):
    """What became of a query.

    Attributes:
        arrival_s, ended_s: on the loop's clock.
        slo_s: the application's.
        models: those that were asked first; empty if none was.
        stage: how often models were asked.
        reason: the code of the error for which it has no answer; empty if it has one.
    """

    application: str
    query_id: int
    arrival_s: float
    ended_s: float
    slo_s: float
    models: tuple[str, ...]
    stage: int
    reason: str
    note: QueryNote | None
