"""The logs of containers and workers: their last lines, and the bound on their size.

A process writes straight to its file: a pipe to the supervisor would break or fill when the supervisor dies. So the
supervisor cuts a full file: it copies the end to ``.1`` and truncates the file in place, which a process that appends
does not notice. Lines that are written between the two steps are lost.
"""

import asyncio
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from clipper.errors import InvalidArgument

log = logging.getLogger(__name__)

# A file is cut at this size, and its ``.1`` has at most this size. That is enough for a day of ordinary warnings.
MAX_LOG_BYTES = 8 * 1024 * 1024

# The interval between looks. Between two looks the file is not bounded.
LOOK_EVERY_S = 0.25
LOOK_AGAIN_S = 0.01

# At most this many bytes at the end of a file are searched for the last lines. Longer lines are cut.
MAX_TAIL_BYTES = 1024 * 1024


def rotated(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def size_bytes(path: Path) -> int:
    """Return the size of a log; 0 if there is none yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tail(path: Path, lines: int, since_bytes: int = 0) -> tuple[str, ...]:
    """Return the last lines of a log, oldest first. If the file has too few, its ``.1`` is read, too.

    ``since_bytes``: leave out ``.1`` and everything before this offset in the file, unless the file was cut since.
    """
    if since_bytes and size_bytes(path) >= since_bytes:
        return _last_lines(path, lines, since_bytes)
    found = _last_lines(path, lines, 0)
    if len(found) < lines:
        found = _last_lines(rotated(path), lines - len(found), 0) + found
    return found


# The user names and passwords in URLs. A segment of a URL has no slash, so the search is linear.
_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#]+@")


def without_credentials(text: str) -> str:
    """Replace names and passwords in a text's URLs by ``***``: everybody with the role read sees the text."""
    return _CREDENTIALS.sub("***@", text)


# A place in a log: the number of bytes before it, and the last of these as hex, by which it is found again in ``.1``.
_PLACE = re.compile(r"([0-9]{1,18})\.((?:[0-9a-f]{2}){0,64})")
_PLACE_BYTES = 64
# The beginning of a log.
FIRST_PLACE = "0."
# The line in place of lines that were cut away before anyone read them.
LOST = "... lines are missing here: the log was cut"

Lines = tuple[str, ...]


def end_of(path: Path) -> str:
    """Return the place after the last whole line of a log, from which ``read_on`` goes on."""
    return read_on(path, f"{max(0, size_bytes(path) - MAX_TAIL_BYTES)}.")[1]


def read_on(path: Path, place: str) -> tuple[Lines, str]:
    """Return the whole lines after a place, oldest first, at most ``MAX_TAIL_BYTES``, and the place after them.

    If the log was cut since, the rest of the part that was cut off comes first; a line ``LOST`` stands for lines that
    are gone. Raises InvalidArgument if ``place`` is not a place.
    """
    if (found := _PLACE.fullmatch(place)) is None:
        raise InvalidArgument(f"{place!r:.100} is not a place in a log: expected one that an earlier answer gave")
    offset, last = int(found[1]), bytes.fromhex(found[2])
    try:
        with path.open("rb") as file:
            file.seek(max(0, offset - len(last)))
            # A place that quotes no earlier bytes may be beyond the end of a file that was cut.
            if file.read(len(last)) == last and file.tell() == offset <= size_bytes(path):
                return _read_lines(file.read(MAX_TAIL_BYTES), offset, last)
            file.seek(0)
            text = file.read(MAX_TAIL_BYTES)
    except FileNotFoundError:
        text = b""
    cut_off = _end_bytes(rotated(path))
    at = cut_off.rfind(last) if last else -1
    before = (LOST,) if at < 0 else _split(cut_off[at + len(last) :])
    lines, place = _read_lines(text, 0, b"")
    return before + lines, place


def logs_after(paths: Mapping[str, Path], places: Mapping[str, str], lines: int) -> dict[str, tuple[Lines, str]]:
    """Return for each log the lines after its place, or its last lines without a place; and the place after them."""
    found = {}
    for name, path in paths.items():
        if name in places:
            found[name] = read_on(path, places[name])
        else:
            end = end_of(path)  # before reading, so that lines written meanwhile are not lost; they may come twice
            found[name] = tail(path, lines), end
    return found


def in_text(line: str) -> Lines:
    """Turn a log record of a container's runtime from JSON into text. Any other line is left alone."""
    if not line.startswith('{"time": '):
        return (line,)
    try:
        said = json.loads(line)
        time, level, message = said["time"], said["level"].upper(), said["message"]
    except (ValueError, KeyError, AttributeError, RecursionError):
        return (line,)
    exception = tuple(str(said["exception"]).split("\n")) if "exception" in said else ()
    if level == "CRITICAL":
        return (*exception, f"clipper: {message}")
    return (f"{time} clipper {level}: {message}", *exception)


def _read_lines(text: bytes, offset: int, last: bytes) -> tuple[Lines, str]:
    """Return the whole lines from an offset on. A line that fills everything that is read counts as whole."""
    end = text.rfind(b"\n") + 1 or (len(text) if len(text) >= MAX_TAIL_BYTES else 0)
    whole = text[:end]
    return _split(whole), f"{offset + end}.{(last + whole)[-_PLACE_BYTES:].hex()}"


def _split(text: bytes) -> tuple[str, ...]:
    """Split lines only at line feeds: a model may print other characters at which Python would split."""
    lines = text.decode("utf-8", "replace").split("\n")
    return tuple(line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1]))


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
                # A fixed size instead of the whole rest: a process may write faster than this copies.
                target.write(source.read(self._max_bytes))
        except OSError as error:
            log.warning("the older part of %(file)s is lost: %(error)s", {"file": path, "error": error})
        try:
            # Even if the copy failed: then the disk may be full, and needs the space even more.
            os.truncate(path, 0)
        except OSError as error:
            log.warning("%(file)s cannot be cut: %(error)s", {"file": path, "error": error})


def _last_lines(path: Path, lines: int, since_bytes: int) -> tuple[str, ...]:
    return _split(_end_bytes(path, since_bytes))[-lines:] if lines > 0 else ()


def _end_bytes(path: Path, since_bytes: int = 0) -> bytes:
    """Return the end of a file, from no earlier than an offset; empty if there is no file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(since_bytes, end - MAX_TAIL_BYTES))
            return file.read(MAX_TAIL_BYTES)
    except FileNotFoundError:
        return b""
