"""Scrapes: the counts of all workers, added up or by worker.

Workers are asked for some applications and versions at a time, so that neither they nor the supervisor are busy with it
for long, and so that all counts of all workers are never in memory at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from msgspec import Struct

from clipper.api.schemas import Status
from clipper.control.messages import GetStatistics
from clipper.control.statistics import ApplicationStatistics, LimitStatistics, VersionStatistics, WorkerStatistics
from clipper.errors import InvalidArgument, Overloaded
from clipper.supervisor.metrics.exposition import Counted, Scrape, render
from clipper.supervisor.metrics.totals import Link, Totals, application_has_counted, links, version_has_counted
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.operations.views import Views, application_view
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.supervisor.workers.workers import ANSWER_TIMEOUT_S
from clipper.values.types import ModelId

# Applications, and versions, in a question. The answers of 64 workers are added up in 50 ms.
PER_QUESTION = 50
# Prometheus gives up after 10 s. For workers that have not answered by then, their last answer is used.
ASK_S = 6.0
# Waiting scrapers: a few Prometheus servers, and pages of the dashboard.
MAX_WAITING = 16
# This many series take some 110 MB, and ten seconds of a processor. Each thing has about this many series:
MAX_SERIES = 1_000_000
PER_APPLICATION, PER_VERSION, PER_REPLICA = 60, 90, 16

K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=Struct)
# The workers' statistics of things by key, by the workers' instances.
Said = Mapping[int, Mapping[K, S]]
Kind = Literal["applications", "versions", "links", "limits"]


class Scrapes:
    """Makes scrapes one after another: an answer that is added up after a later answer would look like a fall."""

    def __init__(
        self, parts: Parts, views: Views, status: Callable[[Sequence[WorkerStatistics]], Awaitable[Status]]
    ) -> None:
        self._catalog = parts.catalog
        self._manager = parts.manager
        self._workers = parts.workers
        self._ramps = parts.ramps
        self._views = views
        self._status = status
        self._applications: Totals[str, ApplicationStatistics] = Totals(ApplicationStatistics, application_has_counted)
        self._versions: Totals[ModelId, VersionStatistics] = Totals(VersionStatistics, version_has_counted)
        self._links: Totals[str, Link] = Totals(Link, lambda link: link.batches > 0)
        self._limits: Totals[tuple[str, str], LimitStatistics] = Totals(LimitStatistics, lambda one: one.refused > 0)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def text(self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None) -> bytes:
        """Return the text of ``api.server.operations.Operations.metrics``."""
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} scrapes wait already: scrape less often, or from fewer places")
        self._waiting += 1
        try:
            async with self._turn:
                scrape = await self._scrape(by_worker, applications, models)
        finally:
            self._waiting -= 1
        # Text of a thousand models takes a second or two, during which the supervisor has other things to do.
        return await asyncio.to_thread(render, scrape)

    async def _scrape(
        self, by_worker: bool, applications: Sequence[str] | None, models: Sequence[str] | None
    ) -> Scrape:
        is_whole = applications is None and models is None
        known = self._catalog.applications
        names = sorted(known if is_whole else known.keys() & set(applications or ()))
        slots = self._slots(None if is_whole else models or ())
        self._check_size(
            len(names), len(slots), sum(map(len, slots.values())), len(list(self._workers)) if by_worker else 1
        )
        self._keep()
        basics = {instance: reply.worker for instance, reply in await self._workers.ask_all(GetStatistics((), ()))}
        found = _Found(by_worker, {worker.instance: worker for worker in self._workers})
        limited = {("application", name) for name in names} | {("key", name) for name in self._catalog.keys if is_whole}
        limits = {instance: {(one.of, one.name): one for one in worker.limits} for instance, worker in basics.items()}
        found.add("limits", self._limits, limits, limited)
        answering, end_s = set(basics), asyncio.get_running_loop().time() + ASK_S
        for page in _pages(names, list(slots)):
            left_s = end_s - asyncio.get_running_loop().time()
            questions = dict.fromkeys(answering if left_s > 0 else (), GetStatistics(*page))
            replies = dict(await self._workers.ask_each(questions, min(left_s, ANSWER_TIMEOUT_S)))
            answering &= replies.keys()  # a worker that does not answer is waited for once
            said = {instance: reply.worker for instance, reply in replies.items()}
            of_applications = {key: {one.name: one for one in each.applications} for key, each in said.items()}
            found.add("applications", self._applications, of_applications, page[0])
            await asyncio.sleep(0)
            of_versions = {
                key: {ModelId(one.model, one.version): one for one in each.versions} for key, each in said.items()
            }
            found.add("versions", self._versions, of_versions, page[1])
            await asyncio.sleep(0)
            of_links = {key: links(each.replicas) for key, each in said.items()}
            found.add("links", self._links, of_links, [slot for id_ in page[1] for slot in slots[id_]])
        return Scrape(
            await self._status(list(basics.values())) if is_whole else None,
            list(basics.values()) if is_whole else (),
            [application_view(self._catalog.applications[name], self._ramps) for name in names],
            [self._views.model(name) for name in dict.fromkeys(id_.name for id_ in slots)],
            [self._views.replica(slot) for id_ in slots for slot in self._manager.slots(id_)],
            found.counted(),
            by_worker,
        )

    def _slots(self, asked: Sequence[str] | None) -> dict[ModelId, list[str]]:
        """Return the names of the replicas of each version of these models."""
        known = self._catalog.models
        models = sorted(known if asked is None else known.keys() & set(asked))
        versions = [record.id for model in models for record in self._catalog.versions_of(model)]
        return {id_: [str(one.slot) for one in self._manager.slots(id_)] for id_ in versions}

    def _check_size(self, applications: int, versions: int, replicas: int, workers: int) -> None:
        series = workers * (applications * PER_APPLICATION + versions * PER_VERSION + replicas * PER_REPLICA)
        if series > MAX_SERIES:
            raise InvalidArgument(
                f"these are some {series} series, and {MAX_SERIES} at most are answered: ask for them without "
                "by_worker, or with application and model for those of some"
            )

    def _keep(self) -> None:
        """Carry on the counts of workers that have ended, and forget things that no longer exist."""
        catalog, alive = self._catalog, {worker.instance for worker in self._workers}
        for totals in (self._applications, self._versions, self._links, self._limits):
            totals.keep_workers(alive)
        ids = {name: record.state_id for name, record in catalog.applications.items()}
        made_at = {id_: record.created_at for id_, record in catalog.versions.items()}
        self._applications.keep_things(ids)
        self._versions.keep_things(made_at)
        self._links.keep_things({str(one.slot): made_at.get(one.slot.model_id) for one in self._manager.slots()})
        self._limits.keep_things(
            {("application", name): id_ for name, id_ in ids.items()}
            | {("key", name): record.created_at for name, record in catalog.keys.items()}
        )


class _Found:
    """The rows of a scrape so far: for all workers together, or for each by its index."""

    def __init__(self, by_worker: bool, workers: Mapping[int, WorkerProcess]) -> None:
        """Begin a scrape. ``workers`` are by instance."""
        self._by_worker = by_worker
        self._workers = workers
        self._counted: dict[int | None, Counted] = {}

    def add(self, kind: Kind, totals: Totals[K, S], said: "Said[K, S]", keys: Collection[K]) -> None:
        """Add the workers' statistics of these things. A worker from before an upgrade may answer more."""
        for instance, things in said.items():
            worker = self._workers.get(instance)
            if worker is None:
                continue  # it was started after the scrape began
            if self._by_worker:
                self._rows(kind, worker.index).extend(things[key] for key in keys if key in things)
            else:
                totals.take(instance, worker.is_adopted, things)
        if not self._by_worker:
            sums = (totals.total(key, said) for key in keys)
            self._rows(kind, None).extend(one for one in sums if one is not None)

    def counted(self) -> list[Counted]:
        return [self._counted[index] for index in sorted(self._counted, key=str)]

    def _rows(self, kind: Kind, index: int | None) -> list[Any]:
        rows: list[Any] = getattr(self._counted.setdefault(index, Counted(index)), kind)
        return rows


def _pages(names: Sequence[str], versions: Sequence[ModelId]) -> Iterator[tuple[tuple[str, ...], tuple[ModelId, ...]]]:
    for first in range(0, max(len(names), len(versions)), PER_QUESTION):
        page = slice(first, first + PER_QUESTION)
        yield tuple(names[page]), tuple(versions[page])
