"""Removes unused artifacts, the oldest versions, and the learned state of deleted applications."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from clipper.errors import ClipperError
from clipper.learning.stores.store import Store
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.registry.store import Forgotten
from clipper.supervisor.rollout import wanted

log = logging.getLogger(__name__)

# A deployment follows its upload within moments; a day allows for people who work by hand.
UNUSED_AGE_S = 24 * 3600.0
LOOK_EVERY_S = 24 * 3600.0
# A look scans records in memory, in well under a millisecond.
LOOK_AT_VERSIONS_EVERY_S = 2.0


async def remove_old_versions(catalog: Catalog, keep: int, delete: Callable[[str, str], Awaitable[None]]) -> None:
    """Remove a model's oldest versions that do not run, if over ``keep``. ``delete`` may raise ``ClipperError``."""
    for id_ in wanted.to_remove(catalog, keep):
        # Check again: the previous removal took a while, and an operator may have started this version.
        if id_ not in wanted.to_remove(catalog, keep):
            continue
        log.info(
            "%(model)s:%(version)s is removed: it does not run, and %(count)d newer ones are kept",
            {**id_.log_fields, "count": keep},
        )
        try:
            await delete(id_.name, id_.version)
        except ClipperError as error:  # the registry cannot be written: the next look is in a moment
            log.warning("%(model)s:%(version)s cannot be removed now: %(error)s", {**id_.log_fields, "error": error})
            return


def remove_unused_artifacts(catalog: Catalog, artifacts: Artifacts, now_s: float | None = None) -> None:
    """Remove artifacts that nobody uses and that are older than a day. ``now_s``: in seconds since the epoch."""
    for digest in artifacts.older_than((now_s or time.time()) - UNUSED_AGE_S):
        if not catalog.uses_artifact(digest):
            log.info("artifact %(artifact)s was not deployed for a day and is removed", {"artifact": digest})
            artifacts.remove(digest)
    artifacts.clean_copies(catalog.uses_artifact)


# Feedback that a worker accepted before the deletion may wait 5 s for models, and then for the store.
DELAY_S = 10.0
# If the store or the registry is down, the next attempt follows after this.
RETRY_S = 30.0


class Forgetter:
    """Drops the state of the catalog's ``to_forget`` in a task: an unavailable store neither delays nor loses a
    deletion.

    The supervisor does this since an application may be deleted while no worker runs.
    """

    def __init__(self, catalog: Catalog, store: Store, delay_s: float = DELAY_S, retry_s: float = RETRY_S) -> None:
        self._catalog = catalog
        self._store = store
        self._delay_s = delay_s
        self._retry_s = retry_s
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        self._wanted.set()

    async def run(self) -> None:
        while True:
            if not self._catalog.to_forget:
                await self._wanted.wait()
            self._wanted.clear()
            pending = sorted(self._catalog.to_forget)
            await asyncio.sleep(self._delay_s)
            try:
                for application_id in pending:
                    await self._store.drop(application_id)
                    self._catalog.commit(Forgotten(application_id))
            except ClipperError as error:  # the store or the registry
                log.warning(
                    "the learned state of %(count)d applications cannot be dropped now; it is tried again: %(error)s",
                    {"count": len(pending), "error": error},
                )
                await asyncio.sleep(self._retry_s)
