"""The logs of containers and workers: their last lines, and the bound on their size.

A process writes straight to its file. A pipe to the supervisor could bound what goes through it, but it would break or
fill when the supervisor dies, and take the process along. So the supervisor looks at the files now and then and cuts
one that is full: it copies the end to ``.1`` and empties the file in place, which a process that appends does not
notice. Lines that are written between the two steps are lost.
"""

import asyncio
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

# A file is cut at this size, and its ``.1`` has at most this size. That is enough for a day of ordinary warnings.
MAX_LOG_BYTES = 8 * 1024 * 1024

# How often to look, and how soon again while a process prints without end. Between two looks nothing bounds the file.
LOOK_EVERY_S = 0.25
LOOK_AGAIN_S = 0.01

# How many bytes are read from the end to find last lines. Longer lines are cut.
MAX_TAIL_BYTES = 1024 * 1024


def rotated(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def size_bytes(path: Path) -> int:
    """The size of a log; 0 if there is none yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tail(path: Path, lines: int, since_bytes: int = 0) -> tuple[str, ...]:
    """The last lines of a log, oldest first. If the file has too few, its ``.1`` is read too.

    Args:
        since_bytes: leave out ``.1`` and what is before this offset in the file, unless the file was cut since.
    """
    if since_bytes and size_bytes(path) >= since_bytes:
        return _last_lines(path, lines, since_bytes)
    found = _last_lines(path, lines, 0)
    if len(found) < lines:
        found = _last_lines(rotated(path), lines - len(found), 0) + found
    return found


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    rotated(path).unlink(missing_ok=True)


class LogKeeper:
    """Keeps every ``*.log`` in a folder within its bound."""

    def __init__(self, folder: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    async def run(self) -> None:
        """Look after the logs until cancelled."""
        while True:
            full = [path for path in self._folder.glob("*.log") if size_bytes(path) > self._max_bytes]
            for path in full:
                await asyncio.to_thread(self._cut, path)
            await asyncio.sleep(LOOK_AGAIN_S if full else LOOK_EVERY_S)

    def _cut(self, path: Path) -> None:
        try:
            with path.open("rb") as source, rotated(path).open("wb") as target:
                source.seek(max(0, size_bytes(path) - self._max_bytes))
                # A fixed size, not to the end: a process may write faster than this copies.
                target.write(source.read(self._max_bytes))
        except OSError as error:
            log.warning("the older part of %s is lost: %s", path, error)
        try:
            # Also if the copy failed: then the disk may be full, and needs the room most.
            os.truncate(path, 0)
        except OSError as error:
            log.warning("%s cannot be cut: %s", path, error)


def _last_lines(path: Path, lines: int, since_bytes: int) -> tuple[str, ...]:
    if lines < 1:
        return ()
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since_bytes, end - MAX_TAIL_BYTES))
            text = file.read(MAX_TAIL_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    return tuple(text.splitlines()[-lines:])
