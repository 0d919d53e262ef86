"""The tasks of an actor: they restart its process, and end it when it cannot go on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from clipper.errors import ClipperError
from clipper.supervisor.managers.launcher import Keeper
from clipper.supervisor.managers.reconcile.plan import Revival

log = logging.getLogger(__name__)


class Reviver:
    """Restarts the process of an actor, which was just started."""

    def __init__(self, wait: Callable[[], Awaitable[object]], start: Callable[[], Awaitable[None]]) -> None:
        """Begin to watch.

        ``wait`` returns once the process that runs at the moment of the call has ended. ``start`` starts it again, at
        the same address; it may raise ClipperError or OSError.
        """
        self._wait = wait
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._revival = Revival(self._loop.time())
        self._running = self._loop.create_task(self._run())

    def end(self) -> None:
        """Start nothing from now on."""
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
                    log.warning("the process cannot be started again; another try follows: %(error)s", {"error": error})
            else:
                return


class WatchedTasks:
    """Tasks that last as long as a container, which ends with the first that ends.

    Nothing is tried again on the node: the server starts another replica and shows why. Otherwise a failed front would
    look like a container that hangs.
    """

    def __init__(self, kill: Callable[[str], None]) -> None:
        """Make an empty list of tasks. ``kill`` ends the container; it gets the reason, which continues "it"."""
        self._kill = kill
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, what: str, run: Keeper) -> None:
        """Run a task until ``cancel``. ``what`` it does is the subject of a sentence."""
        self._tasks.add(asyncio.get_running_loop().create_task(self._watch(what, run)))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _watch(self, what: str, run: Keeper) -> None:
        why = "it has returned"
        try:
            await run()
        except Exception as error:  # any error: the container must neither go on without it nor end without a reason
            log.exception("%(task)s failed: the container is killed", {"task": what})
            why = f"{type(error).__name__}: {error}"
        self._kill(f"cannot go on: {what} failed: {why}")
