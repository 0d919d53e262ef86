"""The artifacts in a shared registry, so that another supervisor can take over with the models' files.

They are tars in pieces, by their digests. So a cluster needs nothing besides Redis, and an artifact exists before any
change that names it. The price is Redis's memory, so there are bounds.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from clipper.errors import ClipperError
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.registry.shared import PIECE_BYTES, SharedRegistry

log = logging.getLogger(__name__)


class SharedArtifacts:
    """The leader's side: it stores and removes."""

    def __init__(self, registry: SharedRegistry) -> None:
        """Read what is stored. Raises RegistryUnavailable."""
        self._registry = registry
        self._digests = set(registry.artifact_sizes())
        # One at a time: of two concurrent uploads, each would be admitted without counting the other.
        self._turn = asyncio.Lock()

    def has(self, digest: str) -> bool:
        return digest in self._digests

    async def keep(self, digest: str, tar: Path) -> None:
        """Store an artifact. Raises TooLarge if there is no room, RegistryUnavailable if it cannot be stored."""
        async with self._turn:
            size_bytes = (await asyncio.to_thread(tar.stat)).st_size
            await asyncio.to_thread(self._registry.admit_artifact, size_bytes)
            for number in range(-(-size_bytes // PIECE_BYTES)):
                await asyncio.to_thread(self._send, digest, number, tar)
            self._registry.complete_artifact(digest, size_bytes)
        await self._registry.sync()
        self._digests.add(digest)

    def remove(self, digest: str) -> None:
        """Remove an artifact if it is there. If Redis is away, the next ``clean`` removes it."""
        if digest not in self._digests:
            return
        try:
            self._registry.remove_artifact(digest)
        except ClipperError as error:
            log.warning(
                "artifact %(artifact)s stays in the registry for now: %(error)s", {"artifact": digest, "error": error}
            )
        else:
            self._digests.remove(digest)

    def clean(self, is_needed: Callable[[str], bool]) -> None:
        for digest in list(self._digests):
            if not is_needed(digest):
                self.remove(digest)

    def _send(self, digest: str, number: int, tar: Path) -> None:
        with tar.open("rb") as file:
            file.seek(number * PIECE_BYTES)
            self._registry.put_piece(digest, number, file.read(PIECE_BYTES))


async def fetch_missing(registry: SharedRegistry, artifacts: Artifacts) -> None:
    """Fetch the artifacts that records name and that are not here. Those that cannot be fetched now are left out."""
    try:
        contents = await asyncio.to_thread(registry.load)
        sizes = await asyncio.to_thread(registry.artifact_sizes)
        named = {version.spec.artifact for version in contents.versions}
        named |= {one.code for one in contents.applications if one.code is not None}
        for digest in sorted(named & sizes.keys()):
            if not artifacts.has(digest):
                log.info("artifact %(artifact)s is fetched from the registry", {"artifact": digest})
                await artifacts.add(digest, _chunks(registry, digest, sizes[digest]))
    except ClipperError as error:
        log.warning("artifacts of the registry cannot be fetched now: %(error)s", {"error": error})


async def _chunks(registry: SharedRegistry, digest: str, size_bytes: int) -> AsyncIterator[bytes]:
    for number in range(-(-size_bytes // PIECE_BYTES)):
        yield await asyncio.to_thread(registry.get_piece, digest, number)
