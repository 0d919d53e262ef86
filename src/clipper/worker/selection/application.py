"""An application in a query worker: asks models for its queries, and answers each query by its deadline."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from clipper.control.snapshot import ApplicationSnapshot
from clipper.control.statistics import ApplicationStatistics
from clipper.errors import ClipperError, PolicyFailed
from clipper.learning.decisions.log import DecisionLog
from clipper.learning.mathematics.guardrail import Forecasts
from clipper.learning.mathematics.totals import Totals
from clipper.learning.own_code.watch import Made, make
from clipper.learning.policies.policy import SURE, Choice, QueryView
from clipper.learning.policies.prices import Prices
from clipper.learning.policies.trials import Trials
from clipper.learning.stores.store import Store
from clipper.worker.abstraction.model_queue import ModelQueue
from clipper.worker.abstraction.predictor import Predictor
from clipper.worker.selection.answering import Answering
from clipper.worker.selection.availability import Availability
from clipper.worker.selection.committer import Committer
from clipper.worker.selection.context_reads import ContextReads
from clipper.worker.selection.contexts import Contexts
from clipper.worker.selection.counts import ApplicationCounts
from clipper.worker.selection.deadlines import Deadlines
from clipper.worker.selection.feedback.join_table import JoinTable
from clipper.worker.selection.feedback.outcomes import Outcomes
from clipper.worker.selection.pipeline.pipeline import Pipeline, StepApplication
from clipper.worker.selection.query import Asker, Named, Query, QueryIds, Shadow
from clipper.worker.selection.selector import Selector
from clipper.worker.selection.stages import Stages
from clipper.worker.selection.terms import Terms
from clipper.worker.telemetry.request_note import RequestNote
from clipper.worker.telemetry.watch import Watch

log = logging.getLogger(__name__)

# Share of the SLO that a query may spend on reading its context's state. After that, it uses the application's state.
READ_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    Attributes:
        asking: bounds the pieces of feedback for which models are asked at once; see ``Learner``.
        make: makes an application's policy and loss, without waiting for a user's code.
        decisions: the decision log; None if there is none.
        watch: takes notes on queries that are slow, or whose request has a note; None if there is no watch.
        applications: the worker's applications by name, which pipelines ask.
    """

    predictor: Predictor
    ids: QueryIds
    random: Random
    store: Store
    committer: Committer
    joins: JoinTable
    asking: asyncio.Semaphore
    make: Callable[[ApplicationSnapshot], Made] = make
    decisions: DecisionLog | None = None
    watch: Watch | None = None
    applications: Mapping[str, StepApplication] = field(default_factory=dict)


class Application:
    """Answers an application's queries.

    Everything that depends on a snapshot is in ``terms``, which is replaced as a whole; the rest outlives snapshots.
    All queries have the same SLO, so they expire in order of arrival: see ``Deadlines``.

    Attributes:
        snapshot: the settings in force.
        terms: the terms that follow from the settings and the running versions.
        answering: answers queries after their models were asked.
        stages: lets a query ask further models, by its policy or in place of one that fails; None if there is no other.
        pipeline: asks other applications for its queries; None if it has no steps.
        prices: the prices of asking the models: of money, and of places from which other queries gain more.
        counts, outcomes, forecasts, trials, contexts: the state that queries and feedback have made.
    """

    def __init__(self, snapshot: ApplicationSnapshot, surroundings: Surroundings) -> None:
        self.name = snapshot.name
        self.snapshot = snapshot
        self.surroundings = surroundings
        self._ids = surroundings.ids
        self.counts = ApplicationCounts()
        self.outcomes = Outcomes()
        self.forecasts = Forecasts()
        self.trials = Trials()
        self.prices = Prices()
        selection = snapshot.selection
        self.contexts = Contexts(snapshot.id, surroundings.store, selection.half_life, selection.prior_weight)
        self.stages: Stages | None = None
        self.pipeline: Pipeline | None = None
        self.terms = self._terms(Selector(snapshot, self.counts, surroundings.make))
        self.answering = Answering(
            snapshot.name,
            self.terms,
            self.contexts,
            self.counts,
            self.outcomes,
            surroundings.joins,
            self.trials,
            surroundings.watch,
        )
        self._deadlines = Deadlines(self.answering.finish)
        # The deadlines of queries that have waited for a model to wake, even once it is awake. Each of the two FIFOs is
        # in order by itself.
        self._waking_deadlines = Deadlines(self.answering.finish)
        self._deadlines_now = self._deadlines
        self._budget_s = self.terms.budget_s
        self._reads = ContextReads()
        self._is_store_down = False
        self._follow_terms()

    def can_follow(self, snapshot: ApplicationSnapshot) -> bool:
        """Whether ``snapshot`` has other settings of this application, and not another application of its name."""
        return snapshot.id == self.snapshot.id and snapshot.input_type == self.snapshot.input_type

    def follow(self, snapshot: ApplicationSnapshot) -> None:
        """Serve by this snapshot from the next query on. Call it also when a model's current version changes."""
        selector = self.terms.selector
        if snapshot.selection != self.snapshot.selection:
            self.contexts.follow(snapshot.selection.half_life, snapshot.selection.prior_weight)
            selector = Selector(snapshot, self.counts, self.surroundings.make)
        self.snapshot = snapshot
        self.terms = self._terms(selector)
        self._follow_terms()

    def follow_code(self) -> None:
        """Use the code of the policy and loss, which has been loaded, or has failed to load."""
        self.terms = self._terms(Selector(self.snapshot, self.counts, self.surroundings.make))
        self._follow_terms()

    def follow_costs(self) -> None:
        """Use the present costs of models, if they are measured. Call it periodically."""
        if self.terms.costs_have_changed:
            self.terms = self._terms(self.terms.selector)
            self._follow_terms()

    def _terms(self, selector: Selector) -> Terms:
        return Terms(self.snapshot, selector, self.contexts, self.surroundings.predictor, self.surroundings.decisions)

    def _follow_terms(self) -> None:
        terms, answering = self.terms, self.answering
        answering.follow(terms)
        self.counts.follow_only(() if terms.only_choice is None else terms.only_choice.models)
        self.counts.keep(terms.targets)
        selection, costs = self.snapshot.selection, terms.arms.costs
        self.counts.charge(costs.by_model)
        self.prices.follow(costs, selection.max_cost_per_query, selection.min_quality)
        self._deadlines_now = self._waking_deadlines if terms.is_waking else self._deadlines
        if terms.budget_s < self._budget_s:  # else it would cut the deadlines that pipelines have given
            self._deadlines_now.bring_forward(terms.budget_s)
        self._budget_s = terms.budget_s
        self.forecasts.keep(terms.arms.ramps.values())
        self.trials.follow(terms.tried, self.snapshot.selection.max_loss_increase)
        self.contexts.follow_arms(terms.arms)
        surroundings, turns = self.surroundings, self.surroundings.predictor.turns
        self._availability = Availability(terms, self.outcomes, turns.flow) if len(terms.models) > 1 else None
        answering.ask_no_further()
        if self._availability is not None and (terms.selector.goes_on or terms.selector.has_stand_ins):
            self.stages = self.stages or Stages(answering, surroundings.random)
            self.stages.follow(self._availability, self.prices)
            answering.rescue, answering.has_others = self.stages.go_on, self.stages.has_others
            if terms.selector.goes_on:
                answering.complete = self.stages.go_on
        elif self.stages is not None:
            self.stages.close()
            self.stages = None
        if not self.snapshot.steps:
            self.pipeline = None
        elif self.pipeline is None:
            self.pipeline = Pipeline(
                self.snapshot, surroundings.applications, answering.finish, turns.do, surroundings.watch
            )
        else:
            self.pipeline.follow(self.snapshot)

    def predict(
        self,
        row: bytes,
        asker: Asker,
        arrival_s: float,
        version: str | None = None,
        context: str | None = None,
        features: bytes | None = None,
        timeout_s: float | None = None,
        request: RequestNote | None = None,
        deadline_s: float | None = None,
    ) -> Query:
        """Answer an input: ``asker`` is called now or later, by the deadline.

        Args:
            row: the input's raw buffer, of this application's input type.
            arrival_s: when the query was read, on the loop's clock.
            version: ask this version of the linked model instead of the current one.
            context: the user, session or other group whose state the policy uses.
            features: raw buffer of float64 features for the policy; None if the input itself is the features.
            timeout_s: the client's timeout, if it is shorter than the SLO.
            request: the note on the request that asks; None if there is none.
            deadline_s: the deadline that a pipeline gives its step, on the loop's clock; it replaces the SLO.

        Raises:
            NotFound: this version does not run.
            WrongInput: the version takes another type of input.
        """
        terms = self.terms
        if version is None:
            choice, targets, arms = terms.only_choice, terms.targets, terms.arms
        else:
            choice, targets, arms = terms.pinned(version)
        if terms.features_are_input:
            features = terms.features_of(row)
        if deadline_s is None:
            deadline_s = arrival_s + (terms.budget_s if timeout_s is None else min(terms.budget_s, timeout_s))
        else:
            timeout_s = deadline_s - arrival_s
        # The same as take(), without a call for each query.
        ids = self._ids
        query_id = ids.next
        ids.next = query_id + 1 if query_id < ids.last else ids.first
        query = Query(
            self.answering, asker, query_id, row, context, arrival_s, deadline_s, version, features, choice, arms
        )
        if request is not None and (watch := self.surroundings.watch) is not None:
            query.note = watch.begin(request, self.name, query_id, deadline_s)
        self.counts.queries += 1
        if choice is not None:
            self._ask(query, row, choice, targets)
            if terms.shadows and version is None:
                self._ask_shadows(query, row)
        elif terms.models:
            totals = self.answering.totals(context)
            if totals is None:
                self._read_then_ask(query, row, context)
            elif timeout_s is None or self._availability is None:
                self._select_and_ask(query, row, totals)
            else:  # the chances for a hurried query say little about other queries, and theirs about it
                self._availability.holds_below = 0
                self._select_and_ask(query, row, totals)
                self._availability.holds_below = 0
        elif self.pipeline is not None:
            self.pipeline.start(query)
        else:
            query.failure = "no_replica", f"application {self.name} has no linked model"
            self.answering.finish(query)
        if not query.done:
            self._deadlines_now.wait(query)
            if self.stages is not None:
                if terms.selector.goes_on:
                    self.stages.wait(query)
                elif self.stages.watch_timer is None:
                    self.stages.watch(self._deadlines_now, query)
        return query

    def shed(self, asker: Asker) -> None:
        """Answer a query as overloaded, without reading its input: its models would answer too late."""
        query = Query(self.answering, asker, self._ids.take(), b"", None, 0.0, 0.0)
        self.counts.queries += 1
        query.failure = "overloaded", "the worker gets more queries than it can answer within the SLO"
        query.done = True
        self.answering.answer_without(query, asker)

    def close(self) -> None:
        """Answer a removed application's queries, and leave no cycle (``GC_THRESHOLDS``). Requests may still ask."""
        if self.stages is not None:
            self.stages.close()
            self.stages = None
        self.answering.ask_no_further()
        for query in (*self._deadlines.clear(), *self._waking_deadlines.clear()):
            query.failure = query.failure or ("unavailable", f"application {self.name} was removed or changed")
            self.answering.finish(query)

    def end_waits(self) -> None:
        """Answer the waiting queries soon, as if their deadlines had come."""
        for deadlines in (self._deadlines, self._waking_deadlines):
            deadlines.bring_forward(0.0)

    @property
    def is_ready(self) -> bool:
        """Whether it can answer: a model can be asked, or every step of a pipeline."""
        return self.terms.is_ready if self.pipeline is None else self.pipeline.is_ready

    @property
    def in_flight(self) -> int:
        return len(self._deadlines) + len(self._waking_deadlines)

    def statistics(self) -> ApplicationStatistics:
        costs, error = self.terms.arms.costs.by_model, self.calibration_error()
        return self.counts.statistics(self.name, len(self.contexts), costs, error, self.snapshot.id)

    def calibration_error(self) -> float | None:
        confidences = self.terms.confidences
        return None if confidences is None else confidences.answered_error(self.terms.models)

    def chance(self, model: str) -> float | None:
        """Return a model's probability to answer a query of now in time; None if no choice depends on it."""
        if self._availability is None or model not in self.terms.models:
            return None
        now_s = self.answering.now_s()
        return self._availability.of([model], now_s, now_s + self.terms.budget_s)[model]

    # -- selection ---------------------------------------------------------------------------------------

    def select(self, totals: Totals, query: QueryView, random: Random | None = None) -> Choice:
        """Let the policy select. Raises PolicyFailed: see ``Selector.select``."""
        terms = self.terms
        models = terms.models
        if self.prices.has_budget and len(models) > 1:
            prices = self.prices.of_money()
            models = terms.selector.candidates(models, totals, query, self.outcomes.default_loss, prices=prices)
        return terms.select(models, totals, query, random or self.surroundings.random)

    async def load(self, context: str | None = None) -> None:
        """Read learned state from the store. While the store is not available, use the state in memory."""
        try:
            await self.contexts.load(context)
        except ClipperError as error:
            if not self._is_store_down:  # log the failure once, and not for each query
                log.warning(
                    "application %(application)s uses only what it has learned in memory: %(error)s",
                    {"application": self.name, "error": error},
                )
            self._is_store_down = True
        else:
            self._is_store_down = False

    def _read_then_ask(self, query: Query, row: bytes, context: str | None) -> None:
        assert context is not None

        def go_on() -> None:
            if not query.done:
                self._select_and_ask(query, row, self.contexts.totals(context) or self.contexts.prior())

        self._reads.wait(self.load, context, self.terms.budget_s * READ_SHARE, go_on)

    def _select_and_ask(self, query: Query, row: bytes, totals: Totals) -> None:
        terms, availability = self.terms, self._availability
        view, models, is_limited = query.view(), terms.models, False
        if availability is not None:
            if availability.flow.arrivals >= availability.holds_below or query.arrival_s >= availability.holds_until_s:
                availability.look(self.answering.now_s(), query.deadline_s)
            if availability.chances is not None or self.prices.is_active:
                is_limited = True
                view, models = self._within_reach(query, row, totals, availability)
        try:
            # The same as select().
            choice = terms.select(models, totals, view, self.surroundings.random)
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self.answering.finish(query)
            return
        if query.note is not None:
            query.note.selected_s = self.answering.now_s()
        if terms.is_watching:
            choice = self.trials.assigned(query.id, choice, self.surroundings.random)
        if is_limited and availability is not None:
            prices = self.prices
            if view.in_time is not None and len(choice.models) == 1:
                query.chance = availability.raw_chance(view, choice.models[0])
            prices.asked(choice.models)
            if prices.scarcity or availability.chances is not None:
                availability.ration(prices, choice.models[0], query.context, self.answering.now_s())
        query.choice, query.arms = choice, terms.arms
        self._ask(query, row, choice, terms.targets)
        if terms.shadows:
            self._ask_shadows(query, row)

    def _within_reach(
        self, query: Query, row: bytes, totals: Totals, availability: Availability
    ) -> tuple[QueryView, tuple[str, ...]]:
        """Return the policy's view of a query, and the models that it selects among, if some models may be late or have
        a price.

        A model that the policy would have asked, had it had time, counts the query as demand.
        """
        terms, prices, default_loss = self.terms, self.prices, self.outcomes.default_loss
        known = None if availability.chances is None else availability.with_known(row)
        availability.show(prices, query.arrival_s, query.deadline_s)
        view = QueryView(query.context, query.features, row, query.owner.input_type, known)
        select_among, affordable = terms.selector.candidates, terms.models
        try:
            models = select_among(affordable, totals, view, default_loss, prices=prices if prices.is_active else None)
            if len(models) == len(terms.models):
                return view, models
            query.candidates = models + terms.newcomers
            if known is None and not prices.scarcity:
                return view, models
            if prices.has_budget:
                affordable = select_among(affordable, totals, query.view(), default_loss, prices=prices.of_money())
            wanted = terms.selector.select(affordable, totals, query.view(), self.surroundings.random).models
        except PolicyFailed:  # it fails again when it selects, which is then told
            return view, terms.models
        availability.want([name for name in wanted if name not in models])
        lacks_time = {name for name in affordable if name not in models and view.chance(name) < SURE}
        settled = tuple(name for name in terms.models if name not in lacks_time)
        availability.try_other(settled, row, self.answering.now_s, terms.budget_s, self.name)
        return view, models

    def _ask(self, query: Query, row: bytes, choice: Choice, targets: Mapping[str, ModelQueue | None]) -> None:
        models, terms = choice.models, self.terms
        slo_s = terms.slo_s
        query.missing = asked = len(models)
        if asked > 1:
            query.deadline_s -= terms.joint_margin_s
            slo_s -= terms.joint_margin_s
        if choice is terms.only_choice:
            self.counts.only_times += 1
        else:
            self.counts.selected[models] += 1
        for model in models:
            target = targets[model]
            if target is None:
                query.on_failure(model, "no_replica", terms.why_not_asked(model))
                continue
            waiter = query if model == target.name else Named(query, model)
            output = target.predict(row, waiter, query.arrival_s, slo_s, self.name)
            if output is not None:
                if query.note is not None:
                    query.note.cache_hits += 1
                query.on_output(model, output)
        if asked > 1 and query.missing and not query.done:
            query.is_asked = True
            self.answering.consider_leaving(query)

    def _ask_shadows(self, query: Query, row: bytes) -> None:
        terms = self.terms
        for model in terms.shadows:
            target = terms.targets[model]
            if target is not None:
                waiter = Shadow(query, model)
                output = target.predict(row, waiter, query.arrival_s, terms.slo_s, self.name, is_background=True)
                if output is not None:
                    self.answering.shadow_came(query, model, output)
