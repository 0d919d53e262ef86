"""Restarts an actor's process, when ``revival.py`` says so."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from clipper.errors import ClipperError
from clipper.supervisor.managers.ray.revival import Revival

log = logging.getLogger(__name__)


class Reviver:
    """Restarts the process of one actor, which was just started."""

    def __init__(self, wait: Callable[[], Awaitable[object]], start: Callable[[], Awaitable[None]]) -> None:
        """
        Args:
            wait: returns once what runs at the moment of the call has ended.
            start: starts it again, at the same address. It may raise ClipperError or OSError.
        """
        self._wait = wait
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._revival = Revival(self._loop.time())
        self._running = self._loop.create_task(self._run())

    def end(self) -> None:
        """Start nothing any more."""
        self._revival.end()
        self._running.cancel()

    async def _run(self) -> None:
        while True:
            await self._wait()
            while (at_s := self._revival.ended(self._loop.time())) is not None:
                await asyncio.sleep(at_s - self._loop.time())
                self._revival.starts(self._loop.time())
                try:
                    await self._start()
                    break
                except (ClipperError, OSError) as error:
                    log.warning("it cannot be started again, which is tried once more: %(error)s", {"error": error})
            else:
                return
