"""Fills the tables of ``definitions`` with the server's present values, as Prometheus text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import nan
from typing import Any, TypeVar

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from clipper.api.schemas import Application, Model, Replica, Status
from clipper.control.statistics import (
    ApplicationStatistics,
    LimitStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.supervisor.metrics import definitions
from clipper.supervisor.metrics.totals import Link, replica_name

T = TypeVar("T")
Rows = Iterable[tuple[tuple[str, ...], T]]


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of all workers together, or of the worker of this index."""

    worker: int | None = None
    applications: Sequence[ApplicationStatistics] = field(default_factory=list)
    versions: Sequence[VersionStatistics] = field(default_factory=list)
    links: Sequence[Link] = field(default_factory=list)
    limits: Sequence[LimitStatistics] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scrape:
    """The facts that a scrape shows. ``status`` is None if only some applications or models were asked for."""

    status: Status | None = None
    workers: Sequence[WorkerStatistics] = ()
    applications: Sequence[Application] = ()
    models: Sequence[Model] = ()
    replicas: Sequence[Replica] = ()
    counted: Sequence[Counted] = ()
    by_worker: bool = False


def render(scrape: Scrape) -> bytes:
    """Return a scrape's exposition, with the content type ``prometheus_client.CONTENT_TYPE_LATEST``."""
    return generate_latest(ServerCollector(scrape))


class ServerCollector(Collector):
    """The values of a scrape, as metric families of the client library."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Metric]:
        for group, rows in self._rows():
            yield from self._families(group, list(rows))

    def _rows(self) -> Iterator[tuple[definitions.Group[Any], Rows[Any]]]:
        scrape = self._scrape
        status, workers = scrape.status, [((str(worker.index),), worker) for worker in scrape.workers]
        yield definitions.SERVER, [] if status is None else [((), status)]
        lease = None if status is None else status.lease
        yield definitions.LEASE, [] if lease is None else [((lease.registry,), lease)]
        yield definitions.WORKER_PROCESS, [((str(w.index),), w) for w in (status.workers if status else ())]
        yield definitions.WORKER, workers
        yield definitions.DECISION_LOG, [(index, w.decisions) for index, w in workers if w.decisions]
        yield definitions.TELEMETRY, [(index, w.telemetry) for index, w in workers if w.telemetry]
        counted = [((), each) if each.worker is None else ((str(each.worker),), each) for each in scrape.counted]
        yield definitions.LIMIT, [((one.of, one.name, *of), one) for of, c in counted for one in c.limits]
        applications = [(of, one) for of, each in counted for one in each.applications]
        yield definitions.APPLICATION, [((one.name, *of), one) for of, one in applications]
        selections = [(of, one, one.selection) for of, one in applications if one.selection]
        yield definitions.SELECTION, [((one.name, *of), selection) for of, one, selection in selections]
        selected = [
            ((one.name, model, *of), (one.queries, counts))
            for of, one, selection in selections
            for model, counts in selection.models.items()
        ]
        yield definitions.SELECTED_MODEL, selected
        yield definitions.TEST, [((one.name, *of), one.test) for of, one in applications if one.test]
        yield (
            definitions.NEWCOMER,
            [((a.name, n.model, n.version), n) for a in scrape.applications for n in a.newcomers],
        )
        yield definitions.VERSION, [((v.model, v.version, *of), v) for of, each in counted for v in each.versions]
        yield definitions.DEPLOYED, [((m.name, v.version), v) for m in scrape.models for v in m.versions]
        yield (
            definitions.LINK,
            [((one.model, one.version, one.name, *of), one) for of, each in counted for one in each.links],
        )
        replicas = {replica_name(r.id): r for r in scrape.replicas}
        yield definitions.REPLICA, [((r.model, r.version, name), r) for name, r in replicas.items()]

    def _families(self, group: definitions.Group[T], rows: Rows[T]) -> Iterator[Metric]:
        labels = (*group.labels, "worker") if group.is_summed and self._scrape.by_worker else group.labels
        for metric in group.metrics:
            yield (
                _histogram(metric, labels, rows)
                if isinstance(metric, definitions.Histogram)
                else _number(metric, labels, rows)
            )


def _histogram(metric: definitions.Histogram[T], labels: tuple[str, ...], rows: Rows[T]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.help, labels=labels)
    ends = [*(str(float(bound)) for bound in metric.bounds), "+Inf"]
    for values, thing in rows:
        data = metric.read(thing)
        # Cumulative counts, as the format demands.
        family.add_metric(values, buckets=list(zip(ends, map(float, accumulate(data.counts)))), sum_value=data.sum)
    return family


def _number(metric: definitions.Number[T], labels: tuple[str, ...], rows: Rows[T]) -> Metric:
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    names = labels if metric.extra is None else (*labels, metric.extra)
    family = make(metric.name, metric.help, labels=names)
    for values, thing in rows:
        number = metric.read(thing)
        if isinstance(number, Mapping):
            for key, value in number.items():
                family.add_metric((*values, key), value)
        else:
            family.add_metric(values, nan if number is None else number)
    return family
