"""One query worker on a node of the cluster, as the server sees it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from clipper.base.processes.process import ProcessRecord
from clipper.errors import ClipperError, Unavailable
from clipper.supervisor.managers.ray.actor_process import ActorProcess
from clipper.supervisor.managers.ray.actors import CALL_TIMEOUT_S, Actors
from clipper.supervisor.managers.ray.connection import ActorGone

log = logging.getLogger(__name__)

# A certificate is valid for 30 days. One that cannot be renewed is tried again after a while.
RENEW_EVERY_S = 24 * 3600.0
RENEW_AGAIN_S = 60.0


class RayWorker(ActorProcess):
    """A ``RunningWorker`` that an actor runs. ``node`` is Ray's id of its node."""

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
        super().__init__(actors, actor, record.pid)
        self.node = node
        self._renewing = None if renew is None else self._keep(self._renew(renew, renew_after_s))

    def terminate(self) -> None:
        self._keep(self._terminate())

    def kill(self) -> None:
        self._keep(self.stop(grace_s=0.0))

    async def is_seen(self) -> bool:
        """Whether its actor answers, and says that it runs."""
        try:
            return bool(await self._call("is_up", within_s=CALL_TIMEOUT_S))
        except (ActorGone, Unavailable):
            return False

    async def remove(self) -> bool:
        if self._renewing is not None:
            self._renewing.cancel()
        return await super().remove()

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
            await self._call("terminate", within_s=CALL_TIMEOUT_S)
