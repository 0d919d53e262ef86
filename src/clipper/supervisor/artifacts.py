"""The artifacts on disk: each a folder named by the digest of its tar, complete or not there."""

import asyncio
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from clipper.errors import InvalidArgument, NotFound, Unavailable

# A digest's folder never begins with it.
_INCOMING = ".incoming-"
_DIGEST = r"[0-9a-f]{64}"


class Artifacts:
    """The artifacts of one home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, digest: str) -> bool:
        return (self._folder / _checked(digest)).is_dir()

    def renew(self, digest: str) -> bool:
        """Whether it is here; if so, its age begins anew, since it is about to be deployed."""
        if self.has(digest):
            os.utime(self._folder / digest)
            return True
        return False

    def older_than(self, before_s: float) -> list[str]:
        """Those that came, or were asked for, before a time in seconds since the epoch."""
        return [
            path.name
            for path in self._folder.iterdir()
            if re.fullmatch(_DIGEST, path.name) and path.stat().st_ctime < before_s
        ]

    async def add(self, digest: str, chunks: AsyncIterator[bytes]) -> bool:
        """Stream a tar to disk, check it against its digest and unpack it; return whether it is new.

        Raises:
            InvalidArgument: it has another digest, or is not a tar that may be unpacked.
            Unavailable: the disk is full, or cannot be written.
        """
        if self.has(digest):
            async for _ in chunks:
                pass  # the caller sends it all before it reads the answer
            return False
        try:
            with tempfile.TemporaryDirectory(
                prefix=_INCOMING, dir=self._folder, ignore_cleanup_errors=True
            ) as incoming:
                tar = Path(incoming) / "tar"
                await _receive(tar, digest, chunks)
                return await asyncio.to_thread(self._unpack, tar, digest)
        except OSError as error:
            raise Unavailable(f"the artifact cannot be stored in {self._folder}: {error}") from error

    def check_inside(self, digest: str, path: str) -> None:
        """Check that ``path`` is a file or folder inside an artifact.

        Raises:
            NotFound: the artifact is not here.
            InvalidArgument: it has no such path, or the path leads out of it.
        """
        if not self.has(digest):
            raise NotFound(f"artifact {digest} is not here: PUT it to /artifacts/{digest} first")
        root = self._folder / digest
        try:
            found = (root / path).resolve()
            is_inside = found.is_relative_to(root.resolve()) and found.exists()
        except (OSError, ValueError):  # a name that is too long, or that none can have
            is_inside = False
        if not is_inside:
            raise InvalidArgument(f"the artifact has no file {path!r} in it")

    def code_folder(self, digest: str) -> str:
        """Where an artifact's modules are, if it has any."""
        return str(self._folder / _checked(digest) / "code")

    def remove(self, digest: str) -> None:
        shutil.rmtree(self._folder / digest, ignore_errors=True)  # what stays is used again, or costs some room

    def remove_unfinished(self) -> None:
        """Remove what a supervisor that was killed had not unpacked to the end."""
        for incoming in self._folder.glob(f"{_INCOMING}*"):
            shutil.rmtree(incoming, ignore_errors=True)  # the next start tries again

    def _unpack(self, tar: Path, digest: str) -> bool:
        unpacked = tar.with_name("unpacked")
        try:
            with tarfile.open(tar, "r:") as archive:
                archive.extractall(unpacked, filter="data")
        except tarfile.TarError as error:
            raise InvalidArgument(f"the artifact is not an uncompressed tar of plain files: {error}") from error
        unpacked.mkdir(exist_ok=True)
        _sync(unpacked)
        try:
            unpacked.rename(self._folder / digest)
        except OSError:
            if self.has(digest):
                return False  # another upload of the same was quicker
            raise
        return True


def _sync(root: Path) -> None:
    """Bring all of a tree to the disk: the registry, which is there at once, must not name what a power cut empties."""
    for path in (*root.rglob("*"), root):
        if path.is_symlink():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
