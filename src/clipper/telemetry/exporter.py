"""Sends spans, on a thread: a receiver that hangs or is away costs spans, which are counted, but delays no query."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from clipper.telemetry.spans import Span

log = logging.getLogger(__name__)

# Spans that wait to be sent: some MB. Further ones are dropped.
MAX_WAITING_SPANS = 8192
# The most spans in one message, and how long fewer of them may wait for more.
SPANS_PER_MESSAGE = 512
SEND_EVERY_S = 1.0
# A stop waits this long for the last message. What is not sent by then is dropped.
CLOSE_TIMEOUT_S = 2.0


class Sender(Protocol):
    """Sends spans to a receiver, on the exporter's thread."""

    def send(self, spans: Sequence[Span], began_s: float) -> None:
        """Send spans; return once the receiver has taken them.

        Args:
            spans: times are on a clock that was at 0 at ``began_s``.
            began_s: in seconds since 1970.

        Raises:
            Exception: they were not taken.
        """

    def close(self) -> None:
        """Give up what is under way, as soon as possible. Called on another thread."""


class Exporter:
    """A bounded queue of spans, and the thread that empties it.

    Attributes:
        exported: number of spans that the receiver has taken.
        problem: why the last message was not taken; None if it was.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        # Only one side writes each of these: the loop or the thread.
        self._over = 0
        self._failed = self.exported = 0
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._send_all, name="spans", daemon=True)
        self._thread.start()

    def add(self, span: Span) -> None:
        """Send a span soon, or drop it if too many wait."""
        if len(self._waiting) >= MAX_WAITING_SPANS:
            self._over += 1
            return
        self._waiting.append(span)
        if len(self._waiting) >= SPANS_PER_MESSAGE:
            self._wake.set()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def dropped(self) -> dict[str, int]:
        """Numbers of dropped spans by reason: ``queue_full``, or ``export_failed``."""
        return {"queue_full": self._over, "export_failed": self._failed}

    def close(self) -> None:
        """Send what waits, if the receiver takes it. Blocks for ``CLOSE_TIMEOUT_S`` at most."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._sender.close()

    def _send_all(self) -> None:
        while not self._is_closing or self._waiting:
            self._wake.wait(SEND_EVERY_S)
            self._wake.clear()
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(len(self._waiting), SPANS_PER_MESSAGE))])
        self._sender.close()

    def _send(self, spans: Sequence[Span]) -> None:
        try:
            self._sender.send(spans, time.time() - time.monotonic())
        except Exception as error:  # noqa: BLE001  of a library, or of the receiver: spans are lost, and nothing else
            self._failed += len(spans)
            if self.problem is None:  # log it once, not for each message
                log.warning("cannot send spans, so they are dropped: %(error)s", {"error": error})
            self.problem = f"{type(error).__name__}: {error}"
        else:
            self.exported += len(spans)
            if self.problem is not None:
                log.warning("spans can be sent again")
            self.problem = None
