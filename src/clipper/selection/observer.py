"""Feedback on one application: joined with what was predicted, scored, and learned durably.

Models whose output is needed and not known are asked, behind all predictions: their work has a deadline seconds away,
and queues serve the earliest deadline first.
"""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from clipper.control.feedback import Feedback
from clipper.errors import InvalidArgument, NotFound, Overloaded, PolicyFailed, StoreUnavailable
from clipper.selection.application import Application
from clipper.selection.asked import Asked, AskedByName
from clipper.selection.feedback.outcomes import mixed
from clipper.selection.feedback.scoring import default_loss, lesson, loss_of_answer, score, shown_of_newcomers
from clipper.selection.learning.arms import Arms
from clipper.selection.learning.tally import Amount, Increments
from clipper.selection.policies.policy import Choice, Combined, JudgedQuery, Totals
from clipper.selection.query import Query
from clipper.selection.stores.store import EVERYONE, MIN_KEEP_S, Observation

# How long feedback may wait for models that are asked for its sake.
ASK_TIMEOUT_S = 5.0
# Pieces of feedback that models are being asked for at once in a worker: a small part of what a queue holds, so that
# it has room for predictions. Further ones wait.
MAX_ASKING = 1000
# Whose fault an answer's loss is that the models made.
_WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class _Learned:
    """What one piece of feedback teaches.

    Attributes:
        losses: by model, as the policy called it that chose.
        losses_shown: the same by the links' names of now, or by version where none means that version.
        answer_loss: of what the user got; None if feedback on it does not tell.
        reason: whose fault that is: ``wrong``, the models' output, or the code for which the answer was none of theirs.
        no_answer_loss: of what the user gets where no model answers.
        lessons: what to add, by context.
    """

    losses: dict[str, float]
    losses_shown: dict[str, float]
    answer_loss: float | None
    reason: str
    no_answer_loss: float
    lessons: dict[str | None, Increments]


class Observer:
    """Takes an application's feedback."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._loop = asyncio.get_running_loop()

    def observe(self, feedback: Feedback) -> "asyncio.Future[bool] | Coroutine[None, None, bool]":
        """Return, to be awaited, whether the feedback was new; it is then durable.

        Where nothing has to be waited for but the store, that is a future of the store's next batch, and no task.

        Raises:
            NotFound: the query is not known, or no longer; at once, as are
            InvalidArgument: the label or reward cannot be scored, or the context is not the query's.
            PolicyFailed: the user's own policy or loss failed.
            Overloaded: the store or the models have not kept up.

        Awaiting it raises the same, and ``StoreUnavailable``: nothing was learned, and it may be sent again.
        """
        query = self._find(feedback)
        context = feedback.context if query is None else query.context
        contexts = self._application.contexts
        totals = contexts.totals(context)
        if totals is None or not contexts.is_loaded:
            return self._observe_later(feedback, query, context)
        choice = self._choice(feedback, query, totals)
        outputs = self._known_outputs(feedback, query)
        if any(model not in outputs for model in self._needed(choice, feedback, query)):
            return self._observe_later(feedback, query, context)
        return self._learn(feedback, query, context, choice, outputs, totals)

    async def _observe_later(self, feedback: Feedback, query: Query | None, context: str | None) -> bool:
        totals = await self._loaded(context)
        choice = self._choice(feedback, query, totals)
        outputs = self._known_outputs(feedback, query)
        row = query.row if query is not None else feedback.row
        missing = [model for model in self._needed(choice, feedback, query) if model not in outputs]
        if missing and row is not None:
            await self._ask(missing, row, outputs)
            # By now others may have taken its place in memory.
            totals = await self._loaded(context)
        return await self._learn(feedback, query, context, choice, outputs, totals)

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

    async def _ask(self, models: Sequence[str], row: bytes, outputs: dict[str, bytes]) -> None:
        asking = self._application.surroundings.asking
        end_s = self._loop.time() + ASK_TIMEOUT_S
        try:
            async with asyncio.timeout_at(end_s):
                await asking.acquire()
        except TimeoutError as error:
            self._application.counts.feedback["failed"] += 1
            raise Overloaded(f"{MAX_ASKING} pieces of feedback are waiting for models to be asked") from error
        try:
            asked = Asked(outputs, end_s)
            self._send(models, row, asked)
            await asyncio.wait([asked.all_in], timeout=max(end_s - self._loop.time(), 0.0))
            asked.done = True
        finally:
            asking.release()

    def _send(self, models: Sequence[str], row: bytes, asked: Asked) -> None:
        now_s = self._loop.time()
        asked.missing = len(models)
        for model in models:
            target = self._application.target(model)
            if target is None:
                asked.on_failure(model, "no_replica", "")
                continue
            output = target.predict(row, AskedByName(asked, model), now_s, ASK_TIMEOUT_S, is_background=True)
            if output is not None:
                asked.on_output(model, output)

    def _learn(
        self,
        feedback: Feedback,
        query: Query | None,
        context: str | None,
        choice: Choice,
        outputs: Mapping[str, bytes],
        totals: Totals,
    ) -> "asyncio.Future[bool]":
        application = self._application
        contexts, committer = application.contexts, application.surroundings.committer
        committer.check_room()
        try:
            learned = self._score(feedback, query, context, choice, outputs, totals)
        except PolicyFailed as error:
            application.counts.fail_policy(str(error))
            raise
        entries = {each: contexts.begin(each, lesson) for each, lesson in learned.lessons.items()}
        committed = committer.submit(
            Observation(
                feedback.id,
                application.snapshot.id,
                {EVERYONE if each is None else each: amounts for each, amounts in entries.items()},
                max(MIN_KEEP_S, application.snapshot.selection.feedback_ttl_s),
            )
        )

        def remember(committed: "asyncio.Future[bool]") -> None:
            is_durable = not committed.cancelled() and committed.exception() is None
            was_added = is_durable and committed.result()
            for each, amounts in entries.items():
                contexts.end(each, amounts, was_added=was_added)
            if was_added:
                application.counts.learn(learned.losses_shown, learned.answer_loss, learned.reason)
                self._tell_outcome(feedback, query, learned.no_answer_loss)
                if application.decisions is not None and query is not None:
                    application.decisions.judge(
                        query.id, feedback.label, feedback.reward, learned.losses, learned.answer_loss
                    )
            else:
                application.counts.feedback["duplicate" if is_durable else "failed"] += 1

        committed.add_done_callback(remember)
        return committed

    def _score(
        self,
        feedback: Feedback,
        query: Query | None,
        context: str | None,
        choice: Choice,
        outputs: Mapping[str, bytes],
        totals: Totals,
    ) -> "_Learned":
        """What feedback teaches.

        Raises:
            InvalidArgument: the label or reward is not one that can be scored.
            PolicyFailed: the user's own policy or loss failed.
        """
        application = self._application
        policy, loss, outcomes = application.selector.policy, application.selector.loss, application.outcomes
        arms, confidences = application.arms if query is None else query.arms, application.confidences
        is_default = query is not None and query.output is None
        no_answer = default_loss(feedback, loss, application.default, was_answered=is_default)
        said = None if query is None else query.said
        if query is None:
            # Nobody waited for these outputs; how often they are in time when somebody does is known of queries.
            combined = self._combined(feedback, choice, outputs, totals)
            answer = None if combined is None else combined.output
            losses = score(feedback, loss, choice, outputs, no_answer, answer=answer)
            if combined is not None and confidences is not None:
                said = confidences.say(choice, combined)
            missed = {model: outcomes.missed_share(arms.key(model)) for model in losses}
            if policy.feedback == "selected":
                losses = mixed(losses, missed, no_answer)
            answer_loss, reason = None, _WRONG
            if answer is None or len(choice.models) == 1:
                would_lose = losses.get(choice.models[0])
            else:
                would_lose = loss_of_answer(feedback, loss, answer)
        else:
            missed = dict.fromkeys(query.missed(self._loop.time()), 1.0)
            lost = self._lost(choice, query, feedback, missed)
            known = {model: output for model, output in outputs.items() if model not in lost}
            answer_loss = no_answer if query.output is None else loss_of_answer(feedback, loss, query.output)
            # Where models are asked one after another, the user got an earlier one's output in place of a late one's.
            instead = no_answer if application.stages is None or answer_loss is None else answer_loss
            losses = score(feedback, loss, choice, known, instead, answer=query.output)
            would_lose, reason = answer_loss, query.reason or _WRONG
        prior = application.contexts.prior()
        is_reward = feedback.reward is not None and len(choice.models) > 1
        judged = self._judged(feedback, query, outputs)
        lessons: dict[str | None, Increments] = {
            each: arms.keyed(lesson(policy, choice, losses, known_then, judged, missed, is_reward=is_reward))
            for each, known_then in ({None: prior} if context is None else {None: prior, context: totals}).items()
        }
        if confidences is not None and confidences.calibrates and said is not None:
            lessons[None] = {**lessons[None], **confidences.taught(feedback, said, arms, query)}
        if arms.ramps and would_lose is not None:
            shown = shown_of_newcomers(arms, application.arms, application.forecasts, choice.models, would_lose)
            lessons[None] = {**lessons[None], **arms.keyed(shown)}
        return _Learned(losses, self._named(losses, arms), answer_loss, reason, no_answer, lessons)

    def make_up(self) -> None:
        """Learn of misses that no feedback tells of, as far as others like them have feedback: see ``Outcomes``.

        They teach what all have in common, which contexts begin with. It is done in the background, now and then:
        feedback on answers, which would be the occasion, does not come where all that is asked misses.
        """
        application = self._application
        policy, outcomes, contexts = application.selector.policy, application.outcomes, application.contexts
        committer = application.surroundings.committer
        if policy.feedback == "all" or not policy.learns or not contexts.is_loaded or not committer.has_room:
            return
        made_up = outcomes.make_up()
        increments: dict[tuple[str, str], Amount] = {}
        try:
            for each in made_up:
                seen = JudgedQuery(packed_features=each.features)
                taught = lesson(policy, each.choice, {each.name: each.loss}, contexts.prior(), seen, {each.name: 1.0})
                for key, amount in each.arms.keyed(taught).items():
                    increments[key] = increments.get(key, 0.0) + each.times * amount
                shown = shown_of_newcomers(
                    each.arms, application.arms, application.forecasts, each.choice.models, each.loss, each.times
                )
                for key, amount in each.arms.keyed(shown).items():
                    increments[key] = increments.get(key, 0.0) + amount
        except PolicyFailed as error:
            application.counts.fail_policy(str(error))
            return
        if not increments:
            return
        entries = contexts.begin(None, increments)
        observation = Observation(f"misses-{uuid4().hex}", application.snapshot.id, {EVERYONE: entries}, 0.0)
        committed = committer.submit(observation)

        def remember(committed: "asyncio.Future[bool]") -> None:
            was_added = not committed.cancelled() and committed.exception() is None
            contexts.end(None, entries, was_added=was_added)
            if not was_added:
                outcomes.take_back(made_up)

        committed.add_done_callback(remember)

    def _tell_outcome(self, feedback: Feedback, query: Query | None, no_answer_loss: float) -> None:
        outcomes = self._application.outcomes
        if feedback.label is not None and self._application.default is not None:
            outcomes.told_of_default(no_answer_loss)
        if query is None or query.choice is None:
            return
        missed: Collection[str] = query.choice.models
        if query.output is not None:
            outcomes.told_of_answer()
            missed = query.missed(self._loop.time()) if len(missed) > 1 else ()
        for model in missed:
            outcomes.told_of_miss(query.arms.key(model))

    def _find(self, feedback: Feedback) -> Query | None:
        if feedback.query_id is None:
            return None
        application = self._application
        query = application.surroundings.joins.find(feedback.query_id, self._loop.time())
        if query is None or query.application is not application:
            outcome, why = self._why_not(feedback.query_id, query)
            application.counts.feedback[outcome] += 1
            selection = application.snapshot.selection
            if (
                application.decisions is not None
                and query is None
                and application.decisions.judge_late(
                    feedback.query_id, feedback.label, feedback.reward, selection.loss, selection.loss_parameters
                )
            ):
                why += "; nothing is learned from it, but the decision log has it"
            raise NotFound(f"query {feedback.query_id} is not known to {application.name}: {why}")
        if feedback.context is not None and feedback.context != query.context:
            raise InvalidArgument(
                f"query {query.id} was asked in context {query.context!r}, its feedback names {feedback.context!r}: "
                "leave it out, or give the same"
            )
        return query

    def _why_not(self, query_id: int, query: Query | None) -> tuple[str, str]:
        """What to count feedback as whose query is not there, and what to say of it."""
        surroundings = self._application.surroundings
        ttl_s = self._application.feedback_ttl_s
        if query is not None:
            return "unknown", f"application {query.application.name} was asked it, or one of this name before it"
        if not surroundings.ids.has_given(query_id):
            return "unknown", "no worker that runs has given that id: it was never asked, or of a worker that has ended"
        if not ttl_s:
            return "late", "the application keeps no queries for feedback: its feedback_ttl_s is 0"
        why = surroundings.joins.why_not(query_id, ttl_s)
        if why == "over":
            return "late", f"it was asked longer ago than feedback is waited for (feedback_ttl_s: {ttl_s:g} s)"
        if why == "evicted":
            max_queries = surroundings.joins.max_queries
            return "evicted", (
                f"so many were asked since that it is kept no more: this worker keeps {max_queries} for feedback "
                "(--feedback-queries), or fewer where their outputs are large"
            )
        return "unknown", "it has not been answered, or its client went away first"

    def _choice(self, feedback: Feedback, query: Query | None, totals: Totals) -> Choice:
        """What was selected; for feedback on an input, or a query whose selection failed, what would be now."""
        if query is not None and query.choice is not None:
            return query.choice
        if not self._application.models:
            raise NotFound(f"application {self._application.name} has no linked model to learn about")
        return self._application.select(totals, self._judged(feedback, query, {}))

    def _judged(self, feedback: Feedback, query: Query | None, outputs: Mapping[str, bytes]) -> JudgedQuery:
        """What the policy sees of what the feedback is on."""
        input_type, label = self._application.input_type, feedback.label
        if query is not None:
            return JudgedQuery(query.context, query.features, query.row, input_type, outputs, label)
        row, features = feedback.row, feedback.features
        if row is not None and features is None:
            features = self._application.features_of(row)
        return JudgedQuery(feedback.context, features, row, input_type, outputs, label)

    def _known_outputs(self, feedback: Feedback, query: Query | None) -> dict[str, bytes]:
        if query is not None:
            return query.outputs | (query.shadow_outputs or {})
        application, row = self._application, feedback.row
        outputs: dict[str, bytes] = {}
        for model in application.models + application.newcomers + application.shadows:
            target = application.target(model)
            output = None if target is None or row is None else target.peek(row)
            if output is not None:
                outputs[model] = output
        return outputs

    def _needed(self, choice: Choice, feedback: Feedback, query: Query | None) -> Sequence[str]:
        """Whose outputs the feedback has to be scored on. A reward speaks of what was answered, and of no other."""
        application = self._application
        if feedback.reward is None and application.selector.policy.feedback == "all":
            return (*application.models, *(model for model in choice.models if model in application.newcomers))
        if query is None:
            return choice.models
        lost = self._lost(choice, query, feedback, query.missed(self._loop.time()))
        return [model for model in choice.models if model not in lost]

    def _lost(self, choice: Choice, query: Query, feedback: Feedback, missed: Collection[str]) -> Collection[str]:
        """Selected models whose output, whether it has come since or not, is nothing that the user got.

        A policy that learns from what was answered has them lose what the user got instead. One that learns from all
        outputs is told how right a late one was, and beside it that it was late.
        """
        if query.choice is None or (feedback.reward is None and self._application.selector.policy.feedback == "all"):
            return ()
        return choice.models if query.output is None else missed

    def _named(self, losses: Mapping[str, float], arms: Arms) -> dict[str, float]:
        """By the links' names, but for versions that no link asks, as one that a query named."""
        now = self._application.arms
        return {name if now.key(name) == arms.key(name) else arms.key(name): loss for name, loss in losses.items()}

    def _combined(
        self, feedback: Feedback, choice: Choice, outputs: Mapping[str, bytes], totals: Totals
    ) -> Combined | None:
        """What would be answered to an input now; None if nothing would, or nobody has to know."""
        application = self._application
        known = {model: outputs[model] for model in choice.models if model in outputs}
        is_asked_for = feedback.reward is not None or application.confidences is not None or application.newcomers
        if not known or not is_asked_for:
            return None
        return application.selector.combine(choice, known, totals, self._judged(feedback, None, known))
