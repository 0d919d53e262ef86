"""Sends queries when they are due, whether or not earlier ones have been answered."""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

from clipper.base.http1 import Answer, AnswerReader, BadAnswer
from clipper.cli.load.inputs import Requests
from clipper.cli.load.precise_timer import PreciseTimer

# The most queries that wait for a connection: more than a second's at the highest rate of a process. A server that far
# behind has long failed, and more waiting queries would only take memory.
MAX_WAITING = 20_000
# The timer fires at most this often. At high rates it sends several queries together, at most this late, and leaves the
# processor to the server, which may be on this machine. In between, each answer triggers sending of due queries.
MIN_SLEEP_S = 0.000_2
# Queries that are sent in a turn of the loop; between turns, answers are read and ^C is handled.
_MAX_AT_ONCE = 256
# A query that the sender notices this late is not sent: it cannot keep up with the rate, and would never finish.
MAX_BEHIND_S = 1.0
# Concurrent dials; more would overflow the server's backlog.
_MAX_DIALLING = 64
_DIAL_WITHIN_S = 5.0
# Wait after a failed dial, so that a restarting server is not dialled thousands of times a second.
_DIAL_AGAIN_S = 0.05
# Time between searches for queries without an answer.
_SWEEP_S = 0.25
# Connections that are open before the first query: a load does not measure dialling.
_FIRST_CONNECTIONS = 32

_NEVER_S = float("inf")


class Target(NamedTuple):
    """The address that queries go to. ``tls`` says which certificate to trust, if they use TLS."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class Log(Protocol):
    """Records each query by its number and the time when it was due; times are of ``time.monotonic``.

    ``due`` comes first. Each query then ends once, with one of the last three methods.
    """

    def due(self, number: int, due_s: float, seen_s: float) -> None: ...

    def waited(self, number: int, due_s: float, sent_s: float) -> None: ...

    def answered(self, number: int, due_s: float, sent_s: float, answered_s: float, answer: Answer) -> None: ...

    def failed(self, number: int, due_s: float, why: str) -> None: ...

    def not_sent(self, number: int, due_s: float) -> None: ...


class Connection(asyncio.Protocol):
    """A connection with at most one query in flight, like that of a client that asks one query after another.

    Attributes:
        number, due_s, sent_s: those of the query in flight; times are of ``time.monotonic``.
        is_busy: whether a query is in flight.
    """

    def __init__(self, sender: "Sender") -> None:
        self._sender = sender
        self.number = 0
        self.due_s = self.sent_s = 0.0
        self.is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport does not inherit from it
        self._sender.is_open(self)

    def send(self, number: int, due_s: float, now_s: float, request: bytes) -> None:
        self.number, self.due_s, self.sent_s, self.is_busy = number, due_s, now_s, True
        self._reader = AnswerReader()
        self._transport.write(request)

    @property
    def is_closing(self) -> bool:
        """Whether the connection has closed, perhaps before ``is_closed`` is called: uvloop then takes no request."""
        return self._transport.is_closing()

    def data_received(self, data: bytes) -> None:
        answered_s = time.monotonic()
        if not self.is_busy:
            # No query is open, so these bytes could pass for the next query's answer.
            self._transport.abort()
            return
        try:
            answer = self._reader.feed(data)
        except BadAnswer as error:
            self.fail(f"bad answer: {error}")
            return
        if answer is None:
            return
        self.is_busy = False
        if answer.closes:
            self._transport.close()
        self._sender.has_answer(self, answer, answered_s)

    def fail(self, why: str) -> None:
        """Give up the query in flight, and the connection."""
        self.is_busy = False
        self._sender.fail(self.number, self.due_s, why)
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_busy:
            self.is_busy = False
            self._sender.fail(self.number, self.due_s, "connection lost")
        self._sender.is_closed(self)

    def abort(self) -> None:
        self._transport.abort()


class Sender:
    """Sends the queries of a load. Call ``run`` once.

    Attributes:
        outstanding: queries that are due and have not ended.
        peak_connections: the largest number of open connections.
        cut_off: queries that had not ended when the sender was stopped.
    """

    def __init__(
        self,
        target: Target,
        requests: Requests,
        due_times_s: Iterator[float],
        log: Log,
        *,
        max_connections: int,
        answer_within_s: float,
    ) -> None:
        """Prepare to send.

        ``due_times_s`` count from the beginning, in order. A query has ``answer_within_s`` from when it was due; if it
        still waits for a connection then, it is not sent.
        """
        self._target, self._requests, self._due_times_s, self._log = target, requests, due_times_s, log
        self._max_connections, self._answer_within_s = max_connections, answer_within_s
        self._connections: set[Connection] = set()
        # Connections take turns, so that all workers of a server get queries, as from many users.
        self._free: deque[Connection] = deque()
        self._waiting: deque[tuple[int, float]] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._no_dial_before_s = 0.0
        self._number = 0
        self._next_due_s = _NEVER_S
        self._began_s = 0.0
        self.outstanding = self.peak_connections = 0
        self.cut_off = 0

    async def connect(self) -> None:
        """Open the first connections. Raises OSError if the server cannot be reached."""
        await self._dial_once()
        self._dial(min(_FIRST_CONNECTIONS, self._max_connections) - 1)
        while self._dials:
            await asyncio.wait(self._dials)

    async def run(self, began_s: float) -> None:
        """Send the queries, and wait until all have ended: at most ``answer_within_s`` after the last was due.

        ``began_s`` is the beginning, of ``time.monotonic``.
        """
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._began_s = began_s
        self._timer = PreciseTimer(loop, self._wake)
        sweeping = loop.create_task(self._sweep())
        try:
            self._next()
            self._timer.set(self._next_due_s if self._next_due_s < _NEVER_S else 0.0)
            await self._ended
        finally:
            sweeping.cancel()
            self._timer.close()
            self.close()

    def stop(self) -> None:
        """End now; ``run`` returns."""
        self._next_due_s = _NEVER_S
        if not self._ended.done():
            self._ended.set_result(None)

    def _wake(self) -> None:
        now_s = time.monotonic()
        self._send_due(now_s)
        if self._next_due_s < _NEVER_S:
            self._timer.set(max(self._next_due_s, now_s + MIN_SLEEP_S))
        else:
            self._timer.turn_off()
            self._end_if_done()

    def _send_due(self, now_s: float) -> None:
        log = self._log
        for _ in range(_MAX_AT_ONCE):
            if self._next_due_s > now_s:
                return
            number, due_s = self._number, self._next_due_s
            log.due(number, due_s, now_s)
            self.outstanding += 1
            if now_s - due_s > MAX_BEHIND_S:
                self._give_up(number, due_s)
            elif (connection := self._take_free()) is not None:
                connection.send(number, due_s, now_s, self._requests.of(number))
            else:
                self._wait(number, due_s)
            self._number += 1
            self._next()

    def _take_free(self) -> Connection | None:
        """Return the connection that has been idle for longest and is still open."""
        while self._free:
            connection = self._free.popleft()
            if not connection.is_closing:
                return connection
        return None

    def _next(self) -> None:
        for offset_s in self._due_times_s:
            self._next_due_s = self._began_s + offset_s
            return
        self._next_due_s = _NEVER_S

    def _wait(self, number: int, due_s: float) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._give_up(number, due_s)
            return
        self._waiting.append((number, due_s))
        self._dial(len(self._waiting) - len(self._dials))

    def _give_up(self, number: int, due_s: float) -> None:
        self._log.not_sent(number, due_s)
        self.outstanding -= 1

    # -- events of connections ---------------------------------------------------------------------------

    def is_open(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.peak_connections = max(self.peak_connections, len(self._connections))
        self._use(connection)
        self._dial(len(self._waiting) - len(self._dials))

    def has_answer(self, connection: Connection, answer: Answer, answered_s: float) -> None:
        self._log.answered(connection.number, connection.due_s, connection.sent_s, answered_s, answer)
        self.outstanding -= 1
        if not answer.closes:
            self._use(connection)
        if self._next_due_s <= answered_s:
            self._send_due(answered_s)
        elif not self.outstanding:
            self._end_if_done()

    def is_closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        self._dial(len(self._waiting) - len(self._dials))

    def _use(self, connection: Connection) -> None:
        """Send the query that has waited longest, or mark the connection as free."""
        if connection.is_closing:
            return
        if not self._waiting:
            self._free.append(connection)
            return
        number, due_s = self._waiting.popleft()
        now_s = time.monotonic()
        self._log.waited(number, due_s, now_s)
        connection.send(number, due_s, now_s, self._requests.of(number))

    def fail(self, number: int, due_s: float, why: str) -> None:
        self._log.failed(number, due_s, why)
        self.outstanding -= 1
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._next_due_s == _NEVER_S and not self.outstanding and not self._ended.done():
            self._ended.set_result(None)

    # -- dialling ----------------------------------------------------------------------------------------

    def _dial(self, wanted: int) -> None:
        """Begin to open connections, as many as needed and allowed.

        If no connection is open, only one is tried: a server that is down is not dialled for each waiting query.
        """
        at_once = _MAX_DIALLING if self._connections else 1
        room = min(at_once, self._max_connections - len(self._connections)) - len(self._dials)
        if min(wanted, room) <= 0 or time.monotonic() < self._no_dial_before_s:
            return
        for _ in range(min(wanted, room)):
            task = asyncio.get_running_loop().create_task(self._dial_one_more())
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    async def _dial_one_more(self) -> None:
        try:
            await self._dial_once()
        except OSError as error:
            self._no_dial_before_s = time.monotonic() + _DIAL_AGAIN_S
            if self._connections:
                return  # one of the connections will be free in time
            while self._waiting:
                self.fail(*self._waiting.popleft(), f"cannot connect: {error.strerror or type(error).__name__}")

    async def _dial_once(self) -> None:
        loop, target = asyncio.get_running_loop(), self._target
        async with asyncio.timeout(_DIAL_WITHIN_S):
            await loop.create_connection(lambda: Connection(self), target.host, target.port, ssl=target.tls)

    async def _sweep(self) -> None:
        """Give up queries whose answer or connection does not come, and dial again after a failure."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s = time.monotonic()
            for connection in list(self._connections):
                if connection.is_busy and now_s - connection.due_s > self._answer_within_s:
                    connection.fail("no answer")
            while self._waiting and now_s - self._waiting[0][1] > self._answer_within_s:
                self._give_up(*self._waiting.popleft())
            self._dial(len(self._waiting) - len(self._dials))
            self._end_if_done()

    def close(self) -> None:
        """Close all connections, and cancel dials; ``run`` does so at its end."""
        for task in self._dials:
            task.cancel()
        self.cut_off = self.outstanding
        self._waiting.clear()
        for connection in list(self._connections):
            connection.is_busy = False
            connection.abort()
