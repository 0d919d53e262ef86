"""The artifacts on disk: each is a folder named by the digest of its tar, and complete."""

import asyncio
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from clipper.base.trees import remove_tree
from clipper.errors import InvalidArgument, NotFound, RequestTimeout, Unavailable
from clipper.supervisor.artifacts.unpacking import unpack

# The most concurrent uploads; further ones wait. Each may take disk for its tar and again for its content.
MAX_UPLOADS = 4
# An upload that sends nothing for this long has gone.
IDLE_TIMEOUT_S = 60.0
MAX_UPLOAD_S = 4 * 3600.0
# Incoming folders begin with this, and digests never do.
_INCOMING = ".incoming-"
_DIGEST = r"[0-9a-f]{64}"


class Copies(Protocol):
    """A second place of artifacts, for other supervisors: see ``shared``."""

    def has(self, digest: str) -> bool: ...

    async def keep(self, digest: str, tar: Path) -> None: ...

    def remove(self, digest: str) -> None: ...

    def clean(self, is_needed: Callable[[str], bool]) -> None: ...


class Artifacts:
    def __init__(self, folder: Path, idle_timeout_s: float = IDLE_TIMEOUT_S, copies: Copies | None = None) -> None:
        """Keep artifacts in ``folder`` and in ``copies``. An upload may pause, or wait, for ``idle_timeout_s``."""
        self._folder = folder
        self._copies = copies
        self._idle_timeout_s = idle_timeout_s
        self._turns = asyncio.Semaphore(MAX_UPLOADS)

    def has(self, digest: str) -> bool:
        return (self._folder / _checked(digest)).is_dir()

    def renew(self, digest: str) -> bool:
        """Return whether an artifact can be deployed. If so, its age starts again, because it is about to be."""
        if self._is_deployable(digest):
            os.utime(self._folder / digest)
            return True
        return False

    def older_than(self, before_s: float) -> list[str]:
        """Return artifacts that were uploaded or last asked for before a time in seconds since the epoch."""
        return [
            path.name
            for path in self._folder.iterdir()
            if re.fullmatch(_DIGEST, path.name) and path.stat().st_ctime < before_s
        ]

    async def add(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Stream a tar to disk, check it against its digest and unpack it; return whether it is new.

        Raises:
            InvalidArgument: the tar has another digest, or may not be unpacked.
            RequestTimeout: the tar does not come, or comes too slowly.
            Unavailable, TooLarge, RegistryUnavailable: it cannot be stored, here or with the copies, or there are too
                many uploads at once.
        """
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._turns.acquire()
        except TimeoutError:
            raise Unavailable(f"{MAX_UPLOADS} artifacts are being uploaded: send this one again later") from None
        try:
            return await self._add(digest, chunks)
        except OSError as error:
            raise Unavailable(f"the artifact cannot be stored in {self._folder}: {error}") from error
        finally:
            self._turns.release()

    async def _add(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        timely = _timely(chunks, self._idle_timeout_s)
        if self._is_deployable(digest):
            async for _ in timely:
                pass  # the caller sends all of it before reading the answer
            return False
        incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self._folder))
        stopping = threading.Event()
        try:
            await _receive(incoming / "tar", digest, timely)
            unpacking = asyncio.ensure_future(asyncio.to_thread(self._unpack, incoming, digest, stopping))
            try:
                is_new = await asyncio.shield(unpacking)
            finally:
                # A thread that still writes would outlive the folder's removal.
                stopping.set()
                await asyncio.wait([unpacking])
            if self._copies is not None:
                await self._copies.keep(digest, incoming / "tar")
            return is_new
        finally:
            await asyncio.to_thread(remove_tree, incoming)

    def check_inside(self, digest: str, path: str) -> None:
        """Check that ``path`` is a file or folder inside an artifact.

        Raises NotFound if the artifact is not here, and InvalidArgument if it has no such path or the path leads out of
        it.
        """
        if not self._is_deployable(digest):
            raise NotFound(f"artifact {digest} is not here: PUT it to /artifacts/{digest} first")
        root = self._folder / digest
        try:
            found = (root / path).resolve()
            is_inside = found.is_relative_to(root.resolve()) and found.exists()
        except (OSError, ValueError):  # a name that is too long, or that no file can have
            is_inside = False
        if not is_inside:
            raise InvalidArgument(f"the artifact has no file {path!r} in it")

    def code_folder(self, digest: str) -> str:
        """Return the folder of an artifact's modules, if it has any."""
        return str(self._folder / _checked(digest) / "code")

    def code_folder_on_node(self, digest: str) -> str:
        """Return ``code_folder`` as a path below the folder of artifacts that a worker on a node has."""
        return f"{_checked(digest)}/code"

    def remove(self, digest: str) -> None:
        remove_tree(self._folder / digest)  # files that stay are reused, or only take space
        if self._copies is not None:
            self._copies.remove(digest)

    def clean_copies(self, is_needed: Callable[[str], bool]) -> None:
        """Remove copies that are not here and that nothing needs, such as uploads to an earlier leader."""
        if self._copies is not None:
            self._copies.clean(lambda digest: self.has(digest) or is_needed(digest))

    def remove_unfinished(self) -> None:
        for incoming in self._folder.glob(f"{_INCOMING}*"):
            remove_tree(incoming)  # the next start tries again

    def _is_deployable(self, digest: str) -> bool:
        return self.has(digest) and (self._copies is None or self._copies.has(digest))

    def _unpack(self, incoming: Path, digest: str, stopping: threading.Event) -> bool:
        unpacked, place = incoming / "unpacked", self._folder / digest
        unpack(incoming / "tar", unpacked, stopping.is_set)
        try:
            unpacked.rename(place)
        except OSError:
            if self.has(digest):
                return False  # another upload of the same was quicker
            raise
        place.chmod(0o555)
        return True


async def _timely(chunks: AsyncIterator[bytes], idle_timeout_s: float) -> AsyncIterator[bytes]:
    """Yield the chunks. Raises RequestTimeout if none comes for ``idle_timeout_s``, or if all take too long."""
    deadline_s = asyncio.get_running_loop().time() + MAX_UPLOAD_S
    while True:
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(deadline_s, now_s + idle_timeout_s)):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise RequestTimeout(
                f"the artifact did not come in time: send it without a pause of {idle_timeout_s:g} s, "
                f"and within {MAX_UPLOAD_S / 3600:g} h"
            ) from None
        if chunk is None:
            return
        yield chunk


async def _receive(path: Path, digest: str, chunks: AsyncIterator[bytes]) -> None:
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        async for chunk in chunks:
            hasher.update(chunk)
            file.write(chunk)
    if hasher.hexdigest() != digest:
        raise InvalidArgument(f"the artifact's SHA-256 is {hasher.hexdigest()}, not {digest}: send it again")


def _checked(digest: str) -> str:
    if not re.fullmatch(_DIGEST, digest):
        raise InvalidArgument(f"artifact {digest!r} is not named by a SHA-256: expected 64 of 0-9 and a-f")
    return digest
