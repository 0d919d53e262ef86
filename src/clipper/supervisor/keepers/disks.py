"""Watches the room on the disks that the server writes to."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_MIB = 1024 * 1024
# A commit of the selection store with its journal may need this much, so a disk with less counts as full.
FULL_BYTES = _MIB
# More than a server writes in an hour to files without a bound (learned state, events, environments of new models); on
# a small disk, a tenth of the disk.
LOW_BYTES = 1024 * _MIB
LOW_SHARE = 0.1
# The problem of a full disk ends above the bound times this factor, so that it does not flap.
ENDS_ABOVE = 1.25

State = Literal["room", "low", "full"]


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A folder's disk.

    ``needs`` names the work that is refused once it is full, as the subject and verb of a sentence. ``free_bytes`` is
    how much the server may still write.
    """

    path: str
    needs: tuple[str, ...]
    free_bytes: int
    size_bytes: int


def state_of(disk: DiskFacts, before: State) -> State:
    full, low = FULL_BYTES, min(LOW_BYTES, LOW_SHARE * disk.size_bytes)
    if disk.free_bytes < full * (ENDS_ABOVE if before == "full" else 1):
        return "full"
    return "low" if disk.free_bytes < low * (1 if before == "room" else ENDS_ABOVE) else "room"


def _text(disk: DiskFacts, state: State) -> str:
    free = f"{disk.free_bytes / _MIB:,.1f} MiB of {disk.size_bytes / _MIB:,.0f} MiB are free"
    refused = ", and ".join(disk.needs)
    if state == "full":
        return f"the disk of {disk.path} is full, {free}: {refused}; queries are answered. Free some space"
    return f"the disk of {disk.path} is nearly full, {free}: once it is full, {refused}"


LOOK_EVERY_S = 2.0

FEEDBACK = "feedback is refused"
CHANGES = "nothing can be deployed, changed or logged"

# Folders, each with what is refused once its disk is full.
Folders = Sequence[tuple[Path, str]]


class Disks:
    """Watches disks, and decides which have too little room. ``facts``: those of the last look."""

    def __init__(self, folders: Folders = ()) -> None:
        self.facts: tuple[DiskFacts, ...] = ()
        self._folders = folders
        self._states: dict[str, State] = {}

    async def look(self) -> None:
        # A network file system may take long to answer.
        self.note(await asyncio.to_thread(looked_at, self._folders))

    def note(self, facts: Sequence[DiskFacts]) -> None:
        self.facts = tuple(facts)
        self._states = {one.path: state_of(one, self._states.get(one.path, "room")) for one in facts}

    def problems(self) -> list[str]:
        """Return a line for each disk that is full or nearly full: its folder, its free space, what is refused."""
        return [_text(one, self._states[one.path]) for one in self.facts if self._states[one.path] != "room"]


def folders_of(home: Path, store: str) -> Folders:
    """Return the folders that a server writes to. A ``store`` in Redis is on Redis' machine."""
    scheme, _, path = store.partition(":")
    return (home, CHANGES), *(((Path(path).parent, FEEDBACK),) if scheme == "sqlite" else ())


def looked_at(folders: Folders) -> Sequence[DiskFacts]:
    """Return the disks of these folders, each once, by its first folder. Missing folders are left out."""
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
