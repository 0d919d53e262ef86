"""One query of an application: who asked it, what was asked for it, and what has come of it."""

from typing import TYPE_CHECKING, Protocol

from clipper.selection.policies.policy import Choice

if TYPE_CHECKING:
    from clipper.selection.application import Application


class Asker(Protocol):
    """Who asked a query, and gets exactly one of these calls, on the event loop."""

    def on_prediction(self, query_id: int, output: bytes, confidence: float) -> None:
        """``output`` is JSON text."""

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        """The application's default, and why there is nothing better."""

    def on_unsure(self, query_id: int, output: bytes, unsure: bytes, confidence: float) -> None:
        """The default, since the answer ``unsure`` has less confidence than the application asks for."""

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        """As ``on_default``, where the application has no default."""


class Query:
    """One query, in flight and then, until its time is over, waiting for feedback. It is the ``Waiter`` of its work.

    Attributes:
        row: the input's raw buffer.
        choice: what the policy selected; None if it has not, or could not.
        outputs: JSON text by model, of those that were selected; late ones come in after the answer.
        shadow_outputs: the same of the application's shadow models; None while there is none.
        missing: how many of the selected models have neither answered nor failed.
        failure: code and message of the last model that failed.
        output: the answer, if there was one that was no default.
    """

    __slots__ = (
        "application",
        "arrival_s",
        "asker",
        "choice",
        "context",
        "deadline_s",
        "done",
        "failure",
        "id",
        "missing",
        "output",
        "outputs",
        "row",
        "shadow_outputs",
    )

    def __init__(
        self, application: "Application", asker: Asker, query_id: int, row: bytes, context: str | None, arrival_s: float
    ) -> None:
        self.application = application
        self.asker: Asker | None = asker
        self.id = query_id
        self.row = row
        self.context = context
        self.arrival_s = arrival_s
        self.deadline_s = arrival_s + application.budget_s
        self.done = False
        self.missing = 0
        self.outputs: dict[str, bytes] = {}
        self.shadow_outputs: dict[str, bytes] | None = None
        self.output: bytes | None = None
        self.failure: tuple[str, str] | None = None
        self.choice: Choice | None = None

    def on_output(self, model: str, output: bytes) -> None:
        self.outputs[model] = output
        self.missing -= 1
        if self.done:
            self.application.keep_late(self, output)
        elif not self.missing:
            self.application.finish(self)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self.failure = code, message
        self.missing -= 1
        if not self.missing and not self.done:
            self.application.finish(self)

    def cancel(self) -> None:
        """Nobody wants the answer any more: its work is dropped before it is sent."""
        self.done = True
        self.asker = None


class Shadow:
    """Takes a shadow model's output for a query, without which the answer does not wait."""

    __slots__ = ("_query", "deadline_s", "done")

    def __init__(self, query: Query) -> None:
        self._query = query
        self.deadline_s = query.deadline_s
        self.done = False

    def on_output(self, model: str, output: bytes) -> None:
        query = self._query
        if query.shadow_outputs is None:
            query.shadow_outputs = {}
        query.shadow_outputs[model] = output
        if query.done:
            query.application.keep_late(query, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        """Nobody waits for it."""
