"""A call that waits for its answer, and what stands between it and the endpoints that it shares with REST."""

import asyncio
import logging
from collections.abc import Callable

from clipper.errors import ClipperError, Overloaded, TooLarge, TooManyRequests
from clipper.frontend import limits, responses
from clipper.frontend.door import PATIENCE_SHARE_OF_SLO
from clipper.frontend.exchange import Exchange
from clipper.frontend.port import Port

log = logging.getLogger(__name__)

BUG = "a bug in Clipper: the worker's log has its traceback"


class Refused(Exception):
    """What a call ends with in place of an answer: a code of the error tree and what was expected."""

    def __init__(self, code: str, cause: str, retry_after_s: int = responses.RETRY_AFTER_S) -> None:
        super().__init__(cause)
        self.code = code
        self.retry_after_s = retry_after_s


def refusal(error: ClipperError) -> Refused:
    if isinstance(error, TooManyRequests):
        return Refused(error.code, str(error), error.retry_after_s)
    return Refused(error.code, str(error))


class CallExchange(Exchange, gc=False, eq=False):
    """An exchange whose answer is a message, or what endpoints answer with 200 of HTTP: without a head."""

    refused: Refused | None = None

    def refuse(self, code: str, cause: str, allow: str = "", retry_after_s: int = responses.RETRY_AFTER_S) -> None:
        self.refused = Refused(code, cause, retry_after_s)
        self.respond(b"")

    def answer(self, status: int, body: bytes) -> None:
        self.respond(body)


class Call:
    """One call: a visitor at the door, whose answer a task waits for.

    Attributes:
        arrived_s: when its message was there.
    """

    __slots__ = ("_begin", "_exchange", "_future", "_port", "arrived_s", "asks", "patience_s")

    def __init__(self, port: Port, begin: "Callable[[CallExchange, float, bool], None]") -> None:
        """``begin``: what is asked, of an exchange, when it arrived, and whether it is late.

        It may raise ClipperError.
        """
        self._port = port
        self._begin = begin
        self._exchange: CallExchange | None = CallExchange(self)
        self._future: asyncio.Future[None] | None = None
        self.arrived_s = port.now_s()
        self.asks: object = None
        self.patience_s = float("inf")

    async def answer(self, asks: object = None, slo_s: float = float("inf"), held_bytes: int = 0) -> bytes:
        """Return the answer, after a wait at the door where it is a query.

        Args:
            asks: what queries are for that wait in one line; None lets it in at once.
            slo_s: its SLO.
            held_bytes: of the message, while it waits.

        Raises:
            Refused: there is none.
            Overloaded: there is no room for it to wait.
        """
        try:
            self._come_in(asks, slo_s, held_bytes)
            exchange = self._exchange
            assert exchange is not None
            if exchange.response is None:
                await self._until_answered(exchange, held_bytes)
            if exchange.refused is not None:
                raise exchange.refused
            assert exchange.response is not None
            return exchange.response
        finally:
            # Each knows the other, and the collector looks at no exchange: it would keep both for ever.
            self._exchange = None

    def _come_in(self, asks: object, slo_s: float, held_bytes: int) -> None:
        door = self._port.door
        if asks is None or self.arrived_s < door.closes_s or door.opens(self.arrived_s):
            self.enter(is_late=False)
        elif not self._port.budget.has_room(held_bytes):
            raise Overloaded("too many large requests are arriving at once")
        else:
            self.asks, self.patience_s = asks, slo_s * PATIENCE_SHARE_OF_SLO
            door.wait(self)

    async def _until_answered(self, exchange: CallExchange, held_bytes: int) -> None:
        budget = self._port.budget
        budget.held_bytes += held_bytes
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        finally:
            budget.held_bytes -= held_bytes
            self._future = None

    def enter(self, *, is_late: bool) -> None:
        exchange = self._exchange
        if exchange is None:  # the client has left
            return
        try:
            self._begin(exchange, self.arrived_s, is_late)
        except ClipperError as error:
            self._port.count_refused(error.code)
            exchange.refuse_with(error)
        except Exception:  # a bug costs one call, as in a connection of HTTP
            log.exception("a call could not be handled")
            if exchange.response is None:
                exchange.cancel()
                exchange.refuse("internal_error", BUG)

    def flush(self) -> None:
        """The answer is there."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def check_size(size_bytes: int, most_bytes: int) -> None:
    """Raises TooLarge where a message is over what its application takes."""
    if size_bytes > most_bytes:
        raise TooLarge(f"message is over {most_bytes} bytes")


def held_bytes_of(answer: bytes) -> int:
    """What an answer counts for while its client has not taken it, with grpc's own copy of it.

    Short ones are in the system's buffers.
    """
    return 2 * len(answer) if len(answer) > limits.LARGE_ANSWER_BYTES else 0
