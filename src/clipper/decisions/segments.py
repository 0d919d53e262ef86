"""The decision log's files: one being written by each query worker, all together within a bound.

Workers share a folder and no lock. The eighth part of the bound is set apart for what they write until they look next:
each looks when it begins a segment, and a segment is at most that part divided by the most workers that there may be.
So whoever looked last left room for a segment of each, and none of them can have written more since it looked itself.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipper.decisions.records import SEGMENT_HEAD

SUFFIX = ".decisions"
_TIME_DIGITS = 13
RESERVED_PART = 8
# As many as the supervisor starts at most.
MAX_WRITERS = 64


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the log. ``began_s``, in seconds since 1970, is before all that is in it."""

    path: Path
    began_s: float


def segments(folder: Path) -> list[Segment]:
    """The files of a log, oldest first; none if there is no log.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = sorted(filter(_is_segment, (path.name for path in folder.iterdir())))
    except FileNotFoundError:
        return []
    return [Segment(folder / name, int(name[:_TIME_DIGITS]) / 1000) for name in names]


class SegmentWriter:
    """Appends blocks to a segment of its own, and begins the next one when that is full.

    Args:
        writer: tells it from others that write into the folder.
        max_bytes: of all segments together, whoever writes them.

    Attributes:
        segment_bytes: the most of each.
    """

    def __init__(self, folder: Path, writer: str, max_bytes: int) -> None:
        self._folder = folder
        self._writer = writer
        self._kept_bytes = max_bytes - max_bytes // RESERVED_PART
        self.segment_bytes = max_bytes // RESERVED_PART // MAX_WRITERS
        self._file: int | None = None
        self._path = folder
        self._size_bytes = 0

    def write(self, block: bytes | bytearray) -> None:
        """Append all of a block.

        Raises:
            OSError: it could not be written, and no part of it is in a segment that is gone on with.
        """
        if self._file is not None and not self._has_room(len(block)):
            self.close()
        file = self._file if self._file is not None else self._begin()
        try:
            written = os.write(file, block)
            while written < len(block):
                written += os.write(file, memoryview(block)[written:])
        except OSError:
            # A reader stops at what is not whole, so nothing may follow it.
            with contextlib.suppress(OSError):
                os.ftruncate(file, self._size_bytes)
            self.close()
            raise
        self._size_bytes += len(block)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _has_room(self, size_bytes: int) -> bool:
        assert self._file is not None
        # Another worker may have removed it, as the oldest: what is written to it then is nowhere.
        return self._size_bytes + size_bytes <= self.segment_bytes and os.fstat(self._file).st_nlink > 0

    def _begin(self) -> int:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._make_room()
        began_ms = time.time_ns() // 1_000_000
        while True:
            path = self._folder / f"{began_ms:0{_TIME_DIGITS}d}-{self._writer}{SUFFIX}"
            try:
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                break
            except FileExistsError:
                began_ms += 1
        try:
            os.write(file, SEGMENT_HEAD)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._path, self._file, self._size_bytes = path, file, len(SEGMENT_HEAD)
        return file

    def _make_room(self) -> None:
        """Remove the oldest segments, until the others are within the bound."""
        found = sorted(_sizes(self._folder))
        total_bytes = sum(size_bytes for _, size_bytes in found)
        for name, size_bytes in found:
            if total_bytes <= self._kept_bytes:
                break
            (self._folder / name).unlink(missing_ok=True)
            total_bytes -= size_bytes


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Of the segments; without a ``Path`` for each, since there may be hundreds, looked at several times a second."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_segment(entry.name):
                with contextlib.suppress(FileNotFoundError):  # others make room too
                    yield entry.name, entry.stat().st_size


def _is_segment(name: str) -> bool:
    """``WHEN-WRITER.decisions``, with when it began in milliseconds since 1970: by their names they are in order."""
    began_ms, dash, _ = name.partition("-")
    return name.endswith(SUFFIX) and dash == "-" and len(began_ms) == _TIME_DIGITS and began_ms.isdecimal()
