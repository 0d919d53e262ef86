"""Decides which web pages may read the query port's answers: cross-origin requests of the Fetch standard.

A browser sends the origin of the page, and hides the answer from the page unless the answer names that origin. Before a
request with JSON or a key, it asks with OPTIONS, without a key, whether it may send the request. Clipper checks none of
this unless an origin is allowed. A program's request has no origin and costs the same either way.
"""

import re
from collections.abc import Collection, Sequence

from clipper.worker.frontend.endpoint import Endpoint, Small
from clipper.worker.frontend.exchange import Answerer, Exchange, LongAnswers
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.heads import Head

# The word that allows every origin.
ANY = "*"
# The beginning of the answer to a browser that asks before it sends. An origin that is no longer allowed cannot send
# keys for longer than the maximal age.
_PREFLIGHT = b"HTTP/1.1 204 No Content\r\naccess-control-allow-methods: GET, POST\r\naccess-control-max-age: 600\r\n"
# The header values of a request that an answer may repeat: text within a line.
_NAMES = re.compile(rb"[!-~ \t]+")
_VARY = b"vary: origin\r\n"
# Further headers of answers that a page may read.
_EXPOSED = b"access-control-expose-headers: inference-header-content-length, retry-after, x-request-id\r\n"


class Origins:
    """The origins that are allowed: each ``SCHEME://HOST`` or ``SCHEME://HOST:PORT``, or ``*`` for all."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allows_any = ANY in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def answerer(self, head: Head, connection: Answerer, pending: Sequence[Exchange]) -> Answerer:
        """Return the receiver of a request's answer: the connection, or a wrapper that first adds headers."""
        if not head.origin and self._allows_any:
            return connection
        headers = self._headers(head.origin)
        if headers:
            # Equal heads are handled without this.
            head.is_plain = False
            headers += _EXPOSED
        return _Marking(connection, pending, headers or _VARY)

    def allows(self, origin: bytes) -> bool:
        return self._allows_any or origin in self._allowed

    def preflight(self, head: Head) -> Endpoint | None:
        """Return the endpoint that answers a browser that asks before it sends; None for any other request.

        The answer allows the page to send everything that the path takes, or refuses by itself.
        """
        if not head.requested_method or not self._headers(head.origin):
            return None
        names = head.requested_headers if _NAMES.fullmatch(head.requested_headers) else b""

        def answer(exchange: Exchange, body: bytes | bytearray) -> None:
            headers = b"access-control-allow-headers: %b\r\n" % names if names else b""
            closes = b"connection: close\r\n" if exchange.closes else b""
            exchange.respond(b"%b%b%b\r\n" % (_PREFLIGHT, headers, closes))

        return Small(answer, ("OPTIONS",))

    def _headers(self, origin: bytes) -> bytes:
        if not origin:
            return b""
        if self._allows_any:
            return b"access-control-allow-origin: *\r\n"
        return b"access-control-allow-origin: %b\r\n%b" % (origin, _VARY) if origin in self._allowed else b""


class _Marking:
    """Adds headers to the answer to a request."""

    __slots__ = ("_connection", "_headers", "_pending")

    def __init__(self, connection: Answerer, pending: Sequence[Exchange], headers: bytes) -> None:
        self._connection = connection
        self._pending = pending
        self._headers = headers

    @property
    def long_answers(self) -> LongAnswers:
        return self._connection.long_answers

    def flush(self) -> None:
        for exchange in self._pending:
            response = exchange.response
            if exchange.connection is self and response is not None:
                exchange.connection = self._connection
                if response is not responses.CONTINUE:
                    end = response.index(b"\r\n") + 2
                    exchange.response = b"%b%b%b" % (response[:end], self._headers, response[end:])
        self._connection.flush()
