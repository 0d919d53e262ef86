"""A version's queue with small containers, for tests of what it does with queries."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from clipper.control.snapshot import VersionSnapshot
from clipper.settings.version import Batching
from clipper.values.types import ModelId
from clipper.worker.abstraction.cache.clock import ClockCache
from clipper.worker.abstraction.model_queue import ModelQueue
from clipper.worker.abstraction.turns import Turns
from tests.event_loops import ShiftedLoop
from tests.small_container import SmallContainer
from tests.waiting import until_async
from tests.works import Waiting

DIGITS = ModelId("digits", "1")
SLO_S = 100.0
EIGHT = Batching("fixed", 8)

Scenario = Callable[["Bench"], Coroutine[Any, Any, None]]


class Bench:
    """A version's queue, its containers and the queries that a test asks of it."""

    def __init__(self, tmp_path: Path, batching: Batching, cache: bool) -> None:
        self._tmp_path = tmp_path
        self.snapshot = VersionSnapshot("1", "doubles", batching, cache)
        self.cache = ClockCache(1 << 20)
        self.turns = Turns()
        self.queue = ModelQueue(DIGITS, self.snapshot, self.cache, self.turns, node="10.0.0.1")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        self.loop = loop
        self.containers: list[SmallContainer] = []

    async def start(self, max_batch: int | None = None) -> SmallContainer:
        path = self._tmp_path / f"s{len(self.containers)}"
        container = await SmallContainer(path, max_batch=max_batch).start()
        self.containers.append(container)
        return container

    async def link(self, *containers: SmallContainer) -> None:
        """Make these its replicas, and wait until they are linked."""
        self.queue.set_replicas([container.replica for container in containers])
        await until_async(lambda: self.states().count("linked") == len(containers))

    def states(self) -> list[str]:
        return [replica.state for replica in self.queue.replica_statistics()]

    def ask(
        self,
        row: bytes,
        slo_s: float = SLO_S,
        source: str = "app",
        *,
        is_background: bool = False,
        may_wait: bool = True,
    ) -> Waiting:
        now_s = self.loop.time()
        waiter = Waiting(now_s + slo_s, may_wait=may_wait and not is_background)
        output = self.queue.predict(row, waiter, now_s, slo_s, source, is_background=is_background)
        if output is not None:
            waiter.on_output("digits", output)
        return waiter

    async def end(self) -> None:
        self.queue.close()
        for container in self.containers:
            await container.kill()


def outputs(*waiters: Waiting) -> list[str]:
    return [waiter.heard[0][2] for waiter in waiters]


def failure(waiter: Waiting) -> tuple[str, ...]:
    ((kind, model, code, message),) = waiter.heard
    assert (kind, model) == ("failure", "digits")
    return code, message
