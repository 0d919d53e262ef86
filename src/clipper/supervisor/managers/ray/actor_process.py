"""A process that an actor runs on its node, as the server sees it: watched to its end, and ended."""

import asyncio
import contextlib
import logging
from typing import Any

from clipper.base.processes.process import is_set_within
from clipper.errors import ClipperError, Unavailable
from clipper.supervisor.managers.ray.actors import CALL_TIMEOUT_S, Actors
from clipper.supervisor.managers.ray.connection import ActorGone, ActorUnreachable
from clipper.supervisor.managers.ray.messages import Method

log = logging.getLogger(__name__)

# While an actor cannot be reached, a connection to what it runs shows whether that runs. Ray needs a moment to notice a
# death.
ASK_AGAIN_S = 0.25


class ActorProcess:
    """
    Attributes:
        exited: set once it has exited, or is lost.
        actor: the name of its actor.
        how_it_ended: the rest of a sentence about it.
        has_died: its actor says that it has ended, and nobody here had ended it.
    """

    def __init__(self, actors: Actors, actor: str, pid: int) -> None:
        """Watch it from now on."""
        self.exited = asyncio.Event()
        self.actor = actor
        self.how_it_ended = "is gone"
        self.has_died = False
        self._actors = actors
        self._pid = pid
        # Ray could not reach its actor when it was to stop. Each further call would only fail after two seconds more.
        self._is_lost = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = self._keep(self._watch())

    @property
    def pid(self) -> int:
        """As its node sees it."""
        return self._pid

    async def has_exited_within(self, seconds: float) -> bool:
        return await is_set_within(self.exited, seconds)

    async def stop(self, grace_s: float) -> None:
        if self.exited.is_set():
            return
        try:
            self._has_ended(str(await self._call("stop", grace_s, within_s=grace_s + CALL_TIMEOUT_S)))
        except ActorGone as error:
            self._has_ended(_lost(error))
        except Unavailable as error:
            self._is_lost = isinstance(error, ActorUnreachable)
            # The caller must not wait for the cluster to come back. The actor is killed when it has.
            log.error("%(replica)s cannot be stopped now: %(error)s", {"replica": self.actor, "error": error})
            self._has_ended("is gone")

    async def remove(self) -> bool:
        """Remove what its node has of it, and end its actor; return whether that has ended."""
        self._watching.cancel()
        if not self._is_lost:
            with contextlib.suppress(ActorGone, Unavailable):  # the guard on its node does it then
                await self._call("clean_up", within_s=CALL_TIMEOUT_S)
        return await self._actors.kill(self.actor)

    async def _watch(self) -> None:
        while not self.exited.is_set():
            try:
                how = str(await self._call("ended"))
                self.has_died = not self.exited.is_set()
                self._has_ended(how)
            except ActorGone as error:
                self._has_ended(_lost(error))
            except ClipperError:
                await asyncio.sleep(ASK_AGAIN_S)

    def _has_ended(self, how: str) -> None:
        if not self.exited.is_set():
            self.how_it_ended = how
            self.exited.set()

    async def _call(self, method: Method, *arguments: Any, within_s: float | None = None) -> Any:
        return await self._actors.call(self.actor, method, *arguments, within_s=within_s)

    def _keep(self, run: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _lost(error: ActorGone) -> str:
    return f"was lost with its node or its actor: {error}"
