"""Feedback on one application: joined with what was predicted, scored, and learned durably.

Models whose output is needed and not known are asked, behind all predictions: their work has a deadline seconds away,
and queues serve the earliest deadline first.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence

from clipper.errors import InvalidArgument, NotFound, Overloaded, PolicyFailed, StoreUnavailable
from clipper.feedback import Feedback
from clipper.selection.application import Application
from clipper.selection.feedback.scoring import lesson, score
from clipper.selection.learning.tally import Increments
from clipper.selection.policies.policy import Choice, Totals
from clipper.selection.query import Query
from clipper.selection.stores.store import EVERYONE, MIN_KEEP_S, Observation

# How long feedback may wait for models that are asked for its sake; then selected ones that have not answered count as
# wrong.
ASK_TIMEOUT_S = 5.0
# Pieces of feedback that models are being asked for at once in a worker: a small part of what a queue holds, so that
# it has room for predictions. Further ones wait.
MAX_ASKING = 1000


class Asked:
    """Waits for models that are asked for feedback's sake. ``outputs`` fills up; ``all_in`` is then done."""

    def __init__(self, outputs: dict[str, bytes], deadline_s: float) -> None:
        self.outputs = outputs
        self.deadline_s = deadline_s
        self.done = False
        self.missing = 0
        self.all_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_output(self, model: str, output: bytes) -> None:
        self.outputs[model] = output
        self._arrived()

    def on_failure(self, model: str, code: str, message: str) -> None:
        """What it counts for is ``score``'s to say."""
        self._arrived()

    def _arrived(self) -> None:
        self.missing -= 1
        if not self.missing and not self.all_in.done():
            self.all_in.set_result(None)


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
        choice = self._choice(query, totals, context)
        outputs = self._known_outputs(feedback, query)
        if any(model not in outputs for model in self._needed(choice, feedback)):
            return self._observe_later(feedback, query, context)
        return self._learn(feedback, query, context, choice, outputs, totals)

    async def _observe_later(self, feedback: Feedback, query: Query | None, context: str | None) -> bool:
        totals = await self._loaded(context)
        choice = self._choice(query, totals, context)
        outputs = self._known_outputs(feedback, query)
        row = query.row if query is not None else feedback.row
        missing = [model for model in self._needed(choice, feedback) if model not in outputs]
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
            output = target.predict(row, asked, now_s, ASK_TIMEOUT_S, is_background=True)
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
        losses, lessons, answer_loss = self._score(feedback, query, context, choice, outputs, totals)
        entries = {each: contexts.begin(each, lesson) for each, lesson in lessons.items()}
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
                application.counts.learn(losses, answer_loss)
                if application.decisions is not None and query is not None:
                    application.decisions.judge(query.id, feedback.label, feedback.reward, losses, answer_loss)
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
    ) -> tuple[dict[str, float], dict[str | None, Increments], float | None]:
        """The models' losses, what they teach the application and the context, and the answer's loss."""
        application = self._application
        try:
            losses = score(feedback, application.selector.loss, choice, outputs)
            prior = application.contexts.prior()
            lessons: dict[str | None, Increments] = {None: lesson(application.selector.policy, choice, losses, prior)}
            if context is not None:
                lessons[context] = lesson(application.selector.policy, choice, losses, totals)
            return losses, lessons, self._answer_loss(feedback, query)
        except PolicyFailed as error:
            application.counts.fail_policy(str(error))
            raise

    def _find(self, feedback: Feedback) -> Query | None:
        if feedback.query_id is None:
            return None
        application = self._application
        query = application.surroundings.joins.find(feedback.query_id, self._loop.time())
        if query is None or query.application is not application:
            was_asked = application.surroundings.ids.has_given(feedback.query_id)
            application.counts.feedback["late" if was_asked else "unknown"] += 1
            selection, is_logged = application.snapshot.selection, False
            if application.decisions is not None and query is None:
                is_logged = application.decisions.judge_late(
                    feedback.query_id, feedback.label, feedback.reward, selection.loss, selection.loss_parameters
                )
            raise NotFound(
                f"query {feedback.query_id} is not known to {application.name}: it was never asked, or longer "
                f"ago than feedback is waited for ({selection.feedback_ttl_s:g} s)"
                + ("; nothing is learned from it, but the decision log has it" if is_logged else "")
            )
        if feedback.context is not None and feedback.context != query.context:
            raise InvalidArgument(
                f"query {query.id} was asked in context {query.context!r}, its feedback names {feedback.context!r}: "
                "leave it out, or give the same"
            )
        return query

    def _choice(self, query: Query | None, totals: Totals, context: str | None) -> Choice:
        """What was selected; for feedback on an input, or a query whose selection failed, what would be now."""
        if query is not None and query.choice is not None:
            return query.choice
        if not self._application.models:
            raise NotFound(f"application {self._application.name} has no linked model to learn about")
        return self._application.select(totals, context)

    def _known_outputs(self, feedback: Feedback, query: Query | None) -> dict[str, bytes]:
        if query is not None:
            return query.outputs | (query.shadow_outputs or {})
        application, row = self._application, feedback.row
        outputs: dict[str, bytes] = {}
        for model in application.models + application.shadows:
            target = application.target(model)
            output = None if target is None or row is None else target.peek(row)
            if output is not None:
                outputs[model] = output
        return outputs

    def _needed(self, choice: Choice, feedback: Feedback) -> Sequence[str]:
        """Whose outputs the feedback has to be scored on. A reward speaks of what was answered, and of no other."""
        application = self._application
        if feedback.reward is not None or application.selector.policy.feedback == "selected":
            return choice.models
        return application.models

    def _answer_loss(self, feedback: Feedback, query: Query | None) -> float | None:
        """How wrong the answer was that left, for regret; None if there was none or it is not known."""
        if query is None or query.output is None:
            return None
        if feedback.label is None:
            return None if feedback.reward is None else 1.0 - feedback.reward
        return self._application.selector.loss(query.output, feedback.label)
