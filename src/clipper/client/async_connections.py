"""Connections to the query port on an event loop: a pool, with at most one request in flight on each connection."""

import asyncio
import ssl
import time
from typing import cast

from clipper.base.http1 import CONNECT_TIMEOUT_S, RENEWAL_S, Address, Answer, AnswerReader, BadAnswer, Request
from clipper.base.tls.trust import ClientTls
from clipper.client.connections import MAX_IDLE_S, BrokenOff
from clipper.client.failures import broke_off, cannot_connect, too_late
from clipper.errors import Unavailable

# The default. A client can make many calls cheaply, so this bounds the load that one client puts on a server.
MAX_CONNECTIONS = 256


class _Connection(asyncio.Protocol):
    """A connection. ``is_closed``: whether it takes no more requests."""

    def __init__(self) -> None:
        self.is_closed = False
        self.idle_since_s = time.monotonic()
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport does not inherit from it

    async def ask(self, data: bytes) -> Answer:
        """Send a request and await its answer. Raises BadAnswer if the bytes are no answer; BrokenOff."""
        if self.is_closed or self._transport.is_closing():
            raise BrokenOff(ConnectionError("the server closed the connection"), has_begun=False)
        self._reader = AnswerReader()
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(data)
            return await self._answer
        except BaseException:  # also a cancellation: the answer may still come
            self.abort()
            raise
        finally:
            self._reader = self._answer = None
            self.idle_since_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answer is None or self._answer.done():
            self.abort()  # no request is open, so these bytes could pass for the next answer
            return
        try:
            answer = self._reader.feed(data)
        except BadAnswer as error:
            self._answer.set_exception(error)
            self.abort()
            return
        if answer is not None:
            self._answer.set_result(answer)
            # An answer that arrives before its request was sent is a refusal: sending the rest of the request would be
            # wasted.
            if answer.closes or self._transport.get_write_buffer_size():
                self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        if self._reader is not None and self._answer is not None and not self._answer.done():
            cause = error or ConnectionError("the server closed the connection")
            self._answer.set_exception(BrokenOff(cause, self._reader.has_begun))

    def is_usable(self, now_s: float) -> bool:
        """Whether the idle connection can take another request."""
        return not (self.is_closed or self._transport.is_closing() or now_s - self.idle_since_s > MAX_IDLE_S)

    def abort(self) -> None:
        if not self.is_closed:  # a transport that has closed must not be aborted
            self.is_closed = True
            self._transport.abort()


class _Pool:
    """The connections of an event loop."""

    def __init__(self, size: int) -> None:
        self.places = asyncio.Semaphore(size)
        # The most recently used connection is taken first, so that surplus connections grow old and are closed.
        self.idle: list[_Connection] = []


class AsyncConnections:
    """Sends requests to a server, from the tasks of any event loop; each loop has connections of its own.

    ``max_connections`` is the number of requests in flight at once in a loop; others wait for their turn.
    """

    def __init__(self, address: Address, tls: ClientTls, max_connections: int = MAX_CONNECTIONS) -> None:
        self.address = address
        self._tls = tls
        self._max_connections = max_connections
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._is_closed = False

    async def ask(self, request: Request) -> Answer:
        """Send a request, await its answer. Raises Unavailable if that fails, DeadlineExceeded if it is too slow."""
        if self._is_closed:
            raise Unavailable("this client is closed: make another one with AsyncClipper.connect()")
        pool = self._pool()
        try:
            async with asyncio.timeout(request.timeout_s), pool.places:
                return await self._ask(pool, request)
        except TimeoutError as error:
            raise too_late(self.address.url, request.method, request.path, request.timeout_s) from error
        except (BrokenOff, BadAnswer) as error:
            raise broke_off(self.address.url, request.method, request.path, error) from error

    async def close(self) -> None:
        """Close idle connections of the running loop now, and connections in use after their answers."""
        self._is_closed = True
        pools, self._pools = self._pools, {}
        for loop, pool in pools.items():
            # Another loop's transports may only be used in that loop; a closed loop has closed them.
            if loop is asyncio.get_running_loop():
                for connection in pool.idle:
                    connection.abort()

    def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            # Loops that are closed, as after asyncio.run(), are forgotten with their connections.
            for closed in [each for each in list(self._pools) if each.is_closed()]:
                self._pools.pop(closed, None)
            pool = self._pools[loop] = _Pool(self._max_connections)
        return pool

    async def _ask(self, pool: _Pool, request: Request) -> Answer:
        data = request.encode(self.address)
        now_s = time.monotonic()
        while pool.idle:
            connection = pool.idle.pop()
            if not connection.is_usable(now_s):
                connection.abort()
                continue
            try:
                return await self._ask_on(pool, connection, data)
            except BrokenOff as error:
                # The server closed the connection while the request was on its way. Others idle are as old.
                if error.has_begun or not request.may_repeat:
                    raise
                break
        return await self._ask_on(pool, await self._open(), data)

    async def _ask_on(self, pool: _Pool, connection: _Connection, data: bytes) -> Answer:
        answer = await connection.ask(data)
        if self._is_closed:
            connection.abort()
        elif not connection.is_closed:
            pool.idle.append(connection)
            # Connections that have been idle for long are at the beginning.
            if not pool.idle[0].is_usable(connection.idle_since_s):
                pool.idle.pop(0).abort()
        return answer

    async def _open(self) -> _Connection:
        try:
            return await self._connect()
        except ssl.SSLCertVerificationError:
            await asyncio.sleep(RENEWAL_S)
            self._tls.renew()
        try:
            return await self._connect()
        except ssl.SSLCertVerificationError as error:
            raise cannot_connect(self.address.url, error) from error

    async def _connect(self) -> _Connection:
        address = self.address
        context = self._tls.context if address.is_tls else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection,
                    address.host,
                    address.port,
                    ssl=context,
                    server_hostname=address.host if address.is_tls else None,
                )
            return connection
        except ssl.SSLCertVerificationError:
            raise
        except (OSError, TimeoutError) as error:
            raise cannot_connect(address.url, error) from error
