"""Small files of the server that are replaced atomically, and how to notice that a file was replaced."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: Iterable[bytes], *, is_synced: bool = False) -> None:
    """Write a file for this user alone. A reader sees either the whole old file or the whole new file.

    ``is_synced``: whether the file has to survive a power cut that follows. Raises OSError if it cannot be written; the
    old file stays.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        file.writelines(content)
        if is_synced:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
    if is_synced:
        # The new name is in the folder, which is written by itself. Not all file systems can be asked for that.
        with suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


# Its inode, size and modification time in nanoseconds.
Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """Return a value that changes whenever the file's content does; None if it is missing or cannot be examined."""
    try:
        return stamp_of(path.stat())
    except OSError:
        return None


def stamp_of(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns
