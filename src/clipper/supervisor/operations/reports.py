"""Reports, which compare an application's models, and the series that are kept."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from clipper.api.reports import Bounds, Frontier, FrontierModel, Latency, Report, ReportedModel, ReportGroup
from clipper.api.series import Named, Series, SeriesOverview
from clipper.control.descriptions import ModelDescription
from clipper.control.histogram import quantile
from clipper.control.statistics import (
    LATENCY_BOUNDS_S,
    ApplicationStatistics,
    HistogramData,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.errors import InvalidArgument
from clipper.learning.mathematics.basis import basis_of, tells_picked
from clipper.learning.mathematics.comparison import Compared, compare
from clipper.learning.mathematics.confidence_sequences import Interval, mean_interval
from clipper.learning.mathematics.frontier import frontier, reached
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import EVER_SCORED
from clipper.learning.policies.best_arm import BestArm
from clipper.learning.policies.by_name import goes_by, make_policy
from clipper.learning.stores.store import EVERYONE
from clipper.settings.application import Selection, link_names
from clipper.supervisor.history.ring import Subject
from clipper.supervisor.history.sampler import LATEST_POINTS, STEP_S
from clipper.supervisor.history.values import OF_APPLICATIONS, OF_MODELS, OF_OVERVIEW
from clipper.supervisor.operations.parts import OfParts
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.supervisor.rollout import rules
from clipper.values.types import ModelId

# A report has groups for this many contexts, as many as a page can show: those with the most feedback among the latest
# contexts, which are read from the store.
MAX_GROUPS = 10
MAX_LOOKED_AT = 200
# Versions that are no longer linked: those with the most feedback are shown.
MAX_UNLINKED = 20


class ReportOperations(OfParts):
    """The operations that make reports. They change nothing."""

    async def report(
        self,
        name: str,
        confidence: float | None,
        tolerance: float | None,
        context: str | None,
        by_context: bool,
    ) -> Report:
        record = self._catalog.application(name)
        rules.check_context(context)
        if context is not None and by_context:
            raise InvalidArgument("a report of one context has no groups by context: give either context or by_context")
        asked = _asked(record, confidence, tolerance)
        contexts = [context]
        if by_context:
            contexts += await self._contexts_with_most(record.state_id)
        states = [await self._state(record.state_id, each) for each in contexts]
        counted = _Counted(name, await self._workers.statistics([name], self._versions(record, states)))
        costs: dict[str, float] = {}
        groups = [
            await self._group(record, each, state, asked, counted, costs) for each, state in zip(contexts, states)
        ]
        return Report(
            application=name,
            policy=record.selection.policy,
            loss=record.selection.loss,
            confidence=asked.confidence,
            tolerance=asked.tolerance,
            time_s=time.time(),
            slo_ms=record.slo_ms,
            feedback_per_s=counted.feedback_per_s,
            queries=sum(each.queries for each in counted.applications),
            defaults=counted.defaults,
            errors=counted.errors,
            slo_misses=sum(each.slo_misses for each in counted.applications),
            latency=_latency(each.latency_s for each in counted.applications),
            groups=tuple(groups),
            last_minute=self._recent.answers(name),
            frontier=counted.frontier(record.selection, groups[0].models, costs),
        )

    async def _contexts_with_most(self, state_id: str) -> list[str]:
        _, latest = await self._store_of_learning.contexts(state_id, MAX_LOOKED_AT)
        feedback = {context: (await self._state(state_id, context)).clock for context in latest}
        return sorted(latest, key=lambda context: -feedback[context])[:MAX_GROUPS]

    async def _state(self, state_id: str, context: str | None) -> Ledger:
        sums = await self._store_of_learning.load(state_id, EVERYONE if context is None else context)
        return Ledger(None, sums)

    async def _group(
        self,
        record: ApplicationRecord,
        context: str | None,
        state: Ledger,
        asked: BestArm,
        counted: "_Counted",
        costs: dict[str, float],
    ) -> ReportGroup:
        """Compare the models in a context, and note their known costs in ``costs``."""
        description = await self._workers.describe_policy(record.name, context)
        shown = self._linked(record) if description is None else description.models
        costs.update((each.model, each.cost) for each in shown if each.cost is not None)
        keys = {each.model: _key(each) for each in shown}
        basis = basis_of(
            state.totals(),
            state.clock,
            keys,
            goes_by(record.selection.policy),
            is_of_context=context is not None,
            has_contexts=not tells_picked(state.totals())
            and (await self._store_of_learning.contexts(record.state_id, 1))[0] > 0,
        )
        # The comparison of all pairs takes a while: other requests are answered meanwhile.
        comparison = await asyncio.to_thread(compare, list(keys), basis.evidence, asked.confidence, asked.tolerance)
        models = [
            counted.model(each, key, basis.scored.get(key, 0.0), comparison.models[each.model])
            for each in shown
            for key in (keys[each.model],)
        ]
        unlinked = sorted(basis.scored.keys() - set(keys.values()), key=lambda key: -basis.scored[key])
        for key in unlinked[:MAX_UNLINKED]:
            known = basis.pooled[key]
            compared = Compared(known.mean if known.count else None, mean_interval(known, 1 - asked.confidence))
            models.append(counted.model(None, key, basis.scored[key], compared))
        # A test is over all queries, whatever context is asked for.
        standing = None if description is None or context is not None else description.test
        verdict, best, more = comparison.verdict, comparison.best, comparison.more_feedback
        if verdict == "no_feedback" and basis.feedback:
            verdict = "open"
        is_found = (
            standing is not None
            and standing.winner is not None
            and standing.confidence >= asked.confidence
            and standing.tolerance <= asked.tolerance
        )
        if verdict == "open" and standing is not None and is_found:
            # The test's finding stays valid, even if later feedback alone would be less conclusive.
            verdict, best, more = "as_good", standing.winner, 0.0
        rate = counted.feedback_per_s
        return ReportGroup(
            context=context,
            feedback=basis.feedback,
            verdict=verdict,
            best=best,
            sureness=comparison.sureness if best == comparison.best else 0.0,
            more_feedback=more,
            # The rate of feedback of a context is not known.
            more_s=more / rate if more is not None and rate > 0 and context is None else None,
            models=tuple(models),
            test=standing,
            estimator=basis.estimator,
            compared=basis.compared,
            basis=basis.why,
            problem=None if description is not None else "no query worker answers: see clipper status",
        )

    def _versions(self, record: ApplicationRecord, states: Iterable[Ledger]) -> list[ModelId]:
        """Return the versions that may be compared: those of linked models, and others that still have feedback."""
        linked = {version.id for link in record.links for version in self._catalog.versions_of(link.model)}
        with_feedback = {
            ModelId(*key.rsplit(":", 1))
            for state in states
            for key, name in state.totals().numbers
            if name == EVER_SCORED and ":" in key
        }
        return list(linked | (with_feedback & self._catalog.versions.keys()))

    def _linked(self, record: ApplicationRecord) -> tuple[ModelDescription, ...]:
        """Return the models by the registry, if no worker describes them."""
        return tuple(
            ModelDescription(
                name, 0.0, None, 0.0, 0.0, link.shadow, link.version or self._catalog.model(link.model).current
            )
            for name, link in zip(link_names(record.links), record.links)
        )


class _Counted:
    """The counts of workers for an application and its models since they started."""

    def __init__(self, name: str, statistics: Sequence[WorkerStatistics]) -> None:
        self.applications: list[ApplicationStatistics] = []
        self._versions: dict[str, list[VersionStatistics]] = {}
        self.feedback_per_s = 0.0
        defaults: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        for worker in statistics:
            for version in worker.versions:
                self._versions.setdefault(f"{version.model}:{version.version}", []).append(version)
            for each in worker.applications:
                if each.name == name:
                    self.applications.append(each)
                    defaults.update(each.defaults)
                    errors.update(each.errors)
                    if each.selection is not None and worker.uptime_s > 0:
                        self.feedback_per_s += each.selection.feedback.get("joined", 0) / worker.uptime_s
        self.defaults, self.errors = dict(defaults), dict(errors)

    def frontier(
        self, selection: Selection, models: Sequence[ReportedModel], costs: Mapping[str, float]
    ) -> Frontier | None:
        """Return cost and quality of models and application; None if no cost is known. A model without one is free."""
        if not costs:
            return None
        points = {
            each.model: (costs.get(each.model, 0.0), 1.0 - each.mean_loss)
            for each in models
            if each.is_linked and each.mean_loss is not None
        }
        on_it = frontier(points)
        selections = [each.selection for each in self.applications if each.selection is not None]
        queries = sum(each.queries for each in self.applications)
        scored = sum(each.answers_scored for each in selections)
        cost = sum(each.spent for each in selections) / queries if queries else None
        return Frontier(
            models=tuple(
                FrontierModel(name, *points[name], name in on_it) for name in sorted(points, key=lambda it: points[it])
            ),
            cost=cost,
            quality=1.0 - sum(each.answer_loss for each in selections) / scored if scored else None,
            possible=None if cost is None else reached(points, cost),
            max_cost_per_query=selection.max_cost_per_query,
            min_quality=selection.min_quality,
        )

    def model(self, shown: ModelDescription | None, key: str, scored: float, compared: Compared) -> ReportedModel:
        """Return a model of a report.

        ``shown`` is None for a version that is no longer linked. ``key`` is the version's name in states and in the
        workers. ``scored`` is the number of pieces of feedback on it.
        """
        name = key if shown is None else shown.model
        counted = [
            each.selection.models[name]
            for each in self.applications
            if each.selection is not None and name in each.selection.models
        ]
        return ReportedModel(
            model=name,
            version=key.partition(":")[2] or None,
            is_linked=shown is not None,
            is_shadow=shown is not None and shown.shadow,
            share=0.0 if shown is None else shown.share,
            scored=scored,
            mean_loss=compared.mean,
            interval=_bounds(compared.interval),
            worse_by=None if compared.worse_by is None else _bounds(compared.worse_by),
            sureness=compared.sureness,
            more_feedback=compared.more_feedback,
            asked=sum(each.selected for each in counted),
            missing=sum(each.missing for each in counted),
            latency=_latency(each.batch_latency_s for each in self._versions.get(key, ())),
        )


def _asked(record: ApplicationRecord, confidence: float | None, tolerance: float | None) -> BestArm:
    """Return the test's parameters: the given ones, else the policy's if it is a test. Raises InvalidArgument."""
    own = record.selection.parameters if record.selection.policy == "best_arm" else {}
    given = {"confidence": confidence, "tolerance": tolerance}
    parameters = {**own, **{name: value for name, value in given.items() if value is not None}}
    test = make_policy("best_arm", parameters)
    assert isinstance(test, BestArm)
    return test


def _key(model: ModelDescription) -> str:
    """Return the name of a link's version in a state."""
    name = model.model.partition(":")[0]
    return name if model.version is None else f"{name}:{model.version}"


def _bounds(interval: Interval) -> Bounds:
    return Bounds(interval.low, interval.high)


def _latency(histograms: Iterable[HistogramData]) -> Latency | None:
    """Return the latencies over all histograms; None if they are empty."""
    found = list(histograms)
    counts = [sum(column) for column in zip(*(each.counts for each in found))]
    total = sum(counts)
    if not total:
        return None
    mean_s = sum(each.sum for each in found) / total
    p50_s, p99_s = (quantile(counts, LATENCY_BOUNDS_S, share) for share in (0.5, 0.99))
    return Latency(1000 * mean_s, 1000 * p50_s, 1000 * p99_s)


class SeriesOperations(OfParts):
    """The operations that show series. They change nothing."""

    async def series_overview(self) -> SeriesOverview:
        sampler = self._sampling.sampler
        self._forget_former()

        def latest(kind: str, names: Iterable[str]) -> dict[str, Named]:
            ordered = sorted(names)
            subjects = (Subject(kind, name) for name in ordered)
            return dict(zip(ordered, sampler.latest.read_all(subjects, OF_OVERVIEW[kind], LATEST_POINTS)))

        return SeriesOverview(
            step_s=STEP_S,
            end_s=self._sampling.taken_at_s,
            applications=latest("application", self._catalog.applications),
            models=latest("model", self._catalog.models),
            workers=latest("worker", (str(worker.index) for worker in self._workers)),
            left_out=len(sampler.ring.left_out),
        )

    async def application_series(self, name: str, seconds: int) -> Series:
        self._catalog.application(name)
        self._forget_former()
        return self._all_of(Subject("application", name), OF_APPLICATIONS, seconds)

    async def model_series(self, name: str, seconds: int) -> Series:
        self._catalog.model(name)
        return self._all_of(Subject("model", name), OF_MODELS, seconds)

    def _forget_former(self) -> None:
        """Forget the series of a former application of the same name, which a new application must not show."""
        ids = {one.name: one.state_id for one in self._catalog.applications.values()}
        self._sampling.sampler.forget_former(ids)

    def _all_of(self, subject: Subject, always: tuple[str, ...], seconds: int) -> Series:
        ring = self._sampling.sampler.ring
        names = sorted({*always, *ring.names(subject)})
        return Series(
            step_s=STEP_S,
            end_s=self._sampling.taken_at_s,
            series=ring.read(subject, names, int(seconds / STEP_S)),
            left_out=subject in ring.left_out,
        )
