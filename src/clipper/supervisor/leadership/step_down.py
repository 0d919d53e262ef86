"""Ends a supervisor but not its processes, which the next start adopts.

A leader that becomes a standby starts again in its own process, with the same arguments, so that none of its state acts
for a cluster that it no longer leads. So does a server that is handed over while another program watches its process,
and a server that could not adopt its processes on Ray because Ray was away.
"""

import asyncio
import logging
import os
import sys
from typing import NoReturn

from clipper.settings.server import ADDRESSES
from clipper.supervisor.config import Config
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.stop_requests import StopRequests

log = logging.getLogger(__name__)

# Other tasks, which end in milliseconds, get this time. Nothing may delay this server: another one leads, or will.
STEP_DOWN_TIMEOUT_S = 2.0


def start_again(config: Config) -> NoReturn:
    """Start this process again. The system closes descriptors, such as the lock of the home."""
    addresses = {variable: getattr(config, name) for name, variable in ADDRESSES.items()}
    given = {variable: address for variable, address in addresses.items() if address is not None}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | given)


async def step_down(parts: Parts, config: Config, why: str) -> NoReturn:
    log.warning("this server starts again in its process: %(reason)s", {"reason": why})
    event = NewEvent("server", "server", f"the server starts again: {why}", level="warning")
    await _let_go(parts, event)
    start_again(config)


class HandOver:
    """Hands a server over to the next start of its home.

    A server in the background ends, and the command that asks for this starts the next. A server whose process somebody
    watches stays that process, and starts again in it.
    """

    def __init__(self, config: Config, stopping: StopRequests) -> None:
        self._config = config
        self._stopping = stopping
        self._requested = asyncio.Event()
        self._is_waited_for = False

    def request(self) -> None:
        """Hand over. A server that was told to stop goes on stopping; a server that does not serve yet just ends."""
        if self._stopping.is_requested:
            return
        if not self._is_waited_for:
            self._end()
        self._requested.set()

    async def wait(self) -> None:
        """Return when the server has to be handed over."""
        self._is_waited_for = True
        await self._requested.wait()

    async def leave(self, parts: Parts) -> NoReturn:
        log.info("this server is handed over: its processes keep running")
        await _let_go(parts, NewEvent("server", "server", "the server is handed over to its next start"))
        self._end()

    def _end(self) -> NoReturn:
        if self._config.options.started_by != "start":
            start_again(self._config)
        # Not by ending the event loop, which would cancel the tasks that watch processes.
        os._exit(0)


async def _let_go(parts: Parts, event: NewEvent) -> None:
    parts.reconciler.stop()
    parts.events.record([event])
    # No later start adopts fork servers, so they end with the task that keeps them.
    await parts.keepers.stop(STEP_DOWN_TIMEOUT_S)
    parts.events.close()
