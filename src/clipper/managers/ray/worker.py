"""One query worker on a node of the cluster, as the server sees it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from clipper.errors import ClipperError, Unavailable
from clipper.managers.ray.actors import CALL_TIMEOUT_S, Actors
from clipper.managers.ray.connection import ActorGone
from clipper.processes.process import ProcessRecord

log = logging.getLogger(__name__)

# While an actor cannot be reached, the worker's control channel shows whether it runs.
ASK_AGAIN_S = 1.0
# A certificate is valid for 30 days. One that cannot be renewed is tried again after a while.
RENEW_EVERY_S = 24 * 3600.0
RENEW_AGAIN_S = 60.0


class RayWorker:
    """A ``RunningWorker`` that an actor runs.

    Attributes:
        actor: its name.
        node: Ray's id of its node.
    """

    def __init__(
        self,
        actors: Actors,
        actor: str,
        node: str,
        record: ProcessRecord,
        renew: Callable[[], Awaitable[None]] | None,
        renew_after_s: float,
    ) -> None:
        """Watch it from now on.

        Args:
            renew: gives it a new certificate; None if nobody asks it anything any more.
            renew_after_s: when to do so the first time.
        """
        self.exited = asyncio.Event()
        self.actor = actor
        self.node = node
        self._actors = actors
        self._pid = record.pid
        self._how_it_ended = "is gone"
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = self._keep(self._watch())
        self._renewing = None if renew is None else self._keep(self._renew(renew, renew_after_s))

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def how_it_ended(self) -> str:
        return self._how_it_ended

    def terminate(self) -> None:
        self._keep(self._terminate())

    def kill(self) -> None:
        self._keep(self.stop(grace_s=0.0))

    async def stop(self, grace_s: float) -> None:
        if self.exited.is_set():
            return
        try:
            how = await self._actors.call(self.actor, "stop", grace_s, within_s=grace_s + CALL_TIMEOUT_S)
            self._has_ended(str(how))
        except ActorGone as error:
            self._has_ended(_lost(error))
        except Unavailable as error:
            # The caller must not wait for the cluster to come back. The actor is killed when it has.
            log.error("%(worker)s cannot be stopped now: %(error)s", {"worker": self.actor, "error": error})
            self._has_ended("is gone")

    async def has_exited_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):  # the event decides, not which of the two came first
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        return self.exited.is_set()

    async def is_seen(self) -> bool:
        """Whether its actor answers, and says that it runs."""
        try:
            return bool(await self._actors.call(self.actor, "is_up", within_s=CALL_TIMEOUT_S))
        except (ActorGone, Unavailable):
            return False

    async def remove(self) -> None:
        """Remove what its node has of it, and end its actor."""
        self._watching.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
        with contextlib.suppress(ActorGone, Unavailable):  # the guard on its node does it then
            await self._actors.call(self.actor, "clean_up", within_s=CALL_TIMEOUT_S)
        await self._actors.kill(self.actor)
        self._actors.drop(self.actor)

    async def _renew(self, renew: Callable[[], Awaitable[None]], after_s: float) -> None:
        while True:
            await asyncio.sleep(after_s)
            try:
                await renew()
                after_s = RENEW_EVERY_S
            except ActorGone:
                return
            except ClipperError as error:
                log.warning(
                    "the certificate of %(worker)s cannot be renewed: %(error)s", {"worker": self.actor, "error": error}
                )
                after_s = RENEW_AGAIN_S

    async def _terminate(self) -> None:
        with contextlib.suppress(ActorGone, Unavailable):
            await self._actors.call(self.actor, "terminate", within_s=CALL_TIMEOUT_S)

    async def _watch(self) -> None:
        while not self.exited.is_set():
            try:
                self._has_ended(str(await self._actors.call(self.actor, "ended")))
            except ActorGone as error:
                self._has_ended(_lost(error))
            except Unavailable:
                await asyncio.sleep(ASK_AGAIN_S)

    def _has_ended(self, how: str) -> None:
        if not self.exited.is_set():
            self._how_it_ended = how
            self.exited.set()

    def _keep(self, run: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _lost(error: ActorGone) -> str:
    return f"was lost with its node or its actor: {error}"
