"""A request and its answer. The selection layer calls it back; answers keep the order of requests."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from clipper.errors import ClipperError, Overloaded, TooManyRequests
from clipper.values.outputs.output import SURELY_SHORT_BYTES, Output, is_long, text_bytes
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.client_limits import Limits
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.statuses import STATUSES
from clipper.worker.selection.query import Query, Source
from clipper.worker.telemetry.request_note import RequestNote


class LongAnswers(Protocol):
    """Makes long answers in steps, between the loop's other events."""

    def answer(self, exchange: "Exchange", parts: responses.Parts, size_bytes: int) -> None:
        """Answer a request with parts that are still to be made, of about ``size_bytes`` at most."""


class Answerer(Protocol):
    """The connection, from an exchange's view."""

    @property
    def long_answers(self) -> LongAnswers: ...

    def flush(self) -> None:
        """Write answers: an answer may now be the next in turn."""


class Cancellable(Protocol):
    """A query, a batch of queries or a job that a request has started."""

    def cancel(self) -> None: ...


class Exchange(msgspec.Struct, gc=False, eq=False):
    """A request that waits for its answer. For a predict call with one input it is the query's ``Asker``.

    The garbage collector does not track it; it drops ``started`` as soon as it is answered.

    Attributes:
        response: the answer's bytes, once it is known; the beginning of a long answer.
        rest: the rest of a long answer, which is written in pieces; None if there is none.
        started: the query or job to cancel if the client disconnects; None once it has ended.
        closes: whether the connection ends with this answer.
        has_body: False for HEAD.
        limits: the client's limits until the answer; None if there are none.
        admitted: the number of queries that the limits have admitted for this request.
    """

    connection: Answerer
    response: bytes | None = None
    started: Cancellable | None = None
    closes: bool = False
    has_body: bool = True
    limits: Limits | None = None
    admitted: int = 0
    error_json: Callable[[str, str], bytes] = responses.error_json
    note: RequestNote | None = None
    rest: deque[bytes | memoryview] | None = None

    def on_prediction(self, query_id: int, output: Output, confidence: float, source: Source) -> None:
        if len(output) > SURELY_SHORT_BYTES and is_long(output):
            parts = responses.long_prediction(query_id, output, confidence, source)
            self.connection.long_answers.answer(self, parts, text_bytes(output))
            return
        if self.closes:
            self.answer(200, responses.prediction_json(query_id, output, confidence, source))
            return
        # The same as respond(), without a call for each query.
        self.started = None
        if self.limits is not None:
            self._leave_limits()
        self.response = responses.ok_prediction(query_id, output, confidence, source)
        self.connection.flush()

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self.answer(200, responses.default_json(query_id, output, reason, explanation))

    def on_unsure(self, query_id: int, output: bytes, unsure: Output, confidence: float) -> None:
        if is_long(unsure):
            parts = responses.long_unsure(query_id, output, unsure, confidence)
            self.connection.long_answers.answer(self, parts, text_bytes(unsure))
        else:
            self.answer(200, responses.unsure_json(query_id, output, unsure, confidence))

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self.refuse(reason, explanation)

    def refuse(self, code: str, cause: str, allow: str = "", retry_after_s: int = responses.RETRY_AFTER_S) -> None:
        """Answer with an error of the error tree."""
        status, body = STATUSES.get(code, STATUSES["internal_error"]), self.error_json(code, cause)
        head = responses.head(status, len(body), close=self.closes, allow=allow, retry_after_s=retry_after_s)
        self.respond(head + body if self.has_body else head)

    def refuse_with(self, error: ClipperError) -> None:
        retry_after_s = error.retry_after_s if isinstance(error, TooManyRequests) else responses.RETRY_AFTER_S
        self.refuse(error.code, str(error), retry_after_s=retry_after_s)

    def admit_all(self, count: int, now_s: float) -> None:
        """Admit the rest of a request's ``count`` queries. Raises TooLarge or TooManyRequests if limits refuse."""
        if self.limits is not None and count > self.admitted:
            self.limits.admit(count - self.admitted, now_s, self.admitted)
            self.admitted = count

    def answer(self, status: int, body: bytes) -> None:
        self.respond(responses.answer(status, body, close=self.closes, has_body=self.has_body))

    def answer_parts(self, parts: list[responses.Part]) -> None:
        """Answer with 200 and a body in parts."""
        self.respond_parts([responses.ok_head(sum(map(len, parts)), close=self.closes), *parts])

    def respond_parts(self, parts: list[responses.Part]) -> None:
        """Answer with a whole HTTP response, whose head is the first part."""
        if sum(map(len, parts)) <= limits.LARGE_ANSWER_BYTES:
            self.respond(b"".join(parts))
            return
        self.rest = deque(_pieces(parts[1:]))
        self.respond(bytes(parts[0]))

    @property
    def unwritten_bytes(self) -> int:
        """Return the size of the known part of the answer that is not written."""
        return len(self.response or b"") + (0 if self.rest is None else sum(map(len, self.rest)))

    def cancel(self) -> None:
        """Cancel what the request has started: the client has disconnected."""
        if self.started is not None:
            self.started.cancel()
            self.started = None
            self._leave_limits()

    def respond(self, data: bytes) -> None:
        """Answer with a whole HTTP response, or an interim one such as 100 Continue, in its turn."""
        # The query and the exchange refer to each other. Dropping this reference frees both without the garbage
        # collector.
        self.started = None
        self._leave_limits()
        self.response = data
        self.connection.flush()

    def _leave_limits(self) -> None:
        if self.limits is not None:
            self.limits.give_back(self.admitted)
            self.limits = None


class Gather:
    """A request with several rows: each is a query of its own, and all are answered together.

    Each row counts against the memory budget until its part of the answer does. ``has_ended``: whether the request was
    answered, or its client has left.
    """

    def __init__(
        self, exchange: Exchange, size: int, budget: Budget, finish: Callable[[list[Any], int], None] | None = None
    ) -> None:
        """``finish`` answers with all parts, given a bound on their size. Raises Overloaded without room for them."""
        self._held_bytes = size * limits.HELD_BYTES_PER_ROW
        if not budget.has_room(self._held_bytes):
            raise Overloaded("rows that wait for their outputs take up all memory for them: try again in a moment")
        budget.held_bytes += self._held_bytes
        self._exchange, self._finish, self._budget = exchange, finish, budget
        self._parts: list[Any] = [b""] * size
        self._missing = size
        self._queries: list[Query] = []
        self._answer_bytes = 0
        self.has_ended = False

    def add_query(self, query: Query) -> None:
        self._queries.append(query)

    def end_part(self, index: int, part: object, held_bytes: int, answer_bytes: int) -> None:
        """Take the answer to a row.

        Args:
            part: its part of the answer: for a predict call JSON, or a maker of it if it is long.
            held_bytes: the memory that the part holds until all parts have come.
            answer_bytes: a bound on its size.
        """
        if self.has_ended:
            return
        self._parts[index] = part
        self._missing -= 1
        self._answer_bytes += answer_bytes
        more_bytes = held_bytes - limits.HELD_BYTES_PER_ROW
        self._held_bytes += more_bytes
        self._budget.held_bytes += more_bytes
        if self._answer_bytes > limits.MAX_ANSWER_BYTES:
            self.fail("too_large", responses.too_long(self._answer_bytes))
        elif more_bytes > 0 and not self._budget.has_room(0):
            self.fail("overloaded", "incomplete answers take up all memory for them: try again in a moment")
        elif not self._missing and not self.has_ended:  # making room may end this very request
            parts, exchange = self._parts, self._exchange
            self._release()
            if self._finish is not None:
                self._finish(parts, self._answer_bytes)
            elif self._answer_bytes <= limits.LARGE_ANSWER_BYTES and all(isinstance(each, bytes) for each in parts):
                exchange.answer(200, responses.batch_json(parts))
            else:
                exchange.connection.long_answers.answer(exchange, responses.long_batch(parts), self._answer_bytes)

    def fail(self, code: str, cause: str) -> None:
        """Refuse the whole request."""
        if not self.has_ended:
            self.cancel()
            self._exchange.refuse(code, cause)

    def cancel(self) -> None:
        for query in self._queries:
            query.cancel()
        self._release()

    def _release(self) -> None:
        self.has_ended = True
        self._queries.clear()
        self._parts = []
        self._budget.held_bytes -= self._held_bytes
        self._held_bytes = 0


class Part:
    """An input of a batch. If there is neither an output nor a default, the error is its part of the answer."""

    __slots__ = ("_gather", "_index")

    def __init__(self, gather: Gather, index: int) -> None:
        self._gather = gather
        self._index = index

    def on_prediction(self, query_id: int, output: Output, confidence: float, source: Source) -> None:
        if is_long(output):
            self._end_long(responses.long_prediction(query_id, output, confidence, source), output)
        else:
            self._end(responses.prediction_json(query_id, output, confidence, source))

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self._end(responses.default_json(query_id, output, reason, explanation))

    def on_unsure(self, query_id: int, output: bytes, unsure: Output, confidence: float) -> None:
        if is_long(unsure):
            self._end_long(responses.long_unsure(query_id, output, unsure, confidence), unsure)
        else:
            self._end(responses.unsure_json(query_id, output, unsure, confidence))

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self._end(responses.error_json(reason, explanation))

    def _end(self, body: bytes) -> None:
        self._gather.end_part(self._index, body, len(body), len(body))

    def _end_long(self, body: responses.Parts, output: Output) -> None:
        self._gather.end_part(self._index, body, len(output), text_bytes(output))


def _pieces(parts: Iterable[responses.Part]) -> Iterable[responses.Part]:
    """Cut a text that is too long to write in a turn."""
    for part in parts:
        if len(part) <= limits.WRITE_BYTES:
            yield part
        else:
            whole = memoryview(part)
            for start in range(0, len(part), limits.WRITE_BYTES):
                yield whole[start : start + limits.WRITE_BYTES]
