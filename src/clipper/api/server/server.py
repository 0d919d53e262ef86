"""The management API's HTTP server: uvicorn's, with bounds on what a client may hold.

Anyone who reaches the port can open connections, with or without a token. So an idle connection is closed for a new
one, and nobody can keep health checks and operators out by holding all connections.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from clipper.api.server.gate import Gate
from clipper.api.server.statuses import bare_answer
from clipper.base.tls.handshakes import Handshakes
from clipper.base.tls.transport import TlsTransport
from clipper.base.turn_budget import TurnBudget
from clipper.errors import ClipperError, MalformedRequest, Overloaded, RequestTimeout, TooLarge

# An operator's tools hold a few connections.
MAX_CONNECTIONS = 256
# The clients' share of the process's descriptors: the rest is for workers and containers.
DESCRIPTORS_SHARE = 4
# A head has a token, a host and a path: some hundred bytes.
MAX_HEAD_BYTES = 32 * 1024
# A read is parsed in parts of this size, so that an overlong head is noticed before all of it is parsed.
PARSED_AT_ONCE_BYTES = 64 * 1024
# Requests that wait for the request before them on their connection; each takes some KB.
MAX_PIPELINED = 16
# A client that already has its answer may send this much more: it then reads the answer instead of a reset connection.
MAX_DISCARDED_BYTES = 1024 * 1024
# Time for a request's head, and for a new connection to send its first request.
HEAD_TIMEOUT_S = 10.0
# The longest silence within a body, or while a client does not read. A tar of 16 GiB may take hours, a piece does not.
BODY_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 30.0
# The time for answers to operators that are under way when the server stops.
GRACE_S = 2
# When the server stops, a client that has connected within this time may still send a request. Another server may go on
# with the port, as a standby that leads does, and its clients should not notice.
FIRST_REQUEST_S = 0.25
# uvicorn calls ``on_tick`` ten times a second; a look at all connections takes microseconds.
_TICKS_A_SWEEP = 2


class Connection(HttpToolsProtocol):
    """A client's connection. ``read_at_s``: when the client last sent something."""

    def __init__(self, max_connections: int, **parts: Any) -> None:
        super().__init__(**parts)
        self._max_connections = max_connections
        self._running: RequestResponseCycle | None = None
        self._is_in_head = False
        self._has_begun = False
        self._head_bytes = 0
        self._discarded_bytes = 0
        self._head_since_s = self.read_at_s = time.monotonic()
        self._unwritten = (0, 0.0)

    @property
    def asks_nothing(self) -> bool:
        """Whether none of the connection's requests is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) <= self._max_connections:
            return
        others: list[Connection] = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        idle = [one for one in others if one.asks_nothing]
        idle = idle or [one for one in others if one.transport.get_write_buffer_size()]  # their clients do not read
        leaving = min(idle, key=lambda one: one.read_at_s, default=self)
        # At once, and not when it is lost, in the next turn: others that came in this turn would find it again.
        self.connections.discard(leaving)
        if leaving is not self:
            leaving.transport.abort()
        else:
            self._refuse(
                Overloaded(f"{len(others)} requests are under way, the most that are allowed: try again later")
            )

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tracks the newest request; with several requests, the oldest is being answered.
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End as soon as the requests under way are answered: the server stops."""
        left_s = FIRST_REQUEST_S - (time.monotonic() - self._head_since_s)
        if self.cycle is None and left_s > 0:
            self.loop.call_later(left_s, super().shutdown)
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        self.read_at_s = time.monotonic()
        for start in range(0, len(data), PARSED_AT_ONCE_BYTES):
            if self.transport.is_closing():
                return
            part = data[start : start + PARSED_AT_ONCE_BYTES]
            self._has_begun = False
            self._parse(part)
            # A head may have begun anywhere in this part, so its size up to here is not known.
            self._head_bytes += 0 if self._has_begun else len(part)
            if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(TooLarge(f"the request's head is over {MAX_HEAD_BYTES} bytes"))

    def _parse(self, data: bytes) -> None:
        """Parse as uvicorn does, except that an offer of another protocol, such as Java's client makes, is ignored.

        uvicorn takes the bytes after an offer for the other protocol: the request's body is lost, or its later part is
        read as the next request.
        """
        self._unset_keepalive_if_required()
        try:
            while data and not self.transport.is_closing():
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as offer:
                    data = self._head_without_offer() + data[offer.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _head_without_offer(self) -> bytes:
        """Return the head that was just read without its offer, to be read again."""
        version = self.parser.get_http_version().encode()
        headers = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(headers))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = self._has_begun = True
        self._head_bytes = 0
        self._head_since_s = time.monotonic()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                # A CONNECT request has no other meaning, so it cannot be answered.
                self._refuse(MalformedRequest("CONNECT is not allowed: this is not a proxy"))
            return  # the head is parsed a second time, without the offer
        self._discarded_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.close()
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.transport.close()
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer in the form of all other errors if uvicorn's parser fails."""
        self._refuse(MalformedRequest(f"{msg} expected HTTP/1.1"))

    def sweep(self, now_s: float) -> None:
        """Close the connection if it has been silent for too long."""
        unwritten, since_s = self.transport.get_write_buffer_size(), self._unwritten[1]
        if unwritten != self._unwritten[0]:
            self._unwritten = unwritten, now_s
        elif unwritten and now_s - since_s > WRITE_TIMEOUT_S:
            # Also while the connection is closing, which waits until everything is written.
            self.transport.abort()
            return
        if self.transport.is_closing():
            return
        is_new, is_silent = self.cycle is None, now_s - self.read_at_s > BODY_TIMEOUT_S
        if (self._is_in_head or is_new) and now_s - self._head_since_s > HEAD_TIMEOUT_S:
            self._refuse(RequestTimeout(f"the request's head did not arrive within {HEAD_TIMEOUT_S:g} s"))
        elif not is_new and self.cycle.more_body and is_silent and not self.flow.read_paused:
            # While we do not read, a pause within a body is not the client's fault.
            self.transport.abort()

    def _refuse(self, error: ClipperError) -> None:
        """Answer a request that was not read to its end with an error, and close."""
        if self.transport.is_closing():
            return
        status, headers, body = bare_answer(error)
        lines = [b"HTTP/1.1 %d %s" % (status, error.code.encode()), b"connection: close"]
        lines += [name + b": " + value for name, value in headers]
        # In the middle of another answer, the client would read this one as a part of that.
        if self.asks_nothing:
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()


class ManagementServer(uvicorn.Server):
    """uvicorn's server, but the supervisor handles signals."""

    def __init__(self, app: Gate, max_descriptors: int, tls: ssl.SSLContext | None = None) -> None:
        """Serve ``app``. ``max_descriptors``: how many the process may have open. ``tls``: None serves plain HTTP."""
        # Without its own bound on connections, which would answer the next request with 503.
        config = uvicorn.Config(
            app,
            http=self._connect,  # type: ignore[arg-type]  # whatever makes a protocol of what one is made of
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._max_connections = min(MAX_CONNECTIONS, max_descriptors // DESCRIPTORS_SHARE)
        self._tls = tls
        self._handshakes: Handshakes | None = None

    def secure(self, tls: ssl.SSLContext) -> None:
        """Show another certificate to all further connections."""
        self._tls = tls
        if self._handshakes is not None:
            self._handshakes.context = tls

    def _connect(self, **parts: Any) -> asyncio.Protocol:
        connection = Connection(self._max_connections, **parts)
        if self._tls is None:
            return connection
        if self._handshakes is None:
            # As many handshakes as connections: the bounds on connections also cover handshakes.
            turn = TurnBudget(asyncio.get_running_loop().call_soon, time.monotonic)
            self._handshakes = Handshakes(self._tls, turn)
        return TlsTransport(connection, self._handshakes)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_A_SWEEP == 0:
            now_s = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now_s)
        return await super().on_tick(counter)
