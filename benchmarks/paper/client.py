"""HTTP/1.1 for drivers whose next request depends on the last answer: predict, then observe what came."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import uvloop

from benchmarks.harness.load import post

T = TypeVar("T")

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

# Far longer than any answer here may take; a server that hangs ends the run.
ANSWER_WITHIN_S = 30.0


class AnswerFailed(Exception):
    """An answer with another status than 200, or none."""


class Connection(asyncio.Protocol):
    """A keep-alive connection, with one request in flight at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(AnswerFailed(f"the connection ended before the answer: {exc or 'closed'}"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_size = self._buffer.find(b"\r\n\r\n") + 4
        if head_size < 4:
            return
        length = _LENGTH.search(self._buffer, 0, head_size)
        if len(self._buffer) >= head_size + (int(length[1]) if length else 0):
            answer, self._buffer = self._buffer, b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(answer)

    async def post(self, path: str, body: bytes) -> Any:
        """Return the answer's JSON.

        Raises:
            AnswerFailed: its status is not 200, or the connection has ended.
        """
        if self._transport.is_closing():
            raise AnswerFailed("the connection was closed by the server")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(post(path, body))
        answer = await self._answer
        content = answer.partition(b"\r\n\r\n")[2]
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise AnswerFailed(f"POST {path}: {answer[9:12].decode()} {content[:500].decode(errors='replace')}")
        return json.loads(content)

    def close(self) -> None:
        self._transport.close()


Address = tuple[str, int]


async def connect(address: Address) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    return connection


Work = Callable[[Connection, T], Awaitable[None]]


def for_each(address: Address, connections: int, items: Sequence[T], work: Work[T]) -> float:
    """Do ``work`` with each item, begun in their order, ``connections`` at a time; return how many seconds it took.

    Raises:
        ExceptionGroup: of AnswerFailed and others: what ``work`` raised first.
        TimeoutError: it took longer than ``ANSWER_WITHIN_S`` for each item that a connection had.
    """
    return uvloop.run(run_for_each(address, connections, items, work))


async def run_for_each(address: Address, connections: int, items: Sequence[T], work: Work[T]) -> float:
    """``for_each`` on a loop that runs."""
    rest = iter(items)

    async def keep_working() -> None:
        connection = await connect(address)
        try:
            for item in rest:  # one iterator, shared by all
                await work(connection, item)
        finally:
            connection.close()

    began_s = time.perf_counter()
    within_s = ANSWER_WITHIN_S * (1 + len(items) / connections)
    async with asyncio.timeout(within_s), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(keep_working())
    return time.perf_counter() - began_s
