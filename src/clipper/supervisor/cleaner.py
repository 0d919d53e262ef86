"""Removes artifacts that were uploaded and never deployed, e.g. since the client died between the two."""

import asyncio
import logging
import time

from clipper.supervisor.artifacts import Artifacts
from clipper.supervisor.catalog import Catalog

log = logging.getLogger(__name__)

# A deployment follows its upload within moments; a day is for those who work by hand.
UNUSED_AGE_S = 24 * 3600.0
LOOK_EVERY_S = 24 * 3600.0


class ArtifactCleaner:
    """Looks at start and once a day."""

    def __init__(self, catalog: Catalog, artifacts: Artifacts) -> None:
        self._catalog = catalog
        self._artifacts = artifacts

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.clean(time.time())
            await asyncio.sleep(LOOK_EVERY_S)

    def clean(self, now_s: float) -> None:
        """Remove what nobody uses and is older than a day, at a time in seconds since the epoch."""
        for digest in self._artifacts.older_than(now_s - UNUSED_AGE_S):
            if not self._catalog.uses_artifact(digest):
                log.info("artifact %s was not deployed for a day and is removed", digest)
                self._artifacts.remove(digest)
