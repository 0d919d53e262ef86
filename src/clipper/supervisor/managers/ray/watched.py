"""Tasks that a container on a node cannot do without."""

import asyncio
import logging
from collections.abc import Callable

from clipper.supervisor.managers.launcher import Keeper

log = logging.getLogger(__name__)


class WatchedTasks:
    """Tasks that last as long as a container. The container ends with the first that ends.

    Nothing is tried again on the node: the server starts another replica, by the rules for all that die, and shows why.
    Without that, a front that has failed would look like a container that does not answer.
    """

    def __init__(self, kill: Callable[[str], None]) -> None:
        """``kill`` ends the container; it gets the reason, which goes on from "it"."""
        self._kill = kill
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, what: str, run: Keeper) -> None:
        """Run it until ``cancel``. ``what`` it does is the subject of a sentence."""
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
