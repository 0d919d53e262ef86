"""Whether a container takes more than it may."""

from dataclasses import dataclass

# A model server has tens of threads, a Java one hundreds. What starts more is starting them without end.
MAX_THREADS = 2048
# What a model writes to its own folder, temporary files among it. A machine's disk is everybody's.
MAX_DISK_BYTES = 4 * 1024**3
# Each costs the disk, and whoever removes them, as much as some KB do.
MAX_FILES = 50_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a container may take; ``memory_bytes`` None is no bound."""

    memory_bytes: int | None = None
    threads: int = MAX_THREADS
    disk_bytes: int = MAX_DISK_BYTES
    files: int = MAX_FILES


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container takes, with all that it forked.

    Attributes:
        threads: of all its processes.
        memory_bytes: its share of what is in memory: what several processes use counts once.
        disk_bytes, files: in its folder; of files that were not counted to the end, those that were.
    """

    processes: int = 0
    threads: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    files: int = 0


def excess(usage: Usage, bounds: Bounds) -> str | None:
    """What it has too much of, as the rest of a sentence about it; None if nothing."""
    if bounds.memory_bytes is not None and usage.memory_bytes > bounds.memory_bytes:
        taken = f"{_mib(usage.memory_bytes)} of memory{_by(usage.processes)}"
        return f"took {taken}: its bound is {_mib(bounds.memory_bytes)}"
    if usage.threads > bounds.threads:
        return f"had {usage.threads} threads{_by(usage.processes)}: the bound is {bounds.threads}"
    if usage.disk_bytes > bounds.disk_bytes:
        return f"wrote {_mib(usage.disk_bytes)} to its folder: the bound is {_mib(bounds.disk_bytes)}"
    if usage.files > bounds.files:
        return f"made {usage.files} files in its folder: the bound is {bounds.files}"
    return None


def _by(processes: int) -> str:
    return f" in {processes} processes" if processes > 1 else ""


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.0f} MiB"
