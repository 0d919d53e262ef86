"""The artifacts that a node has: each is sent once, however many replicas and homes use it.

    <folder>/<digest>/         an artifact: complete or not there, never changed
    <folder>/.<digest>.lock    held (flock, shared) by every actor that uses it

An artifact that nobody has used for a week is removed when another comes.
"""

import fcntl
import os
import secrets
import tarfile
import time
from pathlib import Path
from typing import IO

from clipper.base.trees import remove_tree, seal_tree

KEEP_UNUSED_S = 7 * 24 * 3600.0


class NodeArtifacts:
    """An actor's view of the artifacts in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held: dict[str, IO[bytes]] = {}
        self._coming: dict[str, IO[bytes]] = {}

    def keep(self, digest: str) -> bool:
        """Return whether an artifact is there. If so, it stays until ``close``, or until this process ends."""
        lock = self._held.get(digest)
        if lock is None:
            lock = self._held[digest] = (self.folder / f".{digest}.lock").open("ab")
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(lock.fileno())
        return (self.folder / digest).is_dir()

    def close(self) -> None:
        """Let go of all artifacts."""
        for file in (*self._held.values(), *self._coming.values()):
            file.close()
        self._held.clear()
        self._coming.clear()

    def receive(self, digest: str, chunk: bytes) -> None:
        """Take bytes of an artifact's tar; none mean its end. Raises OSError, or tarfile.TarError in unpacking."""
        if digest not in self._coming:
            self._remove_unused()
            path = self.folder / f".{digest}.{secrets.token_hex(8)}"
            self._coming[digest] = path.open("w+b")
            path.unlink()
        coming = self._coming[digest]
        if chunk:
            coming.write(chunk)
            return
        del self._coming[digest]
        with coming:
            coming.seek(0)
            self._unpack(digest, coming)

    def _unpack(self, digest: str, tar: IO[bytes]) -> None:
        making = self.folder / f".{digest}.{secrets.token_hex(8)}"
        making.mkdir()
        try:
            with tarfile.open(fileobj=tar) as archive:
                archive.extractall(making, filter="tar")
            seal_tree(making)
            making.rename(self.folder / digest)
        except OSError:
            # Another actor of this node may have been faster.
            if not (self.folder / digest).is_dir():
                raise
        finally:
            if making.exists():
                remove_tree(making)

    def _remove_unused(self) -> None:
        oldest_s = time.time() - KEEP_UNUSED_S
        for lock_file in self.folder.glob(".*.lock"):
            with lock_file.open("ab") as lock:
                if os.fstat(lock.fileno()).st_mtime > oldest_s:
                    continue
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                remove_tree(self.folder / lock_file.name.removeprefix(".").removesuffix(".lock"))
