"""Stages: a query may ask further models after the first.

A policy with ``next`` decides on that by the outputs so far. Any other of Clipper's own that asks one model selects
once more if that model fails, sheds the query or is late: among the models that are left and can answer in time. The
answer is then the first model's if that comes in time after all, and else the other's.
"""

import asyncio
import math
from collections import deque
from heapq import heappop, heappush
from random import Random

from clipper.errors import PolicyFailed
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.policy import Choice, Outlook, QueryView, Step
from clipper.learning.policies.prices import Prices
from clipper.values.outputs.output import Output
from clipper.worker.selection.answering import NO_TIME, Answering
from clipper.worker.selection.availability import Availability
from clipper.worker.selection.deadlines import Deadlines
from clipper.worker.selection.feedback.latencies import Latencies
from clipper.worker.selection.query import Query
from clipper.worker.selection.terms import NO_CHANCE
from clipper.worker.telemetry.trace_context import SpanContext

# A query may ask a further model as long as this many times the model's expected time is left.
LAST_CALL_TIMES = 1.2
# Share of the SLO that must be left if the model's expected time is unknown.
LAST_CALL_SHARE = 0.5
# The least share of the SLO to leave to a model that is asked beside a late one: the machine may be busy.
LEAST_CALL_SHARE = 0.1
# The most queries that are moved on in a turn of the loop because their first models are late.
MAX_CALLED = 500


class Further:
    """Takes the output of a model in a later stage of a query."""

    __slots__ = ("_name", "_query", "_stages", "asked_s", "is_over", "key", "may_wait")

    def __init__(self, stages: "Stages", query: Query, name: str, asked_s: float) -> None:
        self._stages = stages
        self._query = query
        self._name = name
        self.key = query.arms.key(name)
        self.asked_s = asked_s
        self.may_wait = False  # another model has been asked before
        # Whether its time has been learned, or is known to be too long.
        self.is_over = False

    @property
    def done(self) -> bool:
        return self._query.done

    @property
    def deadline_s(self) -> float:
        return self._query.deadline_s

    @property
    def span(self) -> SpanContext | None:
        return self._query.span

    def on_output(self, model: str, output: Output) -> None:
        self._stages.answered(self)
        self._query.on_output(self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self._stages.failed(self, code)
        self._query.on_failure(self._name, code, message)


class Stages:
    """Lets an application's queries ask further models.

    Attributes:
        latencies: how long models take in later stages.
        watch_timer: the timer of ``watch``; None while no query is watched.
    """

    _availability: Availability
    _prices: Prices

    def __init__(self, answering: Answering, random: Random) -> None:
        self._answering = answering
        self._random = random
        self._loop = asyncio.get_running_loop()
        self.latencies = Latencies()
        # In the order of asking, which is nearly that of their deadlines. The queries within one SLO are the bound.
        self._asked: deque[Further] = deque()
        # When each query's first models should have answered, with one timer. The queries within one SLO are the bound.
        self._calls: list[tuple[float, int, Query]] = []
        self._timer: asyncio.TimerHandle | None = None
        # One timer for all waiting queries: finds queries whose only model is nearly late, at no cost for each query.
        self.watch_timer: asyncio.TimerHandle | None = None

    def follow(self, availability: Availability, prices: Prices) -> None:
        """Use these chances and prices, and the answering's terms, from now on."""
        terms = self._answering.terms
        self._availability, self._prices = availability, prices
        self.latencies.follow([terms.arms.key(name) for name in terms.targets])

    def wait(self, query: Query) -> None:
        """Watch a query that waits for its first models, to move on while there is still time."""
        terms = self._answering.terms
        choice = query.choice
        if choice is None or not self._has_more(query, choice):
            return
        slo_s, key = terms.slo_s, query.arms.key
        needed_s = min(
            LAST_CALL_TIMES * self.latencies.expected_s(key(model)) or LAST_CALL_SHARE * slo_s
            for model in self._left(choice)
        )
        if needed_s >= slo_s:
            return
        calls = self._calls
        while calls and calls[0][2].done:
            heappop(calls)
        heappush(calls, (query.deadline_s - needed_s, query.id, query))
        if self._timer is None:
            self._timer = self._loop.call_at(calls[0][0], self._call)

    def watch(self, deadlines: Deadlines, query: Query) -> None:
        """Begin to watch queries that wait for one model, to ask another beside one that is nearly late.

        Call it if there is no ``watch_timer``: with one, it looks by itself until no query waits.
        """
        at_s = query.deadline_s - self._most_needed_s()
        self.watch_timer = self._loop.call_at(at_s, self._look, deadlines)

    def close(self) -> None:
        """Stop: the policy no longer asks further models, or the application was removed."""
        self._calls.clear()
        self._asked.clear()
        for timer in (self._timer, self.watch_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self.watch_timer = None

    def go_on(self, query: Query) -> None:
        """Ask further models, or answer: all asked models have answered or failed, or are not awaited any more."""
        choice = query.choice
        if choice is not None and query.asker is not None and self._has_more(query, choice):
            now_s = self._loop.time()
            further = self._next(query, choice, now_s)
            query.choice = further
            if models := further.models[len(choice.models) :]:
                self._ask(query, models, now_s)
                return
        self._answering.finish(query)

    def has_others(self, query: Query) -> bool:
        """Whether another model can answer a query in the place of those that it has asked."""
        choice = query.choice
        if choice is None or not self._has_more(query, choice):
            return False
        if self._answering.goes_on:
            return True
        chances = self._availability.of(self._left(choice), self._loop.time(), query.deadline_s)
        return max(chances.values()) > NO_CHANCE

    def _has_more(self, query: Query, choice: Choice) -> bool:
        """Whether a query may ask more models. A ramped newcomer's query may not: the newcomer answers alone."""
        is_newcomers = choice.models[0] in query.arms.ramps
        return query.pinned is None and not is_newcomers and bool(self._left(choice))

    def _left(self, choice: Choice) -> list[str]:
        """Return the models that a query may still ask, in the application's order."""
        terms = self._answering.terms
        left = [model for model in terms.models if model not in choice.models]
        if terms.is_watching:
            # If the version before a newcomer was asked, it was asked in the newcomer's place.
            left = [model for model in left if model not in terms.tried or terms.tried[model].rest not in choice.models]
        return left

    def _next(self, query: Query, choice: Choice, now_s: float) -> Choice:
        answering = self._answering
        if not query.is_readable:
            return choice
        totals = answering.totals(query.context) or answering.contexts.prior()
        try:
            if answering.terms.selector.goes_on:
                outlook, view = self._outlook(query, choice, now_s), query.view()
                further = answering.terms.selector.next(choice, query.outputs, totals, view, outlook, self._random)
            else:
                further = self._stand_in(query, choice, totals, now_s)
            if further is not None and answering.terms.is_watching:
                further = answering.trials.assigned(query.id, further, self._random, len(choice.models))
            return further or choice
        except PolicyFailed as error:  # the failure is counted; answer with the outputs so far
            query.failure = error.code, str(error)
            return choice

    def _outlook(self, query: Query, choice: Choice, now_s: float) -> Outlook:
        left_s, key, left = query.deadline_s - now_s, query.arms.key, self._left(choice)
        chances = self._availability.of(left, now_s, query.deadline_s)
        return Outlook(left_s, {model: self.latencies.promise_s(key(model), left_s) for model in left}, chances)

    def _stand_in(self, query: Query, choice: Choice, totals: Totals, now_s: float) -> Choice | None:
        """Let the policy select a model in place of those that were asked; None if none has a chance."""
        answering, left = self._answering, self._left(choice)
        chances = self._availability.of(left, now_s, query.deadline_s)
        models = tuple(model for model in left if chances[model] > NO_CHANCE)
        if not models:
            return None
        selector, view = answering.terms.selector, query.view()
        view = QueryView(view.context, view.packed_features, view.row, view.input_type, chances)
        prices = self._prices if self._prices.is_active else None
        models = selector.candidates(models, totals, view, answering.outcomes.default_loss, 0.0, prices)
        model = selector.select(models, totals, view, self._random).models[0]
        # A step shows that the shares are no probabilities of the choice of a single model.
        steps = (*choice.steps, Step(len(choice.models), 0.0, 1.0))
        return Choice((*choice.models, model), (*(0.0 for _ in choice.models), 1.0), steps=steps)

    def _ask(self, query: Query, models: tuple[str, ...], now_s: float) -> None:
        answering, asked = self._answering, self._asked
        while asked and (asked[0].is_over or asked[0].deadline_s <= now_s):
            self._missed(asked.popleft())
        query.stage += 1
        query.missing += len(models)
        # Until all of them are asked, the query must not be answered without the rest.
        query.is_asked = False
        terms = answering.terms
        answering.counts.go_on(query.stage, models)
        self._prices.asked(models, is_first=False)
        assert query.row is not None
        row = query.row
        for model in models:
            target = terms.targets.get(model)
            further = Further(self, query, model, now_s)
            if target is None:
                further.on_failure(model, "no_replica", terms.why_not_asked(model))
                continue
            asked.append(further)
            self.latencies.asked(further.key)
            output = target.predict(row, further, now_s, terms.slo_s, answering.name)
            if output is not None:
                # It came from the cache, which says nothing about the model's time.
                further.is_over = True
                further.on_output(model, output)
        if query.missing and not query.done:
            query.is_asked = True
            answering.consider_leaving(query)

    def answered(self, further: Further) -> None:
        """Learn the time of an output, whether it was in time or not."""
        if not further.is_over:
            further.is_over = True
            self.latencies.answered(further.key, self._loop.time() - further.asked_s)

    def failed(self, further: Further, code: str) -> None:
        """Note a failure. A queue that drops the work says that there was no time."""
        if code in NO_TIME:
            self._missed(further)
        further.is_over = True

    def _missed(self, further: Further) -> None:
        if not further.is_over:
            further.is_over = True
            self.latencies.missed(further.key, further.deadline_s - further.asked_s)

    def _call(self) -> None:
        """Ask more models beside those of the first stage, which are late, if the policy says so; else wait on."""
        now_s = self._loop.time()
        calls = self._calls
        for _ in range(MAX_CALLED):
            if not calls or not (calls[0][2].done or calls[0][0] <= now_s):
                break
            query = heappop(calls)[2]
            if query.done or query.stage > 1 or query.choice is None or not self._has_more(query, query.choice):
                continue
            asked = len(query.choice.models)
            further = self._next(query, query.choice, now_s)
            if models := further.models[asked:]:
                query.choice = further
                self._ask(query, models, now_s)
        self._timer = self._loop.call_at(calls[0][0], self._call) if calls else None

    def _look(self, deadlines: Deadlines) -> None:
        """Ask another model for each query whose model is nearly late; look again when the next one will be."""
        now_s = self._loop.time()
        self.watch_timer, next_s = None, math.inf
        called = 0
        for query in deadlines.open_until(now_s + self._most_needed_s()):
            choice = query.choice
            if query.done or query.stage > 1 or choice is None or len(choice.models) > 1:
                continue
            needed_s = self._needed_s(choice.models[0])
            if needed_s >= self._answering.terms.slo_s or not self._has_more(query, choice):
                continue
            at_s = query.deadline_s - needed_s
            if at_s > now_s or called >= MAX_CALLED:
                next_s = min(next_s, max(at_s, now_s))
                continue
            called += 1
            further = self._next(query, choice, now_s)
            if models := further.models[1:]:
                query.choice = further
                self._ask(query, models, now_s)
        if next_s < math.inf:
            self.watch_timer = self._loop.call_at(next_s, self._look, deadlines)

    def _needed_s(self, besides: str) -> float:
        """Return the time that another model gets to answer beside a late model."""
        slo_s = self._answering.terms.slo_s
        return max(LAST_CALL_TIMES * self._availability.needs_s(besides), LEAST_CALL_SHARE * slo_s)

    def _most_needed_s(self) -> float:
        slo_s = self._answering.terms.slo_s
        needed_s = map(self._needed_s, self._answering.terms.models)
        return max((each for each in needed_s if each < slo_s), default=0.0)
