"""Finds the processes of each container by its mark, and measures what they use."""

import errno
import os
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from clipper.base.processes.excess import Usage
from clipper.base.processes.marks import mark_of
from clipper.base.processes.proc import (
    PAGE_BYTES,
    RESIDENT_PAGES,
    START_TIME,
    THREADS,
    TICKS_PER_S,
    pids,
    proportional_bytes,
    stat_fields,
    user_of,
)
from clipper.base.trees import MAX_DEPTH

# For a moment after a fork, a process still has its parent's environment.
_SETTLED_S = 2.0


@dataclass(frozen=True, slots=True)
class CensusEntry:
    """A process. ``resident_bytes`` counts memory that it shares with others in full."""

    pid: int
    threads: int
    resident_bytes: int


class Census:
    """Looks through ``/proc``. It reads a process's mark once, because a process keeps its mark for life.

    Only processes of ``users`` count: anyone can start a process with any mark, and root can read it.
    """

    def __init__(self, users: Collection[int]) -> None:
        self._users = users
        self._marks: dict[tuple[int, int], str] = {}

    def look(self) -> dict[str, list[CensusEntry]]:
        """Return every process that has a mark, by its mark."""
        known, self._marks = self._marks, {}
        settled_before = int((time.clock_gettime(time.CLOCK_BOOTTIME) - _SETTLED_S) * TICKS_PER_S)
        entries: dict[str, list[CensusEntry]] = {}
        for pid in pids():
            fields = stat_fields(pid)
            if fields is None:
                continue
            started = int(fields[START_TIME])
            mark = known.get((pid, started))
            if mark is None or started > settled_before:
                mark = mark_of(pid)
            self._marks[pid, started] = mark
            if mark and user_of(pid) in self._users:
                resident_bytes = int(fields[RESIDENT_PAGES]) * PAGE_BYTES
                entries.setdefault(mark, []).append(CensusEntry(pid, int(fields[THREADS]), resident_bytes))
        return entries


def memory_bytes(processes: list[CensusEntry], bound_bytes: int | None) -> int:
    """Return the memory of some processes together. Memory that they share counts once.

    The exact figure costs milliseconds for each GB, and an upper bound is known already. So the exact figure is read
    only if the upper bound exceeds ``bound_bytes``.
    """
    most_bytes = sum(process.resident_bytes for process in processes)
    if bound_bytes is None or most_bytes <= bound_bytes or len(processes) == 1:
        return most_bytes
    return sum(proportional_bytes(process.pid) for process in processes)


def disk_usage(folder: Path, max_files: int) -> Usage:
    """Count what is in a folder. The count ends after ``max_files``, and at a folder that is too deep.

    The path of a nested folder may be longer than the kernel takes. So each is opened from the one above. Raises
    OSError if this process has no descriptor left to look with.
    """
    size_bytes = files = 0
    # The open folders, from the outermost to the current one, each with the names of folders in it that are left.
    opened: list[tuple[int, list[str]]] = []
    try:
        name, above = os.fspath(folder), None
        while True:
            if (descriptor := _opened(name, above)) is not None:
                folders: list[str] = []
                opened.append((descriptor, folders))
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        files += 1
                        if files > max_files:
                            return Usage(disk_bytes=size_bytes, files=files)
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue  # it was removed meanwhile: go on with the others
                        size_bytes += found.st_blocks * 512
                        if stat.S_ISDIR(found.st_mode):
                            folders.append(entry.name)
                if folders and len(opened) >= MAX_DEPTH:
                    return Usage(disk_bytes=size_bytes, files=files, is_too_deep=True)
            while opened and not opened[-1][1]:
                os.close(opened.pop()[0])
            if not opened:
                return Usage(disk_bytes=size_bytes, files=files)
            above, name = opened[-1][0], opened[-1][1].pop()
    finally:
        for descriptor, _ in opened:
            os.close(descriptor)


def _opened(name: str, above: int | None) -> int | None:
    """Open a folder; None if it was removed meanwhile, or is closed to us."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # else a folder would pass for empty
        return None
