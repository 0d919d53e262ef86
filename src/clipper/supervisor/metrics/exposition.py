"""Fills the tables of ``definitions`` with the server's present values, as Prometheus text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from clipper.api.schemas import Application, Model, Replica, Status
from clipper.control.statistics import (
    ApplicationStatistics,
    HistogramData,
    LimitStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.supervisor.metrics.definitions import (
    APPLICATION,
    DEPLOYED,
    LINK,
    NEWCOMER,
    REPLICA,
    SELECTED_MODEL,
    SELECTION,
    TEST,
    VERSION,
    SelectedModel,
)
from clipper.supervisor.metrics.group import Group, Histogram, Number
from clipper.supervisor.metrics.server_definitions import (
    DECISION_LOG,
    LEASE,
    LIMIT,
    SERVER,
    TELEMETRY,
    WORKER,
    WORKER_PROCESS,
)
from clipper.supervisor.metrics.totals import Link, replica_name

T = TypeVar("T")
Rows = Iterable[tuple[tuple[str, ...], T]]


@dataclass(frozen=True, slots=True)
class Counted:
    """What workers have counted: of all together, or of the worker of this index."""

    worker: int | None = None
    applications: Sequence[ApplicationStatistics] = ()
    versions: Sequence[VersionStatistics] = ()
    links: Sequence[Link] = ()
    limits: Sequence[LimitStatistics] = ()


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape shows.

    Attributes:
        status: None if only some applications or models were asked for.
        workers: those that answered.
        by_worker: whether ``counted`` is of each worker.
    """

    status: Status | None = None
    workers: Sequence[WorkerStatistics] = ()
    applications: Sequence[Application] = ()
    models: Sequence[Model] = ()
    replicas: Sequence[Replica] = ()
    counted: Sequence[Counted] = ()
    by_worker: bool = False


def render(scrape: Scrape) -> bytes:
    """Return one scrape's exposition, with the content type ``prometheus_client.CONTENT_TYPE_LATEST``."""
    return generate_latest(ServerCollector(scrape))


class ServerCollector(Collector):
    """The values of one scrape, as metric families of the client library."""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Metric]:
        scrape = self._scrape
        status, workers = scrape.status, [((str(worker.index),), worker) for worker in scrape.workers]
        yield from self._families(SERVER, [] if status is None else [((), status)])
        lease = None if status is None else status.lease
        yield from self._families(LEASE, [] if lease is None else [((lease.registry,), lease)])
        yield from self._families(WORKER_PROCESS, [((str(w.index),), w) for w in (status.workers if status else ())])
        yield from self._families(WORKER, workers)
        yield from self._families(DECISION_LOG, [(index, w.decisions) for index, w in workers if w.decisions])
        yield from self._families(TELEMETRY, [(index, w.telemetry) for index, w in workers if w.telemetry])
        counted = [((), each) if each.worker is None else ((str(each.worker),), each) for each in scrape.counted]
        yield from self._families(LIMIT, [((one.of, one.name, *of), one) for of, c in counted for one in c.limits])
        applications = [(of, one) for of, each in counted for one in each.applications]
        yield from self._families(APPLICATION, [((one.name, *of), one) for of, one in applications])
        selections = [(of, one, one.selection) for of, one in applications if one.selection]
        yield from self._families(SELECTION, [((one.name, *of), selection) for of, one, selection in selections])
        yield from self._families(
            SELECTED_MODEL,
            [
                ((one.name, model, *of), SelectedModel(one.queries, counts))
                for of, one, selection in selections
                for model, counts in selection.models.items()
            ],
        )
        yield from self._families(TEST, [((one.name, *of), one.test) for of, one in applications if one.test])
        yield from self._families(
            NEWCOMER, [((a.name, n.model, n.version), n) for a in scrape.applications for n in a.newcomers]
        )
        yield from self._families(
            VERSION, [((v.model, v.version, *of), v) for of, each in counted for v in each.versions]
        )
        yield from self._families(DEPLOYED, [((m.name, v.version), v) for m in scrape.models for v in m.versions])
        yield from self._families(
            LINK, [((one.model, one.version, one.name, *of), one) for of, each in counted for one in each.links]
        )
        replicas = {replica_name(r.id): r for r in scrape.replicas}
        yield from self._families(REPLICA, [((r.model, r.version, name), r) for name, r in replicas.items()])

    def _families(self, group: Group[T], rows: Rows[T]) -> Iterator[Metric]:
        rows = list(rows)
        labels = (*group.labels, "worker") if group.is_summed and self._scrape.by_worker else group.labels
        for metric in group.metrics:
            yield _histogram(metric, labels, rows) if isinstance(metric, Histogram) else _number(metric, labels, rows)


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
