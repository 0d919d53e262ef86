"""Brings the states in memory up to date with what other workers have stored, and removes expired data from the store.

It also learns from misses without feedback.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from time import time

from clipper.errors import ClipperError
from clipper.learning.stores.gathered_reads import READ_AT_ONCE
from clipper.learning.stores.store import MAX_IDS, Store
from clipper.worker.selection.application import Application
from clipper.worker.selection.committer import Committer
from clipper.worker.selection.contexts import Contexts
from clipper.worker.selection.learner import Learner

log = logging.getLogger(__name__)

# A worker's selections may lag behind other workers' feedback by this much.
FOLLOW_S = 0.25
# Costs are measured over many batches, so nothing is lost by this. With a thousand applications a look at all of them
# takes half a millisecond.
COSTS_S = 1.0
# Expired ids of feedback are removed this often: few at a time, since commits wait meanwhile.
EXPIRE_S = 5.0
# Time between attempts while the store is down.
RETRY_S = 1.0


class Synchronizer:
    """Follows the store for all of a worker's applications, and the costs of their models, in one task.

    Args:
        max_contexts: the number of contexts that the store keeps for each application, beside those of the last
            moments.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        applications: Callable[[], Iterable[Application]],
        max_contexts: int,
        wall_clock_s: Callable[[], float] = time,
    ) -> None:
        self._store = store
        self._committer = committer
        self._applications = applications
        self._max_contexts = max_contexts
        self._wall_clock_s = wall_clock_s
        self._cursor: int | None = None
        self._has_evicted = False
        self._expired_s = wall_clock_s()
        self._costs_s = float("-inf")

    async def run(self) -> None:
        """Run until cancelled."""
        is_down = False
        while True:
            now_s = self._wall_clock_s()
            try:
                if not 0 <= now_s - self._costs_s < COSTS_S:  # the clock may be set back
                    self._costs_s = now_s
                    for application in self._applications():
                        application.follow_costs()
                await self.follow()
                for application in [one for one in self._applications() if one.outcomes.have_misses]:
                    Learner(application).make_up()
                await self.expire()
                is_down = False
            except Exception as error:  # whatever the error is, the states must not stay stale for ever
                if not isinstance(error, ClipperError):
                    log.exception("failed to follow the selection store, or models' costs")
                elif not is_down:
                    log.warning("%(error)s", {"error": error})
                is_down = True
            await asyncio.sleep(RETRY_S if is_down else FOLLOW_S)

    async def follow(self) -> None:
        """Read the states in memory again that have changed in the store since the last time.

        Raises StoreUnavailable; the next call continues from the same place.
        """
        cursor, changed = await self._store.changes(-1 if self._cursor is None else self._cursor)
        is_lost = self._cursor is not None and cursor < self._cursor
        if is_lost:
            log.error(
                "the selection store has lost data, and all that was learned is read from it again: %(reason)s",
                {"reason": f"it is at change {cursor}, and was at {self._cursor}"},
            )
        if self._cursor is None or is_lost:
            # States that were read before there was a cursor may have changed in between.
            changed = [(each.snapshot.id, name) for each in self._applications() for name in each.contexts.names()]
        names: dict[str, list[str]] = defaultdict(list)
        for application_id, name in changed:
            names[application_id].append(name)
        for application in [one for one in self._applications() if one.snapshot.id in names] if names else []:
            await self._reload(application.contexts, names[application.snapshot.id])
        for application in [one for one in self._applications() if one.contexts.has_to_reload]:
            await self._reload(application.contexts, application.contexts.to_reload())
        self._cursor = cursor

    async def _reload(self, contexts: Contexts, names: Sequence[str]) -> None:
        held = contexts.held(names)
        for start in range(0, len(held), READ_AT_ONCE):
            async with self._committer.between_batches:
                await contexts.reload(held[start : start + READ_AT_ONCE])

    async def expire(self) -> None:
        """Periodically remove expired ids of feedback, and contexts over the bound.

        Only an application to which this worker has written can be over the bound because of it. The leftovers of
        earlier workers are removed once, at first: so the store is not asked about thousands of applications again and
        again.
        """
        now_s = self._wall_clock_s()
        if 0 <= now_s - self._expired_s < EXPIRE_S:  # the clock may be set back
            return
        self._expired_s = now_s
        await self._store.expire()
        written, self._committer.written = self._committer.written, set()
        try:
            for id_ in [one.snapshot.id for one in self._applications()]:
                if self._has_evicted and id_ not in written:
                    continue
                while await self._store.evict(id_, self._max_contexts):
                    pass  # a chunk at a time, so that the store commits in between
                while await self._store.evict_ids(id_, MAX_IDS):
                    pass
        except ClipperError:
            self._committer.written |= written
            raise
        self._has_evicted = True
