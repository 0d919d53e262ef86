"""Notes on a request and on a query, for logs, for traces and for the client."""

import re

import msgspec

from clipper.worker.telemetry.trace_context import SpanContext

# The longest id that a client may send: a UUID has 36 characters, a trace id 32.
MAX_REQUEST_ID_BYTES = 128
# Characters that need no escape in a header, a URL, JSON or a shell.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,%d}" % MAX_REQUEST_ID_BYTES)


def read_request_id(value: bytes) -> str:
    """Return the id that a client sent; empty if it is not valid."""
    return value.decode() if _REQUEST_ID.fullmatch(value) else ""


class RequestNote(msgspec.Struct, gc=False, eq=False):
    """The note on a request. Nothing in it refers back to it, so the garbage collector need not track it.

    Attributes:
        arrived_s: when the request was read, on the loop's clock.
        id: the request's id, which its answer repeats; empty if it has none.
        method, path: its method and its path, without the URL's query; empty if nothing needs them.
        is_logged: whether the access log contains the request.
        span: the request's span; None if it is not traced.
        parent_id: the id of the caller's span; 0 if there is none.
        application: the application that it queried; empty if it queried none.
        queries, query_id: the number of its queries, and the id of the first.
        key: the name of the key that it showed; empty if it needed none.
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
    """The note on a query of a request that has a note.

    Attributes:
        selected_s: when a policy had selected its models; 0 if there was nothing to select.
        cache_hits: the number of outputs that were in the cache.
        parent_id: the id of the span of the pipeline's query, if it is one of a step; 0 if its request asked it.
    """

    request: RequestNote
    span: SpanContext | None = None
    selected_s: float = 0.0
    cache_hits: int = 0
    parent_id: int = 0


class EndedQuery(msgspec.Struct, frozen=True, gc=False):
    """The end of a query.

    Attributes:
        arrival_s, ended_s: when it came and ended, on the loop's clock.
        models: the models that were asked first; empty if none was asked.
        stage: the number of times that models were asked.
        reason: the error code for which the query has no answer; empty if it has one.
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
