"""The life of a query after its models are asked: outputs and failures arrive, and the query is answered.

A query takes outputs by itself; all other changes to it from then on are made here. ``Application`` starts queries and
asks models, ``Stages`` may ask further ones, and ``Deadlines`` calls when time is up; each path ends in
``Answering.finish``.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence

from clipper.control.statistics import LATENCY_BOUNDS_S
from clipper.errors import OutputTooLarge, PolicyFailed
from clipper.learning.policies.policy import Choice, QueryView, Totals
from clipper.learning.policies.trials import Trials
from clipper.values.outputs.output import (
    MAX_READ_BYTES,
    NOT_KEPT,
    SURELY_SHORT_BYTES,
    Output,
    RecordOutput,
    is_readable,
    with_nan_as_text,
)
from clipper.worker.selection.combined_records import combined_record
from clipper.worker.selection.contexts import Contexts
from clipper.worker.selection.counts import ApplicationCounts
from clipper.worker.selection.deadlines import TIMER_EARLY_S
from clipper.worker.selection.feedback.join_table import SAID_BYTES, JoinTable, output_bytes
from clipper.worker.selection.feedback.outcomes import Outcomes
from clipper.worker.selection.query import NO_SOURCE, Asker, Query, Source, make_source
from clipper.worker.selection.terms import Terms
from clipper.worker.telemetry.request_note import EndedQuery
from clipper.worker.telemetry.watch import Watch

# An answer does not wait for a model with a smaller share of outputs in time than the first number; once the answer is
# settled, it does not wait for one below the second.
HARDLY_IN_TIME = 0.1
USUALLY_IN_TIME = 0.5
# Errors of models that had no time, as opposed to models that failed.
NO_TIME = ("timeout", "overloaded")
TOO_LARGE_TO_COMBINE = (
    f"an output may have over {MAX_READ_BYTES} bytes as JSON, too many for the application's policy to combine it or "
    "find a confidence in it: have models return less, or use a policy that answers with the output of one model"
)
# Sources that are remembered: enough for most subsets of a dozen models that can answer in time.
MAX_SOURCES = 1024


class Answering:
    """Answers an application's queries.

    Attributes:
        complete: called once all models of a query have answered or failed: ``Stages.go_on`` if the policy may ask
            further models, or None for ``finish``.
        rescue: called instead if none of them has answered: ``Stages.go_on`` if there are other models, or None.
        has_others: whether other models can answer a query: ``Stages.has_others``, if there are any.
        goes_on, feedback_ttl_s, input_type, judged: copies from the terms, which are read for each query.
    """

    def __init__(
        self,
        name: str,
        terms: Terms,
        contexts: Contexts,
        counts: ApplicationCounts,
        outcomes: Outcomes,
        joins: JoinTable,
        trials: Trials,
        watch: Watch | None = None,
    ) -> None:
        self.name = name
        self.contexts = contexts
        self.counts = counts
        self.outcomes = outcomes
        self._joins = joins
        self._watch = watch
        self.trials = trials
        self.now_s = asyncio.get_running_loop().time
        self.complete: Callable[[Query], None] | None
        self.rescue: Callable[[Query], None] | None
        self.has_others: Callable[[Query], bool]
        self.ask_no_further()
        self._sources: dict[str, Source] = {}
        self.follow(terms)

    def ask_no_further(self) -> None:
        """Answer each query by the models that it has asked."""
        self.complete = self.rescue = None
        self.has_others = lambda query: False

    def follow(self, terms: Terms) -> None:
        """Answer by these terms from now on, including the queries in flight."""
        self.terms = terms
        self.goes_on, self.feedback_ttl_s = terms.selector.goes_on, terms.feedback_ttl_s
        self.input_type = terms.input_type
        self.judged: Callable[[Output], bytes] = terms.judged
        # These follow from the terms, and each query would otherwise compute them.
        selector = terms.selector
        self._slo_s = terms.slo_s
        self._may_keep_inputs = selector.may_need_input
        self._believes_one, self._nan_as_text = selector.believes_one, terms.nan_as_text
        self._tries = bool(terms.tried)
        self._sources.clear()
        # The choice of most queries, if it is the only one and the single output is the answer; and the answer's
        # source.
        self._usual_choice, self._usual_source = terms.only_choice if selector.believes_one else None, NO_SOURCE
        if self._usual_choice is not None:
            key = terms.arms.key(self._usual_choice.models[0])
            self._usual_source = self._new_source(key, (key,))
        self._is_recorded = terms.decisions is not None or self._watch is not None

    def totals(self, context: str | None) -> Totals | None:
        """Return the totals that the policy uses in a context; None if its state must be read first."""
        no_totals = self.terms.selector.no_totals
        if no_totals is not None:
            return no_totals
        return self.contexts.prior() if context is None else self.contexts.totals(context)

    # -- what models say ---------------------------------------------------------------------------------

    def failed(self, query: Query, model: str, code: str, message: str) -> None:
        """Take the failure of a selected model."""
        query.missing -= 1
        if query.done:
            return
        query.failure = code, message
        query.lost += (model,)
        if code in NO_TIME:
            query.shed += (model,)
        if not query.missing:
            ((self.rescue if query.first_output is None else self.complete) or self.finish)(query)
        elif query.is_asked:
            self.consider_leaving(query)

    def shadow_came(self, query: Query, name: str, output: Output) -> None:
        """Take the output of a shadow model, for which no answer waits. Drop one that no feedback can judge."""
        if not is_readable(output):
            return
        if query.shadow_outputs is None:
            query.shadow_outputs = {}
        query.shadow_outputs[name] = output
        if query.done:
            self._joins.grow(query.id, output_bytes(output))

    def consider_leaving(self, query: Query) -> None:
        """Answer now if the models that are still missing are not worth waiting for.

        A model is worth waiting for if enough of its recent outputs were in time. Once the answer is settled, so that
        only its confidence may still grow, more than half of them must have been; with ``wait`` set to ``decided``, no
        model is worth it then.
        """
        choice, terms = query.choice, self.terms
        if choice is None or query.first_output is None or terms.wait == "all" or not query.is_readable:
            return
        outputs, lost = query.outputs, query.lost
        threshold: float | None = terms.threshold
        if terms.confidences is not None:
            threshold = terms.confidences.least_share(terms.threshold)
        try:
            is_settled = threshold is not None and terms.selector.is_settled(choice, outputs, lost, threshold)
        except PolicyFailed:  # the failure is counted, and no reason to answer without the missing models
            is_settled = False
        if not (is_settled and terms.wait == "decided"):
            least = USUALLY_IN_TIME if is_settled else HARDLY_IN_TIME
            for model in choice.models:
                if model in outputs or model in lost:
                    continue
                if self.outcomes.recent_share(query.arms.key(model)) >= least:
                    return
        query.is_settled = is_settled
        (self.complete or self.finish)(query)

    def keep_late(self, query: Query, model: str, output: Output) -> None:
        """Keep an output that came after the answer: feedback still uses it."""
        if self.now_s() <= query.deadline_s:
            self.outcomes.came(query.arms.key(model))
        else:
            query.late += 1
        freed = 0
        if query.row is not None and not self._may_need_input(query):
            freed, query.row = len(query.row), None
        if not is_readable(output):
            query.drop_large()
            output = NOT_KEPT
        grown = len(output) if query.more_outputs is None else output_bytes(output)
        self._joins.grow(query.id, grown - freed)

    # -- the answer --------------------------------------------------------------------------------------

    def finish(self, query: Query) -> None:
        """Answer with the outputs that have come: all have, or the deadline has passed."""
        asker = query.asker
        query.done = True
        query.asker = None
        if asker is None:
            return
        now_s = self.now_s()
        latency_s = now_s - query.arrival_s
        # The same as record(), without a call for each query.
        latencies = self.counts.latency_s
        latencies.counts[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        latencies.sum += latency_s
        if latency_s > self._slo_s:
            self.counts.slo_misses += 1
        choice, output = query.choice, query.first_output
        # The policy may combine by the input, even if the input is not kept.
        row, is_large = query.row, False
        if self.feedback_ttl_s:
            # Most policies never need the input, which is checked without a call for each query.
            if choice is not None and not (self._may_keep_inputs and self._may_need_input(query)):
                query.row = None
            # Whether one short output can be read needs no call.
            if output is not None and (len(output) > SURELY_SHORT_BYTES or query.more_outputs is not None):
                is_large = not query.is_readable
            if not is_large:
                self._joins.remember(query, now_s)
        if choice is None or output is None:
            self.answer_without(query, asker)
            # No model answered in time: the default or an error is sent just before the deadline.
            if query.reason == "timeout" and latency_s <= self._slo_s:
                self.counts.slo_misses += 1
        else:
            source: Source | None = None
            if choice is self._usual_choice:
                source = self._usual_source
            elif query.path is not None:
                source = query.path.source or NO_SOURCE
            elif self._believes_one and len(choice.models) == 1:
                key = query.arms.key(choice.models[0])
                source = self._sources.get(key) or self._new_source(key, (key,))
            if source is None:
                self._answer_combined(query, choice, row, asker)
            else:
                query.output = output
                shown = with_nan_as_text(output) if self._nan_as_text else output
                asker.on_prediction(query.id, shown, 1.0, source)
        if self._is_recorded:
            self._record(query, row, latency_s, now_s)
        if is_large:
            query.drop_large()
            self._joins.remember(query, now_s)
        if self._tries and choice is not None and query.pinned is None:
            self._count_trials(query, choice, now_s)
        # With one model there is nothing to select, and outcomes are not needed.
        if choice is not None and choice is not self.terms.only_choice:
            self._count_outcome(query, choice, now_s)

    def _record(self, query: Query, row: bytes | None, latency_s: float, now_s: float) -> None:
        """Tell the decision log and the watch, if there are any."""
        if self.terms.decisions is not None:
            self.terms.decisions.add(query, row, latency_s)
        watch = self._watch
        if watch is None or (query.note is None and latency_s <= watch.slow_s):
            return
        note, query.note = query.note, None  # the query is kept for feedback, but its note is not
        models = query.choice.models if query.choice is not None else ()
        slo_s, reason = self.terms.slo_s, query.reason or ""
        watch.ended(EndedQuery(self.name, query.id, query.arrival_s, now_s, slo_s, models, query.stage, reason, note))

    def answer_without(self, query: Query, asker: Asker) -> None:
        """Answer without an output: with the default or an error, and the reason."""
        terms, counts, choice = self.terms, self.counts, query.choice
        if query.failure is not None:
            reason, explanation = query.failure
        else:
            reason, explanation = "timeout", "no model answered within the SLO"
            for model in choice.models if choice else ():
                target = terms.targets.get(model)
                if target is not None:
                    reason, explanation = target.why_late()
                    break
        query.reason = reason
        counts.explanations[reason] = explanation
        if choice is not None:
            counts.missing.update(model for model in choice.models if model not in query.answered)
        if terms.default is not None:
            counts.defaults[reason] += 1
            asker.on_default(query.id, terms.default, reason, explanation)
        else:
            counts.errors[reason] += 1
            asker.on_no_prediction(query.id, reason, explanation)

    def _answer_combined(self, query: Query, choice: Choice, row: bytes | None, asker: Asker) -> None:
        if not query.is_readable:
            query.failure = OutputTooLarge.code, TOO_LARGE_TO_COMBINE
            self.answer_without(query, asker)
            return
        terms, outputs = self.terms, query.outputs
        if len(outputs) < len(choice.models):
            self.counts.missing.update(model for model in choice.models if model not in outputs)
        if (
            query.stage > 1 and not self.goes_on
        ):  # one model was asked in place of another: the first one's output counts
            choice = Choice((next(model for model in choice.models if model in outputs),), (1.0,))
        totals = self.totals(query.context) or self.contexts.prior()
        view = QueryView(query.context, query.features, row, terms.input_type)
        try:
            combined = terms.selector.combine(choice, outputs, totals, view)
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self.answer_without(query, asker)
            return
        confidence = combined.confidence
        # A policy combines texts. If the answer is the text of one of them, it keeps its numbers.
        answer = _behind(query, combined.output, outputs)
        if terms.confidences is not None:
            query.said = terms.confidences.say(choice, combined, bytes(answer))
            self._joins.grow(query.id, SAID_BYTES)
            confidence = terms.confidences.confidence(query.said, query.arms)
        query.confidence = confidence
        if len(choice.models) > 1 or terms.confidences is not None:
            self.counts.confidence.record(confidence)
        if confidence < terms.threshold:
            query.reason = "low_confidence"
            self.counts.defaults[query.reason] += 1
            shown = with_nan_as_text(answer) if self._nan_as_text else answer
            asker.on_unsure(query.id, terms.default or b"null", shown, confidence)
            return
        query.output = answer
        keys = [query.arms.key(model) for model in choice.models if model in outputs]
        text = ",".join(keys)
        shown = with_nan_as_text(answer) if self._nan_as_text else answer
        asker.on_prediction(query.id, shown, confidence, self._sources.get(text) or self._new_source(text, keys))

    def _new_source(self, text: str, keys: Sequence[str]) -> Source:
        """Make and remember the source of answers by these versions."""
        if len(self._sources) >= MAX_SOURCES:
            self._sources.clear()
        source = self._sources[text] = make_source(keys) if self.terms.shows_model else NO_SOURCE
        return source

    def _count_outcome(self, query: Query, choice: Choice, now_s: float) -> None:
        """Count which models answered in time. Once the deadline has passed, missing outputs are late."""
        outcomes, arms = self.outcomes, query.arms
        is_answered = query.output is not None
        if is_answered:
            outcomes.answers += 1
            # Most queries ask one model, which answers.
            if query.first_model == choice.models[0] and len(choice.models) == 1:
                outcomes.came(arms.key(choice.models[0]), query.chance)
                return
        # If the policy learns from all outputs, an output in time counts even if the query got no answer.
        counts_outputs = is_answered or self.terms.selector.policy.feedback == "all"
        chance = query.chance if len(choice.models) == 1 or query.stage > 1 else None
        is_over, stands_in = now_s >= query.deadline_s - TIMER_EARLY_S, False
        for model in choice.models:
            if counts_outputs and (model == query.first_model or model in (query.more_outputs or ())):
                outcomes.came(arms.key(model), chance)
            elif not query.missing or is_over or model in query.lost:
                if arms.ramps and self.excuses(query, model):
                    outcomes.excused(arms.key(model))
                elif not stands_in:  # a model that was asked at the last moment cannot be blamed
                    outcomes.missed(model, choice, arms, query.features, chance)
            # The chance to be in time was computed for the first model only.
            chance, stands_in = None, not self.goes_on and query.stage > 1

    def _count_trials(self, query: Query, choice: Choice, now_s: float) -> None:
        """Count, for newcomers on trial, the models of the query that failed or are late."""
        if query.is_settled and query.missing:
            return
        answered = query.answered
        missing = [model for model in choice.models if model not in answered]
        error = "" if not missing else query.failure[1] if query.failure else "it did not answer within the SLO"
        late = [model for model in missing if query.is_late(model)]
        self.trials.ended(query.id, choice.models, missing, error, now_s, late=late)

    def excuses(self, query: Query, model: str) -> bool:
        """Return whether a model is excused for being late for a query: it is a newcomer that warms up."""
        ramp = query.arms.ramps.get(model)
        return ramp is not None and self.trials.is_warming(ramp, query.deadline_s) and query.is_late(model)

    def _may_need_input(self, query: Query) -> bool:
        """Whether feedback may need the input, which is most of a query's size: to ask a model, or to learn from it."""
        selector = self.terms.selector
        if query.choice is None:
            return True
        if not selector.may_need_input or selector.keeps_input:
            return selector.may_need_input
        models = self.terms.models
        outputs = len(query.more_outputs or ()) + (query.first_output is not None)
        return outputs < len(models) and any(model not in query.answered for model in models)


def _behind(query: Query, text: bytes, texts: dict[str, bytes]) -> Output:
    """Return the output behind a combined text: the one whose text it is; otherwise the text itself, or, if outputs
    have names, all of them combined in the same way: see ``combined_record``."""
    first = query.first_output
    if first is not None and text == texts.get(query.first_model or ""):
        return first
    for model, output in (query.more_outputs or {}).items():
        if text == texts.get(model):
            return output
    if isinstance(first, RecordOutput) and query.choice is not None:
        outputs = {query.first_model or "": first, **(query.more_outputs or {})}
        records = {model: output for model, output in outputs.items() if isinstance(output, RecordOutput)}
        return combined_record(query.choice.models, query.choice.shares, records, text, texts)
    return text
