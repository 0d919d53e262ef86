"""An open loop: requests are sent when they are due, whether earlier ones have been answered or not."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvloop

from benchmarks.paper.client import ANSWER_WITHIN_S, Address, Connection, connect

# Far more than are busy at once where the server keeps up; over it, the run ends.
MAX_CONNECTIONS = 1_000


class TooManyWaiting(Exception):
    """Answers stay out for so long that no connection is free."""


@dataclass(frozen=True, slots=True)
class Reply:
    """``latency_s`` counts from when the request was due, so that a late client is not taken for a fast server."""

    answer: Any
    latency_s: float


def poisson_s(count: int, per_s: float, random: np.random.Generator) -> list[float]:
    """When ``count`` requests are due that come independently of each other, from 0 on."""
    due_s: list[float] = np.cumsum(random.exponential(1 / per_s, count)).tolist()
    return due_s


def send(address: Address, path: str, bodies: Sequence[bytes], due_s: Sequence[float]) -> list[Reply]:
    """Post each body when it is due; return the replies in the same order.

    Raises:
        ExceptionGroup: of AnswerFailed, TooManyWaiting and others.
        TimeoutError: an answer did not come within ``ANSWER_WITHIN_S`` of the last request.
    """
    return uvloop.run(_Sender(address, path).send(bodies, due_s))


class _Sender:
    def __init__(self, address: Address, path: str) -> None:
        self._address, self._path = address, path
        self._free: list[Connection] = []
        self._connections = 0

    async def send(self, bodies: Sequence[bytes], due_s: Sequence[float]) -> list[Reply]:
        began_s = time.perf_counter()
        async with asyncio.timeout(due_s[-1] + ANSWER_WITHIN_S), asyncio.TaskGroup() as group:
            tasks = []
            for body, due in zip(bodies, due_s):
                ahead_s = began_s + due - time.perf_counter()
                if ahead_s > 0:
                    await asyncio.sleep(ahead_s)
                tasks.append(group.create_task(self._ask(body, began_s + due)))
        return [task.result() for task in tasks]

    async def _ask(self, body: bytes, due_s: float) -> Reply:
        connection = self._free.pop() if self._free else await self._connect()
        answer = await connection.post(self._path, body)
        latency_s = time.perf_counter() - due_s
        self._free.append(connection)
        return Reply(answer, latency_s)

    async def _connect(self) -> Connection:
        self._connections += 1
        if self._connections > MAX_CONNECTIONS:
            raise TooManyWaiting(f"{MAX_CONNECTIONS} requests to {self._path} wait for their answers: send fewer")
        return await connect(self._address)
