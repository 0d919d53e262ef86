"""The part of a report on what an application asks: its steps, and the versions of each. Facts in, values out."""

from collections.abc import Iterable, Sequence

from clipper.api.reports import BatchTime, Latency, StepModel, StepReport
from clipper.control.histogram import quantile
from clipper.control.statistics import LATENCY_BOUNDS_S, ApplicationStatistics, HistogramData, WorkerStatistics
from clipper.settings.fields import shared
from clipper.settings.pipeline import read_graph
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.metrics.totals import total
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.values.types import ModelId


def asked_by(record: ApplicationRecord, catalog: Catalog) -> list[tuple[str, str]]:
    """Return the steps of an application, each with the application that it asks; one without steps asks itself."""
    if not record.steps:
        return [(record.name, record.name)]
    nodes = read_graph(record.name, record.steps, record.output).nodes
    return [(node.name, node.application) for node in nodes if node.application in catalog.applications]


def versions_of(applications: Iterable[str], catalog: Catalog) -> set[ModelId]:
    """Return the versions that these applications ask."""
    return {id_ for name in applications for id_ in catalog.asked(catalog.applications[name]).values()}


def counts_of(application: str, statistics: Sequence[WorkerStatistics]) -> ApplicationStatistics:
    """Return the workers' counts of an application together."""
    nothing = ApplicationStatistics(application, 0, {}, {}, 0, HistogramData((0,) * (len(LATENCY_BOUNDS_S) + 1), 0.0))
    return total(
        [nothing, *(each for worker in statistics for each in worker.applications if each.name == application)]
    )


def step_report(step: str, application: str, catalog: Catalog, statistics: Sequence[WorkerStatistics]) -> StepReport:
    """Make the report on a step from the statistics of its application and versions."""
    counted = counts_of(application, statistics)
    models = {} if counted.selection is None else counted.selection.models
    return StepReport(
        **shared(counted, StepReport),
        step=step,
        application=application,
        latency=latency_of(counted.latency_s),
        models=tuple(
            _step_model(id_, models[name].selected if name in models else 0, catalog, statistics)
            for name, id_ in catalog.asked(catalog.applications[application]).items()
        ),
    )


def _step_model(id_: ModelId, asked: int, catalog: Catalog, statistics: Sequence[WorkerStatistics]) -> StepModel:
    said = [each for worker in statistics for each in worker.versions if ModelId(each.model, each.version) == id_]
    counted = total(said) if said else None
    batches = {} if counted is None else counted.batches
    record = catalog.versions[id_]
    return StepModel(
        model=id_.name,
        version=id_.version,
        asked=asked,
        evaluated=1.0 if counted is None else counted.evaluated,
        replicas=record.replicas_wanted,
        cpus=record.spec.cpus,
        scales=record.scaling is not None,
        batches={size: BatchTime(each.count, 1000 * each.sum_s / each.count) for size, each in sorted(batches.items())},
        waiting=0 if counted is None else counted.queue_length,
    )


def latency_of(times: HistogramData) -> Latency | None:
    """Return the latencies of a histogram; None if it is empty."""
    if not times.count:
        return None
    p50_s, p99_s = (quantile(times.counts, LATENCY_BOUNDS_S, share) for share in (0.5, 0.99))
    return Latency(1000 * times.mean, 1000 * p50_s, 1000 * p99_s)
