"""Keeps the states in memory abreast of what others have added to the store, and the store free of what is over."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import time

from clipper.errors import StoreUnavailable
from clipper.selection.application import Application
from clipper.selection.stores.store import EVERYONE, Store

log = logging.getLogger(__name__)

# How far a worker's choices may lag behind the feedback that the others got.
FOLLOW_S = 0.25
# How often ids of feedback that may no longer come are removed.
EXPIRE_S = 60.0
# A store that is down is asked again this often; it then recovers by itself.
RETRY_S = 1.0


class Synchronizer:
    """Follows the store for all of a worker's applications, in one task."""

    def __init__(
        self, store: Store, applications: Callable[[], Iterable[Application]], wall_clock_s: Callable[[], float] = time
    ) -> None:
        self._store = store
        self._applications = applications
        self._wall_clock_s = wall_clock_s
        self._cursor = -1
        self._expired_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.follow()
                await self.expire()
            except StoreUnavailable as error:
                log.warning("%s", error)
                await asyncio.sleep(RETRY_S)
            else:
                await asyncio.sleep(FOLLOW_S)

    async def follow(self) -> None:
        """Read again the states in memory that have changed in the store since the last time.

        Raises:
            StoreUnavailable: next time it goes on from where it was.
        """
        cursor, changed = await self._store.changes(self._cursor)
        applications = {application.snapshot.id: application for application in self._applications()}
        for name, context in changed:
            application = applications.get(name)
            if application is not None and application.contexts.holds(context):
                await application.contexts.load(None if context == EVERYONE else context)
        self._cursor = cursor

    async def expire(self) -> None:
        """Now and then, forget the ids of feedback on queries that nobody waits for any more."""
        now_s = self._wall_clock_s()
        if now_s - self._expired_s < EXPIRE_S:
            return
        self._expired_s = now_s
        longest_s = max((each.snapshot.selection.feedback_ttl_s for each in self._applications()), default=0.0)
        await self._store.expire(now_s - longest_s)
