"""One query of an application: who asked it, what was asked for it, and what has come of it."""

from typing import Protocol

import msgspec

from clipper.selection.confidence import Said
from clipper.selection.learning.arms import NO_ARMS, Arms
from clipper.selection.policies.policy import Choice, QueryView
from clipper.types import InputType


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


class Owner(Protocol):
    """What an output or a failure is told to: see ``answering.Answering``, where a query's state changes.

    Attributes:
        name: the application's.
        feedback_ttl_s: for how long its queries are kept for feedback.
    """

    name: str
    feedback_ttl_s: float
    input_type: InputType

    def output_came(self, query: "Query", model: str, output: bytes) -> None: ...

    def failed(self, query: "Query", model: str, code: str, message: str) -> None: ...

    def shadow_came(self, query: "Query", name: str, output: bytes) -> None: ...


class Query(msgspec.Struct, gc=False, eq=False):
    """One query, in flight and then, until its time is over, waiting for feedback. It is the ``Waiter`` of its work.

    The garbage collector does not look at it, as at ``Work``: it knows its asker until it is answered, and no longer.

    Attributes:
        row: the input's raw buffer; None once no model can be asked it any more.
        first_model, first_output: of those that were selected, the one that has answered first, and its JSON text.
        more_outputs: those of the others by model; late ones come in after the answer. Most queries have none.
        missing: how many of the selected models have neither answered nor failed.
        in_time: how many outputs came by the deadline: the first, since they are kept in the order in which they came.
        choice: what the policy selected; None if it has not, or could not.
        arms: which versions it asked.
        shadow_outputs: the same of the application's shadow models; None while there is none.
        lost: selected models that have failed; None if none has.
        is_settled: it left before its deadline, since what was missing could not change it.
        stage: how often it has asked: 1, and one more each time that the policy went on.
        is_asked: whether all of the selected have been asked, so that it may leave without some.
        failure: code and message of the last model that failed.
        output: the answer, if there was one that was no default.
        said: what its models answered, believed or not; None where nobody has to know.
        confidence: in the answer.
        reason: why there was none; None if there was.
        pinned: the version that was asked for, past the policy.
        features: raw buffer of the float64 numbers that came with it for its policy.
    """

    owner: Owner
    asker: Asker | None
    id: int
    row: bytes | None
    context: str | None
    arrival_s: float
    deadline_s: float
    pinned: str | None = None
    features: bytes | None = None
    first_model: str | None = None
    first_output: bytes | None = None
    more_outputs: dict[str, bytes] | None = None
    missing: int = 0
    in_time: int = 0
    done: bool = False
    choice: Choice | None = None
    arms: Arms = NO_ARMS
    shadow_outputs: dict[str, bytes] | None = None
    output: bytes | None = None
    lost: set[str] | None = None
    stage: int = 1
    is_asked: bool = False
    is_settled: bool = False
    failure: tuple[str, str] | None = None
    said: Said | None = None
    confidence: float = 1.0
    reason: str | None = None

    @property
    def raw_confidence(self) -> float | None:
        """What the models seemed sure of, where ``confidence`` is made of that."""
        return None if self.said is None else self.said.confidence

    @property
    def outputs(self) -> dict[str, bytes]:
        """What has come so far, by model: a new dict."""
        if self.first_model is None or self.first_output is None:
            return {}
        return {self.first_model: self.first_output, **(self.more_outputs or {})}

    def view(self) -> QueryView:
        """What its policy sees of it."""
        return QueryView(self.context, self.features, self.row, self.owner.input_type)

    def missed(self, now_s: float) -> tuple[str, ...]:
        """Selected models that had not answered by the deadline; none before it, while some may still answer.

        Nor is one that a settled answer did not wait for, until its output comes: its work may have been dropped.
        """
        if self.choice is None or (self.missing > 0 and (self.is_settled or now_s < self.deadline_s)):
            return ()
        in_time = list(self.outputs)[: self.in_time]
        return tuple(model for model in self.choice.models if model not in in_time)

    def on_output(self, model: str, output: bytes) -> None:
        self.owner.output_came(self, model, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self.owner.failed(self, model, code, message)

    def cancel(self) -> None:
        """Nobody wants the answer any more: its work is dropped before it is sent."""
        self.done = True
        self.asker = None


class Named:
    """Takes the output of one of several versions of a model, of which a query asks more than one."""

    __slots__ = ("_name", "_query")

    def __init__(self, query: Query, name: str) -> None:
        self._query = query
        self._name = name

    @property
    def done(self) -> bool:
        return self._query.done

    @property
    def deadline_s(self) -> float:
        return self._query.deadline_s

    def on_output(self, model: str, output: bytes) -> None:
        self._query.on_output(self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self._query.on_failure(self._name, code, message)


class Shadow:
    """Takes a shadow model's output for a query, without which the answer does not wait."""

    __slots__ = ("_name", "_query", "deadline_s", "done")

    def __init__(self, query: Query, name: str) -> None:
        self._query = query
        self._name = name
        self.deadline_s = query.deadline_s
        self.done = False

    def on_output(self, model: str, output: bytes) -> None:
        self._query.owner.shadow_came(self._query, self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        """Nobody waits for it."""
