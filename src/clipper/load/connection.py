"""One connection to the query port with at most one query in flight, as many clients with one query each have it."""

import asyncio
import time
from typing import Protocol, cast

from clipper.load.answers import Answer, AnswerReader, BadAnswer


class Owner(Protocol):
    """Owns a connection. Each query ends exactly once, with ``has_answer`` or with ``has_failed``."""

    def is_open(self, connection: "Connection") -> None: ...

    def has_answer(self, connection: "Connection", answer: Answer, answered_s: float) -> None: ...

    def has_failed(self, connection: "Connection", why: str) -> None: ...

    def is_closed(self, connection: "Connection") -> None:
        """The connection must not be used again; nothing is in flight on it."""
        ...


class Connection(asyncio.Protocol):
    """
    Attributes:
        number, due_s, sent_s: of the query in flight; times are on ``time.monotonic``.
        is_busy: whether a query is in flight.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._reader = AnswerReader()
        self.number = 0
        self.due_s = self.sent_s = 0.0
        self.is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport does not inherit from it
        self._owner.is_open(self)

    def send(self, number: int, due_s: float, now_s: float, request: bytes) -> None:
        self.number, self.due_s, self.sent_s, self.is_busy = number, due_s, now_s, True
        self._transport.write(request)

    @property
    def is_closing(self) -> bool:
        """Whether it has closed, perhaps before ``is_closed`` is called: uvloop's then takes no request."""
        return self._transport.is_closing()

    def data_received(self, data: bytes) -> None:
        answered_s = time.monotonic()
        if not self.is_busy:
            # Nothing was asked, so the next answer could not be told from this.
            self._transport.abort()
            return
        try:
            answer = self._reader.feed(data)
        except BadAnswer as error:
            self.fail(f"bad answer: {error}")
            return
        if answer is None:
            return
        self.is_busy = False
        if answer.closes:
            self._transport.close()
        self._owner.has_answer(self, answer, answered_s)

    def fail(self, why: str) -> None:
        """Give up the query in flight, and the connection."""
        self.is_busy = False
        self._owner.has_failed(self, why)
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_busy:
            self.is_busy = False
            self._owner.has_failed(self, "connection lost")
        self._owner.is_closed(self)

    def abort(self) -> None:
        self._transport.abort()
