"""Bounds a port's TLS handshakes in number and time, and runs them in turns; long reads take turns, too.

A handshake costs the server about a millisecond, and anyone who reaches the port can begin any number of them. So
handshakes that have received data wait in one line, which gets a share of each turn of the event loop. If there are too
many, handshakes that wait for their clients are dropped first: honest clients hardly ever pause.
"""

import logging
import ssl
from typing import Protocol

from clipper.base.turn_budget import Backlog, TurnBudget

log = logging.getLogger(__name__)

# Handshakes under way at once. A handshake takes some ten KB from its beginning; honest clients need milliseconds.
MAX_HANDSHAKES = 1000
# Counted from when a connection is accepted. Across the world three round trips take a second.
HANDSHAKE_TIMEOUT_S = 10.0
# Failures and the latest reason are logged once in this time, so that clients cannot fill the log.
WARN_EVERY_S = 60.0


class Handshake(Protocol):
    def shake(self) -> None:
        """Go on with the handshake as far as possible."""

    def abort(self) -> None: ...


class Reading(Protocol):
    def read_on(self) -> bool:
        """Decrypt a piece of what was received. Return whether no more can be read now."""


class Handshakes:
    """``context``: for new connections; it may be replaced at any time. ``failed``: how many have failed."""

    def __init__(self, context: ssl.SSLContext, turn: TurnBudget, most: int = MAX_HANDSHAKES) -> None:
        self.context = context
        self.failed = 0
        self.turn = turn
        self._clock = turn.now_s
        self._most = most
        self._line = Backlog[Handshake](turn, self._shake)
        self._reading = Backlog[Reading](turn, lambda reading, end_s: reading.read_on(), in_turns=True)
        # For each handshake, its start time. ``_waiting`` has those that wait for their clients, by their last
        # activity; ``_due`` has those in the line, in the order in which they joined it.
        self._waiting: dict[Handshake, float] = {}
        self._due: dict[Handshake, float] = {}
        self._warns_at_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._due)

    def begin(self, handshake: Handshake) -> None:
        """Add a handshake. This may give up another handshake, or this one if all others are in the line."""
        is_full = len(self) >= self._most
        self._waiting[handshake] = self._clock()
        if is_full:
            self._give_up(next(iter(self._waiting)), "too many are under way")

    def queue(self, handshake: Handshake) -> None:
        """Queue a handshake that has received data."""
        began_s = self._waiting.pop(handshake, None)
        if began_s is None:
            return
        self._due[handshake] = began_s
        self._line.add(handshake)

    def queue_reading(self, reading: Reading) -> None:
        """Queue a connection that has more to decrypt. It must not be queued already."""
        self._reading.add(reading)

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
        """Give up handshakes that take too long; call this about once a second."""
        before_s = self._clock() - HANDSHAKE_TIMEOUT_S
        for handshake, began_s in [*self._waiting.items(), *self._due.items()]:
            if began_s <= before_s:
                self._give_up(handshake, f"it was not done within {HANDSHAKE_TIMEOUT_S:g} s")

    def _give_up(self, handshake: Handshake, why: str) -> None:
        self.fail(handshake, why)
        handshake.abort()

    def _shake(self, handshake: Handshake, end_s: float) -> bool:
        began_s = self._due.pop(handshake, None)
        if began_s is not None:
            self._waiting[handshake] = began_s
            handshake.shake()
        return True
