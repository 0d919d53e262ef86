"""All query workers: what they were told, and what they say."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

import msgspec

from clipper.control.messages import CHANNEL_VERSION, PolicyDescription, RecentInput
from clipper.control.snapshot import Snapshot
from clipper.control.statistics import VersionLoad, WorkerStatistics
from clipper.errors import ProtocolViolation
from clipper.processes.process import ProcessRecord
from clipper.supervisor.workers.worker import Worker, WorkerNote, WorkerSettings
from clipper.tls.material import TlsMaterial
from clipper.types import ModelId

log = logging.getLogger(__name__)

# A scrape, or a page that shows the statistics, does not wait for a worker that is slow; nor does a container's start.
STATISTICS_TIMEOUT_S = 1.0
# A worker may have to read a context's state first, from a store that takes up to 2 s to say that it is down.
DESCRIBE_TIMEOUT_S = 5.0


class Workers:
    """The workers of a server. A worker that is down counts for nothing: when it is up, it gets the newest snapshot."""

    def __init__(self, workers: Sequence[Worker], make_spare: Callable[[], Worker]) -> None:
        """``make_spare``: a worker that stands in while others are replaced; its index is the next after theirs."""
        self._workers = workers
        self._make_spare = make_spare
        self._spare: Worker | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshot: Snapshot | None = None
        self._tls: TlsMaterial | None = None

    def __iter__(self) -> Iterator[Worker]:
        """All that there are, the spare last."""
        return iter([*self._workers, *filter(None, [self._spare])])

    def __len__(self) -> int:
        """How many there are to be."""
        return len(self._workers)

    def adopt(self, record: ProcessRecord, settings: WorkerSettings) -> bool:
        """Go on with a worker of an earlier supervisor, if it has a place and can stay until it is replaced."""
        note = worker_note(record)
        if note is None or not note.settings.can_stand_beside(settings) or note.index > len(self._workers):
            return False
        if note.index < len(self._workers):
            return self._workers[note.index].adopt(record, note)
        # One too many, as where there were more before: it is drained when it is not needed.
        spare = self._make_spare()
        is_adopted = spare.adopt(record, note)
        self._spare = spare if is_adopted else None
        return is_adopted

    def start(self) -> None:
        """Start those that were not adopted, and keep all running."""
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

    def start_spare(self) -> None:
        """Start one that serves beside the others; it is told what they are told."""
        self._spare = self._make_spare()
        if self._tls is not None:
            self._spare.secure(self._tls)
        if self._snapshot is not None:
            self._spare.push(self._snapshot)
        self._tasks.append(asyncio.get_running_loop().create_task(self._keep_spare(self._spare)))

    def renew(self, index: int) -> None:
        """Have a worker answer what is under way, and end; then it is started again, unless it is the spare."""
        for worker in self:
            if worker.index == index:
                worker.renew()

    async def _keep_spare(self, spare: Worker) -> None:
        await spare.run()
        self._spare = None

    @property
    def any_ready(self) -> bool:
        return any(worker.applied is not None for worker in self)

    async def statistics(self) -> list[WorkerStatistics]:
        """Of those that answer within a second."""
        ready = [worker for worker in self if worker.phase == "ready"]
        answers = await asyncio.gather(*map(_statistics, ready))
        return [answer for answer in answers if answer is not None]

    async def loads(self, versions: Sequence[ModelId]) -> list[tuple[int, VersionLoad]]:
        """Of those that answer within a second; each with its worker's instance."""
        ready = [worker for worker in self if worker.phase == "ready"]
        answers = await asyncio.gather(*(_loads(worker, versions) for worker in ready))
        return [one for answer in answers for one in answer]

    async def describe_policy(self, application: str, context: str | None) -> PolicyDescription | None:
        """As the first worker tells that knows the application; None if none does."""
        for worker in self:
            if worker.phase != "ready":
                continue
            try:
                description = await worker.describe_policy(application, context, DESCRIBE_TIMEOUT_S)
            except (OSError, ProtocolViolation) as error:
                log.warning("%s does not describe a policy: %r", worker.name, error)
                continue
            if description.found:
                return description
        return None

    async def recent_input(self, model: str) -> RecentInput:
        """What a model was asked not long ago, as the first worker tells that has answered anything."""
        for worker in self:
            if worker.phase != "ready":
                continue
            try:
                recent = await worker.recent_input(model, STATISTICS_TIMEOUT_S)
            except (OSError, ProtocolViolation) as error:
                log.warning("%s gives no recent input: %r", worker.name, error)
                continue
            if recent.row is not None:
                return recent
        return RecentInput()

    async def batch_limits(self) -> dict[str, int]:
        """The smallest batch limit of each linked replica over the workers, by replica id."""
        limits: dict[str, int] = {}
        for worker in await self.statistics():
            for replica in worker.replicas:
                if replica.state == "linked":
                    limits[replica.id] = min(replica.batch_limit, limits.get(replica.id, replica.batch_limit))
        return limits

    async def drain(self) -> None:
        """Stop all, at the same time; returns when they are gone."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(worker.drain() for worker in self))


def worker_note(record: ProcessRecord) -> WorkerNote | None:
    """What a record says of a worker; None if it is not a worker's, or one that cannot be talked to.

    That is one whose control channel is not of our version or an adjacent one.
    """
    try:
        note = msgspec.convert(record.extra, WorkerNote)
    except msgspec.ValidationError:
        return None
    return note if abs(note.channel - CHANNEL_VERSION) <= 1 else None


async def _statistics(worker: Worker) -> WorkerStatistics | None:
    try:
        return await worker.statistics(STATISTICS_TIMEOUT_S)
    except (OSError, ProtocolViolation) as error:
        log.warning("%s gives no statistics: %r", worker.name, error)
        return None


async def _loads(worker: Worker, versions: Sequence[ModelId]) -> list[tuple[int, VersionLoad]]:
    instance = worker.instance  # of the one that is asked: it may be another when the answer is there
    try:
        return [(instance, load) for load in await worker.loads(versions, STATISTICS_TIMEOUT_S)]
    except (OSError, ProtocolViolation) as error:
        log.warning("%s does not tell its loads: %r", worker.name, error)
        return []
