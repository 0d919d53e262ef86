"""A timer that is asked for several times and goes off at the earliest."""

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` once, at the earliest of the times it was set for since it last rang."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], object]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.Handle | None = None
        # Kept here and not asked of the handle: for a time within half a millisecond, uvloop's call_at returns what
        # call_soon does, which has no when().
        self._at_s = 0.0

    def set(self, at_s: float) -> None:
        """Ring at ``at_s``, of the loop's clock, if not before."""
        if self._handle is not None:
            if self._at_s <= at_s:
                return
            self._handle.cancel()
        self._at_s = at_s
        self._handle = self._loop.call_at(at_s, self._go_off)

    def cancel(self) -> None:
        """Do not ring, unless it is set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _go_off(self) -> None:
        self._handle = None
        self._ring()
