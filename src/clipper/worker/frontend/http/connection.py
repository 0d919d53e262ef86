"""A client's connection: bytes to requests, and answers to bytes in the order of the requests.

A request whose head was seen before, byte for byte, and whose body came with it is recognised without parsing: equal
heads mean the same. All other bytes go through httptools.
"""

import asyncio
import logging
from collections import deque
from typing import cast

import httptools

from clipper.errors import ClipperError, NotFound
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import NO_ROOM, Untaken
from clipper.worker.frontend.endpoint import Endpoint, KnownHead
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.body import Body
from clipper.worker.frontend.http.giving_way import slow_from_s
from clipper.worker.frontend.http.heads import Head, path_of, piece_end
from clipper.worker.frontend.http.long_writing import give_up, is_written
from clipper.worker.frontend.http.port import Port, has_gone
from clipper.worker.frontend.http.waiting_input import Held
from clipper.worker.frontend.limits import LARGE_ANSWER_BYTES, MAX_PIPELINED

log = logging.getLogger(__name__)

HEAD_TOO_LARGE = f"the request's head is over {limits.MAX_HEAD_BYTES} bytes: send fewer or shorter headers"


class Connection:
    """Reads requests and writes answers: an ``asyncio.Protocol`` by its methods. The server's sweep checks timeouts."""

    __deletable__ = ("_parser",)  # compiled, and so no subclass of a class that is not

    def __init__(self, port: Port) -> None:
        self._port = port
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Exchange] = deque()
        self._body = Body(port.budget)
        self._held = Held(port.budget, port.turn, self._take_held, port.now_s())
        self._usual: KnownHead | None = None  # the head of the latest request, which the next mostly repeats
        self._reading_paused = self.is_paused = self.writes_long = False
        self.untaken, self.long_answers = Untaken(port.budget), port.work
        self.is_going = self._is_refused = self._in_message = False
        self._last_sweep = self._started_sweep = port.sweeps
        self._started_s = 0.0
        self._start_message()

    # -- asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._port.add(self):
            self._refuse("overloaded", f"over {self._port.max_connections} connections are open: try again in a moment")

    def connection_lost(self, error: Exception | None) -> None:
        self._port.remove(self)
        self._release_body()
        self.untaken.count(0, self._port.sweeps)
        while self._pending:
            give_up(self._port, self._pending.popleft())
        self._held.end()
        self._is_refused = True
        del self._parser  # it refers back to this object; thousands of such cycles would make the collector stall

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        port, held = self._port, self._held
        if held.data:
            self._hold(held.data[held.start :] + data, 0)
            return
        held.arrived_s = now_s = port.now_s()
        if now_s < port.turn.closes_s or port.turn.is_open(now_s):
            self._take(data, 0, now_s + limits.VISIT_S)
        else:
            held.arrived_s, held.is_rest = port.turn.arrived_s(now_s), False
            self._hold(data, 0)

    def eof_received(self) -> bool:
        """Answer the client's requests, then close: it sends no more but may still read."""
        if self._held.data:
            self._held.is_the_last = True
            return True
        self._is_refused, self._in_message = True, False
        self._last_sweep = self._port.sweeps
        self._release_body()
        return bool(self._pending)

    def pause_writing(self) -> None:
        """Stop reading requests and writing answers: the client does not read its answers."""
        self.is_paused = True
        self._adjust_reading()
        self.look_at_untaken()

    def resume_writing(self) -> None:
        self.is_paused = False
        self.untaken.count(0, self._port.sweeps)
        self.flush()
        self._adjust_reading()

    # -- requests --------------------------------------------------------------------------------------

    def _take(self, data: bytes, start: int, end_s: float) -> None:
        """Handle the requests that begin at ``start``, until ``end_s``. The rest waits for another visit."""
        port, held, pending, size, began = self._port, self._held, self._pending, len(data), -1
        self._last_sweep = port.sweeps
        while True:
            if self._in_message:
                start = self._feed(data, start)
            else:
                known, note = self._usual, None
                if known is None or data[start : (end := start + known.size_bytes)] != known.head:
                    end = data.find(b"\r\n\r\n", start) + 4
                    # Compiled code refuses a slice that ends before it begins, as when no head has ended.
                    head = data[start:end] if end > start else b""
                    self._usual = known = port.plain_heads.get(head)
                    if known is None:
                        known, note = port.recognise(head, held.arrived_s, self.transport)
                if known is None or size < (stop := end + known.body_bytes):
                    # The parser sets a new head if a request begins in these bytes. Blank lines alone begin none.
                    self._head.is_plain = False
                    began = start
                    start = self._feed(data, start)
                else:
                    exchange, start = Exchange(self), stop
                    if note is not None:
                        exchange.note = note
                    pending.append(exchange)
                    try:
                        known.endpoint.handle(exchange, data[end:stop], held.arrived_s, held.is_late)
                    except Exception as error:  # noqa: BLE001  maybe a bug: see _answer_failure
                        self._answer_failure(exchange, error)
                    if stop == size and len(pending) <= MAX_PIPELINED:
                        return
            if began >= 0 and not self._in_message:
                if self._head.is_plain and not self._is_refused:
                    port.learn_head(data[began:start], self._endpoint, self._head)
                began = -1
            if start >= size or self._is_refused:
                if len(pending) > MAX_PIPELINED:
                    self._adjust_reading()
                return
            if self._is_behind or port.now_s() >= end_s:
                held.is_rest = True
                self._hold(data, start)
                return

    def _feed(self, data: bytes, start: int) -> int:
        """Parse a piece of the data; return where the rest begins."""
        stop = piece_end(data, start, self._head.content_length - self._body.size_bytes if self._in_message else 0)
        self._parse(data[start:stop])
        return stop

    def _parse(self, data: bytes) -> None:
        self._unclaimed_bytes += len(data)
        try:
            while data and not self._is_refused:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._head.without_offer(self._parser) + data[upgrade.args[0] :]
                    self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            self._refuse("malformed_request", f"the request is not HTTP/1.1: {error}")
        else:
            if self._unclaimed_bytes > limits.MAX_HEAD_BYTES:
                self._refuse("head_too_large", HEAD_TOO_LARGE)

    def _refuse(self, code: str, cause: str) -> None:
        """Answer with an error in its turn, and read nothing more: the rest of the stream cannot be trusted."""
        if self._is_refused:
            return
        self._is_refused, self._in_message = True, False
        self._release_body()
        self._port.refused[code] += 1
        exchange = self._append_exchange("-")
        exchange.closes = True
        exchange.refuse(code, cause)

    def _append_exchange(self, method: str) -> Exchange:
        head, origins = self._head, self._port.origins
        exchange = Exchange(self if origins is None else origins.answerer(head, self, self._pending))
        exchange.note = self._port.note(self._held.arrived_s, head.varying, method, head.url, self.transport)
        exchange.error_json = self._port.error_form(self._path)
        self._pending.append(exchange)
        return exchange

    # -- httptools ---------------------------------------------------------------------------------------

    def _start_message(self) -> None:
        self._head = Head()
        self._endpoint: Endpoint | None = None
        self._path = b""
        self._body.max_bytes = limits.MAX_BODY_BYTES
        self._unclaimed_bytes = 0

    def on_message_begin(self) -> None:
        if self._is_refused:
            return
        self._start_message()
        self._in_message = True
        self._started_sweep, self._started_s = self._port.sweeps, self._held.arrived_s

    def on_url(self, url: bytes) -> None:
        self._head.add_url(url)
        if self._head.size_bytes > limits.MAX_HEAD_BYTES:
            self._refuse("head_too_large", HEAD_TOO_LARGE)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unclaimed_bytes = 0
        head = self._head
        head.add(name, value)
        if head.size_bytes > limits.MAX_HEAD_BYTES:
            self._refuse("head_too_large", HEAD_TOO_LARGE)
        elif head.expectation not in (b"", b"100-continue"):
            self._refuse(
                "expectation_failed",
                "expectations other than 100-continue are not supported: leave out the header Expect",
            )

    def on_headers_complete(self) -> None:
        if self._parser.should_upgrade() and not self._is_refused:
            if self._parser.get_method() == b"CONNECT":
                # The parser cannot read CONNECT without its upgrade.
                self._refuse("method_not_allowed", "CONNECT is not allowed: this is not a proxy")
            elif not self._parser.should_keep_alive():
                self._head.add_close()
            return  # the head is parsed a second time, without its upgrade
        self._path = path_of(self._head.url)
        try:
            endpoint = self._port.find(self._path, self._head)
        except ClipperError as error:  # refuse before the body is read
            self._refuse(error.code, str(error))
            return
        self._body.max_bytes = limits.MAX_BODY_BYTES if endpoint is None else endpoint.max_body_bytes
        if self._head.content_length > self._body.max_bytes:
            self._refuse("too_large", limits.over_bound("body", self._body.max_bytes))
        elif self._head.expectation and not self._is_refused:
            self._pending.append(interim := Exchange(self))
            interim.respond(responses.CONTINUE)

    def on_body(self, chunk: bytes) -> None:
        self._unclaimed_bytes = 0
        if self._is_refused:
            return
        self._body.add(chunk)
        if self._body.size_bytes > self._body.max_bytes:
            self._refuse("too_large", limits.over_bound("body", self._body.max_bytes))
        elif not self._port.budget.has_room(0):
            self._refuse("overloaded", NO_ROOM)

    def on_message_complete(self) -> None:
        if self._is_refused or self._parser.should_upgrade():
            return
        self._in_message = False
        body = self._body.take()
        self._release_body()
        method = self._parser.get_method().decode()
        exchange = self._append_exchange(method)
        exchange.has_body = method != "HEAD"
        # Keep-alive for HTTP/1.0 would need a header in each answer, so the connection closes instead.
        goes_on = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        exchange.closes = self._port.is_draining or not goes_on
        self._is_refused = exchange.closes
        self._head.is_plain = self._head.is_plain and method == "POST" and not exchange.closes
        self._handle(exchange, method, body)

    def _handle(self, exchange: Exchange, method: str, body: bytes | bytearray) -> None:
        try:
            # Look up again: while the body came, the application may have changed or the key may have been revoked.
            self._endpoint = endpoint = self._port.find(self._path, self._head)
            if endpoint is None:
                raise NotFound(self._port.why_not_found(self._path))
            if method in endpoint.methods:
                endpoint.handle(exchange, body, self._held.arrived_s, self._held.is_late)
                return
        except Exception as error:  # noqa: BLE001  maybe a bug: see _answer_failure
            self._answer_failure(exchange, error)
            return
        self._port.refused["method_not_allowed"] += 1
        allow = ", ".join(endpoint.methods)
        exchange.refuse("method_not_allowed", f"{method} is not allowed here: use {allow}", allow)

    def _answer_failure(self, exchange: Exchange, error: Exception) -> None:
        """Refuse the request. If that is for a bug in Clipper, which fails only this request, log the traceback."""
        if isinstance(error, ClipperError):
            self._port.work.refuse(exchange, error)
            return
        log.exception("failed to handle a request")
        if exchange.response is None:
            exchange.cancel()
            exchange.refuse("internal_error", responses.BUG)

    def _release_body(self) -> None:
        self._port.freed_large_body |= self._body.size_bytes > limits.LARGE_BODY_BYTES
        self._body.drop()

    # -- answers -----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the answers that are next in order, if the client reads."""
        pending = self._pending
        if self.is_paused:
            self.look_at_untaken()
            return
        is_first = True
        while pending:
            exchange = pending[0]
            response = exchange.response
            if response is None:
                if is_first:  # an earlier request is not answered yet
                    self.look_at_untaken()
                break
            is_first = False
            is_large = exchange.rest is not None
            if is_large:
                if not is_written(self._port, self, exchange):
                    return
                response = b""
            elif len(response) > LARGE_ANSWER_BYTES and not self.transport.is_closing():
                is_large = True
                response = self._port.fitting(self, response, exchange.closes, exchange.has_body)
            pending.popleft()
            if exchange.note is not None:
                response = self._port.conclude(exchange.note, response)
            if response and not self.transport.is_closing():
                self.transport.write(response)
            if is_large:
                self.look_at_untaken()
            if exchange.closes:
                self._finish_writing()
                return
        if not pending and self._is_refused:
            self._finish_writing()
        elif self._reading_paused:
            self._adjust_reading()

    def look_at_untaken(self) -> None:
        """Count this connection's unread answers. If memory is short, the port disconnects the slowest client."""
        if self.is_going:
            return
        waiting = sum([exchange.unwritten_bytes for exchange in self._pending])
        self.untaken.count(waiting + self.transport.get_write_buffer_size(), self._port.sweeps)
        if not self._port.budget.has_room(0):
            self._port.shed(0)

    def cut_off(self) -> None:
        """Close at once. Unread answers are released when the connection is lost."""
        self.is_going = True
        self.transport.abort()

    def _finish_writing(self) -> None:
        """Send EOF after the last answer, and let the sweep close once the client has had time to read."""
        while self._pending:
            self._pending.popleft().cancel()
        self._held.set(b"", 0)
        self._is_refused = True
        self._last_sweep = self._port.sweeps
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    # -- what waits ----------------------------------------------------------------------------------------

    @property
    def _is_behind(self) -> bool:
        """Whether the client must read answers before the worker handles more of its input."""
        return self.is_paused or len(self._pending) > MAX_PIPELINED

    def _hold(self, data: bytes, start: int) -> None:
        self._held.set(data, start)
        if self._port.budget.has_room(0):
            self._adjust_reading()
        else:
            self._refuse("overloaded", NO_ROOM)

    def _take_held(self, data: bytes, start: int) -> None:
        if data and not self._is_refused:
            self._take(data, start, self._port.now_s() + limits.VISIT_S)
        if self._held.is_the_last and not self._held.data and not self.eof_received():
            self._finish_writing()
        elif self._reading_paused:
            self._adjust_reading()

    def _adjust_reading(self) -> None:
        held, is_behind = self._held, self._is_behind
        if held.data and not held.waits and not is_behind:
            # Wait instead of handling the input here: an answer to the held input may have called this.
            held.wait(None if self._in_message else self._port.known(held.data, held.start))
        # A client that waits for its answer sends nothing, so pausing would only cost system calls.
        should_pause = is_behind or held.size_bytes > limits.READ_AHEAD_BYTES
        if should_pause == self._reading_paused or self.transport.is_closing():
            return
        self._reading_paused = should_pause
        (self.transport.pause_reading if should_pause else self.transport.resume_reading)()

    # -- the server's sweep ------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        return self._in_message or bool(self._pending or self._held.data)

    @property
    def gives_way_from_s(self) -> float | None:
        if self._pending or self._held.data or self._is_refused or self.transport.get_write_buffer_size():
            return None
        return slow_from_s(self._started_s, self._body.size_bytes) if self._in_message else self._held.gives_way_from_s

    def give_way(self) -> None:
        if self._in_message:
            self._refuse("overloaded", "all connections are taken, and this request arrives too slowly: try later")
        self.transport.close()

    @property
    def arrives_from_s(self) -> float | None:
        return self._started_s if self._in_message and self._body.size_bytes else None

    def stop_arriving(self) -> None:
        self._refuse("overloaded", NO_ROOM)

    def sweep(self, sweeps: int) -> None:
        """Close the connection if it was quiet for too long. Called once a second."""
        quiet = sweeps - self._last_sweep
        most = limits.LINGER_SWEEPS if self._is_refused else limits.IDLE_TIMEOUT_SWEEPS
        if self.untaken.size_bytes:
            self.look_at_untaken()
        if self._in_message and sweeps - self._started_sweep > limits.REQUEST_TIMEOUT_SWEEPS:
            self._refuse("request_timeout", f"the request did not arrive within {limits.REQUEST_TIMEOUT_SWEEPS} s")
        elif self.is_paused and sweeps - self.untaken.last_taken_sweep > limits.REQUEST_TIMEOUT_SWEEPS:
            self.transport.abort()
        elif self._pending and (self._reading_paused or self._is_refused):
            # The loop does not look at a connection that it does not read. After EOF, only sending something shows
            # whether the client still reads: any client of HTTP/1.1 takes this.
            if has_gone(self.transport):
                self.transport.abort()
            elif quiet == 1 and self._is_refused and not self._pending[0].closes:
                self.transport.write(responses.CONTINUE)
        elif quiet > most and not (self._pending or self._in_message):
            self.transport.close()
