"""Load on the query port from a process of its own, with each answer as it came and when.

Made for measuring: an answer's time is taken as soon as its last byte is read, before anything is done with it.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple, cast

import uvloop

from benchmarks.load import LoadClient

# Above the load times the SLO, by far. Over it a request waits for a connection, and counts from when it is sent.
MAX_CONNECTIONS = 2000
# After the last request: far longer than any SLO here.
ANSWER_WITHIN_S = 10.0


class Exchange(NamedTuple):
    """A request and its answer, as bytes; times are of ``time.perf_counter``, which all processes share."""

    number: int
    sent_s: float
    answered_s: float
    answer: bytes


def saturation_per_s(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> float:
    """How many requests are answered per second if each connection sends its next one with its last one's answer."""
    numbered = cycle(enumerate(requests))

    async def run() -> float:
        client = LoadClient("127.0.0.1", port, connections, lambda: next(numbered), lambda answer: None)
        await client.run_for(seconds)
        return client.answered / seconds

    return uvloop.run(run())


def send(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> list[Exchange]:
    """Send requests, over and over, evenly spread over the time, whether or not earlier ones were answered.

    Raises:
        ConnectionError: one ended before its answer.
        TimeoutError: an answer never came.
    """
    # A pause of the collector's, over so many exchanges, would look like late answers.
    gc.disable()
    return uvloop.run(_Sender(port, requests).send(per_s, seconds))


class _Sender:
    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._free: list[_Connection] = []
        self._connections: list[_Connection] = []
        self.exchanges: list[Exchange] = []
        self.lost = 0

    async def send(self, per_s: float, seconds: float) -> list[Exchange]:
        began_s = time.perf_counter()
        count = round(per_s * seconds)
        for number in range(count):
            await asyncio.sleep(max(0.0, began_s + number / per_s - time.perf_counter()))
            connection = await self._connection()
            connection.send(number, self._requests[number % len(self._requests)])
        await self._all_answered(count)
        for connection in self._connections:
            connection.close()
        return self.exchanges

    def has_answer(self, connection: "_Connection", exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._free.append(connection)

    async def _connection(self) -> "_Connection":
        while not self._free and len(self._connections) >= MAX_CONNECTIONS:
            await asyncio.sleep(0.001)
        return self._free.pop() if self._free else await self._connect()

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        self._connections.append(connection)
        return connection

    async def _all_answered(self, count: int) -> None:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            while len(self.exchanges) + self.lost < count:
                await asyncio.sleep(0.01)
        if self.lost:
            raise ConnectionError(f"{self.lost} of {count} requests lost their connection before their answer")


class _Connection(asyncio.Protocol):
    """One connection, with at most one request in flight."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._number: int | None = None
        self._sent_s = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def send(self, number: int, request: bytes) -> None:
        self._number, self._sent_s, self._answer = number, time.perf_counter(), b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        answered_s = time.perf_counter()
        self._answer += data
        if self._number is None or not _is_whole(self._answer):
            return
        exchange = Exchange(self._number, self._sent_s, answered_s, self._answer)
        self._number = None
        self._sender.has_answer(self, exchange)

    def connection_lost(self, error: Exception | None) -> None:
        self._sender.lost += self._number is not None

    def close(self) -> None:
        self._transport.close()


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(found) and len(body) >= sum(lengths)
