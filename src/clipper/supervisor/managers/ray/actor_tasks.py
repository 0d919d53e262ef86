"""The tasks of an actor: they restart its process, and end it when it cannot go on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from clipper.errors import ClipperError
from clipper.supervisor.managers.launcher import Keeper
from clipper.supervisor.managers.reconcile.plan import NO_DEATHS

log = logging.getLogger(__name__)

# The shortest pause before a restart: many times longer than a busy supervisor takes to end the actor.
PATIENCE_S = 3.0


class Reviver:
    """Restarts the process of an actor, which was just started. Its pauses are those of ``History``, or longer."""

    def __init__(self, wait: Callable[[], Awaitable[object]], start: Callable[[], Awaitable[None]]) -> None:
        """Begin to watch.

        ``wait`` returns once the process that runs at the moment of the call has ended. ``start`` starts it again, at
        the same address; it may raise ClipperError or OSError.
        """
        self._wait = wait
        self._start = start
        self._running = asyncio.get_running_loop().create_task(self._run())

    def end(self) -> None:
        """Start nothing from now on."""
        self._running.cancel()

    async def _run(self) -> None:
        loop, history = asyncio.get_running_loop(), NO_DEATHS
        started_s = loop.time()
        while True:
            await self._wait()
            is_up = False
            while not is_up:
                now_s = loop.time()
                history = history.died(now_s, now_s - started_s)
                await asyncio.sleep(max(PATIENCE_S, history.restart_at_s - now_s))
                started_s = loop.time()
                try:
                    await self._start()
                    is_up = True
                except (ClipperError, OSError) as error:
                    log.warning("the process cannot be started again; another try follows: %(error)s", {"error": error})


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
