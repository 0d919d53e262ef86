"""The interface of an endpoint, which connections, limits and ``endpoints`` share."""

from collections.abc import Callable
from typing import Protocol, cast

from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http import responses


class Endpoint(Protocol):
    """Handles the requests to one path.

    Attributes:
        slo_s: time within which its requests shall be answered; infinite if there is none.
        error_json: formats an error's body from its code and cause.
    """

    slo_s: float

    @property
    def error_json(self) -> Callable[[str, str], bytes]: ...

    @property
    def methods(self) -> tuple[str, ...]: ...

    @property
    def max_body_bytes(self) -> int: ...

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        """Answer the exchange, now or later.

        Args:
            body: the request's body; a bytearray if it is long.
            arrived_s: when the request was read, on the loop's clock.
            is_late: whether the request has waited so long that its queries could not be answered in time.

        Raises ClipperError to refuse the request.
        """


class Small:
    """An endpoint without queries, for requests with a small body or none. ``answer`` gets an exchange and the body."""

    slo_s = float("inf")
    max_body_bytes = SHORT_TEXT_BYTES

    def __init__(
        self,
        answer: Callable[[Exchange, bytes | bytearray], None],
        methods: tuple[str, ...] = ("GET", "HEAD"),
        error_json: Callable[[str, str], bytes] = responses.error_json,
    ) -> None:
        self._answer, self.methods, self.error_json = answer, methods, error_json

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = self.error_json
        self._answer(exchange, body)


class KnownHead:
    """A request's head that was seen before. An equal head needs no parsing: equal heads mean the same.

    Attributes:
        head: its bytes; None once it is forgotten.
        size_bytes: the number of these bytes.
        body_bytes: the size of their bodies.
    """

    __slots__ = ("body_bytes", "endpoint", "head", "size_bytes")

    def __init__(self, head: bytes, endpoint: Endpoint, body_bytes: int) -> None:
        self.head: bytes | None = head
        self.size_bytes = len(head)
        self.endpoint = endpoint
        self.body_bytes = body_bytes

    def forget(self) -> None:
        """Stop matching any head on connections that still hold this object, and release the application."""
        self.head = None
        self.endpoint = cast(Endpoint, None)
