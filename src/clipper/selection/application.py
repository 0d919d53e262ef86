"""One application in a query worker: asks models for its queries, and answers each by its deadline."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import msgspec

from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.predictor import Predictor
from clipper.errors import InvalidArgument, NotFound, PolicyFailed, WrongInput
from clipper.selection.committer import Committer
from clipper.selection.contexts import Contexts
from clipper.selection.counts import Counts
from clipper.selection.feedback.join_table import JoinTable
from clipper.selection.learning.totals import Totals
from clipper.selection.policies.policy import Choice, Combined, Policy
from clipper.selection.policies.registry import POLICIES, make_loss, make_policy
from clipper.selection.query import Asker, Query
from clipper.selection.stores.store import Store
from clipper.snapshot import ApplicationSnapshot
from clipper.statistics import ApplicationStatistics
from clipper.types import InputType

# The deadline is when the answer should be at the client, so it leaves a little before: 5 % of the SLO, at most 2 ms.
MARGIN_SHARE = 0.05
MAX_MARGIN_S = 0.002
# The loop's timers count whole milliseconds, rounded, and so may come half of one early.
TIMER_EARLY_S = 0.0005
# Of the time there is, what a query may spend on reading its context's state; then it goes by the application's own.
LOAD_SHARE = 0.25
# Contexts that are being read at once; the queries of further ones go by the application's state.
MAX_LOADS = 1000

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class QueryIds:
    """Numbers for queries, unique over all workers and restarts, and below 2^53 so that any JSON reader keeps them.

    The upper 20 bits are the worker's instance, which the supervisor counts; the lower 33 are the worker's own count.
    """

    COUNT_BITS = 33

    def __init__(self, instance: int) -> None:
        self.next = instance << self.COUNT_BITS

    @classmethod
    def instance_of(cls, query_id: int) -> int:
        return query_id >> cls.COUNT_BITS


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the applications of a worker share."""

    predictor: Predictor
    ids: QueryIds
    random: Random
    store: Store
    committer: Committer
    joins: JoinTable


class Application:
    """Answers an application's queries.

    All queries have one SLO and so expire in order of arrival: one FIFO and one timer serve them all.
    """

    def __init__(self, snapshot: ApplicationSnapshot, surroundings: Surroundings) -> None:
        self.name = snapshot.name
        self.input_type = InputType.parse(snapshot.input_type)
        self.surroundings = surroundings
        self.counts = Counts()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Query] = deque()
        self._loading: dict[str, list[Query]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.contexts = self._make_contexts(snapshot)
        self._make_policy(snapshot)
        self.snapshot = snapshot
        self.follow(snapshot)

    def follow(self, snapshot: ApplicationSnapshot) -> None:
        """Serve by this snapshot from the next query on; call again whenever a model's current version changes."""
        if snapshot.selection != self.snapshot.selection or snapshot.id != self.snapshot.id:
            # What was learned lies in the store, and is read again: what a policy has worked out from it is not for
            # another policy to use.
            self.contexts = self._make_contexts(snapshot)
            self._make_policy(snapshot)
        self.snapshot = snapshot
        self._slo_s = snapshot.slo_ms / 1000
        self.budget_s = self._slo_s - min(self._slo_s * MARGIN_SHARE, MAX_MARGIN_S)
        self._bring_deadlines_forward()
        self._default = None if snapshot.default_output is None else snapshot.default_output.encode()
        self._threshold = snapshot.selection.confidence_threshold or 0.0
        self._feedback_ttl_s = snapshot.selection.feedback_ttl_s
        self.models = tuple(link.model for link in snapshot.links if not link.shadow)
        self._targets: dict[str, ModelQueue | None] = {
            link.model: self._find(link.model, link.version) for link in snapshot.links
        }
        self.shadows = tuple(link.model for link in snapshot.links if link.shadow)

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
        pinned = None if version is None else self._pinned(version)
        ids = self.surroundings.ids
        query = Query(self, asker, ids.next, row, context, arrival_s)
        ids.next += 1
        self.counts.queries += 1
        if pinned is not None:
            self._ask(query, *pinned)
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
        if self._feedback_ttl_s:
            self.surroundings.joins.remember(query, arrival_s + self._feedback_ttl_s)
        return query

    def finish(self, query: Query) -> None:
        """All selected models have answered, or the deadline has come: answer with what is there."""
        asker = query.asker
        query.done = True
        query.asker = None
        if asker is None:
            return
        self.counts.measure(self._loop.time() - query.arrival_s, self._slo_s)
        if not query.outputs or query.choice is None:
            self._answer_without(query, asker)
            return
        try:
            combined = self._combine(query.choice, query)
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self._answer_without(query, asker)
            return
        if combined.confidence < self._threshold:
            self.counts.defaults["low_confidence"] += 1
            asker.on_unsure(query.id, self._default or b"null", combined.output, combined.confidence)
            return
        query.output = combined.output
        asker.on_prediction(query.id, combined.output, combined.confidence)

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
        return self.contexts.totals(context if self._policy_learns else None)

    def select(self, totals: Totals, context: str | None, random: Random | None = None) -> Choice:
        """Have the policy select.

        Raises:
            PolicyFailed: the user's own policy raised, or returned no choice of this application's models.
        """
        if self._policy_problem is not None:
            raise PolicyFailed(self._policy_problem)
        try:
            choice = self.policy.select(self.models, totals, context, random or self.surroundings.random)
            if self._is_policy_own:
                _check_choice(choice, self.models)
        except Exception as error:  # whatever a user's code raises is the user's to read
            raise self._policy_failed("select", error) from error
        return choice

    def target(self, model: str) -> ModelQueue | None:
        """What answers for a linked model."""
        return self._targets.get(model)

    def _make_contexts(self, snapshot: ApplicationSnapshot) -> Contexts:
        selection = snapshot.selection
        store = self.surroundings.store
        contexts = Contexts(snapshot.id, store, selection.half_life, selection.prior_weight)
        self._keep(asyncio.ensure_future(contexts.load(None)))
        return contexts

    def _make_policy(self, snapshot: ApplicationSnapshot) -> None:
        """A policy of the user's that cannot be made makes every query a ``policy_error``, and stops nothing else."""
        selection = snapshot.selection
        self._policy_problem: str | None = None
        # What another policy did wrong is not for this one to be blamed for.
        self.counts.last_policy_error = None
        self._is_policy_own = selection.policy not in POLICIES
        try:
            self.policy: Policy = make_policy(selection.policy, selection.parameters, selection.code)
            self.loss = make_loss(selection.loss, selection.loss_parameters, selection.code)
        except InvalidArgument as error:
            self._policy_problem = self.counts.last_policy_error = str(error)
            self.policy, self.loss = make_policy("single"), make_loss("zero_one")
        self._policy_learns = self.policy.learns and self._policy_problem is None

    def _load_then_ask(self, query: Query, context: str | None) -> None:
        assert context is not None
        waiting = self._loading.get(context)
        if waiting is not None:
            waiting.append(query)
        elif len(self._loading) >= MAX_LOADS:
            self._select_and_ask(query, self.contexts.prior())
        else:
            self._loading[context] = [query]
            self._keep(asyncio.ensure_future(self.contexts.load(context)), lambda: self._loaded(context))
            self._loop.call_later(self.budget_s * LOAD_SHARE, self._loaded, context)

    def _loaded(self, context: str) -> None:
        """A context's state has come, or has taken too long."""
        for query in self._loading.pop(context, ()):
            if not query.done:
                self._select_and_ask(query, self.contexts.totals(context) or self.contexts.prior())

    def _select_and_ask(self, query: Query, totals: Totals) -> None:
        try:
            choice = self.select(totals, query.context)
        except PolicyFailed as error:
            query.failure = error.code, str(error)
            self.finish(query)
            return
        self._ask(query, choice, [self._targets[model] for model in choice.models])
        if self.shadows:
            self._ask_shadows(query)

    def _ask(self, query: Query, choice: Choice, targets: Sequence[ModelQueue | None]) -> None:
        query.choice = choice
        query.missing = len(choice.models)
        self.counts.selected[choice.models] += 1
        for model, target in zip(choice.models, targets):
            if target is None:
                explanation = f"model {model} has no version that runs and takes {self.input_type}"
                query.on_failure(model, "no_replica", explanation)
                continue
            output = target.predict(query.row, query, query.arrival_s, self._slo_s)
            if output is not None:
                query.on_output(model, output)

    def _ask_shadows(self, query: Query) -> None:
        query.shadow_outputs = {}
        for model in self.shadows:
            target = self._targets[model]
            if target is not None:
                output = target.predict(query.row, Shadow(query), query.arrival_s, self._slo_s)
                if output is not None:
                    query.shadow_outputs[model] = output

    def _combine(self, choice: Choice, query: Query) -> Combined:
        if len(choice.models) > 1:
            missing = [model for model in choice.models if model not in query.outputs]
            self.counts.missing.update(missing)
        totals = self.totals(query.context) or self.contexts.prior()
        try:
            combined = self.policy.combine(choice, query.outputs, totals)
            if self._is_policy_own:
                _check_combined(combined)
        except Exception as error:  # whatever a user's code raises is the user's to read
            raise self._policy_failed("combine", error) from error
        if len(choice.models) > 1:
            self.counts.confidence.observe(combined.confidence)
        return combined

    def _policy_failed(self, method: str, error: Exception) -> PolicyFailed:
        problem = f"policy {self.snapshot.selection.policy} failed in {method}: {type(error).__name__}: {error}"[:300]
        self.counts.policy_errors += 1
        self.counts.last_policy_error = problem
        return PolicyFailed(problem)

    def _keep(self, task: "asyncio.Task[None]", then: Callable[[], None] | None = None) -> None:
        # The loop itself keeps only weak references to tasks.
        self._tasks.add(task)

        def ended(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if then is not None:
                then()

        task.add_done_callback(ended)

    # -- models ------------------------------------------------------------------------------------------

    def _find(self, model: str, version: str | None) -> ModelQueue | None:
        """What runs and takes this application's rows as they are."""
        target = self.surroundings.predictor.find(model, version)
        return target if target is not None and self.input_type.suits(target.input_type) else None

    def _pinned(self, version: str) -> tuple[Choice, Sequence[ModelQueue]]:
        for model in self.models:
            target = self.surroundings.predictor.find(model, version)
            if target is None:
                continue
            if not self.input_type.suits(target.input_type):
                raise WrongInput(
                    f"{target.model} takes {target.input_type}, application {self.name} has {self.input_type}"
                )
            return Choice((model,), (1.0,)), (target,)
        raise NotFound(f"no model linked to application {self.name} has a version {version[:100]!r} that runs")

    # -- answers and deadlines ---------------------------------------------------------------------------

    def _answer_without(self, query: Query, asker: Asker) -> None:
        reason, explanation = query.failure or self._why_late(query)
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


class Shadow:
    """Takes a shadow model's output for a query, without which the answer does not wait."""

    __slots__ = ("_query", "deadline_s", "done")

    def __init__(self, query: Query) -> None:
        self._query = query
        self.deadline_s = query.deadline_s
        self.done = False

    def on_output(self, model: str, output: bytes) -> None:
        if self._query.shadow_outputs is not None:
            self._query.shadow_outputs[model] = output

    def on_failure(self, model: str, code: str, message: str) -> None:
        """Nobody waits for it."""


def _check_choice(choice: object, models: Sequence[str]) -> None:
    if not isinstance(choice, Choice) or not choice.models or len(choice.models) != len(choice.shares):
        raise InvalidArgument(f"it returned {choice!r}: expected a Choice of models with a share each")
    strangers = set(choice.models) - set(models)
    if strangers or len(set(choice.models)) != len(choice.models):
        raise InvalidArgument(f"it chose {choice.models}: expected some of {models}, each once")


def _check_combined(combined: object) -> None:
    if not isinstance(combined, Combined) or not isinstance(combined.output, bytes):
        raise InvalidArgument(f"it returned {combined!r}: expected a Combined of JSON text as bytes and a confidence")
    _check_json(combined.output)
    if not 0.0 <= combined.confidence <= 1.0:
        raise InvalidArgument(f"it returned a confidence of {combined.confidence!r}: expected 0 to 1")
