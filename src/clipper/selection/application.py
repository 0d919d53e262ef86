"""One application in a query worker: asks models for its queries, and answers each by its deadline."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from random import Random
from typing import Protocol

from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.predictor import Predictor
from clipper.errors import NotFound, WrongInput
from clipper.metrics.histogram import Histogram
from clipper.selection.learning.totals import Totals
from clipper.selection.policies.policy import Choice
from clipper.selection.policies.registry import make_policy
from clipper.snapshot import ApplicationSnapshot
from clipper.statistics import LATENCY_BOUNDS_S, ApplicationStatistics
from clipper.types import InputType

# The deadline is when the answer should be at the client, so it leaves a little before: 5 % of the SLO, at most 2 ms.
MARGIN_SHARE = 0.05
MAX_MARGIN_S = 0.002
# The loop's timers count whole milliseconds, rounded, and so may come half of one early.
TIMER_EARLY_S = 0.0005


class Asker(Protocol):
    """Who asked a query, and gets exactly one of these calls, on the event loop."""

    def on_prediction(self, query_id: int, output: bytes, confidence: float) -> None:
        """``output`` is JSON text."""

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        """The application's default, and why there is nothing better."""

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        """As ``on_default``, where the application has no default."""


class Query:
    """One query in flight. It is the ``Waiter`` of the work it has started."""

    __slots__ = (
        "application",
        "arrival_s",
        "asker",
        "choice",
        "deadline_s",
        "done",
        "failure",
        "id",
        "missing",
        "outputs",
        "targets",
    )

    def __init__(self, application: "Application", asker: Asker, query_id: int, arrival_s: float) -> None:
        self.application = application
        self.asker = asker
        self.id = query_id
        self.arrival_s = arrival_s
        self.deadline_s = arrival_s + application.budget_s
        self.done = False
        self.missing = 0
        self.outputs: dict[str, bytes] = {}
        self.failure: tuple[str, str] | None = None
        self.choice: Choice | None = None
        self.targets: Sequence[ModelQueue] = ()

    def on_output(self, model: str, output: bytes) -> None:
        self.outputs[model] = output
        self.missing -= 1
        if not self.missing:
            self.application.finish(self)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self.failure = code, message
        self.missing -= 1
        if not self.missing:
            self.application.finish(self)

    def cancel(self) -> None:
        """Nobody wants the answer any more: its work is dropped before it is sent."""
        self.done = True


class QueryIds:
    """Numbers for queries, unique over all workers and restarts, and below 2^53 so that any JSON reader keeps them.

    The upper 20 bits are the worker's instance, which the supervisor counts; the lower 33 are the worker's own count.
    """

    COUNT_BITS = 33

    def __init__(self, instance: int) -> None:
        self.next = instance << self.COUNT_BITS


class Application:
    """Answers an application's queries.

    All queries have one SLO and so expire in order of arrival: one FIFO and one timer serve them all.
    """

    def __init__(self, snapshot: ApplicationSnapshot, predictor: Predictor, ids: QueryIds, random: Random) -> None:
        self.name = snapshot.name
        self._predictor = predictor
        self._ids = ids
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Query] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._queries = self._slo_misses = 0
        self._defaults: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._latency_s = Histogram(LATENCY_BOUNDS_S)
        self.follow(snapshot)

    def follow(self, snapshot: ApplicationSnapshot) -> None:
        """Serve by this snapshot from the next query on; call again whenever a model's current version changes."""
        self.snapshot = snapshot
        self.input_type = self._narrowed_type(snapshot)
        self._slo_s = snapshot.slo_ms / 1000
        self.budget_s = self._slo_s - min(self._slo_s * MARGIN_SHARE, MAX_MARGIN_S)
        self._bring_deadlines_forward()
        self._default = None if snapshot.default_output is None else snapshot.default_output.encode()
        self._policy = make_policy(snapshot.policy)
        self._totals = Totals()
        self._models = tuple(link.model for link in snapshot.links)
        self._targets: dict[str, ModelQueue | None] = {
            link.model: self._find(link.model, link.version) for link in snapshot.links
        }

    def predict(self, row: bytes, asker: Asker, arrival_s: float, version: str | None = None) -> Query:
        """Answer one input; ``asker`` hears of it now or later, by the deadline.

        Args:
            row: the input's raw buffer, of this application's input type.
            version: ask this version of the linked model, whatever is current.

        Raises:
            NotFound: there is no such version.
            WrongInput: that version takes another type of input.
        """
        pinned = None if version is None else self._pinned(version)
        self._queries += 1
        query = Query(self, asker, self._ids.next, arrival_s)
        self._ids.next += 1
        if pinned is not None:
            self._ask(query, row, *pinned)
        elif self._models:
            choice = self._policy.select(self._models, self._totals, None, self._random)
            self._ask(query, row, choice, [self._targets[model] for model in choice.models])
        else:
            query.failure = "no_replica", f"application {self.name} has no linked model"
            self.finish(query)
        if not query.done:
            self._await_deadline(query)
        return query

    def finish(self, query: Query) -> None:
        """All selected models have answered, or the deadline has come: answer with what is there."""
        query.done = True
        self._measure(query)
        if query.outputs and query.choice is not None:
            combined = self._policy.combine(query.choice, query.outputs, self._totals)
            query.asker.on_prediction(query.id, combined.output, combined.confidence)
            return
        reason, explanation = query.failure or self._why_late(query)
        if self._default is not None:
            self._defaults[reason] += 1
            query.asker.on_default(query.id, self._default, reason, explanation)
        else:
            self._errors[reason] += 1
            query.asker.on_no_prediction(query.id, reason, explanation)

    def close(self) -> None:
        """The application is gone: answer what waits. A request that was being read may still ask, and is answered."""
        waiting, self._waiting = self._waiting, deque()
        self._arm_timer()
        for query in waiting:
            if not query.done:
                query.failure = query.failure or ("unavailable", f"application {self.name} was removed or changed")
                self.finish(query)

    @property
    def in_flight(self) -> int:
        return sum(not query.done for query in self._waiting)

    def statistics(self) -> ApplicationStatistics:
        return ApplicationStatistics(
            name=self.name,
            queries=self._queries,
            defaults=dict(self._defaults),
            errors=dict(self._errors),
            slo_misses=self._slo_misses,
            latency_s=self._latency_s.data(),
        )

    def _ask(self, query: Query, row: bytes, choice: Choice, targets: Sequence[ModelQueue | None]) -> None:
        query.choice = choice
        query.missing = len(choice.models)
        for model, target in zip(choice.models, targets):
            if target is None:
                explanation = f"model {model} has no version that runs and takes {self.input_type}"
                query.on_failure(model, "no_replica", explanation)
                continue
            query.targets = (*query.targets, target)
            output = target.predict(row, query, query.arrival_s, self._slo_s)
            if output is not None:
                query.on_output(model, output)

    def _narrowed_type(self, snapshot: ApplicationSnapshot) -> InputType:
        """The declared type, with the lengths that it leaves open and the linked models fix."""
        narrowed = InputType.parse(snapshot.input_type)
        for link in snapshot.links:
            target = self._predictor.find(link.model, link.version)
            both = None if target is None else narrowed.narrowed(target.input_type)
            narrowed = both or narrowed
        return narrowed

    def _find(self, model: str, version: str | None) -> ModelQueue | None:
        """What runs and takes this application's rows as they are."""
        target = self._predictor.find(model, version)
        return target if target is not None and self.input_type.suits(target.input_type) else None

    def _pinned(self, version: str) -> tuple[Choice, Sequence[ModelQueue]]:
        for model in self._models:
            target = self._predictor.find(model, version)
            if target is None:
                continue
            if not self.input_type.suits(target.input_type):
                raise WrongInput(
                    f"{target.model} takes {target.input_type}, application {self.name} has {self.input_type}"
                )
            return Choice((model,), (1.0,)), (target,)
        raise NotFound(f"no model linked to application {self.name} has a version {version[:100]!r} that runs")

    def _why_late(self, query: Query) -> tuple[str, str]:
        for target in query.targets:
            return target.why_late()
        return "timeout", "no model answered within the SLO"

    def _measure(self, query: Query) -> None:
        latency_s = self._loop.time() - query.arrival_s
        self._latency_s.observe(latency_s)
        if latency_s > self._slo_s:
            self._slo_misses += 1

    def _await_deadline(self, query: Query) -> None:
        waiting = self._waiting
        while waiting and waiting[0].done:
            waiting.popleft()
        waiting.append(query)
        if self._timer is None:
            self._timer = self._loop.call_at(query.deadline_s, self._expire)

    def _bring_deadlines_forward(self) -> None:
        """Keep the FIFO in order of deadlines where the SLO became smaller: it holds for what waits as well."""
        latest_s = self._loop.time() + self.budget_s
        if self._waiting and self._waiting[-1].deadline_s > latest_s:
            for query in self._waiting:
                query.deadline_s = min(query.deadline_s, latest_s)
            self._arm_timer()

    def _expire(self) -> None:
        now_s = self._loop.time() + TIMER_EARLY_S
        waiting = self._waiting
        while waiting and (waiting[0].done or waiting[0].deadline_s <= now_s):
            query = waiting.popleft()
            if not query.done:
                self.finish(query)
        self._arm_timer()

    def _arm_timer(self) -> None:
        """Set the timer to the first deadline, or to none."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._waiting[0].deadline_s, self._expire) if self._waiting else None
