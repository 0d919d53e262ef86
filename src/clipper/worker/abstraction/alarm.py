"""A timer that can be set many times and rings at the earliest of these times."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings once, at the earliest of the times that were set since it last rang."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.Handle | None = None
        # The alarm keeps the time itself: for a time less than half a millisecond away, uvloop's call_at returns the
        # handle of call_soon, which has no when().
        self._at_s = 0.0

    def set(self, at_s: float, ring: Callable[[], object]) -> None:
        """Call ``ring`` at ``at_s`` on the loop's clock, or earlier if an earlier time is set.

        The alarm drops ``ring`` once it has called it, so that the alarm and its owner form no reference cycle.
        """
        if self._handle is not None:
            if self._at_s <= at_s:
                return
            self._handle.cancel()
        self._at_s = at_s
        self._handle = self._loop.call_at(at_s, self._go_off, ring)

    def cancel(self) -> None:
        """Do not ring until ``set`` is called again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _go_off(self, ring: Callable[[], object]) -> None:
        self._handle = None
        ring()
