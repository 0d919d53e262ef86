"""Drops what deleted applications have learned."""

import asyncio
import logging

from clipper.errors import ClipperError
from clipper.learning.stores.store import Store
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.registry.store import Forgotten

log = logging.getLogger(__name__)

# Feedback that a worker took before the deletion may wait 5 s for models, and then for the store.
DELAY_S = 10.0
# A store, or a registry, that is down is tried again after this.
RETRY_S = 30.0


class Forgetter:
    """Works off the catalog's ``to_forget`` in one task: a store that is down neither delays nor loses a deletion.

    The supervisor does this rather than a worker: an application may be deleted while no worker runs.
    """

    def __init__(self, catalog: Catalog, store: Store, delay_s: float = DELAY_S, retry_s: float = RETRY_S) -> None:
        self._catalog = catalog
        self._store = store
        self._delay_s = delay_s
        self._retry_s = retry_s
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """There is more to forget."""
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
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
                    "what %(count)d applications learned cannot be dropped now, and is tried again: %(error)s",
                    {"count": len(pending), "error": error},
                )
                await asyncio.sleep(self._retry_s)
