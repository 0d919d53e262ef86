"""Blocking connections to the query port: a pool that threads share, with at most one request in flight on each."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from clipper.base.http1 import CONNECT_TIMEOUT_S, RENEWAL_S, Address, Answer, AnswerReader, BadAnswer, Request
from clipper.base.tls.trust import ClientTls
from clipper.client.failures import broke_off, cannot_connect, too_late
from clipper.errors import DeadlineExceeded, Unavailable

# A thread waits for the answer on its connection. More threads than this keep each other from running.
MAX_CONNECTIONS = 64
# The query port closes a connection that was idle for 75 s, and proxies often do after 60 s.
MAX_IDLE_S = 45.0
_READ_BYTES = 256 * 1024
# A longer request is sent in pieces, which saves a copy.
_JOINED_BYTES = 64 * 1024


class BrokenOff(Exception):
    """A connection ended before the answer did. ``has_begun``: whether a part of the answer had come."""

    def __init__(self, cause: Exception, has_begun: bool) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.has_begun = has_begun


class _Connection:
    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self.idle_since_s = 0.0

    def ask(self, data: Sequence[bytes], deadline_s: float) -> Answer:
        """Send a request, return its answer. Raises BadAnswer or BrokenOff; TimeoutError at the deadline."""
        reader = AnswerReader()
        try:
            for buffer in data:
                view, sent = memoryview(buffer), 0
                while sent < len(view):
                    self._set_timeout(deadline_s)
                    sent += self._socket.send(view[sent:])
        except TimeoutError:
            raise
        except OSError as error:
            # The server may have refused the request before it had read all of it, and closed. Its answer says why.
            return self._read(reader, deadline_s, error)
        return self._read(reader, deadline_s, ConnectionError("the server closed the connection"))

    def _read(self, reader: AnswerReader, deadline_s: float, cause: Exception) -> Answer:
        while True:
            try:
                self._set_timeout(deadline_s)
                data = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                raise
            except OSError as error:
                raise BrokenOff(error, reader.has_begun) from error
            if not data:
                raise BrokenOff(cause, reader.has_begun)
            answer = reader.feed(data)
            if answer is not None:
                return answer

    def _set_timeout(self, deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)

    def is_usable(self, now_s: float) -> bool:
        """Whether the idle connection can take another request: the server has neither closed it nor sent anything."""
        if now_s - self.idle_since_s > MAX_IDLE_S:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._socket.close()


class _Pool:
    """The connections of a process: a child after a fork has a pool of its own, since sockets are shared."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        # The most recently used connection is taken first, so that surplus connections grow old and are closed.
        # Appending and popping are atomic.
        self.idle: list[_Connection] = []


class Connections:
    """Sends requests to a server, from any thread."""

    def __init__(self, address: Address, tls: ClientTls) -> None:
        self.address = address
        self._tls = tls
        self._pool = _Pool()
        self._is_closed = False

    def ask(self, request: Request) -> Answer:
        """Send a request, return its answer. Raises Unavailable if that fails, DeadlineExceeded if it is too slow."""
        pool = self._pool
        if pool.pid != os.getpid():
            pool = self._pool = _Pool()
        if self._is_closed:
            raise Unavailable("this client is closed: make another one with Clipper.connect()")
        deadline_s = time.monotonic() + request.timeout_s
        if not pool.places.acquire(timeout=request.timeout_s):
            raise DeadlineExceeded(
                f"{MAX_CONNECTIONS} calls of other threads were waiting for their answers for {request.timeout_s:.3g} s"
            )
        try:
            return self._ask(pool, request, deadline_s)
        except TimeoutError as error:
            raise too_late(self.address.url, request.method, request.path, request.timeout_s) from error
        except (BrokenOff, BadAnswer) as error:
            raise broke_off(self.address.url, request.method, request.path, error) from error
        finally:
            pool.places.release()

    def close(self) -> None:
        """Close idle connections now, and connections in use after their answers."""
        self._is_closed = True
        while (connection := _pop(self._pool)) is not None:
            connection.close()

    def _ask(self, pool: _Pool, request: Request, deadline_s: float) -> Answer:
        is_long = sum(map(len, request.body)) > _JOINED_BYTES
        data = request.buffers(self.address) if is_long else (request.encode(self.address),)
        while (connection := _pop(pool)) is not None:
            if not connection.is_usable(time.monotonic()):
                connection.close()
                continue
            try:
                return self._ask_on(pool, connection, data, deadline_s)
            except BrokenOff as error:
                # The server closed the connection while the request was on its way. Others idle are as old.
                if error.has_begun or not request.may_repeat:
                    raise
                break
        return self._ask_on(pool, self._open(deadline_s), data, deadline_s)

    def _ask_on(self, pool: _Pool, connection: _Connection, data: Sequence[bytes], deadline_s: float) -> Answer:
        try:
            answer = connection.ask(data, deadline_s)
        except BaseException:  # also KeyboardInterrupt: a late answer would pass for the next one
            connection.close()
            raise
        if answer.closes or self._is_closed:
            connection.close()
        else:
            connection.idle_since_s = time.monotonic()
            pool.idle.append(connection)
            # The longest idle connections are at the beginning. Another thread may take them meanwhile.
            with suppress(IndexError, ValueError):
                oldest = pool.idle[0]
                if connection.idle_since_s - oldest.idle_since_s > MAX_IDLE_S:
                    pool.idle.remove(oldest)
                    oldest.close()
        return answer

    def _open(self, deadline_s: float) -> _Connection:
        try:
            return self._connect(deadline_s)
        except ssl.SSLCertVerificationError:
            time.sleep(RENEWAL_S)
            self._tls.renew()
        return self._connect(deadline_s, is_last=True)

    def _connect(self, deadline_s: float, *, is_last: bool = False) -> _Connection:
        left_s = min(deadline_s - time.monotonic(), CONNECT_TIMEOUT_S)
        if left_s <= 0:
            raise TimeoutError
        address = self.address
        context = self._tls.context if address.is_tls else None
        opened: socket.socket | None = None
        try:
            opened = socket.create_connection((address.host, address.port), left_s)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                opened = context.wrap_socket(opened, server_hostname=address.host)
            return _Connection(opened)
        except OSError as error:
            if opened is not None:
                opened.close()
            is_late = isinstance(error, TimeoutError) and time.monotonic() >= deadline_s
            if is_late or (isinstance(error, ssl.SSLCertVerificationError) and not is_last):
                raise
            raise cannot_connect(address.url, error) from error


def _pop(pool: _Pool) -> _Connection | None:
    try:
        return pool.idle.pop()
    except IndexError:
        return None
