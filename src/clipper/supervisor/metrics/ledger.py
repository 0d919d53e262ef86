"""The counts of all workers, and their text for Prometheus: only changed counts are summed and written again.

Facts come in, and questions and text go out: ``operations.scrapes`` asks the workers.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from clipper.api.learned import Newcomer
from clipper.api.schemas import Status
from clipper.control.messages import GetReadings
from clipper.control.statistics import ApplicationStatistics, LimitStatistics, VersionStatistics, WorkerStatistics
from clipper.supervisor.metrics import definitions
from clipper.supervisor.metrics.definitions import ReplicaProcess
from clipper.supervisor.metrics.exposition import Labels, Rows, Table
from clipper.supervisor.metrics.totals import Link, Totals, application_has_counted, links, version_has_counted
from clipper.values.types import ModelId

# Whether an application or a key is limited, and its name.
Limited = tuple[str, str]


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker: its index, whether another supervisor started it, and whether it can be asked now."""

    index: int
    is_adopted: bool = False
    is_up: bool = True


@dataclass(frozen=True, slots=True)
class Existing:
    """All things that exist now. Each value tells a thing from an earlier one with the same key.

    Attributes:
        workers: by instance.
        versions: by ``MODEL:VERSION``, each with its creation.
        replicas: by the same, the names of each version's.
    """

    workers: Mapping[int, WorkerFacts] = field(default_factory=dict)
    applications: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, tuple[ModelId, float]] = field(default_factory=dict)
    replicas: Mapping[str, Sequence[str]] = field(default_factory=dict)
    limits: Mapping[Limited, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """The things that a scrape shows, in this order, with the supervisor's own facts.

    Attributes:
        versions: by ``MODEL:VERSION``, with the target number of their replicas.
        processes: of replicas, by the replica's name.
        status: the server's; None if only some applications or models were asked for.
    """

    applications: Collection[str] = ()
    versions: Mapping[str, int] = field(default_factory=dict)
    limits: Collection[Limited] = ()
    newcomers: Mapping[str, Sequence[Newcomer]] = field(default_factory=dict)
    processes: Mapping[str, ReplicaProcess] = field(default_factory=dict)
    status: Status | None = None


class Ledger:
    """The sums over all workers, and the text of each thing, which stands until its sum changes."""

    def __init__(self) -> None:
        self._there = Existing()
        # By replica, the values of its labels.
        self._replicas: dict[str, Labels] = {}
        self._applications: Totals[str, ApplicationStatistics] = Totals(ApplicationStatistics, application_has_counted)
        self._versions: Totals[str, VersionStatistics] = Totals(VersionStatistics, version_has_counted)
        self._links: Totals[str, Link] = Totals(Link, lambda link: link.batches > 0)
        self._limits: Totals[Limited, LimitStatistics] = Totals(LimitStatistics, lambda one: one.refused > 0)
        self._sums = _Tables()
        self._deployed: Table[str, int] = Table([definitions.DEPLOYED], _one)
        self._processes: Table[str, ReplicaProcess] = Table([definitions.REPLICA], _one)

    def follow(self, there: Existing) -> None:
        """Carry on the counts of workers that have ended, and forget things that no longer exist."""
        self._there = there
        of_version = {key: (id_.name, id_.version) for key, (id_, _) in there.versions.items()}
        self._replicas = {name: (*of_version[key], name) for key, names in there.replicas.items() for name in names}
        up = {instance for instance, worker in there.workers.items() if worker.is_up}
        for totals in (self._applications, self._versions, self._links, self._limits):
            totals.keep_workers(there.workers, up)
        self._applications.keep_things(there.applications)
        self._versions.keep_things(there.versions)
        self._links.keep_things({name: there.versions[key] for key, names in there.replicas.items() for name in names})
        self._limits.keep_things(there.limits)
        self._sums.applications.keep(there.applications)
        self._sums.versions.keep(there.versions)
        self._sums.links.keep(self._replicas)
        self._sums.limits.keep(there.limits)
        self._deployed.keep(there.versions)
        self._processes.keep(self._replicas)

    def question(self, instance: int, names: Sequence[str], versions: Sequence[str]) -> GetReadings:
        """Make the question to a worker, for what has changed of these things since its last answer."""
        marks = self._applications.marks(instance, names), self._versions.marks(instance, versions)
        ids = tuple([self._there.versions[key][0] for key in versions])
        return GetReadings(tuple(names), ids, marks)

    def take(self, instance: int, told: WorkerStatistics) -> None:
        """Take a worker's answer. A worker from before an upgrade may tell more than it was asked for."""
        worker = self._there.workers.get(instance)
        if worker is None:
            return  # it was started after the scrape began
        ids = self._there.applications
        # A worker that does not know an application yet may count for an earlier one of its name.
        of_applications = {one.name: one for one in told.applications if one.id in ("", ids.get(one.name))}
        self._applications.take(instance, worker.is_adopted, of_applications)
        self._applications.lose(instance, told.gone_applications)
        of_versions = {f"{one.model}:{one.version}": one for one in told.versions}
        self._versions.take(instance, worker.is_adopted, of_versions)
        gone = [str(id_) for id_ in told.gone_versions]
        self._versions.lose(instance, gone)
        of_links = links(told.replicas)
        self._links.take(instance, worker.is_adopted, of_links)
        replicas = chain.from_iterable(self._there.replicas.get(key, ()) for key in (*of_versions, *gone))
        self._links.lose(instance, [name for name in replicas if name not in of_links])
        of_limits = {(one.of, one.name): one for one in told.limits}
        self._limits.take(instance, worker.is_adopted, of_limits)
        self._limits.lose(instance, [key for key in self._there.limits if key not in of_limits])

    def text(self, shown: Shown, answered: Mapping[int, WorkerStatistics], *, by_worker: bool = False) -> bytes:
        """Return the text of what is shown. ``answered``: what each worker that has answered says of itself.

        ``by_worker``: their own numbers in place of the sums. Their text is not kept.
        """
        indexes = {self._there.workers[one].index: one for one in answered if one in self._there.workers}
        counted = self._of_workers(shown, dict(sorted(indexes.items()))) if by_worker else self._summed(shown)
        for key, wanted in shown.versions.items():
            self._deployed.follow(key, self._of_version(key), wanted)
        for name, process in shown.processes.items():
            self._processes.follow(name, self._replicas[name], process)
        server: Table[None, tuple[Status, Collection[WorkerStatistics]]] = Table(_OF_SERVER, _server_rows)
        if shown.status is not None:
            server.write(None, (), (shown.status, answered.values()))
        newcomers: Table[str, Sequence[Newcomer]] = Table([definitions.NEWCOMER], _newcomer_rows)
        for application, ramped in shown.newcomers.items():
            newcomers.write(application, (application,), ramped)
        pieces: tuple[list[bytes], ...] = (
            server.text([None]),
            *counted[:2],
            newcomers.text(shown.newcomers),
            counted[2],
            self._deployed.text(shown.versions),
            counted[3],
            self._processes.text(shown.processes),
        )
        return b"".join(chain.from_iterable(pieces))

    def _summed(self, shown: Shown) -> list[list[bytes]]:
        found = []
        for totals, table, keys, labels in self._counted(self._sums, shown):
            for key in [key for key in keys if key in totals.changed]:
                totals.changed.discard(key)
                sums = totals.total(key)
                if sums is None:
                    table.drop(key)
                else:
                    table.write(key, labels(key), sums)
            found.append(table.text(keys))
        return found

    def _of_workers(self, shown: Shown, instances: Mapping[int, int]) -> list[list[bytes]]:
        found = []
        for totals, table, keys, labels in self._counted(_Tables("worker"), shown):
            rows = [(index, key) for index in instances for key in keys]
            for index, key in rows:
                if (own := totals.of_worker(instances[index], key)) is not None:
                    table.write((index, key), (*labels(key), str(index)), own)
            found.append(table.text(rows))
        return found

    def _counted(self, tables: "_Tables", shown: Shown) -> tuple["_Part", ...]:
        """Return what workers count, in the order in which it is shown, with the keys and the labels of each."""
        names = [name for key in shown.versions for name in self._there.replicas.get(key, ())]
        return (
            (self._limits, tables.limits, shown.limits, lambda key: key),
            (self._applications, tables.applications, shown.applications, lambda name: (name,)),
            (self._versions, tables.versions, shown.versions, self._of_version),
            (self._links, tables.links, names, self._replicas.__getitem__),
        )

    def _of_version(self, key: str) -> Labels:
        id_, _ = self._there.versions[key]
        return id_.name, id_.version


# The sums, their text, and the keys that are shown, with the values of their labels.
_Part = tuple[Totals[Any, Any], Table[Any, Any], Collection[Any], Callable[[Any], Labels]]


class _Tables:
    """The text of what workers count."""

    def __init__(self, *more_labels: str) -> None:
        self.limits: Table[Any, LimitStatistics] = Table([definitions.LIMIT], _one, *more_labels)
        self.applications: Table[Any, ApplicationStatistics] = Table(_OF_APPLICATION, _application_rows, *more_labels)
        self.versions: Table[Any, VersionStatistics] = Table([definitions.VERSION], _one, *more_labels)
        self.links: Table[Any, Link] = Table([definitions.LINK], _one, *more_labels)


_OF_APPLICATION = (definitions.APPLICATION, definitions.SELECTION, definitions.SELECTED_MODEL, definitions.TEST)
_OF_SERVER = (
    definitions.SERVER,
    definitions.GPU,
    definitions.LEASE,
    definitions.WORKER_PROCESS,
    definitions.WORKER,
    definitions.DECISION_LOG,
    definitions.TELEMETRY,
)


def _one(labels: Labels, thing: object) -> Sequence[Rows]:
    return ([(labels, thing)],)


def _application_rows(labels: Labels, one: ApplicationStatistics) -> Sequence[Rows]:
    name, *rest = labels
    of = one.selection
    models = (
        [((name, model, *rest), (one.queries, counts)) for model, counts in sorted(of.models.items())] if of else []
    )
    return [(labels, one)], [(labels, of)] if of else [], models, [(labels, one.test)] if one.test else []


def _newcomer_rows(labels: Labels, newcomers: Sequence[Newcomer]) -> Sequence[Rows]:
    return ([((*labels, one.model, one.version), one) for one in newcomers],)


def _server_rows(labels: Labels, server: tuple[Status, Collection[WorkerStatistics]]) -> Sequence[Rows]:
    status, answered = server
    workers = [((str(one.index),), one) for one in sorted(answered, key=lambda one: one.index)]
    return (
        [(labels, status)],
        [((gpu.id,), gpu) for gpu in status.gpus],
        [] if status.lease is None else [((status.lease.registry,), status.lease)],
        [((str(one.index),), one) for one in status.workers],
        workers,
        [(index, one.decisions) for index, one in workers if one.decisions],
        [(index, one.telemetry) for index, one in workers if one.telemetry],
    )
