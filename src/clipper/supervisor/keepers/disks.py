"""Watches the room on the disks that the server writes to."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from clipper.supervisor.disk_space import DiskFacts, DiskSpace

LOOK_EVERY_S = 2.0

FEEDBACK = "feedback is refused"
CHANGES = "nothing can be deployed, changed or logged"

# What is refused once the disk of a folder is full.
Folders = Sequence[tuple[Path, str]]


class Disks:
    """
    Attributes:
        space: says which disks have too little room.
    """

    def __init__(self, folders: Folders) -> None:
        self.space = DiskSpace()
        self._folders = folders

    async def look(self) -> None:
        # A file system of a network may take long to answer.
        self.space.look(await asyncio.to_thread(looked_at, self._folders))


def folders_of(home: Path, store: str) -> Folders:
    """The folders that a server writes to.

    Args:
        store: the address of the selection store; one in Redis is on its machine's disk.
    """
    scheme, _, path = store.partition(":")
    return (home, CHANGES), *(((Path(path).parent, FEEDBACK),) if scheme == "sqlite" else ())


def looked_at(folders: Folders) -> Sequence[DiskFacts]:
    """The disks of these folders. Folders of one disk are told together, by the first; one that is not there is left
    out."""
    found: dict[int, DiskFacts] = {}
    for path, needs in folders:
        try:
            device, there = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue
        free = (there.f_bfree if os.geteuid() == 0 else there.f_bavail) * there.f_frsize
        known = found.get(device)
        every = (needs,) if known is None else (*known.needs, needs)
        found[device] = DiskFacts(
            str(path) if known is None else known.path, every, free, there.f_blocks * there.f_frsize
        )
    return tuple(found.values())
