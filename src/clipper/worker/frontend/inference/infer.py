"""Answers ``POST /v2/models/{app}/infer``: each row of the request's tensors is a query."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from clipper.errors import ClipperError
from clipper.values.outputs.output import Output
from clipper.worker.frontend import limits
from clipper.worker.frontend.exchange import Exchange, Gather
from clipper.worker.frontend.http.endpoints import most_body_bytes, predict_batch
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.http.responses import Parts, infer_head
from clipper.worker.frontend.inference.answers import (
    Answer,
    Encoded,
    answer_bytes,
    encode,
    encode_usual,
    encode_usual_rows,
    opening,
)
from clipper.worker.frontend.inference.framing import Framing, error_json, inflate
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.plans import KnownPlans
from clipper.worker.frontend.inference.requests import AnswerForm, InferRequest, Plan, RequestReader, read_long_json
from clipper.worker.frontend.long_work import LongWork, Steps, done
from clipper.worker.frontend.predict_request import Request
from clipper.worker.selection.application import Application
from clipper.worker.selection.query import Asker, Source

# Copying a row of this size from the body takes a tenth of a millisecond.
DIRECT_ROW_BYTES = 256 * 1024
# The answers to so many rows are encoded at once.
MAX_USUAL_ROWS = 100


class Codec(Protocol):
    """Encodes answers as responses. ``closes``: whether the connection ends with the response."""

    def usual(
        self, closes: bool, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
    ) -> bytes | None:
        """Encode the usual answer, which is fast; return None for other answers."""
        return None

    def encode(
        self, closes: bool, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
    ) -> Parts:
        """Encode any answer in parts, in steps of a few milliseconds at most; the first part has the head, if any."""


class HttpCodec:
    """Encodes answers as HTTP responses. ``name`` is the application's name."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Only running versions get here, and when these change, there is a new codec.
        self._openings: dict[str | None, bytes] = {}

    def usual(
        self, closes: bool, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
    ) -> bytes | None:
        version = answers[0].source.version if version is None else version
        found = self._openings.get(version)
        if found is None:
            found = self._openings[version] = opening(self._name, version)
        several = len(answers) > 1
        encoded = (encode_usual_rows if several else encode_usual)(found, answers, form, tensors)
        return None if encoded is None else b"".join(_response(closes, encoded))

    def encode(
        self, closes: bool, version: str | None, answers: Sequence[Answer], form: AnswerForm, tensors: OutputTensors
    ) -> Parts:
        return _response(closes, (yield from encode(self._name, version, answers, form, tensors)))


class KnownTensors:
    """An application's output tensors by running version. When these versions change, there is a new object."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._known: dict[str | None, OutputTensors] = {}

    def of(self, version: str | None) -> OutputTensors:
        """Return the output tensors of the version that a request names, or of all versions that a query asks.

        They stay the same once they are known. Raises NotFound or WrongInput like ``Terms.pinned``.
        """
        found = self._known.get(version)
        if found is None:
            terms = self._application.terms
            found = OutputTensors(terms.outputs(version), nan_as_text=terms.nan_as_text)
            if found.conversion is not None:
                self._known[version] = found
        return found


class Infer:
    """Handles an application's infer calls, for all heads."""

    # Few requests get to a server and back in less. Clients of Triton that give less mean seconds, and rely on
    # Triton, which heeds a timeout only where its model's configuration says so.
    least_timeout_us = 1000

    def __init__(
        self, application: Application, work: LongWork, max_body_bytes: int, codec: Codec | None = None
    ) -> None:
        terms = application.terms
        self.max_body_bytes = most_body_bytes(terms.input_type.elements, terms.max_batch, max_body_bytes)
        self.application = application
        self.work = work
        self.tensors = tensors = KnownTensors(application)
        self.reader = RequestReader(
            terms.input_type,
            terms.features_size,
            terms.features_are_input,
            self.least_timeout_us,
            lambda name: tensors.of(None).check(name),
            terms.null_is_nan,
            terms.ignores_unknown_fields,
        )
        self._plans = KnownPlans()
        self._codec = codec or HttpCodec(application.name)

    def handle(
        self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool, call: "Call"
    ) -> None:
        framing = call.framing
        if framing.problem is not None:
            self.work.refuse(exchange, framing.problem)
            return
        if framing.encoding:
            steps = self._inflate_then_answer(exchange, body, arrived_s, call)
            self.work.begin(exchange, len(body), steps, asks=self)
            return
        json_bytes = framing.json_bytes_of(body)
        plan = self._known_plan(body, json_bytes, framing)
        if is_late and plan is not None and plan.rows == 1:
            self.application.shed(self.asker(exchange, call.version, plan.form))
        elif plan is not None and plan.rows == 1 and plan.row_bytes == len(body) - json_bytes <= DIRECT_ROW_BYTES:
            self.ask_one(exchange, bytes(body[json_bytes:]), None, plan, call.version, arrived_s)
        elif plan is not None and plan.rows == 1 and len(body) <= limits.DIRECT_BODY_BYTES:
            request = done(self.reader.read(plan, body, json_bytes))
            self.ask_one(exchange, request.rows[0], request.features[0], plan, call.version, arrived_s)
        else:
            steps = self._answer_in_steps(exchange, body, json_bytes, plan, arrived_s, call.version)
            self.work.begin(exchange, len(body), steps, asks=self)

    def _known_plan(self, body: bytes | bytearray, json_bytes: int, framing: Framing) -> Plan | None:
        """Return the plan that the JSON describes; None if the JSON is long. Raises MalformedRequest or WrongInput."""
        if framing.json_bytes == 0:  # not of an empty body whose head says nothing of it
            return self.reader.plan_raw(len(body))
        if json_bytes > limits.DIRECT_BODY_BYTES:
            return None
        text = bytes(body[:json_bytes])
        plan = self._plans.find(text)
        if plan is None:
            plan = self.reader.plan(text)
            self._plans.remember(text, plan)
        return plan

    def _inflate_then_answer(
        self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, call: "Call"
    ) -> Steps:
        budget = self.work.budget
        whole = yield from inflate(body, call.framing.encoding, self.max_body_bytes, budget)
        del body
        budget.held_bytes += len(whole)
        try:
            json_bytes = call.framing.json_bytes_of(whole)
            plan = self._known_plan(whole, json_bytes, call.framing)
            yield from self._answer_in_steps(exchange, whole, json_bytes, plan, arrived_s, call.version)
        finally:
            budget.held_bytes -= len(whole)

    def _answer_in_steps(
        self,
        exchange: Exchange,
        body: bytes | bytearray,
        json_bytes: int,
        plan: Plan | None,
        arrived_s: float,
        version: str | None,
    ) -> Steps:
        if plan is None:
            body = body if isinstance(body, bytearray) else bytearray(body)
            plan = self.reader.plan_of(*(yield from read_long_json(body, json_bytes)))
        request = yield from self.reader.read(plan, body, json_bytes)
        if plan.rows == 1:
            self.ask_one(exchange, request.rows[0], request.features[0], plan, version, arrived_s)
        else:
            yield from self.ask_all(exchange, request, plan, version, arrived_s)

    def ask_one(
        self,
        exchange: Exchange,
        row: bytes,
        features: bytes | None,
        plan: Plan,
        version: str | None,
        arrived_s: float,
    ) -> None:
        asker = self.asker(exchange, version, plan.form)
        query = self.application.predict(
            row, asker, arrived_s, version, plan.context, features, plan.timeout_s, exchange.note
        )
        if not query.done:
            exchange.started = query

    def asker(self, exchange: Exchange, version: str | None, form: AnswerForm) -> Asker:
        """Return the asker of a request's only row."""
        return Reply(exchange, self, version, form)

    def ask_all(
        self, exchange: Exchange, request: InferRequest, plan: Plan, version: str | None, arrived_s: float
    ) -> Steps:
        yield from predict_batch(
            self.application,
            exchange,
            Request(request.rows, request.features, True, plan.context, version, plan.timeout_s),
            arrived_s,
            self.work.budget,
            lambda answers, size_bytes: self.answer(exchange, version, answers, plan.form, size_bytes),
            lambda gather, index: Part(gather, index, plan.form),
        )

    def answer(
        self,
        exchange: Exchange,
        version: str | None,
        answers: Sequence[Answer],
        form: AnswerForm,
        size_bytes: int | None = None,
    ) -> None:
        """Answer: at once if it is small, else in steps. ``size_bytes``: the sum of ``answer_bytes``, if known."""
        try:
            tensors = self.tensors.of(version)
            if len(answers) <= MAX_USUAL_ROWS:
                usual = self._codec.usual(exchange.closes, version, answers, form, tensors)
                if usual is not None:
                    exchange.respond(usual)
                    return
            steps = self._codec.encode(exchange.closes, version, answers, form, tensors)
            if size_bytes is None:
                size_bytes = sum([answer_bytes(answer, form) for answer in answers])
            if size_bytes <= limits.DIRECT_BODY_BYTES and len(answers) <= MAX_USUAL_ROWS:
                exchange.respond_parts(done(steps))
            else:
                self.work.answer(exchange, steps, size_bytes, exchange.respond_parts)
        except ClipperError as error:
            self.work.refuse(exchange, error)


def _response(closes: bool, encoded: Encoded) -> list[bytes | memoryview]:
    return [infer_head(sum(map(len, encoded.parts)), encoded.json_bytes, close=closes), *encoded.parts]


class Call:
    """The endpoint for infer calls with the same head."""

    methods = ("POST",)
    error_json = staticmethod(error_json)

    def __init__(self, infer: Infer, version: str | None, head: Head) -> None:
        self._infer = infer
        self.max_body_bytes = infer.max_body_bytes
        self.slo_s = infer.application.terms.slo_s
        self.version = version
        self.framing = Framing(head)

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = error_json
        self._infer.handle(exchange, body, arrived_s, is_late, self)


class _Row:
    """The ``Asker`` of a row."""

    __slots__ = ()

    def take(self, answer: Answer) -> None:
        raise NotImplementedError

    def on_prediction(self, query_id: int, output: Output, confidence: float, source: Source) -> None:
        self.take(Answer(query_id, output, confidence, None, source))

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self.take(Answer(query_id, output, 0.0, reason))

    def on_unsure(self, query_id: int, output: bytes, unsure: Output, confidence: float) -> None:
        self.take(Answer(query_id, output, confidence, "low_confidence"))


class Reply(_Row, msgspec.Struct, gc=False, eq=False):
    """Takes the answer to a request's only row. Like the exchange, the garbage collector does not track it."""

    exchange: Exchange
    infer: Infer
    version: str | None
    form: AnswerForm

    def take(self, answer: Answer) -> None:
        self.infer.answer(self.exchange, self.version, (answer,), self.form)

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self.exchange.refuse(reason, explanation)


class Part(_Row, msgspec.Struct, gc=False, eq=False):
    """Takes the answer to one of several rows. The protocol has no partial answers: an error fails the request."""

    gather: Gather
    index: int
    form: AnswerForm

    def take(self, answer: Answer) -> None:
        size_bytes = answer_bytes(answer, self.form)
        self.gather.end_part(self.index, answer, size_bytes, size_bytes)

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self.gather.fail(reason, explanation)


class Predict(Infer):
    """The endpoint ``POST /v2/models/{app}/predict``: an infer request's tensors, and the answer of a predict call.

    An infer answer cannot say what happened to each row, and fails if a row does. In this answer, each row has its own
    query id, default and confidence, or its own error.
    """

    least_timeout_us = 0

    def asker(self, exchange: Exchange, version: str | None, form: AnswerForm) -> Asker:
        return exchange

    def ask_all(
        self, exchange: Exchange, request: InferRequest, plan: Plan, version: str | None, arrived_s: float
    ) -> Steps:
        rows = Request(request.rows, request.features, True, plan.context, version, plan.timeout_s)
        yield from predict_batch(self.application, exchange, rows, arrived_s, self.work.budget)
