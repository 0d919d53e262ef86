"""Requests to stop a server, by signal or by call, and the drain delay that the first request begins."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)


class StopRequests:
    """Requests to stop. After the first, balancers have ``drain_delay_s`` to notice before workers drain."""

    def __init__(self, drain_delay_s: float) -> None:
        self.drain_delay_s = drain_delay_s
        self._first, self._second = asyncio.Event(), asyncio.Event()

    def request(self) -> None:
        """Begin to stop. A second request ends the delay: its sender does not want to wait."""
        (self._second if self._first.is_set() else self._first).set()

    def watch(self, descriptor: int) -> None:
        """Request a stop at the end of a pipe, of which this is the reading end.

        The command that watches the server has the other end, and ends then. The descriptor stays open for a server
        that starts again in its process.
        """
        loop = asyncio.get_running_loop()

        def has_ended() -> None:
            # Nothing is ever written to the pipe, so it becomes readable only when its other end is closed.
            loop.remove_reader(descriptor)
            log.warning("the command that runs this server has ended, so the server stops")
            self.request()

        loop.add_reader(descriptor, has_ended)

    @property
    def is_requested(self) -> bool:
        return self._first.is_set()

    async def requested(self) -> None:
        await self._first.wait()

    async def wait(self, announce: Callable[[], None]) -> None:
        """Return when workers should drain. ``announce`` is called when the delay begins, if there is one."""
        await self._first.wait()
        if self.drain_delay_s > 0 and not self._second.is_set():
            announce()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.drain_delay_s):
                    await self._second.wait()
