"""A query of an application: its asker, the models that were asked, and their outputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from clipper.learning.decisions.records import PathStep
from clipper.learning.mathematics.arms import NO_ARMS, Arms
from clipper.learning.policies.policy import Choice, QueryView
from clipper.values.outputs.output import NOT_KEPT, Output, is_readable
from clipper.values.records import ValueType
from clipper.worker.selection.confidence import Said
from clipper.worker.telemetry.request_note import QueryNote
from clipper.worker.telemetry.trace_context import SpanContext


class Source(msgspec.Struct, gc=False, eq=False):
    """The versions whose outputs an answer was made from. A source is made once for many answers.

    Attributes:
        text: all versions, such as ``digits:2`` or ``digits:2,forest:1``; empty if the answer does not say.
        version: the version, if there is only one.
        parameters: ``model`` and ``version`` if there is only one version, else ``models``, which is the text.
        parameters_json: the same as members of a JSON object, each behind a comma: ``,"model":"digits","version":"2"``.
        json: likewise, but several versions are a list: ``,"models":["digits:2","forest:1"]``.
    """

    text: str
    version: str | None
    parameters: Mapping[str, str]
    parameters_json: bytes
    json: bytes


# The source of a default, and of all answers of an application that does not show its models.
NO_SOURCE = Source("", None, {}, b"", b"")


def make_source(names: Sequence[str]) -> Source:
    """Return the source of answers by these versions, at least one, each as ``MODEL:VERSION``."""
    text = ",".join(names)
    if len(names) > 1:
        several = {"models": text}
        return Source(text, None, several, _members(several), _members({"models": names}))
    model, _, version = text.partition(":")
    one = {"model": model, "version": version}
    return Source(text, version, one, _members(one), _members(one))


def _members(fields: Mapping[str, Any]) -> bytes:
    return b"," + msgspec.json.encode(fields)[1:-1]


class Path(msgspec.Struct, gc=False, eq=False):
    """The way of a query through a pipeline.

    Attributes:
        queries: the name, the application and the query's id of each step that was asked once, in the order of asking.
        source: the versions that the steps' answers came from; None if the answer does not say.
        steps: what became of each step, if the application has a decision log: see ``decisions.records.PathStep``.
    """

    queries: tuple[tuple[str, str, int], ...]
    source: Source | None
    steps: tuple[PathStep, ...] = ()


class Asker(Protocol):
    """Asks a query. Exactly one of its methods is called, on the event loop."""

    def on_prediction(self, query_id: int, output: Output, confidence: float, source: Source) -> None:
        """Take the answer, and which versions gave it."""

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        """Take the application's default, and the reason for it."""

    def on_unsure(self, query_id: int, output: bytes, unsure: Output, confidence: float) -> None:
        """Take the default, since the confidence of the answer ``unsure`` was below the application's threshold."""

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        """Take an error, as ``on_default`` takes a default, for an application without a default."""


class Owner(Protocol):
    """The object that a query tells of its outputs and failures: ``Answering``, which decides when it is answered.

    Attributes:
        feedback_ttl_s: how long its queries are kept for feedback.
        judged: see ``Terms.judged``.
        complete: takes a query whose models have all answered or failed; None if it is to be finished.
        has_others: whether other models can answer a query than those that it has asked.
    """

    name: str
    feedback_ttl_s: float
    input_type: ValueType
    judged: Callable[[Output], bytes]
    complete: Callable[["Query"], None] | None
    has_others: Callable[["Query"], bool]

    def finish(self, query: "Query") -> None: ...

    def consider_leaving(self, query: "Query") -> None: ...

    def keep_late(self, query: "Query", model: str, output: Output) -> None: ...

    def failed(self, query: "Query", model: str, code: str, message: str) -> None: ...

    def shadow_came(self, query: "Query", name: str, output: Output) -> None: ...


class Query(msgspec.Struct, gc=False, eq=False):
    """A query: first in flight, then kept for feedback. It is the ``Waiter`` of its work.

    Like ``Work``, it is not tracked by the garbage collector: it refers to its asker only until it is answered.

    Attributes:
        row: the input's raw buffer; None once no model can be asked any more.
        first_model, first_output: the first selected model that answered, and its output.
        more_outputs: the other outputs by model, including late ones. Most queries have none.
        missing: number of selected models that have neither answered nor failed.
        late: number of outputs that came after the deadline; outputs are kept in the order of their arrival.
        choice: the policy's selection; None if there is none yet, or the policy failed.
        shadow_outputs: outputs of the shadow models; None while there are none.
        lost: selected models that have failed; most queries have none.
        shed: the lost models that failed for want of time.
        is_settled: whether it was answered early, since the missing outputs could not change the answer.
        stage: 1, plus one for each time that the policy asked further models.
        is_asked: whether all selected models have been asked, so that it may be answered without some of them.
        failure: code and message of the last model that failed.
        output: the answer, unless it was the default.
        said: the models' answer, believed or not; None if nothing needs it.
        reason: the error code for which there was no answer; None if there was one.
        pinned: the version that the query named, which bypasses the policy.
        features: raw buffer of the float64 features that came with the query.
        note: the note on the query until it is answered; None if there is none.
        chance: how likely the first model was to answer in time when it was asked, by its queue.
        candidates: the models that the policy selected among, if some could not answer in time; None for all.
        path: the way through a pipeline, once the query has ended; None if its application is no pipeline.
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
    choice: Choice | None = None
    arms: Arms = NO_ARMS
    first_model: str | None = None
    first_output: Output | None = None
    more_outputs: dict[str, Output] | None = None
    missing: int = 0
    late: int = 0
    done: bool = False
    shadow_outputs: dict[str, Output] | None = None
    output: Output | None = None
    lost: tuple[str, ...] = ()
    shed: tuple[str, ...] = ()
    stage: int = 1
    is_asked: bool = False
    is_settled: bool = False
    failure: tuple[str, str] | None = None
    said: Said | None = None
    confidence: float = 1.0
    reason: str | None = None
    note: QueryNote | None = None
    chance: float = 1.0
    candidates: tuple[str, ...] | None = None
    path: Path | None = None

    @property
    def span(self) -> SpanContext | None:
        """The query's span, if it is traced and not answered."""
        return None if self.note is None else self.note.span

    @property
    def may_wait(self) -> bool:
        """Whether the query waits for a replica that is starting, since no other model can answer it."""
        is_alone = self.choice is not None and len(self.choice.models) == 1
        return is_alone and (self.pinned is not None or not self.owner.has_others(self))

    @property
    def raw_confidence(self) -> float | None:
        """The models' raw confidence, if ``confidence`` is derived from it."""
        return None if self.said is None else self.said.confidence

    @property
    def answered(self) -> list[str]:
        """The models whose outputs have come, in the order in which they came."""
        return [] if self.first_model is None else [self.first_model, *(self.more_outputs or ())]

    @property
    def in_time(self) -> int:
        """The number of outputs that came by the deadline."""
        return len(self.answered) - self.late

    @property
    def is_readable(self) -> bool:
        """Whether a policy may combine the outputs, and feedback be scored against them: none is too large."""
        if self.first_output is None:
            return True
        return is_readable(self.first_output) and all(map(is_readable, (self.more_outputs or {}).values()))

    def drop_large(self) -> None:
        """Drop outputs that are not readable, and keep only that they came."""
        if self.first_output is not None:
            self.first_output = _kept(self.first_output)
        if self.output is not None:
            self.output = _kept(self.output)
        if self.more_outputs is not None:
            self.more_outputs = {model: _kept(output) for model, output in self.more_outputs.items()}

    def texts(self, text_of: Callable[[Output], bytes]) -> dict[str, bytes]:
        """Return the texts of the outputs so far, by model, as ``text_of`` makes them: a new dict."""
        if self.first_model is None or self.first_output is None:
            return {}
        texts = {self.first_model: text_of(self.first_output)}
        if self.more_outputs is not None:
            for model, output in self.more_outputs.items():
                texts[model] = text_of(output)
        return texts

    @property
    def outputs(self) -> dict[str, bytes]:
        """The texts of the outputs so far that policies combine, by model: a new dict."""
        return self.texts(self.owner.judged)

    def view(self) -> QueryView:
        return QueryView(self.context, self.features, self.row, self.owner.input_type)

    def missed(self, now_s: float) -> tuple[str, ...]:
        """Return the selected models that did not answer by the deadline. Before the deadline there are none.

        A model that a settled answer did not wait for does not count until its output comes: its work may have been
        dropped.
        """
        if self.choice is None or (self.missing > 0 and (self.is_settled or now_s < self.deadline_s)):
            return ()
        in_time = self.answered[: self.in_time]
        return tuple(model for model in self.choice.models if model not in in_time)

    def is_late(self, model: str) -> bool:
        """Return whether a selected model has not answered by the deadline, for want of time and no other reason."""
        return (model not in self.lost or model in self.shed) and model not in self.answered[: self.in_time]

    def on_output(self, model: str, output: Output) -> None:
        """Take the output of a selected model. The query may be answered already."""
        if self.first_model is None:
            self.first_model, self.first_output = model, output
        elif self.more_outputs is None:
            self.more_outputs = {model: output}
        else:
            self.more_outputs[model] = output
        self.missing -= 1
        if self.done:
            self.owner.keep_late(self, model, output)
            return
        if not self.missing:
            complete = self.owner.complete
            if complete is None:
                self.owner.finish(self)
            else:
                complete(self)
        elif self.is_asked:
            self.owner.consider_leaving(self)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self.owner.failed(self, model, code, message)

    def cancel(self) -> None:
        """Drop unsent work for the query: the client does not want the answer any more."""
        self.done = True
        self.asker = None


def _kept(output: Output) -> Output:
    return output if is_readable(output) else NOT_KEPT


class Named:
    """Takes the output of a version of a model, for a query that asks several versions of it."""

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

    @property
    def span(self) -> SpanContext | None:
        return self._query.span

    @property
    def may_wait(self) -> bool:
        return self._query.may_wait

    def on_output(self, model: str, output: Output) -> None:
        self._query.on_output(self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        self._query.on_failure(self._name, code, message)


class Shadow(Named):
    """Takes a shadow model's output for a query. The answer does not wait for it."""

    __slots__ = ()

    @property
    def done(self) -> bool:
        return False

    @property
    def may_wait(self) -> bool:
        return False

    def on_output(self, model: str, output: Output) -> None:
        self._query.owner.shadow_came(self._query, self._name, output)

    def on_failure(self, model: str, code: str, message: str) -> None:
        """Do nothing: no query waits for it."""


class QueryIds:
    """Ids that are unique over all workers and restarts, and below 2^53 so that every JSON reader keeps them exactly.

    The upper 20 bits are the worker's instance, which the supervisor counts; the lower 33 bits are the worker's own
    counter. The counter wraps after two days at 50,000 queries a second, when feedback on the first ids is long over.
    An instance that is started again counts on from another 64th of the counter's range than before. Servers that share
    a store number their workers apart, so two may have one instance: ``skip`` has them count from different places.
    """

    COUNT_BITS: ClassVar[int] = 33
    RESTART_BITS: ClassVar[int] = 6
    # Half of a 64th of the range: a worker that is started again has long forgotten the ids of the other half.
    MAX_SKIP: ClassVar[int] = 1 << 26

    def __init__(self, instance: int, restart: int = 0, skip: int = 0) -> None:
        """``restart``: how many times this instance was started before. ``skip``: below ``MAX_SKIP``, at random."""
        self.first = instance << self.COUNT_BITS
        self.last = self.first + (1 << self.COUNT_BITS) - 1
        part = restart % (1 << self.RESTART_BITS)
        self.begun = self.next = self.first + (part << (self.COUNT_BITS - self.RESTART_BITS)) + skip

    def take(self) -> int:
        query_id = self.next
        self.next = query_id + 1 if query_id < self.last else self.first
        return query_id

    def has_given(self, query_id: int) -> bool:
        return self.begun <= query_id < self.next

    @classmethod
    def instance_of(cls, query_id: int) -> int:
        return query_id >> cls.COUNT_BITS
