"""Lets a few containers of this machine start at a time, in the order in which they are asked for.

A thousand that start at once, as when a machine comes up again, would all be ready as late as the last of them, many of
them later than their start timeout allows, and would all need the memory that loading takes.
"""

import asyncio
from collections.abc import Callable

# While some wait for the disk or the network, others compute.
PER_CORE = 4
# Most are ready sooner. One that takes longer, or hangs, keeps nobody else waiting: it is not counted any more.
COUNTED_S = 10.0


class Starts:
    """The containers that start now, at most ``at_once``, and those that wait for it. Each slot has one of them."""

    def __init__(self, at_once: int) -> None:
        self._room = asyncio.Semaphore(at_once)

    @property
    def is_full(self) -> bool:
        """Whether the next one has to wait."""
        return self._room.locked()

    async def begin(self) -> Callable[[], None]:
        """Wait until one more may start. Call what is returned once it is ready or gone."""
        await self._room.acquire()
        timer: asyncio.TimerHandle | None = None

        def end() -> None:
            nonlocal timer
            if timer is not None:
                timer.cancel()
                timer = None
                self._room.release()

        timer = asyncio.get_running_loop().call_later(COUNTED_S, end)
        return end
