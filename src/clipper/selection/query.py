"""One query of an application: who asked it, what was asked for it, and what has come of it."""

from typing import TYPE_CHECKING, Protocol

import msgspec

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


class Query(msgspec.Struct, gc=False, eq=False):
    """One query, in flight and then, until its time is over, waiting for feedback. It is the ``Waiter`` of its work.

    The garbage collector does not look at it, as at ``Work``: it knows its asker until it is answered, and no longer.

    Attributes:
        row: the input's raw buffer.
        first_model, first_output: of those that were selected, the one that has answered first, and its JSON text.
        more_outputs: those of the others by model; late ones come in after the answer. Most queries have none.
        missing: how many of the selected models have neither answered nor failed.
        choice: what the policy selected; None if it has not, or could not.
        shadow_outputs: the same of the application's shadow models; None while there is none.
        failure: code and message of the last model that failed.
        output: the answer, if there was one that was no default.
        pinned: the version that was asked for, past the policy.
        confidence: in the answer.
        reason: why there was a default or an error, once it was answered so.
    """

    application: "Application"
    asker: Asker | None
    id: int
    row: bytes
    context: str | None
    arrival_s: float
    deadline_s: float
    pinned: str | None = None
    first_model: str | None = None
    first_output: bytes | None = None
    more_outputs: dict[str, bytes] | None = None
    missing: int = 0
    done: bool = False
    choice: Choice | None = None
    shadow_outputs: dict[str, bytes] | None = None
    output: bytes | None = None
    failure: tuple[str, str] | None = None
    confidence: float = 1.0
    reason: str | None = None

    @property
    def outputs(self) -> dict[str, bytes]:
        """What has come so far, by model: a new dict."""
        if self.first_model is None or self.first_output is None:
            return {}
        return {self.first_model: self.first_output, **(self.more_outputs or {})}

    def on_output(self, model: str, output: bytes) -> None:
        if self.first_model is None:
            self.first_model, self.first_output = model, output
        elif self.more_outputs is None:
            self.more_outputs = {model: output}
        else:
            self.more_outputs[model] = output
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
