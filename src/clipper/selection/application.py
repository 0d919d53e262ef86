"""One application in a query worker: asks models for its queries, and answers each by its deadline."""

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.predictor import Predictor
from clipper.decisions.application import ApplicationDecisions, versions_of
from clipper.decisions.log import DecisionLog
from clipper.decisions.records import Setting
from clipper.errors import ClipperError, NotFound, PolicyFailed, WrongInput
from clipper.selection.committer import Committer
from clipper.selection.contexts import Contexts
from clipper.selection.counts import Counts
from clipper.selection.feedback.join_table import JoinTable
from clipper.selection.learning.totals import Totals
from clipper.selection.loads import Loads
from clipper.selection.own_code import Made, make
from clipper.selection.policies.policy import Choice, Combined
from clipper.selection.query import Asker, Query, Shadow
from clipper.selection.selector import Selector
from clipper.selection.stores.store import Store
from clipper.snapshot import ApplicationSnapshot
from clipper.statistics import ApplicationStatistics
from clipper.types import InputType

log = logging.getLogger(__name__)

# The deadline is when the answer should be at the client, so it leaves a little before: 5 % of the SLO, at most 2 ms.
MARGIN_SHARE = 0.05
MAX_MARGIN_S = 0.002
# One of several models leaves earlier by so much more, 2 ms at most: it can leave with what has come, which is better
# than to be late, and is made of that while other models have the processors (16 forests on two cores: 2 ms).
JOINT_MARGIN_SHARE = 0.1
# The loop's timers count whole milliseconds, rounded, and so may come half of one early.
TIMER_EARLY_S = 0.0005
# Of the time there is, what a query may spend on reading its context's state; then it goes by the application's own.
LOAD_SHARE = 0.25
# Queries that are answered at their deadline in one go, some milliseconds of work: a batch has one deadline for all.
MAX_EXPIRING = 500


class QueryIds:
    """Numbers for queries, unique over all workers and restarts, and below 2^53 so that any JSON reader keeps them.

    The upper 20 bits are the worker's instance, which the supervisor counts; the lower 33 are the worker's own count.
    That begins anew after two days at 50,000 queries a second, when the first ones are long past their feedback.
    """

    COUNT_BITS = 33

    def __init__(self, instance: int) -> None:
        self._first = self.next = instance << self.COUNT_BITS
        self._last = self._first + (1 << self.COUNT_BITS) - 1

    def take(self) -> int:
        query_id = self.next
        self.next = query_id + 1 if query_id < self._last else self._first
        return query_id

    def has_given(self, query_id: int) -> bool:
        return self._first <= query_id < self.next

    @classmethod
    def instance_of(cls, query_id: int) -> int:
        return query_id >> cls.COUNT_BITS


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the applications of a worker share.

    Attributes:
        asking: feedback that models are being asked for; see ``Observer``.
        make: makes an application's policy and loss, without waiting for a user's code.
        decisions: the log of what was decided; None if there is none.
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


class Application:
    """Answers an application's queries.

    All queries have one SLO and so expire in order of arrival: one FIFO and one timer serve them all. Those that waited
    at the worker's door may come out of order, and find their place in it.
    """

    def __init__(self, snapshot: ApplicationSnapshot, surroundings: Surroundings) -> None:
        self.name = snapshot.name
        self.surroundings = surroundings
        self._ids = surroundings.ids
        self._joins = surroundings.joins
        self.counts = Counts()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Query] = deque()
        self._timer: asyncio.TimerHandle | None = None
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
        self.input_type = self._narrowed_type(snapshot)
        self.slo_s = snapshot.slo_ms / 1000
        self.budget_s = self.slo_s - min(self.slo_s * MARGIN_SHARE, MAX_MARGIN_S)
        self._joint_margin_s = min(self.slo_s * JOINT_MARGIN_SHARE, MAX_MARGIN_S)
        self._bring_deadlines_forward()
        self._default = None if snapshot.default_output is None else snapshot.default_output.encode()
        self._threshold = snapshot.selection.confidence_threshold or 0.0
        self.feedback_ttl_s = snapshot.selection.feedback_ttl_s
        self.models = tuple(link.model for link in snapshot.links if not link.shadow)
        self._only_choice = self.selector.only_choice(self.models)
        self._targets: dict[str, ModelQueue | None] = {
            link.model: self._find(link.model, link.version) for link in snapshot.links
        }
        self.shadows = tuple(link.model for link in snapshot.links if link.shadow)
        self.decisions = self._decisions(snapshot)

    def follow_code(self) -> None:
        """What its policy and loss are made of has come, or has failed, after all."""
        self.selector = Selector(self.snapshot, self.counts, self.surroundings.make)
        self.follow(self.snapshot)

    def predict(
        self, row: bytes, asker: Asker, arrival_s: float, version: str | None = None, context: str | None = None
    ) -> Query:
        """Answer one input; ``asker`` hears of it now or later, by the deadline.

        Args:
            row: the input's raw buffer, of this application's input type.
            version: ask this version of the linked model, whatever is current.
            context: the user, session or other group whose state the policy goes by.

        Raises:
            NotFound: there is no such version.
            WrongInput: that version takes another type of input.
        """
        choice, targets = (self._only_choice, self._targets) if version is None else self._pinned(version)
        query = Query(self, asker, self._ids.take(), row, context, arrival_s, arrival_s + self.budget_s, version)
        self.counts.queries += 1
        if choice is not None:
            self._ask(query, choice, targets)
            if self.shadows and version is None:
                self._ask_shadows(query)
        elif self.models:
            totals = self.totals(context)
            if totals is None:
                self._load_then_ask(query, context)
            else:
                self._select_and_ask(query, totals)
        else:
            query.failure = "no_replica", f"application {self.name} has no linked model"
            self.finish(query)
        if not query.done:
            self._await_deadline(query)
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
        if self.feedback_ttl_s:
            self._joins.remember(query, now_s)
        choice, output = query.choice, query.first_output
        if choice is None or output is None:
            self._answer_without(query, asker)
        elif len(choice.models) == 1 and self.selector.believes_one:
            query.output = output
            asker.on_prediction(query.id, output, 1.0)
        else:
            self._answer_combined(query, choice, asker)
        if self.decisions is not None:
            self.decisions.add(query, latency_s)

    def _answer_combined(self, query: Query, choice: Choice, asker: Asker) -> None:
        try:
            combined = self._combine(choice, query)
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self._answer_without(query, asker)
            return
        query.confidence = combined.confidence
        if combined.confidence < self._threshold:
            query.reason = "low_confidence"
            self.counts.defaults["low_confidence"] += 1
            asker.on_unsure(query.id, self._default or b"null", combined.output, combined.confidence)
            return
        query.output = combined.output
        asker.on_prediction(query.id, combined.output, combined.confidence)

    def keep_late(self, query: Query, output: bytes) -> None:
        """An output has come after the answer: it still counts for feedback, and so for what that may take."""
        self._joins.grow(query.id, len(output))

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
        return self.counts.statistics(self.name, len(self.contexts))

    # -- selection ---------------------------------------------------------------------------------------

    def totals(self, context: str | None) -> Totals | None:
        """What the policy goes by in a context; None if its state has to be read first."""
        if self.selector.no_totals is not None:
            return self.selector.no_totals
        return self.contexts.prior() if context is None else self.contexts.totals(context)

    def select(self, totals: Totals, context: str | None, random: Random | None = None) -> Choice:
        """Have the policy select.

        Raises:
            PolicyFailed: see ``Selector.select``.
        """
        return self.selector.select(self.models, totals, context, random or self.surroundings.random)

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

    def _load_then_ask(self, query: Query, context: str | None) -> None:
        assert context is not None

        def go_on() -> None:
            if not query.done:
                self._select_and_ask(query, self.contexts.totals(context) or self.contexts.prior())

        self._loads.wait(context, self.budget_s * LOAD_SHARE, go_on)

    def _select_and_ask(self, query: Query, totals: Totals) -> None:
        try:
            choice = self.select(totals, query.context)
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self.finish(query)
            return
        self._ask(query, choice, self._targets)
        if self.shadows:
            self._ask_shadows(query)

    def _ask(self, query: Query, choice: Choice, targets: Mapping[str, ModelQueue | None]) -> None:
        models = choice.models
        query.choice = choice
        query.missing = len(models)
        slo_s = self.slo_s
        if len(models) > 1:
            query.deadline_s -= self._joint_margin_s
            slo_s -= self._joint_margin_s
        self.counts.selected[models] += 1
        for model in models:
            target = targets[model]
            if target is None:
                explanation = f"model {model} has no version that runs and takes {self.input_type}"
                query.on_failure(model, "no_replica", explanation)
                continue
            output = target.predict(query.row, query, query.arrival_s, slo_s)
            if output is not None:
                query.on_output(model, output)

    def _ask_shadows(self, query: Query) -> None:
        for model in self.shadows:
            target = self._targets[model]
            if target is not None:
                shadow = Shadow(query)
                output = target.predict(query.row, shadow, query.arrival_s, self.slo_s, is_background=True)
                if output is not None:
                    shadow.on_output(model, output)

    def _combine(self, choice: Choice, query: Query) -> Combined:
        is_joint, outputs = len(choice.models) > 1, query.outputs
        if is_joint and len(outputs) < len(choice.models):
            self.counts.missing.update(model for model in choice.models if model not in outputs)
        combined = self.selector.combine(choice, outputs, self.totals(query.context) or self.contexts.prior())
        if is_joint:
            self.counts.confidence.observe(combined.confidence)
        return combined

    def _decisions(self, snapshot: ApplicationSnapshot) -> ApplicationDecisions | None:
        log, rate = self.surroundings.decisions, snapshot.selection.log_decisions
        if log is None or not rate:
            return None
        versions = versions_of(self.models, self._targets)
        setting = Setting(self.name, snapshot.selection.policy, self.models, versions, self._default)
        return ApplicationDecisions(log, setting, rate)

    # -- models ------------------------------------------------------------------------------------------

    def _narrowed_type(self, snapshot: ApplicationSnapshot) -> InputType:
        """The declared type, with the lengths that it leaves open and the linked models fix."""
        narrowed = InputType.parse(snapshot.input_type)
        for link in snapshot.links:
            target = self.surroundings.predictor.find(link.model, link.version)
            both = None if target is None else narrowed.narrowed(target.input_type)
            narrowed = both or narrowed
        return narrowed

    def _find(self, model: str, version: str | None) -> ModelQueue | None:
        """What runs and takes this application's rows as they are."""
        target = self.surroundings.predictor.find(model, version)
        return target if target is not None and self.input_type.suits(target.input_type) else None

    def _pinned(self, version: str) -> tuple[Choice, Mapping[str, ModelQueue]]:
        for model in self.models:
            target = self.surroundings.predictor.find(model, version)
            if target is None:
                continue
            if not self.input_type.suits(target.input_type):
                raise WrongInput(
                    f"{target.model} takes {target.input_type}, application {self.name} has {self.input_type}"
                )
            return Choice((model,), (1.0,)), {model: target}
        raise NotFound(f"no model linked to application {self.name} has a version {version[:100]!r} that runs")

    # -- answers and deadlines ---------------------------------------------------------------------------

    def _answer_without(self, query: Query, asker: Asker) -> None:
        reason, explanation = query.failure or self._why_late(query)
        query.reason = reason
        if self._default is not None:
            self.counts.defaults[reason] += 1
            asker.on_default(query.id, self._default, reason, explanation)
        else:
            self.counts.errors[reason] += 1
            asker.on_no_prediction(query.id, reason, explanation)

    def _why_late(self, query: Query) -> tuple[str, str]:
        for model in query.choice.models if query.choice else ():
            target = self._targets.get(model)
            if target is not None:
                return target.why_late()
        return "timeout", "no model answered within the SLO"

    def _await_deadline(self, query: Query) -> None:
        waiting = self._waiting
        while waiting and waiting[0].done:
            waiting.popleft()
        if waiting and waiting[-1].deadline_s > query.deadline_s:
            # It waited to be taken in, and later ones did not.
            waiting.insert(bisect_left(waiting, query.deadline_s, key=lambda other: other.deadline_s), query)
            if waiting[0] is query:
                self._arm_timer()
        else:
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
        # The rest is due at once, and others have their turn before it.
        for _ in range(MAX_EXPIRING):
            if not waiting or not (waiting[0].done or waiting[0].deadline_s <= now_s):
                break
            query = waiting.popleft()
            if not query.done:
                self.finish(query)
        self._arm_timer()

    def _arm_timer(self) -> None:
        """Set the timer to the first deadline, or to none."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._waiting[0].deadline_s, self._expire) if self._waiting else None
