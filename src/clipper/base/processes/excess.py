"""Decides whether a container uses more than it may."""

from dataclasses import dataclass

# A model server has tens of threads, one in Java hundreds. A container with more starts threads without end.
MAX_THREADS = 2048
# The most disk space that a model may use in its own folder, with temporary files. All models share the machine's disk.
MAX_DISK_BYTES = 4 * 1024**3
# A file costs some KB of disk, and time when it is removed, even if it is empty.
MAX_FILES = 50_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that a container may use; with ``memory_bytes`` None its memory has no bound."""

    memory_bytes: int | None = None
    threads: int = MAX_THREADS
    disk_bytes: int = MAX_DISK_BYTES
    files: int = MAX_FILES


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that a container uses, together with all that it forked.

    Attributes:
        threads: the threads of all its processes.
        memory_bytes: its memory; memory that several of its processes share counts once.
        disk_bytes, files: the contents of its folder. The count stops at the bound on files.
        is_too_deep: whether its folder has folders that are nested too deeply to be counted.
    """

    processes: int = 0
    threads: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    files: int = 0
    is_too_deep: bool = False


def excess(usage: Usage, bounds: Bounds) -> str | None:
    """Return the bound that a container exceeds, as the rest of a sentence about it; None if it exceeds none."""
    by = f" in {usage.processes} processes" if usage.processes > 1 else ""
    if bounds.memory_bytes is not None and usage.memory_bytes > bounds.memory_bytes:
        return f"took {_mib(usage.memory_bytes)} of memory{by}: its bound is {_mib(bounds.memory_bytes)}"
    if usage.threads > bounds.threads:
        return f"had {usage.threads} threads{by}: the bound is {bounds.threads}"
    if usage.disk_bytes > bounds.disk_bytes:
        return f"wrote {_mib(usage.disk_bytes)} to its folder: the bound is {_mib(bounds.disk_bytes)}"
    if usage.files > bounds.files:
        return f"made {usage.files} files in its folder: the bound is {bounds.files}"
    if usage.is_too_deep:
        return "nested folders too deeply: their contents cannot be counted"
    return None


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.0f} MiB"
