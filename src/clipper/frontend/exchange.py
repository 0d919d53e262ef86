"""One request and its answer: what the selection layer calls back, and what keeps answers in order."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from clipper.errors import ClipperError, TooManyRequests
from clipper.frontend import limits, responses
from clipper.frontend.budget import Budget
from clipper.frontend.client_limits import Limits
from clipper.selection.query import Query


class Answerer(Protocol):
    """The connection, as an exchange sees it."""

    def flush(self) -> None:
        """Some answer may have become the next to go out."""


class Cancellable(Protocol):
    """What a request has started: a query, or a batch of them."""

    def cancel(self) -> None: ...


class Exchange(msgspec.Struct, gc=False, eq=False):
    """A request that waits for its answer. For a predict call with one input it is the query's ``Asker``.

    The garbage collector does not look at it: it lets go of what it has started once it is answered.

    Attributes:
        response: the answer's bytes once they are known.
        started: what to cancel if the client goes away; None once it has ended.
        closes: the connection ends with this answer.
        has_body: False for HEAD.
        limits: what it is under until it is answered; None where there are none.
        error_json: the body of an error, of its code and cause.
        admitted: how many queries they have let in for it.
    """

    connection: Answerer
    response: bytes | None = None
    started: Cancellable | None = None
    closes: bool = False
    has_body: bool = True
    limits: Limits | None = None
    admitted: int = 0
    error_json: Callable[[str, str], bytes] = responses.error_json

    def on_prediction(self, query_id: int, output: bytes, confidence: float) -> None:
        body = responses.prediction_json(query_id, output, confidence)
        if self.closes:
            self.answer(200, body)
            return
        # As in respond, which here is a call a query.
        self.started = None
        if self.limits is not None:
            self._leave_limits()
        self.response = responses.ok(body)
        self.connection.flush()

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self.answer(200, responses.default_json(query_id, output, reason, explanation))

    def on_unsure(self, query_id: int, output: bytes, unsure: bytes, confidence: float) -> None:
        self.answer(200, responses.unsure_json(query_id, output, unsure, confidence))

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self.refuse(reason, explanation)

    def refuse(self, code: str, cause: str, allow: str = "", retry_after_s: int = responses.RETRY_AFTER_S) -> None:
        """Answer with an error of the error tree."""
        status, body = responses.status_of(code), self.error_json(code, cause)
        self.respond(
            responses.answer(
                status, body, close=self.closes, allow=allow, has_body=self.has_body, retry_after_s=retry_after_s
            )
        )

    def refuse_with(self, error: ClipperError) -> None:
        retry_after_s = error.retry_after_s if isinstance(error, TooManyRequests) else responses.RETRY_AFTER_S
        self.refuse(error.code, str(error), retry_after_s=retry_after_s)

    def admit_all(self, count: int, now_s: float) -> None:
        """It turned out to be so many queries: those that were not let in with the request have to be.

        Raises:
            TooLarge, TooManyRequests: its limits do not let them in.
        """
        if self.limits is not None and count > self.admitted:
            self.limits.admit(count - self.admitted, now_s, self.admitted)
            self.admitted = count

    def answer(self, status: int, body: bytes) -> None:
        self.respond(responses.answer(status, body, close=self.closes, has_body=self.has_body))

    def send_raw(self, data: bytes) -> None:
        """An interim answer, such as 100 Continue, in its place in the order."""
        self.respond(data)

    def cancel(self) -> None:
        """The client is gone."""
        if self.started is not None:
            self.started.cancel()
            self.started = None
            self._leave_limits()

    def respond(self, data: bytes) -> None:
        """Answer with these bytes: a whole response of HTTP."""
        # Query and exchange know each other; parting lets both be freed without the garbage collector.
        self.started = None
        self._leave_limits()
        self.response = data
        self.connection.flush()

    def _leave_limits(self) -> None:
        if self.limits is not None:
            self.limits.give_back(self.admitted)
            self.limits = None


class Gather:
    """A predict call with several inputs: each is a query of its own, and the answer goes out when all have ended."""

    __slots__ = ("_budget", "_exchange", "_held_bytes", "_missing", "_parts", "_queries")

    def __init__(self, exchange: Exchange, size: int, budget: Budget) -> None:
        self._exchange = exchange
        self._parts = [b""] * size
        self._missing = size
        self._queries: list[Query] = []
        self._budget = budget
        self._held_bytes = 0

    def add_query(self, query: Query) -> None:
        self._queries.append(query)

    def end_part(self, index: int, body: bytes) -> None:
        self._parts[index] = body
        self._missing -= 1
        self._held_bytes += len(body)
        self._budget.held_bytes += len(body)
        if self._held_bytes > limits.MAX_ANSWER_BYTES:
            self.cancel()
            self._exchange.refuse("too_large", f"answer is over {limits.MAX_ANSWER_BYTES} bytes: ask for fewer at once")
        elif not self._budget.has_room(0):
            self.cancel()
            self._exchange.refuse(
                "overloaded", "answers that are not complete hold as much memory as they may: try again in a moment"
            )
        elif not self._missing:
            parts = self._parts
            self._let_go()
            self._exchange.answer(200, responses.batch_json(parts))

    def cancel(self) -> None:
        for query in self._queries:
            query.cancel()
        self._let_go()

    def _let_go(self) -> None:
        self._queries.clear()
        self._parts = []
        self._budget.held_bytes -= self._held_bytes
        self._held_bytes = 0


class Part:
    """One input of a batch. Where there is no output and no default, its part of the answer is the error."""

    __slots__ = ("_gather", "_index")

    def __init__(self, gather: Gather, index: int) -> None:
        self._gather = gather
        self._index = index

    def on_prediction(self, query_id: int, output: bytes, confidence: float) -> None:
        self._gather.end_part(self._index, responses.prediction_json(query_id, output, confidence))

    def on_default(self, query_id: int, output: bytes, reason: str, explanation: str) -> None:
        self._gather.end_part(self._index, responses.default_json(query_id, output, reason, explanation))

    def on_unsure(self, query_id: int, output: bytes, unsure: bytes, confidence: float) -> None:
        self._gather.end_part(self._index, responses.unsure_json(query_id, output, unsure, confidence))

    def on_no_prediction(self, query_id: int, reason: str, explanation: str) -> None:
        self._gather.end_part(self._index, responses.error_json(reason, explanation))
