"""Scrapes: the counts of all workers, added up or by worker.

A worker is asked for what has changed since its last answer, and answers a part at a time, so that neither it nor the
supervisor's loop is busy with it for long, and so that all counts of all workers are never in memory at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from clipper.api.learned import Newcomer
from clipper.api.schemas import Status
from clipper.control.messages import GetReadings, UndecodedStatistics
from clipper.control.statistics import WorkerStatistics
from clipper.errors import InvalidArgument, Overloaded, ProtocolViolation
from clipper.supervisor.metrics.definitions import ReplicaProcess
from clipper.supervisor.metrics.ledger import Existing, Ledger, Shown, WorkerFacts
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.operations.views import application_view, replica_state
from clipper.supervisor.workers.workers import ANSWER_TIMEOUT_S
from clipper.values.types import ModelId

log = logging.getLogger(__name__)

# In one turn of the loop, the replicas of this many models are read, in a few milliseconds.
AT_ONCE = 200
# Prometheus gives up after 10 s. For workers that have not answered by then, their last answer is used.
ASK_S = 6.0
# Waiting scrapers: a few Prometheus servers, and pages of the dashboard.
MAX_WAITING = 16
# This many series take some 110 MB, and ten seconds of a processor. Each thing has about this many series:
MAX_SERIES = 1_000_000
PER_APPLICATION, PER_VERSION, PER_REPLICA = 60, 90, 16


class Scrapes:
    """Makes scrapes one after another: an answer that is added up after a later answer would look like a fall."""

    def __init__(self, parts: Parts, status: Callable[[Sequence[WorkerStatistics]], Awaitable[Status]]) -> None:
        self._catalog = parts.catalog
        self._manager = parts.manager
        self._workers = parts.workers
        self._ramps = parts.ramps
        self._status = status
        self._ledger = Ledger()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def text(self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None) -> bytes:
        """Return the text of ``api.server.operations.Operations.metrics``."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} scrapes wait already: scrape less often, or from fewer places")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._scrape(by_worker, applications, models)
        finally:
            self._waiting -= 1

    async def _scrape(self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None) -> bytes:
        is_whole, there = applications is None and models is None, await self._existing()
        names = sorted(there.applications if is_whole else there.applications.keys() & set(applications or ()))
        some = None if is_whole else set(models or ())
        keys = [key for key, (id_, _) in there.versions.items() if some is None or id_.name in some]
        replicas = sum(len(there.replicas[key]) for key in keys)
        workers = len(there.workers) if by_worker else 1
        self._check_size(len(names), len(keys), replicas, workers)
        # Sums and text of thousands of things take seconds if all have changed. On a thread the loop goes on meanwhile.
        await asyncio.to_thread(self._ledger.follow, there)
        answered = await self._ask(names, keys)
        shown = Shown(
            applications=names,
            versions={key: self._wanted(there.versions[key][0]) for key in keys},
            limits=[one for one in there.limits if is_whole or (one[0] == "application" and one[1] in names)],
            newcomers={name: found for name in names if (found := self._newcomers(name))},
            processes=await self._processes([there.versions[key][0] for key in keys], there),
            status=await self._status(list(answered.values())) if is_whole else None,
        )
        return await asyncio.to_thread(self._ledger.text, shown, answered, by_worker=by_worker)

    async def _ask(self, names: Sequence[str], keys: Sequence[str]) -> dict[int, WorkerStatistics]:
        """Ask the workers for what has changed; return what those that answer say of themselves."""
        loop, answered = asyncio.get_running_loop(), dict[int, WorkerStatistics]()
        end_s = loop.time() + ASK_S
        # By the workers' instances, how many applications and versions they have looked at.
        looked = dict.fromkeys(self._workers.instances(), 0)
        while looked and (left_s := end_s - loop.time()) > 0:
            questions = await asyncio.to_thread(self._questions, looked, names, keys)
            replies = dict(await self._workers.ask_each(questions, min(left_s, ANSWER_TIMEOUT_S)))
            told = await asyncio.to_thread(self._take, replies)
            # Wait only once for a worker that does not answer.
            looked = {one: looked[one] + worker.looked for one, worker in told.items() if worker.looked is not None}
            answered |= told
        return answered

    def _questions(
        self, looked: Mapping[int, int], names: Sequence[str], keys: Sequence[str]
    ) -> dict[int, GetReadings]:
        return {one: self._ledger.question(one, names[first:], keys[first:]) for one, first in looked.items()}

    def _take(self, replies: Mapping[int, UndecodedStatistics]) -> dict[int, WorkerStatistics]:
        told = {}
        for instance, reply in replies.items():
            try:
                told[instance] = reply.decode()
            except ProtocolViolation as error:
                log.warning("a worker's statistics are left out of a scrape: %(error)s", {"error": error})
                continue
            self._ledger.take(instance, told[instance])
        return told

    async def _existing(self) -> Existing:
        catalog, records = self._catalog, dict[str, tuple[ModelId, float]]()
        replicas: dict[str, list[str]] = {}
        for number, model in enumerate(sorted(catalog.models), 1):
            for record in catalog.versions_of(model):
                key = str(record.id)
                records[key] = record.id, record.created_at
                replicas[key] = [str(one.slot) for one in self._manager.slots(record.id)]
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        applications = {name: record.state_id for name, record in catalog.applications.items()}
        return Existing(
            {one.instance: WorkerFacts(one.index, one.is_adopted, one.phase == "ready") for one in self._workers},
            applications,
            records,
            replicas,
            {("application", name): id_ for name, id_ in applications.items()}
            | {("key", name): record.created_at for name, record in catalog.keys.items()},
        )

    async def _processes(self, ids: Sequence[ModelId], there: Existing) -> dict[str, ReplicaProcess]:
        found = {}
        for number, id_ in enumerate(ids, 1):
            known = there.replicas[str(id_)]
            for one in self._manager.slots(id_):
                if (name := str(one.slot)) in known:
                    found[name] = ReplicaProcess(replica_state(one), one.restarts)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return found

    def _wanted(self, id_: ModelId) -> int:
        """Return the target number of a version's replicas; 0 if it does not run."""
        record = self._catalog.versions.get(id_)
        runs = record is not None and record.state in ("starting", "ready")
        return self._catalog.running().get(id_, 0) if runs else 0

    def _newcomers(self, name: str) -> Sequence[Newcomer]:
        record = self._catalog.applications.get(name)
        return application_view(record, self._ramps).newcomers if record is not None and record.newcomers else ()

    def _check_size(self, applications: int, versions: int, replicas: int, workers: int) -> None:
        series = workers * (applications * PER_APPLICATION + versions * PER_VERSION + replicas * PER_REPLICA)
        if series > MAX_SERIES:
            of = f"{applications} applications, {versions} versions and {replicas} replicas"
            by, sums = (f" by {workers} workers", "ask without by_worker, or ") if workers > 1 else ("", "")
            raise InvalidArgument(
                f"an answer would have some {series} series, of {of}{by}, and may have {MAX_SERIES}: {sums}"
                "ask for some of them with application=NAME and model=NAME, each as often as needed"
            )
