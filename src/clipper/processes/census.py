"""Which processes there are, by the mark of the container that they belong to, and what they use."""

import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipper.processes.marks import mark_of
from clipper.processes.proc import RESIDENT_PAGES, START_TIME, THREADS, pids, proportional_bytes, stat_fields

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A process that is just being started still has its parent's environment for a moment.
_SETTLED_S = 2.0


@dataclass(frozen=True, slots=True)
class CensusEntry:
    """One process. ``resident_bytes`` counts memory that it shares with others in full."""

    pid: int
    threads: int
    resident_bytes: int


class Census:
    """Looks through ``/proc``. It reads a process's mark once, because a process keeps its mark for life."""

    def __init__(self) -> None:
        self._marks: dict[tuple[int, int], str] = {}

    def look(self) -> dict[str, list[CensusEntry]]:
        """Every process that has a mark, by its mark."""
        known, self._marks = self._marks, {}
        settled_before = int((time.clock_gettime(time.CLOCK_BOOTTIME) - _SETTLED_S) * _TICKS_PER_S)
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
            if mark:
                resident_bytes = int(fields[RESIDENT_PAGES]) * _PAGE_BYTES
                entries.setdefault(mark, []).append(CensusEntry(pid, int(fields[THREADS]), resident_bytes))
        return entries


def memory_bytes(processes: list[CensusEntry], bound_bytes: int | None) -> int:
    """The memory of some processes together, where what they share counts once.

    The exact figure costs milliseconds for each GB, and an upper bound is known already. So the exact figure is read
    only if the upper bound exceeds ``bound_bytes``.
    """
    most_bytes = sum(process.resident_bytes for process in processes)
    if bound_bytes is None or most_bytes <= bound_bytes or len(processes) == 1:
        return most_bytes
    return sum(proportional_bytes(process.pid) for process in processes)


def disk_usage(folder: Path, max_files: int) -> tuple[int, int]:
    """The bytes that a folder takes on disk, and the files and folders in it. The count ends after ``max_files``.

    Raises:
        OSError: this process has no descriptor left to look with.
    """
    size_bytes = files = 0
    left = [folder]
    while left and files <= max_files:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    files += 1
                    with suppress(FileNotFoundError):  # removed meanwhile: go on with the others
                        size_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # else a folder would pass for empty
            continue  # it was removed meanwhile, or is closed to us
    return size_bytes, files
