"""Learns from an application's feedback: joins it with the prediction, scores it, and commits it durably.

Models whose output is needed but unknown are asked as background work, so that predictions go first.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from clipper.control.feedback import Feedback
from clipper.errors import (
    ClipperError,
    InvalidArgument,
    NotFound,
    OutputTooLarge,
    Overloaded,
    PolicyFailed,
    StoreUnavailable,
)
from clipper.learning.mathematics.totals import TELLS_PICKED, Amount, Key, Keyed
from clipper.learning.mathematics.weighing import has_begun, weighed
from clipper.learning.policies.policy import JudgedQuery, Totals
from clipper.learning.stores.store import EVERYONE, MIN_KEEP_S, Observation
from clipper.values.outputs.output import Output, is_readable
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.outcomes import MadeUp
from clipper.worker.selection.feedback.picking import weights_of
from clipper.worker.selection.feedback.scoring import lesson, shown_of_newcomers
from clipper.worker.selection.lessons import TOO_LARGE_TO_COMPARE, Joined, Scored, join, learn, missing_models
from clipper.worker.selection.query import Path, Query
from clipper.worker.telemetry.trace_context import SpanContext

log = logging.getLogger(__name__)

# Takes whether a piece of feedback was new, now that it is learned and durable, or why it is not.
Tell = Callable[[bool | ClipperError], None]

# Feedback may wait this long for models that are asked to score it.
ASK_TIMEOUT_S = 5.0
# The most pieces of feedback in a worker for which models are asked at once: a small part of a queue's bound, so that
# predictions have room. Further pieces wait.
MAX_ASKING = 1000


class Learner:
    """Learns from an application's feedback. ``recalled``: queries of workers that have ended, from ``Remembering``."""

    def __init__(self, application: Application, recalled: Mapping[int, Query] | None = None) -> None:
        self._application = application
        self._recalled = recalled
        self._loop = asyncio.get_running_loop()

    async def read_contexts(self, feedback: Sequence[Feedback]) -> None:
        """Read the contexts of feedback that are not in memory, many at once.

        It is no error here if the store cannot be read: a later step that needs a context tries again.
        """
        queries = (None if each.query_id is None else self._known(each.query_id) for each in feedback)
        named = (each.context if query is None else query.context for each, query in zip(feedback, queries))
        contexts = self._application.contexts
        with suppress(StoreUnavailable):
            await contexts.load_many(contexts.missing(named))

    def learn(self, feedback: Feedback, tell: Tell) -> "asyncio.Task[None] | None":
        """Learn from feedback, and ``tell`` whether it was new once it is durable.

        Returns the task that learns, which the caller holds until its end, if models or contexts have to be waited for.
        Mostly there is none: a worker may have thousands of pieces under way.

        Feedback on a step of a pipeline is that step's application's to learn.

        Raises NotFound if the query is not known, or no longer known, InvalidArgument if the label or reward cannot be
        scored, or the context is not the query's, PolicyFailed if the user's own policy or loss failed, OutputTooLarge
        if an output is too large to be compared with the label, and Overloaded if the store or the models do not keep
        up. If it raises, it does not tell. A later piece may be the same, or ``StoreUnavailable``: nothing was
        learned; send it again.
        """
        application = self._application
        query = self._find(feedback)
        if query is not None and feedback.step is not None:
            step, query_id = self._asked_by(feedback.step, query)
            on_step = Feedback(feedback.id, query_id=query_id, label=feedback.label, reward=feedback.reward)
            return Learner(step, self._recalled).learn(on_step, tell)
        context = feedback.context if query is None else query.context
        totals = application.contexts.totals(context)
        # Steps of a pipeline are taught, too.
        is_simple = query is None or query.path is None
        if totals is not None and application.contexts.is_loaded and is_simple:
            joined = join(application, feedback, query, context, totals)
            if not missing_models(application, joined, self._loop.time()):
                self._commit(joined, tell)
                return None
        return self._loop.create_task(self._learn_later(feedback, query, context, tell))

    async def _learn_later(self, feedback: Feedback, query: Query | None, context: str | None, tell: Tell) -> None:
        application = self._application
        try:
            joined = join(application, feedback, query, context, await self._loaded(context))
            row = feedback.row if query is None else query.row
            missing = missing_models(application, joined, self._loop.time())
            if missing and row is not None:
                await self._ask(missing, row, joined)
                # While models were asked, the context may have been evicted from memory.
                joined = replace(joined, totals=await self._loaded(context))
            if query is None or query.path is None or query.output is None:
                self._commit(joined, tell)
                return
            told: asyncio.Future[bool | ClipperError] = self._loop.create_future()
            scored = self._commit(joined, told.set_result)
            await self._teach_steps(query.path, feedback, scored.answer_loss)
            tell(await told)
        except ClipperError as error:
            tell(error)
        except Exception as error:  # a bug in Clipper: whoever waits is told
            name = application.name
            log.exception("failed to observe feedback for application %(application)s", {"application": name})
            tell(ClipperError(f"{type(error).__name__}: {error}"))

    def _asked_by(self, name: str, query: Query) -> tuple[Application, int]:
        """Return the application that a step of a query asked, and the id of its query there."""
        asked = {} if query.path is None else {step: (of_step, id_) for step, of_step, id_ in query.path.queries}
        if name not in asked:
            known = f"expected {', '.join(asked)}" if asked else "it asked no step so, and feedback on it names none"
            raise InvalidArgument(f"query {query.id} did not ask step {name!r:.100} exactly once: {known}")
        step = self._application.surroundings.applications.get(asked[name][0])
        if not isinstance(step, Application):
            raise NotFound(f"application {asked[name][0]!r} of step {name!r} was removed")
        return step, asked[name][1]

    async def _teach_steps(self, path: Path, feedback: Feedback, loss: float | None) -> None:
        """Teach the steps of a pipeline the loss of its answer: a reward for the models that each step selected."""
        if loss is None:
            return
        reward = 1.0 - min(max(loss, 0.0), 1.0)
        for _, name, query_id in path.queries:
            step = self._application.surroundings.applications.get(name)
            # A step that was replaced, or whose query was evicted, has nothing to learn about; and a policy's own
            # failure is counted there.
            with suppress(NotFound, InvalidArgument, OutputTooLarge, PolicyFailed):
                if isinstance(step, Application):
                    told: asyncio.Future[bool | ClipperError] = self._loop.create_future()
                    observation = Feedback(feedback.id, query_id=query_id, reward=reward)
                    task = Learner(step, self._recalled).learn(observation, told.set_result)
                    if task is not None:
                        await task
                    if isinstance(result := await told, ClipperError):
                        raise result

    async def _loaded(self, context: str | None) -> Totals:
        contexts = self._application.contexts
        try:
            if not contexts.is_loaded:
                await contexts.load(None)
            totals = contexts.totals(context)
            while totals is None:
                await contexts.load(context)
                totals = contexts.totals(context)
        except StoreUnavailable:
            self._application.counts.feedback["failed"] += 1
            raise
        return totals

    async def _ask(self, models: Sequence[str], row: bytes, joined: Joined) -> None:
        asking = self._application.surroundings.asking
        end_s = self._loop.time() + ASK_TIMEOUT_S
        try:
            async with asyncio.timeout_at(end_s):
                await asking.acquire()
        except TimeoutError as error:
            self._application.counts.feedback["failed"] += 1
            raise Overloaded(
                f"{MAX_ASKING} pieces of feedback wait for models to be asked: try again in a moment"
            ) from error
        try:
            asked = _Outputs(joined, len(models), end_s, self._application.terms.judged)
            self._send(models, row, asked)
            await asyncio.wait([asked.all_in], timeout=max(end_s - self._loop.time(), 0.0))
            asked.done = True
        finally:
            asking.release()
        if asked.has_large:
            raise OutputTooLarge(TOO_LARGE_TO_COMPARE)

    def _send(self, models: Sequence[str], row: bytes, asked: "_Outputs") -> None:
        now_s, source = self._loop.time(), self._application.name
        for model in models:
            target = self._application.terms.targets.get(model)
            if target is None:
                asked.came(model, None)
                continue
            output = target.predict(row, _Waiter(asked, model), now_s, ASK_TIMEOUT_S, source, is_background=True)
            if output is not None:
                asked.came(model, output)

    def _commit(self, joined: Joined, tell: Tell) -> Scored:
        """Commit the lessons, and add them to memory once the store has them. Return the losses."""
        application, feedback = self._application, joined.feedback
        contexts, committer = application.contexts, application.surroundings.committer
        committer.check_room()
        try:
            scored, lessons = learn(application, joined, self._loop.time())
        except PolicyFailed as error:
            application.counts.fail_policy(str(error))
            raise
        entries = {each: contexts.begin(each, lesson) for each, lesson in lessons.items()}
        committer.submit(
            Observation(
                feedback.id or None,
                application.snapshot.id,
                {EVERYONE if each is None else each: amounts for each, amounts in entries.items()},
                max(MIN_KEEP_S, application.snapshot.selection.feedback_ttl_s),
            ),
            # The commit waits for the disk, so it holds no more than it needs.
            _Commit(application, feedback, joined.query, scored, entries, tuple(entries), tell),
        )
        return scored

    def make_up(self) -> None:
        """Learn from misses without feedback, as far as similar misses have feedback: see ``Outcomes``.

        They are evidence on newcomers, and teach a user's own policy; Clipper's own learn quality and time apart. They
        teach the application's state, which contexts begin with. This runs periodically in the background: if all
        models that are asked miss, there is no feedback on answers that could trigger it.
        """
        application = self._application
        terms, outcomes, contexts = application.terms, application.outcomes, application.contexts
        policy = terms.selector.policy
        committer = application.surroundings.committer
        learns = terms.selector.learns and policy.feedback != "all"
        if not learns or not contexts.is_loaded or not committer.has_room:
            return
        made_up, prior = outcomes.make_up(), contexts.prior()
        increments: dict[Key, Amount] = {}
        try:
            for each in made_up:
                seen, losses = JudgedQuery(packed_features=each.features), {each.name: each.loss}
                # The contexts of misses are not kept.
                is_picked = terms.selector.goes_by == "query" or has_begun(prior, each.arms.lineup)
                taught: Keyed = {}
                if not terms.selector.weighs_time:
                    taught = lesson(policy, each.choice, losses, prior, seen, {each.name: 1.0}, is_picked=is_picked)
                if taught and is_picked:
                    weights = weights_of(each.choice, (), application.surroundings.random)
                    taught = {**taught, **weighed(losses, weights, each.arms.lineup, each.arms.names, prior)}
                for key, amount in each.arms.keyed(taught).items():
                    increments[key] = increments.get(key, 0.0) + each.times * amount
                shown = shown_of_newcomers(
                    each.arms, terms.arms, application.forecasts, each.choice.models, each.loss, each.times
                )
                for key, amount in each.arms.keyed(shown).items():
                    increments[key] = increments.get(key, 0.0) + amount
        except PolicyFailed as error:
            application.counts.fail_policy(str(error))
            return
        if not increments:
            return
        if not prior.observations:
            increments["", TELLS_PICKED] = 1.0
        entries = contexts.begin(None, increments)
        made_up_commit = _MadeUp(application, made_up, entries)
        committer.submit(Observation(None, application.snapshot.id, {EVERYONE: entries}, 0.0), made_up_commit)

    def _known(self, query_id: int) -> Query | None:
        query = self._application.surroundings.joins.find(query_id, self._loop.time())
        return self._recalled.get(query_id) if query is None and self._recalled is not None else query

    def _find(self, feedback: Feedback) -> Query | None:
        if feedback.query_id is None:
            return None
        application = self._application
        query = self._known(feedback.query_id)
        if query is None or query.owner is not application.answering:
            outcome, why = self._why_not(feedback.query_id, query)
            application.counts.feedback[outcome] += 1
            selection, decisions = application.snapshot.selection, application.terms.decisions
            late = feedback.query_id, feedback.label, feedback.reward, selection
            if query is None and decisions is not None and decisions.judge_late(*late):
                why += "; the feedback was not learned, but the decision log has it"
            raise NotFound(f"query {feedback.query_id} is not known to {application.name}: {why}")
        if feedback.context is not None and feedback.context != query.context:
            raise InvalidArgument(
                f"query {query.id} has context {query.context!r}, but its feedback has {feedback.context!r}: "
                "leave the context out, or send the query's"
            )
        return query

    def _why_not(self, query_id: int, query: Query | None) -> tuple[str, str]:
        """Return how to count feedback whose query is not found, and the reason for the client."""
        surroundings = self._application.surroundings
        ttl_s = self._application.terms.feedback_ttl_s
        if query is not None:
            return "unknown", f"the query was for application {query.owner.name}, or for an earlier one of this name"
        if not surroundings.ids.has_given(query_id):
            return "unknown", "no running worker has given this id: the query was never asked, or its worker has ended"
        if not ttl_s:
            return "late", "the application keeps no queries for feedback: its feedback_ttl_s is 0"
        why = surroundings.joins.why_not(query_id, ttl_s)
        if why == "over":
            return (
                "late",
                f"it was asked longer ago than the application waits for feedback (feedback_ttl_s: {ttl_s:g} s)",
            )
        if why == "evicted":
            max_queries = surroundings.joins.max_queries
            return "evicted", (
                f"the query was evicted, since many came after it: this worker keeps {max_queries} for feedback "
                "(--feedback-queries), or fewer if their outputs are large"
            )
        return "unknown", "it has not been answered, or was shed unread as overloaded, or its client disconnected first"


class _Outputs:
    """Gathers the outputs, as texts, of models that are asked for a piece of feedback, until a deadline.

    ``all_in`` is done once every model has answered or failed. ``has_large``: whether an output has come that is too
    large to be compared with a label.
    """

    def __init__(self, joined: Joined, missing: int, deadline_s: float, judged: Callable[[Output], bytes]) -> None:
        self._joined, self.missing, self.deadline_s, self._judged = joined, missing, deadline_s, judged
        self.done = self.has_large = False
        self.all_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def came(self, model: str, output: Output | None) -> None:
        """Take a model's output; None if it failed. Scoring decides what a missing output means."""
        if output is not None and is_readable(output):
            self._joined.outputs[model], self._joined.wholes[model] = self._judged(output), output
        elif output is not None:
            self.has_large = True
        self.missing -= 1
        if not self.missing and not self.all_in.done():
            self.all_in.set_result(None)


class _Waiter:
    """Waits for a model's output. ``name``: the model's name in the policy."""

    __slots__ = ("_name", "_outputs", "may_wait", "span")

    def __init__(self, outputs: _Outputs, name: str) -> None:
        self._outputs, self._name = outputs, name
        self.may_wait = False
        self.span: SpanContext | None = None  # feedback is not traced

    @property
    def done(self) -> bool:
        return self._outputs.done

    @property
    def deadline_s(self) -> float:
        return self._outputs.deadline_s

    def on_output(self, model: str, output: Output) -> None:
        self._outputs.came(self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self._outputs.came(self._name, None)


@dataclass(slots=True, eq=False)
class _Commit:
    """A piece of feedback on its way to the store, to memory and to its sender.

    Attributes:
        entries: the additions by context, until memory has them.
        contexts: the contexts that it is added to.
        tell: tells its sender.
    """

    application: Application
    feedback: Feedback
    query: Query | None
    scored: Scored
    entries: dict[str | None, dict[str, Amount]]
    contexts: tuple[str | None, ...]
    tell: Tell

    def remember(self, was_added: bool) -> None:
        """Take the store's answer: add the feedback to memory, too, if the store has it."""
        for context, amounts in self.entries.items():
            self.application.contexts.end(context, amounts, was_added=was_added)
        self.entries = {}

    def acknowledge(self, result: bool | ClipperError) -> None:
        """Count the feedback, once it is on disk or has failed, and tell its sender."""
        try:
            if isinstance(result, ClipperError):
                self.application.contexts.doubt(self.contexts)
                self.application.counts.feedback["failed"] += 1
            elif result:
                self._count()
            else:
                self.application.counts.feedback["duplicate"] += 1
        finally:
            self.tell(result)

    def _count(self) -> None:
        application, feedback, query, scored = self.application, self.feedback, self.query, self.scored
        application.counts.learn(
            scored.losses_shown, scored.answer_loss, scored.reason, scored.weights, scored.context_loss
        )
        if query is not None and scored.answer_loss is not None:
            application.prices.scored(scored.answer_loss)
        self._tell_outcome()
        decisions = application.terms.decisions
        if decisions is not None and query is not None:
            decisions.judge(query.id, feedback.label, feedback.reward, scored.losses, scored.answer_loss)

    def _tell_outcome(self) -> None:
        outcomes, query = self.application.outcomes, self.query
        if self.feedback.label is not None and self.application.terms.default is not None:
            outcomes.told_of_default(self.scored.no_answer_loss)
        if query is None or query.choice is None:
            return
        missed: Collection[str] = query.choice.models
        if query.output is not None:
            outcomes.told_of_answer()
            missed = query.missed(asyncio.get_running_loop().time()) if len(missed) > 1 else ()
        for model in missed:
            if not self.application.answering.excuses(query, model):
                outcomes.told_of_miss(query.arms.key(model))


@dataclass(slots=True, eq=False)
class _MadeUp:
    """The lesson of misses without feedback, on its way to the store and to memory. No client waits for it."""

    application: Application
    outcomes: Sequence[MadeUp]
    entries: dict[str, Amount]

    def remember(self, was_added: bool) -> None:
        self.application.contexts.end(None, self.entries, was_added=was_added)
        if not was_added:
            self.application.outcomes.take_back(self.outcomes)

    def acknowledge(self, result: bool | ClipperError) -> None:
        """Do nothing: it is in the store, or ``remember`` has taken it back."""
