"""The processes' logs: their last lines, and the bound on their size.

A process writes straight to its file. It could write to a pipe that something bounds on the way; but a pipe to the
supervisor breaks or fills when the supervisor dies, and the process with it. So the supervisor looks at the files
now and then and cuts one that is full: what was written last goes to ``.1``, and the file itself is emptied in
place, which a process that appends does not notice. Lines written in between the two are lost.
"""

import asyncio
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

# A file is cut at this size, and its ``.1`` has at most this size: enough for a day of ordinary warnings.
MAX_LOG_BYTES = 8 * 1024 * 1024

# How often to look, and how soon again while something prints without end: between two looks the file is unbounded.
LOOK_EVERY_S = 0.25
LOOK_AGAIN_S = 0.01

# Lines asked for are read from the end; longer lines than these bytes allow are cut.
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
    """The last lines of a log, oldest first, going back into its ``.1`` where it is too short.

    Args:
        since_bytes: nothing before this place in the file counts, and nothing from ``.1``, unless it was cut since.
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
                # Not to the end of the file: a process may be writing it faster than this copies.
                target.write(source.read(self._max_bytes))
        except OSError as error:
            log.warning("the older part of %s is lost: %s", path, error)
        try:
            # Also when the copy failed: a disk that is full needs the room most.
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
