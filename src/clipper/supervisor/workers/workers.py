"""All query workers: sends them snapshots and asks them for what they know."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from clipper.control.messages import (
    Command,
    DescribePolicy,
    GetBatchLimits,
    GetStatistics,
    PolicyDescription,
)
from clipper.control.snapshot import Snapshot
from clipper.control.statistics import WorkerStatistics
from clipper.errors import ProtocolViolation
from clipper.processes.process import ProcessRecord
from clipper.supervisor.workers.settings import WorkerSettings, worker_note
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.tls.material import TlsMaterial
from clipper.types import ModelId

R = TypeVar("R")

log = logging.getLogger(__name__)

# Neither a scrape nor the start of a container waits longer for a slow worker.
ANSWER_TIMEOUT_S = 1.0
# Versions in one question: a worker takes milliseconds to answer it, and the supervisor to read the answer.
VERSIONS_AT_ONCE = 200
# Of workers of which one may know something: all at once might each answer an input of megabytes, and one after another
# takes as many time limits as there are workers that are busy.
ASKED_AT_ONCE = 8
# A worker may first have to read a context's state, from a store that may take 2 s to fail.
DESCRIBE_TIMEOUT_S = 5.0


class Workers:
    """The workers of a server. Nobody waits for a worker that is down: once it is up, it gets the newest snapshot."""

    def __init__(self, workers: Sequence[WorkerProcess], make_spare: Callable[[], WorkerProcess]) -> None:
        """``make_spare`` makes a worker that stands in while others are replaced. Its index follows theirs."""
        self._workers = workers
        self._make_spare = make_spare
        self._spare: WorkerProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshot: Snapshot | None = None
        self._tls: TlsMaterial | None = None
        self._is_stopping = False

    def __iter__(self) -> Iterator[WorkerProcess]:
        """All workers, the spare last."""
        return iter([*self._workers, *filter(None, [self._spare])])

    def __len__(self) -> int:
        """The target number of workers, without the spare."""
        return len(self._workers)

    async def adopt(self, record: ProcessRecord, settings: WorkerSettings) -> bool:
        """Take over a worker of an earlier supervisor, if it has a place and can stay until it is replaced."""
        note = worker_note(record)
        if note is None or not note.goes_on(settings, len(self._workers)):
            return False
        if note.index < len(self._workers):
            return await self._workers[note.index].adopt(record, note)
        # It is one too many, as after a start with fewer workers: it is drained when it is not needed.
        spare = self._make_spare()
        is_adopted = await spare.adopt(record, note)
        self._spare = spare if is_adopted else None
        return is_adopted

    def start(self) -> None:
        """Start the workers that were not adopted, and keep all running."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(worker.run()) for worker in self._workers]
        if self._spare is not None:
            self._tasks.append(loop.create_task(self._keep_spare(self._spare)))

    def push(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for worker in self:
            worker.push(snapshot)

    def secure(self, tls: TlsMaterial) -> None:
        self._tls = tls
        for worker in self:
            worker.secure(tls)

    def announce_stop(self) -> None:
        """Let all workers say that they are not ready, and answer queries all the same."""
        self._is_stopping = True
        for worker in self:
            worker.announce_stop()

    def start_spare(self) -> None:
        """Start a worker that serves beside the others, by the same snapshot."""
        self._spare = self._make_spare()
        if self._tls is not None:
            self._spare.secure(self._tls)
        if self._is_stopping:
            self._spare.announce_stop()
        if self._snapshot is not None:
            self._spare.push(self._snapshot)
        self._tasks.append(asyncio.get_running_loop().create_task(self._keep_spare(self._spare)))

    def renew(self, index: int) -> None:
        """Let a worker answer its open queries and end. It is started again, unless it is the spare."""
        for worker in self:
            if worker.index == index:
                worker.renew()

    async def _keep_spare(self, spare: WorkerProcess) -> None:
        await spare.run()
        self._spare = None

    def _ready(self) -> list[WorkerProcess]:
        return [worker for worker in self if worker.phase == "ready"]

    def instances(self) -> list[int]:
        """Of the workers that are up and run our code: an older one may not know all commands."""
        return [worker.instance for worker in self._ready() if not worker.is_outdated]

    def pids(self) -> dict[int, int]:
        """The process of each worker that has one, by the worker's index."""
        return {worker.index: worker.process.pid for worker in self if worker.process is not None}

    @property
    def any_ready(self) -> bool:
        return any(worker.applied is not None for worker in self)

    async def ask_all(self, command: Command[R], timeout_s: float = ANSWER_TIMEOUT_S) -> list[tuple[int, R]]:
        """The reply of each worker that is up and answers in time, with its instance."""

        return await self.ask_each({worker.instance: command for worker in self._ready()}, timeout_s)

    async def ask_each(
        self, commands: Mapping[int, Command[R]], timeout_s: float = ANSWER_TIMEOUT_S
    ) -> list[tuple[int, R]]:
        """As ``ask_all``, with a command for each worker, by its instance. Workers without one are not asked."""

        async def ask(worker: WorkerProcess) -> tuple[int, R] | None:
            instance = worker.instance  # read now: when the answer comes, another process may run
            reply = await _ask(worker, commands[instance], timeout_s)
            return None if reply is None else (instance, reply)

        replies = await asyncio.gather(*(ask(worker) for worker in self._ready() if worker.instance in commands))
        return [reply for reply in replies if reply is not None]

    async def ask_until(
        self, command: Command[R], is_enough: Callable[[R], bool], timeout_s: float = ANSWER_TIMEOUT_S
    ) -> R | None:
        """A reply that is enough, from workers that are up, asked a few at a time; None if no reply is."""

        async def ask(worker: WorkerProcess) -> R | None:
            return await _ask(worker, command, timeout_s)

        ready = self._ready()
        for first in range(0, len(ready), ASKED_AT_ONCE):
            some = ready[first : first + ASKED_AT_ONCE]
            for reply in await asyncio.gather(*map(ask, some)):
                if reply is not None and is_enough(reply):
                    return reply
        return None

    async def statistics(
        self, applications: Collection[str] | None = None, versions: Collection[ModelId] | None = None
    ) -> list[WorkerStatistics]:
        """The statistics of the workers that answer within a second.

        Args:
            applications, versions: what they have to tell of; None means all. What all workers tell of thousands of
                applications takes seconds to read. A worker from before an upgrade may tell of more.
        """
        asked = GetStatistics(
            None if applications is None else tuple(applications), None if versions is None else tuple(versions)
        )
        return [reply.worker for _, reply in await self.ask_all(asked)]

    async def describe_policy(self, application: str, context: str | None) -> PolicyDescription | None:
        """The description by the first worker that knows the application; None if no worker does."""
        command = DescribePolicy(application, context)
        return await self.ask_until(command, lambda description: description.found, DESCRIBE_TIMEOUT_S)

    async def batch_limits(self, versions: Sequence[ModelId]) -> dict[str, int]:
        """The smallest batch limit of each linked replica of these versions over the workers, by replica id."""
        limits: dict[str, int] = {}
        current = [
            worker for worker in self._ready() if not worker.is_outdated
        ]  # an older one may not know the command

        async def ask(worker: WorkerProcess) -> None:
            for first in range(0, len(versions), VERSIONS_AT_ONCE):
                command = GetBatchLimits(tuple(versions[first : first + VERSIONS_AT_ONCE]))
                reply = await _ask(worker, command, ANSWER_TIMEOUT_S)
                if reply is None:
                    return  # a worker that does not answer is waited for once
                for id_, limit in reply.replicas.items():
                    if limit < limits.get(id_, limit + 1):
                        limits[id_] = limit

        await asyncio.gather(*map(ask, current))
        return limits

    async def drain(self) -> None:
        """Stop all workers at once; returns when they are gone."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(worker.drain() for worker in self))


async def _ask(worker: WorkerProcess, command: Command[R], timeout_s: float) -> R | None:
    try:
        return await worker.ask(command, timeout_s)
    except (OSError, ProtocolViolation) as error:
        log.warning(
            "%(worker)s does not answer %(command)s: %(error)r",
            {"worker": worker.name, "command": type(command).__name__, "error": error},
        )
        return None
