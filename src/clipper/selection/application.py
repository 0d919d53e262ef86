"""One application in a query worker: asks models for its queries, and answers each by its deadline."""

import asyncio
import logging
from collections.abc import Mapping
from random import Random

from clipper.abstraction.model_queue import ModelQueue
from clipper.control.snapshot import ApplicationSnapshot
from clipper.control.statistics import ApplicationStatistics
from clipper.decisions.application import ApplicationDecisions, versions_of
from clipper.decisions.records import Setting
from clipper.errors import ClipperError, PolicyFailed
from clipper.selection.confidence import Confidences
from clipper.selection.contexts import Contexts
from clipper.selection.counts import Counts
from clipper.selection.deadlines import TIMER_EARLY_S, Deadlines
from clipper.selection.feedback.join_table import SAID_BYTES, output_bytes
from clipper.selection.feedback.outcomes import Outcomes
from clipper.selection.learning.arms import Arms
from clipper.selection.learning.guardrail import Forecasts
from clipper.selection.learning.totals import Totals
from clipper.selection.loads import Loads
from clipper.selection.policies.policy import Choice, QueryView
from clipper.selection.policies.query_view import as_features
from clipper.selection.query import Asker, Named, Query, Shadow
from clipper.selection.selector import Selector
from clipper.selection.stages import Stages
from clipper.selection.surroundings import Surroundings
from clipper.selection.targets import Targets

log = logging.getLogger(__name__)

# The deadline is when the answer should be at the client, so it leaves a little before: 5 % of the SLO, at most 2 ms.
MARGIN_SHARE = 0.05
MAX_MARGIN_S = 0.002
# One of several models leaves earlier by so much more, 2 ms at most: it can leave with what has come, which is better
# than to be late, and is made of that while other models have the processors (16 forests on two cores: 2 ms).
JOINT_MARGIN_SHARE = 0.1
# Of the time there is, what a query may spend on reading its context's state; then it goes by the application's own.
LOAD_SHARE = 0.25
# A model that was in time for fewer of its last queries is not waited for, and one that was for fewer than the other
# not once the answer is settled.
HARDLY_IN_TIME = 0.1
USUALLY_IN_TIME = 0.5


class Application:
    """Answers an application's queries.

    All queries have one SLO and so expire in order of arrival: see ``Deadlines``.

    Attributes:
        stages: where its policy may go on with a query; None if it may not. This and ``complete`` are the class's
            unless they are needed: Python finds what an instance has slower where that is more than 28 or so.
    """

    stages: Stages | None = None

    def __init__(self, snapshot: ApplicationSnapshot, surroundings: Surroundings) -> None:
        self.name = snapshot.name
        self.surroundings = surroundings
        self._ids = surroundings.ids
        self._joins = surroundings.joins
        self.counts = Counts()
        self.outcomes = Outcomes()
        self.forecasts = Forecasts()
        self._loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(self.finish)
        selection = snapshot.selection
        self.contexts = Contexts(snapshot.id, surroundings.store, selection.half_life, selection.prior_weight)
        self._loads = Loads(self.load)
        self._is_store_down = False
        self.selector = Selector(snapshot, self.counts, surroundings.make)
        self.snapshot = snapshot
        self.follow(snapshot)

    def can_follow(self, snapshot: ApplicationSnapshot) -> bool:
        """Whether this is the same application, with other settings; else it is another one of that name."""
        return snapshot.id == self.snapshot.id and snapshot.input_type == self.snapshot.input_type

    def follow(self, snapshot: ApplicationSnapshot) -> None:
        """Serve by this snapshot from the next query on; call again whenever a model's current version changes."""
        if snapshot.selection != self.snapshot.selection:
            self.contexts.follow(snapshot.selection.half_life, snapshot.selection.prior_weight)
            self.selector = Selector(snapshot, self.counts, self.surroundings.make)
        self.snapshot = snapshot
        self.slo_s = snapshot.slo_ms / 1000
        self.budget_s = self.slo_s - min(self.slo_s * MARGIN_SHARE, MAX_MARGIN_S)
        self._joint_margin_s = min(self.slo_s * JOINT_MARGIN_SHARE, MAX_MARGIN_S)
        self._follow_stages()
        self._deadlines.bring_forward(self.budget_s)
        self.default = None if snapshot.default_output is None else snapshot.default_output.encode()
        self._wait = snapshot.selection.wait
        self._threshold = snapshot.selection.confidence_threshold or 0.0
        self.feedback_ttl_s = snapshot.selection.feedback_ttl_s
        wanted = snapshot.selection.features
        self.features_are_input = wanted == "input"
        self.features_size = wanted if isinstance(wanted, int) else None
        self.links = Targets(snapshot, self.surroundings.predictor)
        self._targets, self.input_type = self.links.by_name, self.links.input_type
        self.models, self.shadows, self.arms = self.links.models, self.links.shadows, self.links.arms
        self.newcomers, self._ramp = self.links.newcomers, self.links.ramp
        self.forecasts.keep(self.arms.ramps.values())
        self.contexts.follow_arms(self.arms)
        if self.stages is not None:
            self.stages.latencies.follow([self.arms.key(name) for name in self._targets])
        self._only_choice = None if self.newcomers else self.selector.only_choice(self.models)
        makes_confidence = self.selector.makes_confidence
        self.confidences = (
            Confidences(snapshot.selection, self.selector.loss, self.contexts) if makes_confidence else None
        )
        self.decisions = self._decisions(snapshot)

    def _follow_stages(self) -> None:
        """Have the policy go on with queries, if it may: nothing of that is on the path of others' queries."""
        if self.selector.goes_on:
            self.stages = self.stages or Stages(self)
            self.complete = self.stages.go_on  # type: ignore[method-assign]
            # Any of its queries may come to ask several models, and then leaves as these do.
            self.budget_s -= self._joint_margin_s
            self._joint_margin_s = 0.0
        elif self.stages is not None:
            self.stages.close()
            del self.stages, self.complete

    def follow_code(self) -> None:
        """What its policy and loss are made of has come, or has failed, after all."""
        self.selector = Selector(self.snapshot, self.counts, self.surroundings.make)
        self.follow(self.snapshot)

    def predict(
        self,
        row: bytes,
        asker: Asker,
        arrival_s: float,
        version: str | None = None,
        context: str | None = None,
        features: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Query:
        """Answer one input; ``asker`` hears of it now or later, by the deadline.

        Args:
            row: the input's raw buffer, of this application's input type.
            version: ask this version of the linked model, whatever is current.
            context: the user, session or other group whose state the policy goes by.
            features: raw buffer of the float64 numbers that the policy may go by.
            timeout_s: when no answer is wanted any more, where that is before the SLO's end.

        Raises:
            NotFound: there is no such version.
            WrongInput: that version takes another type of input.
        """
        usual = self._only_choice, self._targets, self.arms
        choice, targets, arms = usual if version is None else self.links.pinned(version)
        budget_s = self.budget_s if timeout_s is None else min(self.budget_s, timeout_s)
        query = Query(self, asker, self._ids.take(), row, context, arrival_s, arrival_s + budget_s, version, features)
        self.counts.queries += 1
        if choice is not None:
            self._ask(query, row, choice, targets, arms)
            if self.shadows and version is None:
                self._ask_shadows(query, row)
        elif self.models:
            totals = self.totals(context)
            if totals is None:
                self._load_then_ask(query, row, context)
            else:
                self._select_and_ask(query, row, totals)
        else:
            query.failure = "no_replica", f"application {self.name} has no linked model"
            self.finish(query)
        if not query.done:
            self._deadlines.wait(query)
            if self.stages is not None:
                self.stages.wait(query)
        return query

    def shed(self, asker: Asker) -> None:
        """Answer a query without a look at its input: by the time that its models had answered it would be too late."""
        query = Query(self, asker, self._ids.take(), b"", None, 0.0, 0.0)
        self.counts.queries += 1
        query.failure = "overloaded", "the worker is asked for more than it can take in within the SLO"
        query.done = True
        self._answer_without(query, asker)

    def finish(self, query: Query) -> None:
        """All selected models have answered, or the deadline has come: answer with what is there."""
        asker = query.asker
        query.done = True
        query.asker = None
        if asker is None:
            return
        now_s = self._loop.time()
        latency_s = now_s - query.arrival_s
        self.counts.latency_s.observe(latency_s)
        if latency_s > self.slo_s:
            self.counts.slo_misses += 1
        choice, output = query.choice, query.first_output
        # A policy may combine by it, when it is no longer kept.
        row = query.row
        if self.feedback_ttl_s:
            if not self._may_need_input(query):
                query.row = None
            self._joins.remember(query, now_s)
        if choice is None or output is None:
            self._answer_without(query, asker)
        elif len(choice.models) == 1 and self.selector.believes_one:
            query.output = output
            asker.on_prediction(query.id, output, 1.0)
        else:
            self._answer_combined(query, choice, row, asker)
        if self.decisions is not None:
            self.decisions.add(query, latency_s)
        # Of one model there is nothing to select, and nothing to know for that.
        if choice is not None and choice is not self._only_choice and self.selector.policy.learns:
            self._count_outcome(query, choice, is_over=now_s >= query.deadline_s - TIMER_EARLY_S)

    # What a query does once all that it asked has answered or failed.
    complete = finish

    def _count_outcome(self, query: Query, choice: Choice, *, is_over: bool) -> None:
        """``is_over``: its deadline has come; else what is missing may still come in time."""
        outcomes, arms = self.outcomes, query.arms
        is_answered = query.output is not None
        if is_answered:
            outcomes.answered()
        # Where all outputs teach, one that came in time did so whatever became of the answer.
        counts_outputs = is_answered or self.selector.policy.feedback == "all"
        for model in choice.models:
            if counts_outputs and (model == query.first_model or model in (query.more_outputs or ())):
                outcomes.came(arms.key(model))
            elif not query.missing or is_over or model in (query.lost or ()):
                outcomes.missed(model, choice, arms, query.features)

    def _may_need_input(self, query: Query) -> bool:
        """Whether feedback may need the input, most of a query's size: for an unknown output, or by itself."""
        if query.choice is None:
            return True
        if not self.selector.may_need_input or self.selector.keeps_input:
            return self.selector.may_need_input
        outputs = len(query.more_outputs or ()) + (query.first_output is not None)
        return outputs < len(self.models) and any(model not in query.outputs for model in self.models)

    def consider_leaving(self, query: Query) -> None:
        """Some of a query's models have answered or failed: leave without the others if they are not worth waiting for.

        Waited for is who answers in time lately. Once the answer is settled, so that only its confidence may grow, that
        is who does so more often than not; or, under ``decided``, nobody.
        """
        choice = query.choice
        if choice is None or query.first_output is None or self._wait == "all":
            return
        outputs, lost = query.outputs, query.lost or ()
        threshold = self._threshold if self.confidences is None else self.confidences.least_share(self._threshold)
        try:
            is_settled = threshold is not None and self.selector.is_settled(choice, outputs, lost, threshold)
        except PolicyFailed:  # it is counted, and no reason to answer without the others
            is_settled = False
        if not (is_settled and self._wait == "decided"):
            least = USUALLY_IN_TIME if is_settled else HARDLY_IN_TIME
            for model in choice.models:
                if model in outputs or model in lost:
                    continue
                if self.outcomes.recent_share(query.arms.key(model)) >= least:
                    return
        query.is_settled = is_settled
        self.complete(query)

    def _answer_combined(self, query: Query, choice: Choice, row: bytes | None, asker: Asker) -> None:
        outputs = query.outputs
        if len(outputs) < len(choice.models):
            self.counts.missing.update(model for model in choice.models if model not in outputs)
        totals = self.totals(query.context) or self.contexts.prior()
        view = QueryView(query.context, query.features, row, self.input_type)
        try:
            combined = self.selector.combine(choice, outputs, totals, view)
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self._answer_without(query, asker)
            return
        confidence = combined.confidence
        if self.confidences is not None:
            query.said = self.confidences.say(choice, combined)
            self._joins.grow(query.id, SAID_BYTES)
            confidence = self.confidences.confidence(query.said, query.arms)
        query.confidence = confidence
        if len(choice.models) > 1 or self.confidences is not None:
            self.counts.confidence.observe(confidence)
        if confidence < self._threshold:
            query.reason = "low_confidence"
            self.counts.defaults[query.reason] += 1
            asker.on_unsure(query.id, self.default or b"null", combined.output, confidence)
            return
        query.output = combined.output
        asker.on_prediction(query.id, combined.output, confidence)

    def keep_late(self, query: Query, model: str, output: bytes) -> None:
        """An output has come after the answer: it still counts for feedback, and so for what that may take."""
        if self._loop.time() <= query.deadline_s:
            query.in_time += 1
            self.outcomes.came(query.arms.key(model))
        freed = 0
        if query.row is not None and not self._may_need_input(query):
            freed, query.row = len(query.row), None
        grown = len(output) if query.more_outputs is None else output_bytes(output)
        self._joins.grow(query.id, grown - freed)

    def keep_shadow(self, query: Query, output: bytes) -> None:
        """The same of a shadow's output."""
        self._joins.grow(query.id, output_bytes(output))

    def close(self) -> None:
        """The application is gone: answer what waits. A request that was being read may still ask, and is answered."""
        if self.stages is not None:
            self.stages.close()
        for query in self._deadlines.clear():
            query.failure = query.failure or ("unavailable", f"application {self.name} was removed or changed")
            self.finish(query)

    @property
    def in_flight(self) -> int:
        return len(self._deadlines)

    def statistics(self) -> ApplicationStatistics:
        error = None if self.confidences is None else self.confidences.answered_error(self.models)
        return self.counts.statistics(self.name, len(self.contexts), self.arms.costs.by_model, error)

    # -- selection ---------------------------------------------------------------------------------------

    def totals(self, context: str | None) -> Totals | None:
        """What the policy goes by in a context; None if its state has to be read first."""
        if self.selector.no_totals is not None:
            return self.selector.no_totals
        return self.contexts.prior() if context is None else self.contexts.totals(context)

    def select(self, totals: Totals, query: QueryView, random: Random | None = None) -> Choice:
        """Have the policy select.

        Raises:
            PolicyFailed: see ``Selector.select``.
        """
        return self.selector.select_beside(self._ramp, self.models, totals, query, random or self.surroundings.random)

    def features_of(self, row: bytes) -> bytes | None:
        """Those that an input is, where they do not come beside it."""
        return as_features(row, self.input_type) if self.features_are_input else None

    def why_not_asked(self, model: str) -> str:
        """What to say where a linked model has no target."""
        return f"model {model} has no version that runs and takes {self.input_type}"

    def target(self, model: str) -> ModelQueue | None:
        """What answers for a linked model."""
        return self._targets.get(model)

    async def load(self, context: str | None = None) -> None:
        """Read what was learned before, if the store can be read; until then nothing seems to have been."""
        try:
            await self.contexts.load(context)
        except ClipperError as error:
            if not self._is_store_down:  # once, and not for each query meanwhile
                log.warning("application %s goes by what it has in memory: %s", self.name, error)
            self._is_store_down = True
        else:
            self._is_store_down = False

    def _load_then_ask(self, query: Query, row: bytes, context: str | None) -> None:
        assert context is not None

        def go_on() -> None:
            if not query.done:
                self._select_and_ask(query, row, self.contexts.totals(context) or self.contexts.prior())

        self._loads.wait(context, self.budget_s * LOAD_SHARE, go_on)

    def _select_and_ask(self, query: Query, row: bytes, totals: Totals) -> None:
        try:
            choice = self.select(totals, query.view())
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self.finish(query)
            return
        self._ask(query, row, choice, self._targets, self.arms)
        if self.shadows:
            self._ask_shadows(query, row)

    def _ask(
        self, query: Query, row: bytes, choice: Choice, targets: Mapping[str, ModelQueue | None], arms: Arms
    ) -> None:
        models = choice.models
        query.choice = choice
        query.arms = arms
        query.missing = len(models)
        slo_s = self.slo_s
        if len(models) > 1:
            query.deadline_s -= self._joint_margin_s
            slo_s -= self._joint_margin_s
        self.counts.selected[models] += 1
        for model in models:
            target = targets[model]
            if target is None:
                query.on_failure(model, "no_replica", self.why_not_asked(model))
                continue
            waiter = query if model == target.model.name else Named(query, model)
            output = target.predict(row, waiter, query.arrival_s, slo_s)
            if output is not None:
                query.on_output(model, output)
        if query.missing and len(models) > 1 and not query.done:
            query.is_asked = True
            self.consider_leaving(query)

    def _ask_shadows(self, query: Query, row: bytes) -> None:
        for model in self.shadows:
            target = self._targets[model]
            if target is not None:
                shadow = Shadow(query, model)
                output = target.predict(row, shadow, query.arrival_s, self.slo_s, is_background=True)
                if output is not None:
                    shadow.on_output(model, output)

    def _decisions(self, snapshot: ApplicationSnapshot) -> ApplicationDecisions | None:
        log, rate = self.surroundings.decisions, snapshot.selection.log_decisions
        if log is None or not rate:
            return None
        models = self.models + self.newcomers  # beliefs are of the former
        versions = versions_of(models, self._targets)
        setting = Setting(self.name, snapshot.selection.policy, models, versions, self.default)
        return ApplicationDecisions(log, setting, rate)

    # -- answers -----------------------------------------------------------------------------------------

    def _answer_without(self, query: Query, asker: Asker) -> None:
        reason, explanation = query.failure or self._why_late(query)
        query.reason = reason
        if query.choice is not None:
            self.counts.missing.update(model for model in query.choice.models if model not in query.outputs)
        if self.default is not None:
            self.counts.defaults[reason] += 1
            asker.on_default(query.id, self.default, reason, explanation)
        else:
            self.counts.errors[reason] += 1
            asker.on_no_prediction(query.id, reason, explanation)

    def _why_late(self, query: Query) -> tuple[str, str]:
        for model in query.choice.models if query.choice else ():
            target = self._targets.get(model)
            if target is not None:
                return target.why_late()
        return "timeout", "no model answered within the SLO"
