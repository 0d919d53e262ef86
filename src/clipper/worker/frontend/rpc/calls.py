"""A call from its message to its answer, and the bridge to the endpoints that it shares with REST."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from clipper.base.turn_budget import PATIENCE_SHARE_OF_SLO
from clipper.errors import ClipperError, Overloaded, TooLarge
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import NO_ROOM
from clipper.worker.frontend.exchange import Exchange, LongAnswers
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.rpc.statuses import CANCELLED, FAULTS, OK, Refused, refusal, status_of
from clipper.worker.frontend.rpc.stream import Rest
from clipper.worker.telemetry.request_note import RequestNote

log = logging.getLogger(__name__)


class Caller(Protocol):
    """The stream that made a call. Either method ends the call."""

    def on_answer(self, message: bytes, rest: Rest = ()) -> None:
        """Send the answer. ``rest``: the rest of a long answer, in pieces; ``message`` is its beginning."""

    def on_refusal(self, refused: Refused) -> None: ...


class CallExchange(Exchange, gc=False, eq=False):
    """An exchange whose answer is a message, or an endpoint's body of a 200 answer, without a head of HTTP."""

    refused: Refused | None = None

    def refuse(self, code: str, cause: str, allow: str = "", retry_after_s: int = responses.RETRY_AFTER_S) -> None:
        self.refused = Refused(code, cause, retry_after_s)
        self.respond(b"")

    def answer(self, status: int, body: bytes) -> None:
        self.respond(body)


class Call:
    """A call: a visitor that waits for its turn, and the receiver of its exchange's answer.

    Attributes:
        message: the client's message; it counts against the budget while it waits for its answer.
        deadline_s: the time by which the client wants an answer, on the loop's clock; None if it sets none.
        arrived_s: when the end of its message was read.
    """

    __slots__ = (
        "_begin",
        "_caller",
        "_exchange",
        "_held_bytes",
        "_port",
        "_then",
        "arrived_s",
        "asks",
        "authorizations",
        "deadline_s",
        "message",
        "note",
        "patience_s",
    )

    def __init__(
        self,
        port: Port,
        caller: Caller,
        message: bytes,
        authorizations: Sequence[bytes] = (),
        deadline_s: float | None = None,
        arrived_s: float | None = None,
        note: RequestNote | None = None,
    ) -> None:
        """Make a call. ``arrived_s``: None if the message can only now be asked."""
        self._port = port
        self._caller: Caller | None = caller
        self.message = message
        self.authorizations = authorizations
        self.deadline_s = deadline_s
        self.note = note
        self._begin: Callable[[Exchange, float, bool], None] | None = None
        self._then: Callable[[bytes], None] | None = None
        self._exchange: CallExchange | None = None
        self._held_bytes = 0
        self.arrived_s = port.now_s() if arrived_s is None else arrived_s
        self.asks: object = None
        self.patience_s = float("inf")

    @property
    def long_answers(self) -> LongAnswers:
        return self._port.work

    def run(self, method: "Callable[[Call], None]") -> None:
        """Have a method answer the call, now or later. An error that the method raises refuses the call."""
        try:
            method(self)
        except ClipperError as error:
            self._port.refused[error.code] += 1
            self.refuse(refusal(error))
        except Exception:  # a bug costs one call, as in a connection of HTTP/1.1
            log.exception("failed to handle a call")
            self.refuse(Refused("internal_error", responses.BUG))

    def ask(
        self,
        begin: Callable[[Exchange, float, bool], None],
        asks: object = None,
        slo_s: float = float("inf"),
        then: Callable[[bytes], None] | None = None,
    ) -> None:
        """Ask an endpoint, once it is the call's turn if it is a query.

        Args:
            begin: asks the endpoint, given an exchange, the time of arrival, and whether the call is late. It may raise
                ClipperError.
            asks: the object whose queries wait in a line with this call; None lets the call in at once.
            then: takes the endpoint's answer, and goes on; None if the endpoint's answer is the call's.

        Raises Overloaded if there is no room for the call to wait.
        """
        self._begin, self._then = begin, then
        # Call and exchange refer to each other, and the collector does not track exchanges: it could not free them.
        self._exchange = CallExchange(self)
        self._exchange.note = self.note
        self._hold(len(self.message))
        turn, now_s, patience_s = self._port.turn, self._port.now_s(), slo_s * PATIENCE_SHARE_OF_SLO
        if asks is None:
            self.enter(is_late=False)
        elif turn.is_open(now_s):
            self.enter(is_late=now_s - self.arrived_s > patience_s)
        elif not self._port.budget.has_room(0):
            raise Overloaded(NO_ROOM)
        else:
            self.asks, self.patience_s = asks, patience_s
            turn.wait(self)

    def enter(self, *, is_late: bool) -> None:
        exchange, begin = self._exchange, self._begin
        if exchange is None or begin is None:  # the client has left
            return
        self._begin = None
        try:
            begin(exchange, self.arrived_s, is_late)
        except ClipperError as error:
            self._port.refused[error.code] += 1
            exchange.refuse_with(error)
        except Exception:  # a bug costs one call, as in a connection of HTTP/1.1
            log.exception("failed to handle a call")
            if exchange.response is None:
                exchange.cancel()
                exchange.refuse("internal_error", responses.BUG)

    def flush(self) -> None:
        """Pass on the exchange's answer, which it now has."""
        exchange, then = self._exchange, self._then
        if exchange is None or exchange.response is None:
            return
        if exchange.refused is not None:
            self.refuse(exchange.refused)
        elif then is None:
            self.answer(exchange.response, exchange.rest or ())
        else:
            self._exchange = None
            answer = b"".join((exchange.response, *(exchange.rest or ())))
            self.run(lambda _: then(answer))

    def answer(self, message: bytes, rest: Rest = ()) -> None:
        caller = self._end()
        if caller is not None:
            self._conclude(OK, len(message) + sum(map(len, rest)))
            caller.on_answer(message, rest)

    def refuse(self, refused: Refused) -> None:
        caller = self._end()
        if caller is not None:
            self._conclude(status_of(refused.code), 0)
            caller.on_refusal(refused)

    def cancel(self) -> None:
        """Cancel the query or job of the call: the client has left."""
        exchange = self._exchange
        if self._end() is not None:
            self._conclude(CANCELLED, 0)
        if exchange is not None:
            exchange.cancel()

    def _conclude(self, status: str, answer_bytes: int) -> None:
        port = self._port
        if self.note is not None and port.watch is not None:
            port.watch.answered(self.note, status, status in FAULTS, port.now_s(), answer_bytes, "grpc")

    def _end(self) -> Caller | None:
        caller, self._caller = self._caller, None
        self._exchange = self._begin = self._then = self.asks = None
        self._hold(0)
        return caller

    def _hold(self, size_bytes: int) -> None:
        if self._held_bytes > limits.LARGE_BODY_BYTES:
            self._port.freed_large_body = True
        self._port.budget.held_bytes += size_bytes - self._held_bytes
        self._held_bytes = size_bytes


def check_size(size_bytes: int, most_bytes: int) -> None:
    """Raise TooLarge if a message is over its application's bound."""
    if size_bytes > most_bytes:
        raise TooLarge(limits.over_bound("message", most_bytes))
