"""Measures the load that pipelines are about to put on the versions of their steps."""

from collections.abc import Iterable, Mapping

from clipper.control.statistics import ApplicationStatistics, WorkerStatistics
from clipper.settings.pipeline import read_graph
from clipper.settings.server import MAX_WORKERS
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.managers.reconcile.together import Coming
from clipper.supervisor.metrics.totals import increase, total
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.values.types import ModelId


def asked_by_steps(record: ApplicationRecord, catalog: Catalog) -> dict[tuple[str, str], ModelId]:
    """Return the versions that a pipeline's steps ask now, by application and by the name of the link."""
    found = {}
    for node in read_graph(record.name, record.steps, record.output).nodes if record.steps else ():
        step = catalog.applications.get(node.application)
        for name, id_ in catalog.asked(step).items() if step else ():
            found[node.application, name] = id_
    return found


class PipelineMeter:
    """Measures one pipeline. A worker that does not answer in time is counted in the next look."""

    def __init__(self) -> None:
        self._coming = Coming()
        self._before: dict[tuple[int, str], ApplicationStatistics] = {}
        self._looked_at_s: float | None = None

    def look(
        self,
        name: str,
        asked: Mapping[tuple[str, str], ModelId],
        evaluated: Mapping[ModelId, float],
        replies: Iterable[tuple[int, WorkerStatistics]],
        now_s: float,
    ) -> dict[ModelId, float]:
        """Return the rows a second that each version has to be ready for; none at the first look.

        ``evaluated``: the share of a version's look-ups that are not answered from its cache.
        """
        wanted = {name, *(application for application, _ in asked)}
        said = {
            (instance, each.name): each
            for instance, worker in replies
            for each in worker.applications
            if each.name in wanted
        }
        parts: dict[str, list[ApplicationStatistics]] = {}
        for key, now in said.items():
            parts.setdefault(key[1], []).append(increase(self._before.get(key), now))
        # A worker that ended never answers again: of the silent ones, only as many as may be running are kept.
        silent = [each for each in self._before.items() if each[0] not in said]
        self._before = dict(silent[-MAX_WORKERS * len(wanted) :]) | said
        before_s, self._looked_at_s = self._looked_at_s, now_s
        if before_s is None or name not in parts:
            return {}
        counted = {application: total(each) for application, each in parts.items()}
        rows: dict[ModelId, float] = {}
        for (application, link), id_ in asked.items():
            of_step = counted.get(application)
            if of_step is not None and of_step.selection is not None and link in of_step.selection.models:
                times = of_step.selection.models[link].selected * evaluated.get(id_, 1.0)
                rows[id_] = rows.get(id_, 0.0) + times
        own = counted[name]
        lost = sum(own.defaults.values()) + sum(own.errors.values())
        return self._coming.look(now_s, now_s - before_s, own.queries, lost, rows)
