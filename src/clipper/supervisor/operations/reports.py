"""Reports, which compare an application's models, and the series that are kept."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clipper.api.reports import Bounds, Frontier, FrontierModel, Report, ReportedModel, ReportGroup
from clipper.api.series import Named, Series, SeriesOverview
from clipper.control.descriptions import ModelDescription
from clipper.control.statistics import VersionStatistics, WorkerStatistics
from clipper.errors import InvalidArgument, StoreUnavailable
from clipper.learning.mathematics.arms import by_version, owners_of
from clipper.learning.mathematics.basis import basis_of, tells_picked
from clipper.learning.mathematics.comparison import Compared, compare
from clipper.learning.mathematics.confidence_sequences import Interval, mean_interval
from clipper.learning.mathematics.frontier import frontier, reached
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import EVER_SCORED, Totals
from clipper.learning.policies.best_arm import BestArm
from clipper.learning.policies.by_name import goes_by, make_policy
from clipper.learning.stores.store import EVERYONE
from clipper.settings.application import Selection, link_names
from clipper.settings.fields import shared
from clipper.supervisor.history.ring import Subject
from clipper.supervisor.history.sampler import LATEST_POINTS, STEP_S
from clipper.supervisor.history.values import OF_APPLICATIONS, OF_MODELS, OF_OVERVIEW
from clipper.supervisor.metrics.totals import total
from clipper.supervisor.operations.parts import OfParts
from clipper.supervisor.operations.step_reports import asked_by, counts_of, latency_of, step_report, versions_of
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.supervisor.rollout import rules
from clipper.values.types import ModelId

# A report has groups for at most this many contexts, as many as a page can show: those with the most feedback among the
# latest contexts, which are read from the store.
MAX_GROUPS = 10
MAX_LOOKED_AT = 200
# Of versions that are no longer linked, this many with the most feedback are shown.
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
        states = await self._states(record, contexts)
        steps = asked_by(record, self._catalog)
        applications = {name, *(application for _, application in steps)}
        versions = {*self._versions(record, states), *versions_of(applications, self._catalog)}
        statistics = await self._workers.statistics(applications, versions, batches=True)
        counted = _Counted(name, statistics)
        costs: dict[str, float] = {}
        # At once: a worker that hangs is waited for in each.
        groups = await asyncio.gather(
            *(self._group(record, each, state, asked, counted, costs) for each, state in zip(contexts, states))
        )
        return Report(
            **shared(counted.application, Report),
            application=name,
            policy=record.selection.policy,
            loss=record.selection.loss,
            confidence=asked.confidence,
            tolerance=asked.tolerance,
            time_s=time.time(),
            slo_ms=record.slo_ms,
            feedback_per_s=counted.feedback_per_s,
            latency=latency_of(counted.application.latency_s),
            groups=tuple(groups),
            last_minute=self._recent.answers(name),
            frontier=counted.frontier(record.selection, groups[0].models, costs),
            steps=tuple(step_report(*step, self._catalog, statistics) for step in steps),
        )

    async def _contexts_with_most(self, state_id: str) -> list[str]:
        _, latest = await self._parts.store.contexts(state_id, MAX_LOOKED_AT)
        feedback = dict(zip(latest, (each.clock for each in await self._ledgers(state_id, latest))))
        return sorted(latest, key=lambda context: -feedback[context])[:MAX_GROUPS]

    async def _ledgers(self, state_id: str, contexts: Sequence[str]) -> list[Ledger]:
        """Return the states of contexts. Raises StoreUnavailable if one cannot be read."""
        ledgers = []
        for each in await self._parts.store.load_many(state_id, contexts):
            if isinstance(each, StoreUnavailable):
                raise each
            ledgers.append(Ledger(None, each))
        return ledgers

    async def _states(self, record: ApplicationRecord, contexts: Sequence[str | None]) -> list["_State"]:
        """Return the states of contexts, or for None of the application, by this server's names for versions."""
        names = [context or EVERYONE for context in contexts]
        ledgers = await self._ledgers(record.state_id, [EVERYONE, *names])
        state_keys = self._catalog.state_keys({link.model for link in record.links})
        owners = owners_of(ledgers[0].totals().numbers)
        return [_State(by_version(each.totals(), state_keys, owners), each.clock) for each in ledgers[1:]]

    async def _group(
        self,
        record: ApplicationRecord,
        context: str | None,
        state: "_State",
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
            state.totals,
            state.clock,
            keys,
            goes_by(record.selection.policy),
            is_of_context=context is not None,
            has_contexts=not tells_picked(state.totals)
            and (await self._parts.store.contexts(record.state_id, 1))[0] > 0,
        )
        # Comparing all pairs takes a while: other requests are answered meanwhile.
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
        # A test covers all queries, whatever context the report is on.
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

    def _versions(self, record: ApplicationRecord, states: Iterable["_State"]) -> list[ModelId]:
        """Return the versions that may be compared: those of linked models, and others that still have feedback."""
        linked = {version.id for link in record.links for version in self._catalog.versions_of(link.model)}
        with_feedback = {
            ModelId(*key.rsplit(":", 1))
            for state in states
            for key, name in state.totals.numbers
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


@dataclass(frozen=True, slots=True)
class _State:
    """A state's totals without fading, and the number of pieces of feedback that it has seen."""

    totals: Totals
    clock: float


class _Counted:
    """The counts of workers for an application and its models since they started."""

    def __init__(self, name: str, statistics: Sequence[WorkerStatistics]) -> None:
        self.application = counts_of(name, statistics)
        joined_per_s = (
            each.selection.feedback.get("joined", 0) / worker.uptime_s
            for worker in statistics
            for each in worker.applications
            if each.name == name and each.selection is not None and worker.uptime_s > 0
        )
        self.feedback_per_s = sum(joined_per_s, 0.0)
        self._versions = defaultdict[str, list[VersionStatistics]](list)
        for worker in statistics:
            for version in worker.versions:
                self._versions[f"{version.model}:{version.version}"].append(version)

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
        queries, counted = self.application.queries, self.application.selection
        spent, scored = (0.0, 0) if counted is None else (counted.spent, counted.answers_scored)
        cost = spent / queries if queries else None
        return Frontier(
            models=tuple(
                FrontierModel(name, *points[name], name in on_it) for name in sorted(points, key=lambda it: points[it])
            ),
            cost=cost,
            quality=1.0 - counted.answer_loss / scored if counted is not None and scored else None,
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
        selection, versions = self.application.selection, self._versions.get(key)
        counted = None if selection is None else selection.models.get(name)
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
            asked=0 if counted is None else counted.selected,
            missing=0 if counted is None else counted.missing,
            latency=latency_of(total(versions).batch_latency_s) if versions else None,
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


class SeriesOperations(OfParts):
    """The operations that show series. They change nothing."""

    async def series_overview(self) -> SeriesOverview:
        sampler = self._parts.sampling.sampler
        self._forget_former()

        def latest(kind: str, names: Iterable[str]) -> dict[str, Named]:
            ordered = sorted(names)
            subjects = (Subject(kind, name) for name in ordered)
            return dict(zip(ordered, sampler.latest.read_all(subjects, OF_OVERVIEW[kind], LATEST_POINTS)))

        return SeriesOverview(
            step_s=STEP_S,
            end_s=self._parts.sampling.taken_at_s,
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
        self._parts.sampling.sampler.forget_former(ids)

    def _all_of(self, subject: Subject, always: tuple[str, ...], seconds: int) -> Series:
        ring = self._parts.sampling.sampler.ring
        names = sorted({*always, *ring.names(subject)})
        return Series(
            step_s=STEP_S,
            end_s=self._parts.sampling.taken_at_s,
            series=ring.read(subject, names, int(seconds / STEP_S)),
            left_out=subject in ring.left_out,
        )
