"""All query workers: sends them snapshots, and asks them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeVar

from clipper.base.processes.process import ProcessRecord
from clipper.base.tls.material import TlsMaterial
from clipper.control.messages import (
    Command,
    DescribePolicy,
    GetStatistics,
    PolicyDescription,
)
from clipper.control.snapshot import Snapshot
from clipper.control.statistics import WorkerStatistics
from clipper.errors import ProtocolViolation
from clipper.supervisor.workers.settings import WorkerSettings, worker_note
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.values.types import ModelId

R = TypeVar("R")

log = logging.getLogger(__name__)

# Neither a scrape nor the start of a container waits longer for a slow worker.
ANSWER_TIMEOUT_S = 1.0
# How many workers are asked at once if any may know the answer: all at once might each send an input of megabytes, and
# asking one after another would cost a timeout for each busy worker.
ASKED_AT_ONCE = 8
# A worker may first have to read a context's state from the store, which may take 2 s to fail.
DESCRIBE_TIMEOUT_S = 5.0


class Workers:
    """The workers of a server. Nobody waits for a worker that is down: once it is up, it gets the newest snapshot."""

    def __init__(self, make: Callable[[int, str], WorkerProcess], target: int | None) -> None:
        """Make the workers, which do not run yet.

        ``make`` makes the worker of an index, on a node; a spare has the index after the others'. ``target`` is their
        number on this machine; None if ``place`` puts them on the nodes of a cluster.
        """
        self._make = make
        self._target = target
        self._workers: dict[int, WorkerProcess] = {index: make(index, "") for index in range(target or 0)}
        self._tasks: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._leaving: dict[WorkerProcess, asyncio.Task[None]] = {}
        self._has_started = self._has_drained = False
        self._snapshot: Snapshot | None = None
        self._tls: TlsMaterial | None = None
        self._is_stopping = False

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter([self._workers[index] for index in sorted(self._workers)])

    @property
    def placed(self) -> dict[int, str]:
        return {index: worker.node for index, worker in self._workers.items()}

    async def adopt(self, record: ProcessRecord, settings: WorkerSettings) -> bool:
        """Take over a worker of an earlier supervisor, if it has a place and can stay until it is replaced."""
        note = worker_note(record)
        if note is None or not note.goes_on(settings, 0 if self._target is None else self._target):
            return False
        known = self._workers.get(note.index)
        if known is not None:
            return known.process is None and await known.adopt(record, note)
        # It is on a node; or there are fewer workers now: it is drained when it is not needed.
        worker = self._make(note.index, note.node)
        if await worker.adopt(record, note):
            self._workers[note.index] = worker
            return True
        return False

    def start(self) -> None:
        """Start the workers that were not adopted, and keep all running."""
        self._has_started = True
        for worker in self:
            self._keep(worker)

    def place(self, placed: Mapping[int, str], up: Collection[str]) -> None:
        """Have a worker of each index on its node, and no others.

        A surplus worker drains if its node is ``up``, and keeps its index until then; if its node is lost, it is
        dropped.
        """
        if self._has_drained:
            return
        for index, worker in list(self._workers.items()):
            if placed.get(index) != worker.node and worker not in self._leaving:
                end = worker.drain if worker.node in up else worker.leave
                task = self._leaving[worker] = asyncio.get_running_loop().create_task(self._leave(worker, end))
                task.add_done_callback(lambda _, worker=worker: self._leaving.pop(worker))  # type: ignore[misc]
                if worker.node not in up:
                    del self._workers[index]
        for index, node in placed.items():
            if index not in self._workers:
                self._add(index, node)

    def announce_leaving(self, nodes: Collection[str]) -> None:
        """Let the workers of these nodes say that they are not ready, but go on answering queries."""
        for worker in self:
            if worker.node in nodes:
                worker.tell(is_stopping=True)

    def push(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for worker in self:
            worker.tell(snapshot)

    def secure(self, tls: TlsMaterial) -> None:
        self._tls = tls
        for worker in self:
            worker.tell(tls=tls)

    def announce_stop(self) -> None:
        """Let all workers say that they are not ready, but go on answering queries."""
        self._is_stopping = True
        for worker in self:
            worker.tell(is_stopping=True)

    def start_spare(self) -> None:
        """Start a worker that serves beside the others, by the same snapshot."""
        assert self._target is not None, "nobody stands in for workers on nodes"
        self._add(self._target, "")

    def renew(self, index: int) -> None:
        """Let a worker answer its open queries and end. It is started again, unless it is the spare."""
        if index in self._workers:
            self._workers[index].renew()

    def _add(self, index: int, node: str) -> None:
        worker = self._workers[index] = self._make(index, node)
        worker.tell(self._snapshot, self._tls, is_stopping=self._is_stopping)
        if self._has_started:
            self._keep(worker)

    def _keep(self, worker: WorkerProcess) -> None:
        task = self._tasks[worker] = asyncio.get_running_loop().create_task(self._run(worker))
        task.add_done_callback(lambda _: self._tasks.pop(worker))

    async def _run(self, worker: WorkerProcess) -> None:
        await worker.run()
        # A spare has drained; all others go on until they are told to end. The spare is removed in the step that wakes
        # the rollout, which would otherwise look too early, and wait for it.
        if self._workers.get(worker.index) is worker and not self._has_drained:
            del self._workers[worker.index]

    async def _leave(self, worker: WorkerProcess, end: Callable[[], Awaitable[None]]) -> None:
        await self._cancel([worker])
        await end()
        if self._workers.get(worker.index) is worker:
            del self._workers[worker.index]

    async def _cancel(self, workers: Iterable[WorkerProcess]) -> None:
        tasks = [self._tasks[worker] for worker in workers if worker in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ready(self) -> list[WorkerProcess]:
        return [worker for worker in self if worker.phase == "ready"]

    def instances(self) -> list[int]:
        return [worker.instance for worker in self._ready()]

    def pids(self) -> dict[int, int]:
        """Return the process ids of the workers on this machine, by the worker's index."""
        return {one.index: one.process.pid for one in self if one.process is not None and not one.node}

    @property
    def any_ready(self) -> bool:
        return any(worker.applied is not None for worker in self)

    async def ask_all(self, command: Command[R]) -> list[tuple[int, R]]:
        """Return the reply of each worker that is up and answers in time, by its instance."""
        return await self.ask_each({worker.instance: command for worker in self._ready()}, ANSWER_TIMEOUT_S)

    async def ask_each(self, commands: Mapping[int, Command[R]], timeout_s: float) -> list[tuple[int, R]]:
        """Send each worker its own command, by its instance. A worker without a command is not asked."""

        async def ask(worker: WorkerProcess) -> tuple[int, R] | None:
            instance = worker.instance  # read now: when the answer comes, another process may run
            reply = await _ask(worker, commands[instance], timeout_s)
            return None if reply is None else (instance, reply)

        replies = await asyncio.gather(*(ask(worker) for worker in self._ready() if worker.instance in commands))
        return [reply for reply in replies if reply is not None]

    async def ask_until(
        self, command: Command[R], is_enough: Callable[[R], bool], timeout_s: float = ANSWER_TIMEOUT_S
    ) -> R | None:
        """Ask workers that are up, a few at a time, until a reply is enough; return that, or None if no reply is.

        Workers after that one are not waited for: one of them may hang.
        """

        async def ask(worker: WorkerProcess) -> R | None:
            return await _ask(worker, command, timeout_s)

        ready = self._ready()
        for first in range(0, len(ready), ASKED_AT_ONCE):
            asking = [asyncio.ensure_future(ask(worker)) for worker in ready[first : first + ASKED_AT_ONCE]]
            try:
                for task in asking:
                    if (reply := await task) is not None and is_enough(reply):
                        return reply
            finally:
                for task in asking:
                    task.cancel()
        return None

    async def statistics(
        self, applications: Collection[str], versions: Collection[ModelId], *, batches: bool = False
    ) -> list[WorkerStatistics]:
        """Return the statistics of the workers that answer within a second, on these applications and versions.

        A worker from before an upgrade may answer more. ``batches``: also versions' batches by size.
        """
        asked = GetStatistics(tuple(applications), tuple(versions), batches=batches)
        return [reply.worker for _, reply in await self.ask_all(asked)]

    async def describe_policy(self, application: str, context: str | None) -> PolicyDescription | None:
        """Return the description by the first worker that knows the application; None if no worker does."""
        command = DescribePolicy(application, context)
        return await self.ask_until(command, lambda description: description.found, DESCRIBE_TIMEOUT_S)

    async def drain(self) -> None:
        """Stop all workers at once; return when they are gone."""
        await self.let_go()
        await asyncio.gather(*(worker.drain() for worker in self))

    async def let_go(self) -> None:
        """Keep no worker running any more. Running workers go on."""
        self._has_drained = True
        await self._cancel(list(self))
        if self._leaving:
            await asyncio.wait(self._leaving.values())


async def _ask(worker: WorkerProcess, command: Command[R], timeout_s: float) -> R | None:
    try:
        return await worker.ask(command, timeout_s)
    except (OSError, ProtocolViolation) as error:
        log.warning(
            "%(worker)s does not answer %(command)s: %(error)r",
            {"worker": worker.name, "command": type(command).__name__, "error": error},
        )
        return None
