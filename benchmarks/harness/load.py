"""A closed-loop HTTP/1.1 load client: each connection sends its next request when its last was answered.

It keeps every answer apart, which wrk does not, and costs one core at some 20,000 requests/s.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

# A server that was restarted is back within this; after it the run has failed and says so.
RECONNECT_WITHIN_S = 10.0
RECONNECT_EVERY_S = 0.05
ANSWER_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answered request. ``tag`` is what ``next_request`` gave with it; times are of ``time.perf_counter``."""

    tag: T
    status: int
    body: bytes
    sent_s: float
    answered_s: float

    @property
    def latency_s(self) -> float:
        return self.answered_s - self.sent_s


def post(path: str, body: bytes) -> bytes:
    """Return a whole keep-alive request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class LoadClient(Generic[T]):
    """Sends ``next_request()`` over and over on ``connections`` connections, and gives each answer to ``on_answer``.

    Attributes:
        sent: requests written so far.
        answered: requests answered so far, with any status.
        lost: requests whose connection ended before their answer.
    """

    def __init__(
        self,
        host: str,
        port: int,
        connections: int,
        next_request: Callable[[], tuple[T, bytes]],
        on_answer: Callable[[Answer[T]], None],
    ) -> None:
        self.sent = self.answered = self.lost = 0
        self._stopped = asyncio.Event()
        self._host, self._port, self._connections = host, port, connections
        self.next_request, self.on_answer = next_request, on_answer

    @property
    def stopping(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let each connection end with its next answer."""
        self._stopped.set()

    async def run(self) -> None:
        """Send until ``stop`` is called, then wait for the answers to what was sent.

        Raises:
            ExceptionGroup: of OSErrors: the server cannot be reached.
            TimeoutError: an answer did not come within ``ANSWER_WITHIN_S`` of the stop.
        """
        async with asyncio.timeout(None) as end, asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self._keep_connected())
            await self._stopped.wait()
            end.reschedule(asyncio.get_running_loop().time() + ANSWER_WITHIN_S)

    async def run_for(self, seconds: float) -> None:
        """``run``, stopped after that long."""
        asyncio.get_running_loop().call_later(seconds, self.stop)
        await self.run()

    async def _keep_connected(self) -> None:
        while not self.stopping:
            connection = await self._connect()
            await connection.closed

    async def _connect(self) -> "_Connection[T]":
        loop = asyncio.get_running_loop()
        give_up_s = time.perf_counter() + RECONNECT_WITHIN_S
        while True:
            try:
                _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
                return connection
            except OSError:
                if time.perf_counter() > give_up_s:
                    raise
                await asyncio.sleep(RECONNECT_EVERY_S)


class _Connection(asyncio.Protocol, Generic[T]):
    """One connection, with one request in flight."""

    def __init__(self, client: LoadClient[T]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = client
        self._buffer = b""
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._client.lost += 1
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_size = self._buffer.find(b"\r\n\r\n") + 4
        if head_size < 4:
            return
        length = _LENGTH.search(self._buffer, 0, head_size)
        end = head_size + (int(length[1]) if length else 0)
        if len(self._buffer) >= end:
            self._finish(int(self._buffer[9:12]), self._buffer[head_size:end])

    def _finish(self, status: int, body: bytes) -> None:
        client, self._buffer, self._waiting = self._client, b"", False
        client.answered += 1
        client.on_answer(Answer(self._tag, status, body, self._sent_s, time.perf_counter()))
        self._send()

    def _send(self) -> None:
        client = self._client
        if client.stopping:
            self._transport.close()
            return
        if self._transport.is_closing():
            return  # its end is told in the loop's next turn, and another takes its place
        self._tag, request = client.next_request()
        client.sent += 1
        self._waiting = True
        self._sent_s = time.perf_counter()
        self._transport.write(request)
