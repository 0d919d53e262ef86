"""An open loop: requests are sent when they are due, whether earlier ones have been answered or not."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

    The sender goes first where it may: applications run on other machines, and do not wait behind the models for a
    processor to send their queries or to see the answers.

    Raises:
        ExceptionGroup: of AnswerFailed, TooManyWaiting and others.
        TimeoutError: an answer did not come within ``ANSWER_WITHIN_S`` of the last request.
    """
    with _before_all_others():
        return uvloop.run(Sender(address, path).send(bodies, due_s))


@contextmanager
def _before_all_others() -> Iterator[None]:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:  # of root alone; others measure the client's waiting, too
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Sender:
    """One open loop, on as many connections as it needs."""

    def __init__(self, address: Address, path: str) -> None:
        self._address, self._path = address, path
        self._free: list[Connection] = []
        self._connections: list[Connection] = []
        self._dialled = 0

    async def send(self, bodies: Sequence[bytes], due_s: Sequence[float]) -> list[Reply]:
        try:
            async with asyncio.timeout(due_s[-1] + ANSWER_WITHIN_S), asyncio.TaskGroup() as group:
                tasks = await self._begin(group, bodies, due_s)
        finally:
            for connection in self._connections:
                connection.close()
        return [task.result() for task in tasks]

    async def _begin(
        self, group: asyncio.TaskGroup, bodies: Sequence[bytes], due_s: Sequence[float]
    ) -> list[asyncio.Task[Reply]]:
        began_s = time.perf_counter()
        tasks = []
        for body, due in zip(bodies, due_s):
            ahead_s = began_s + due - time.perf_counter()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            tasks.append(group.create_task(self._ask(body, began_s + due)))
        return tasks

    async def _ask(self, body: bytes, due_s: float) -> Reply:
        connection = self._free.pop() if self._free else await self._connect()
        # The loop's timers count whole milliseconds, and so a request may leave a little early.
        from_s = min(due_s, time.perf_counter())
        answer = await connection.post(self._path, body)
        latency_s = time.perf_counter() - from_s
        self._free.append(connection)
        return Reply(answer, latency_s)

    async def _connect(self) -> Connection:
        self._dialled += 1
        if self._dialled > MAX_CONNECTIONS:
            raise TooManyWaiting(f"{MAX_CONNECTIONS} requests to {self._path} wait for their answers: send fewer")
        connection = await connect(self._address)
        self._connections.append(connection)
        return connection
