"""Runs the tasks that last as long as the server does: none of them may end unnoticed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

# A failed task, for example for lack of a file descriptor, is started again after this.
RETRY_S = 1.0
# The slowest task looks every 2 s: a task that has run for longer than this has recovered.
RECOVERED_AFTER_S = 3.0


class Keepers:
    """Runs each keeper in a task of its own. A keeper that ends with an error is reported and started again."""

    def __init__(self, retry_s: float = RETRY_S, recovered_after_s: float = RECOVERED_AFTER_S) -> None:
        self._retry_s = retry_s
        self._recovered_after_s = recovered_after_s
        self._tasks: list[asyncio.Task[None]] = []
        self._failures: dict[str, str] = {}

    def start(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a keeper until ``stop``, or until it returns. ``what`` it does is the subject of a sentence."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._keep(what, run)))

    def repeat(self, what: str, look: Callable[[], Awaitable[None] | None], every_s: float) -> None:
        """Start a task that looks at once, and again ``every_s`` after the end of each look."""

        async def run() -> None:
            while True:
                if (looking := look()) is not None:
                    await looking
                await asyncio.sleep(every_s)

        self.start(what, run)

    def problems(self) -> list[str]:
        """Return the tasks that have failed and not recovered since, and why."""
        return [f"{what} failed and is tried again: {why}" for what, why in self._failures.items()]

    async def stop(self, timeout_s: float | None = None) -> None:
        """End all keepers; return when they have ended, or after ``timeout_s``."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _keep(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            recovered = asyncio.get_running_loop().call_later(self._recovered_after_s, self._has_recovered, what)
            try:
                await run()
                return
            except Exception as error:  # any error: the task must neither end silently nor end other tasks
                why = f"{type(error).__name__}: {error}"
                # Logged once, not at each try.
                if self._failures.get(what) != why:
                    log.exception("%(task)s failed and is tried again", {"task": what})
                self._failures[what] = why
            finally:
                recovered.cancel()
            await asyncio.sleep(self._retry_s)

    def _has_recovered(self, what: str) -> None:
        if self._failures.pop(what, None):
            log.info("%(task)s goes on", {"task": what})
