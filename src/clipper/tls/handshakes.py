"""The TLS handshakes of a port: taken in turns, and bounded in number and time.

A handshake costs the server about a millisecond, and anyone who reaches the port can begin any number of them. So those
with something to do wait in one line, and each turn of the event loop does a part of it: other requests come between.
If there are too many, those that wait for their clients are dropped first: honest clients hardly keep them waiting.
"""

import logging
import ssl
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

# How long handshakes may hold the event loop between its other events; one of them may take longer than that.
SLICE_S = 0.002
# Handshakes under way at once. One that has begun takes some ten KB, and honest ones are done in milliseconds.
MAX_HANDSHAKES = 1000
# Counted from when a connection is accepted. Across the world three round trips take a second.
HANDSHAKE_TIMEOUT_S = 10.0
# Failures and the latest reason are logged once in this time, so that clients cannot fill the log.
WARN_EVERY_S = 60.0


class Handshake(Protocol):
    def shake(self) -> None:
        """Go on with the handshake as far as possible."""

    def give_up(self) -> None: ...


class Handshakes:
    """
    Attributes:
        context: for new connections; it may be replaced at any time.
        failed: how many have failed.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        call_soon: Callable[[Callable[[], None]], object],
        most: int = MAX_HANDSHAKES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.context = context
        self.failed = 0
        self.call_soon = call_soon
        self._most = most
        self._clock = clock
        # When each handshake began: of those that wait for their client, in the order in which they last did something,
        # and of those in the line, in the order in which they joined it.
        self._waiting: dict[Handshake, float] = {}
        self._due: dict[Handshake, float] = {}
        self._warns_at_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._due)

    def begin(self, handshake: Handshake) -> None:
        """Add a handshake. This may give up another one, or this one if all others are in the line."""
        is_full = len(self) >= self._most
        self._waiting[handshake] = self._clock()
        if is_full:
            self._give_up(next(iter(self._waiting)), "too many are under way")

    def queue(self, handshake: Handshake) -> None:
        """Queue a handshake that has something to do."""
        began_s = self._waiting.pop(handshake, None)
        if began_s is None:
            return
        if not self._due:
            self.call_soon(self._run)
        self._due[handshake] = began_s

    def end(self, handshake: Handshake) -> None:
        """Forget a handshake that is done or whose connection is gone."""
        self._waiting.pop(handshake, None)
        self._due.pop(handshake, None)

    def fail(self, handshake: Handshake, why: str) -> None:
        self.end(handshake)
        self.failed += 1
        now_s = self._clock()
        if now_s >= self._warns_at_s:
            self._warns_at_s = now_s + WARN_EVERY_S
            log.warning(
                "%(count)d TLS handshakes have failed, the last one because: %(reason)s",
                {"count": self.failed, "reason": why},
            )

    def sweep(self) -> None:
        """Give up those that take too long; call this about once a second."""
        before_s = self._clock() - HANDSHAKE_TIMEOUT_S
        for handshake, began_s in [*self._waiting.items(), *self._due.items()]:
            if began_s <= before_s:
                self._give_up(handshake, f"it was not done within {HANDSHAKE_TIMEOUT_S:g} s")

    def _give_up(self, handshake: Handshake, why: str) -> None:
        self.fail(handshake, why)
        handshake.give_up()

    def _run(self) -> None:
        end_s = self._clock() + SLICE_S
        while self._due:
            handshake, began_s = next(iter(self._due.items()))
            del self._due[handshake]
            self._waiting[handshake] = began_s
            handshake.shake()
            if self._clock() >= end_s:
                break
        if self._due:
            self.call_soon(self._run)
