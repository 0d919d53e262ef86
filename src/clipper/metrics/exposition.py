"""Fills the tables of ``definitions`` with the server's present values, as Prometheus text."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TypeVar

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from clipper.control.statistics import HistogramData, ReplicaStatistics, WorkerStatistics
from clipper.management.schemas import Application, Model, Replica, Status
from clipper.metrics.definitions import (
    APPLICATION,
    DECISION_LOG,
    DEPLOYED,
    LEASE,
    LIMIT,
    LINK,
    NEWCOMER,
    REPLICA,
    SELECTED_MODEL,
    SELECTION,
    SERVER,
    TELEMETRY,
    TEST,
    VERSION,
    WORKER,
    WORKER_PROCESS,
    Group,
    Histogram,
    Number,
    SelectedModel,
)

# ``digits:2#1.g7``: replica 1 of digits:2, its seventh process.
_PROCESS_ID = re.compile(r"(?P<replica>.+#\d+)\.g(?P<generation>\d+)")

T = TypeVar("T")
Rows = Iterable[tuple[tuple[str, ...], T]]


def render(
    workers: Iterable[WorkerStatistics],
    applications: Iterable[Application],
    models: Iterable[Model],
    replicas: Iterable[Replica],
    status: Status,
) -> bytes:
    """Return one scrape's exposition, with the content type ``prometheus_client.CONTENT_TYPE_LATEST``."""
    return generate_latest(ServerCollector(tuple(workers), tuple(applications), tuple(models), tuple(replicas), status))


class ServerCollector(Collector):
    """The values of one scrape, as metric families of the client library."""

    def __init__(
        self,
        workers: tuple[WorkerStatistics, ...],
        applications: tuple[Application, ...],
        models: tuple[Model, ...],
        replicas: tuple[Replica, ...],
        status: Status,
    ) -> None:
        self._workers = workers
        self._applications = applications
        self._models = models
        self._replicas = replicas
        self._status = status

    def collect(self) -> Iterator[Metric]:
        workers = [(str(worker.index), worker) for worker in self._workers]
        yield from _families(SERVER, [((), self._status)])
        lease = self._status.lease
        yield from _families(LEASE, [((lease.registry,), lease)] if lease is not None else [])
        yield from _families(WORKER_PROCESS, [((str(w.index),), w) for w in self._status.workers])
        yield from _families(WORKER, [((index,), worker) for index, worker in workers])
        yield from _families(DECISION_LOG, [((index,), w.decisions) for index, w in workers if w.decisions])
        yield from _families(TELEMETRY, [((index,), w.telemetry) for index, w in workers if w.telemetry])
        yield from _families(LIMIT, [((one.of, one.name, index), one) for index, w in workers for one in w.limits])
        yield from _families(APPLICATION, [((a.name, index), a) for index, w in workers for a in w.applications])
        selections = [(a, index, a.selection) for index, w in workers for a in w.applications if a.selection]
        yield from _families(SELECTION, [((a.name, index), selection) for a, index, selection in selections])
        yield from _families(
            SELECTED_MODEL,
            [
                ((a.name, model, index), SelectedModel(a.queries, counts))
                for a, index, selection in selections
                for model, counts in selection.models.items()
            ],
        )
        yield from _families(TEST, [((a.name, i), a.test) for i, w in workers for a in w.applications if a.test])
        yield from _families(
            NEWCOMER, [((a.name, n.model, n.version), n) for a in self._applications for n in a.newcomers]
        )
        yield from _families(VERSION, [((v.model, v.version, index), v) for index, w in workers for v in w.versions])
        yield from _families(DEPLOYED, [((m.name, v.version), v) for m in self._models for v in m.versions])
        yield from _families(
            LINK,
            [((r.model, r.version, name, i), r) for i, w in workers for name, r in newest(w.replicas).items()],
        )
        replicas = {replica_name(r.id): r for r in self._replicas}
        yield from _families(REPLICA, [((r.model, r.version, name), r) for name, r in replicas.items()])


def replica_name(replica_id: str) -> str:
    """Return a replica's name without the number of its process, so that a restart does not begin new series."""
    match = _PROCESS_ID.fullmatch(replica_id)
    return match["replica"] if match else replica_id


def newest(replicas: Iterable[ReplicaStatistics]) -> dict[str, ReplicaStatistics]:
    """Return the newest process of each replica by name: a draining predecessor must not share its series."""
    return {replica_name(replica.id): replica for replica in sorted(replicas, key=lambda r: _generation(r.id))}


def _generation(replica_id: str) -> int:
    match = _PROCESS_ID.fullmatch(replica_id)
    return int(match["generation"]) if match else 0


def _families(group: Group[T], rows: Rows[T]) -> Iterator[Metric]:
    rows = list(rows)
    for metric in group.metrics:
        if isinstance(metric, Histogram):
            yield _histogram(metric, group.labels, rows)
        else:
            yield _number(metric, group.labels, rows)


def _histogram(metric: Histogram[T], labels: tuple[str, ...], rows: Rows[T]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.help, labels=labels)
    for values, thing in rows:
        data = metric.read(thing)
        family.add_metric(values, buckets=_buckets(metric.bounds, data), sum_value=data.sum)
    return family


def _buckets(bounds: tuple[float, ...], data: HistogramData) -> list[tuple[str, float]]:
    """Return cumulative counts, as the format demands."""
    ends = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(ends, map(float, accumulate(data.counts))))


def _number(metric: Number[T], labels: tuple[str, ...], rows: Rows[T]) -> Metric:
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    names = labels if metric.extra is None else (*labels, metric.extra)
    family = make(metric.name, metric.help, labels=names)
    for values, thing in rows:
        number = metric.read(thing)
        if isinstance(number, Mapping):
            for key, value in number.items():
                family.add_metric((*values, key), value)
        else:
            family.add_metric(values, number)
    return family
