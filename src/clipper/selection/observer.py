"""Feedback on one application: joined with what was predicted, scored, and learned durably.

Models whose output is needed and not known are asked, behind all predictions: their work has a deadline seconds away,
and queues serve the earliest deadline first.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence

from clipper.errors import NotFound
from clipper.feedback import Feedback
from clipper.selection.application import Application
from clipper.selection.feedback.scoring import lesson, score
from clipper.selection.policies.policy import Choice, Totals
from clipper.selection.query import Query
from clipper.selection.stores.store import EVERYONE, Observation

# How long feedback may wait for models that are asked for its sake; then it is scored on those that have answered.
ASK_TIMEOUT_S = 5.0


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
        """It is scored on the others."""
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
            InvalidArgument: the label or reward cannot be scored.
            PolicyFailed: the user's own policy or loss failed.
            Overloaded: the store has not kept up.

        Awaiting it raises the same, and ``StoreUnavailable``: nothing was learned, and it may be sent again.
        """
        application = self._application
        query = self._find(feedback)
        context = feedback.context if query is None else query.context
        totals = application.contexts.totals(context)
        if totals is None:
            return self._observe_later(feedback, query, context)
        choice = self._choice(query, totals, context)
        outputs = self._known_outputs(feedback, query)
        if any(model not in outputs for model in self._needed(choice, feedback)):
            return self._observe_later(feedback, query, context)
        return self._learn(feedback, query, context, choice, outputs, totals)

    async def _observe_later(self, feedback: Feedback, query: Query | None, context: str | None) -> bool:
        contexts = self._application.contexts
        totals = contexts.totals(context)
        if totals is None:
            await contexts.load(context)
            totals = contexts.totals(context) or contexts.prior()
        choice = self._choice(query, totals, context)
        outputs = self._known_outputs(feedback, query)
        row = query.row if query is not None else feedback.row
        missing = [model for model in self._needed(choice, feedback) if model not in outputs]
        if missing and row is not None:
            await self._ask(missing, row, outputs)
        return await self._learn(feedback, query, context, choice, outputs, totals)

    async def _ask(self, models: Sequence[str], row: bytes, outputs: dict[str, bytes]) -> None:
        now_s = self._loop.time()
        asked = Asked(outputs, now_s + ASK_TIMEOUT_S)
        targets = {model: self._application.target(model) for model in models}
        asked.missing = len(targets)
        for model, target in targets.items():
            if target is None:
                asked.on_failure(model, "no_replica", "")
                continue
            output = target.predict(row, asked, now_s, ASK_TIMEOUT_S)
            if output is not None:
                asked.on_output(model, output)
        await asyncio.wait([asked.all_in], timeout=ASK_TIMEOUT_S)
        asked.done = True

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
        contexts, policy = application.contexts, application.policy
        losses = score(feedback, application.loss, choice, outputs)
        entries = {EVERYONE: contexts.entries(None, lesson(policy, choice, losses, contexts.prior()))}
        if context is not None:
            entries[context] = contexts.entries(context, lesson(policy, choice, losses, totals))
        answer_loss = self._answer_loss(feedback, query)
        committed = application.surroundings.committer.submit(
            Observation(feedback.id, application.snapshot.id, entries)
        )

        def remember(committed: "asyncio.Future[bool]") -> None:
            if committed.cancelled() or committed.exception() is not None:
                application.counts.feedback["failed"] += 1
            elif committed.result():
                application.counts.learn(losses, answer_loss)
                for name, amounts in entries.items():
                    contexts.add(name or None, amounts)
            else:
                application.counts.feedback["duplicate"] += 1

        committed.add_done_callback(remember)
        return committed

    def _find(self, feedback: Feedback) -> Query | None:
        if feedback.query_id is None:
            return None
        query = self._application.surroundings.joins.find(feedback.query_id, self._loop.time())
        if query is None or query.application is not self._application:
            self._application.counts.feedback["unknown"] += 1
            raise NotFound(
                f"query {feedback.query_id} is not known to {self._application.name}: it was never asked, or longer "
                f"ago than feedback is waited for ({self._application.snapshot.selection.feedback_ttl_s:g} s)"
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
        if feedback.reward is not None or application.policy.feedback == "selected":
            return choice.models
        return application.models

    def _answer_loss(self, feedback: Feedback, query: Query | None) -> float | None:
        """How wrong the answer was that left, for regret; None if there was none or it is not known."""
        if query is None or query.output is None:
            return None
        if feedback.label is None:
            return None if feedback.reward is None else 1.0 - feedback.reward
        return self._application.loss(query.output, feedback.label)
