"""Which processes there are, by the mark of the container that they belong to, and what they take."""

import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipper.processes.managed import mark_of, pids, stat_fields

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# A process that is just being started has its parent's environment for a moment.
_SETTLED_S = 2.0

# Fields of /proc/PID/stat, counted as stat_fields does.
_THREADS, _START_TIME, _RSS_PAGES = 17, 19, 21


@dataclass(frozen=True, slots=True)
class Found:
    """A process. ``resident_bytes`` counts what it shares with others in full."""

    pid: int
    threads: int
    resident_bytes: int


class Census:
    """Looks through ``/proc``. A process's mark is read once: it keeps it for life."""

    def __init__(self) -> None:
        self._marks: dict[tuple[int, int], str] = {}

    def look(self) -> dict[str, list[Found]]:
        """Every process that has a mark, by its mark."""
        known, self._marks = self._marks, {}
        settled_before = int((time.clock_gettime(time.CLOCK_BOOTTIME) - _SETTLED_S) * _TICKS_PER_S)
        found: dict[str, list[Found]] = {}
        for pid in pids():
            fields = stat_fields(pid)
            if fields is None:
                continue
            started = int(fields[_START_TIME])
            mark = known.get((pid, started))
            if mark is None or started > settled_before:
                mark = mark_of(pid)
            self._marks[pid, started] = mark
            if mark:
                resident_bytes = int(fields[_RSS_PAGES]) * _PAGE_BYTES
                found.setdefault(mark, []).append(Found(pid, int(fields[_THREADS]), resident_bytes))
        return found


def memory_bytes(processes: list[Found], bound_bytes: int | None) -> int:
    """What processes have in memory, where what they share counts once.

    That takes the kernel some milliseconds a GB to tell. What they have at most is at hand; so only where that is over
    the bound is it looked at closely.
    """
    most_bytes = sum(process.resident_bytes for process in processes)
    if bound_bytes is None or most_bytes <= bound_bytes or len(processes) == 1:
        return most_bytes
    return sum(_proportional_bytes(process) for process in processes)


def _proportional_bytes(process: Found) -> int:
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0  # it is gone, or has made itself another's
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def disk_usage(folder: Path, max_files: int) -> tuple[int, int]:
    """The bytes that a folder takes on disk, and how many files and folders are in it; counted until ``max_files``.

    Raises:
        OSError: there are no file descriptors to look with.
    """
    size_bytes = files = 0
    left = [folder]
    while left and files <= max_files:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    files += 1
                    with suppress(FileNotFoundError):  # removed meanwhile: the others are still there
                        size_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # else a folder would pass for empty
            continue  # it was removed meanwhile, or may not be looked into
    return size_bytes, files
