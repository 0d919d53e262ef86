"""The decision log's files: each query worker writes its own, and one bound holds for their sum.

Workers share a folder, but no lock. An eighth of the bound is reserved for what they write between two checks: each
worker checks when it begins a segment, and a segment has at most that part divided by the largest number of workers.
So the worker that checked last left room for a segment of each worker, and none can have written more since its check.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipper.learning.decisions.records import SEGMENT_HEAD

SUFFIX = ".decisions"
_TIME_DIGITS = 13
RESERVED_PART = 8
# The supervisor starts at most this many.
MAX_WRITERS = 64


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the log. ``began_s``, in seconds since 1970, is earlier than everything in it."""

    path: Path
    began_s: float


def segments(folder: Path) -> list[Segment]:
    """Return the files of a log, oldest first; empty without a log. Raises OSError if the folder cannot be read."""
    try:
        names = sorted(filter(_is_segment, (path.name for path in folder.iterdir())))
    except FileNotFoundError:
        return []
    return [Segment(folder / name, int(name[:_TIME_DIGITS]) / 1000) for name in names]


class SegmentWriter:
    """Appends blocks to a segment of its own, and begins a new segment when that is full. ``segment_bytes``: bound of
    each segment.
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
        """Append a whole block. Raises OSError if it could not be written; no later block follows a partial one."""
        if self._file is not None and not self._has_room(len(block)):
            self.close()
        file = self._file if self._file is not None else self._begin()
        try:
            written = os.write(file, block)
            while written < len(block):
                written += os.write(file, memoryview(block)[written:])
        except OSError:
            # A reader stops at a partial block, so nothing may follow it.
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
        # Another worker may have removed the file as the oldest, and then writes to it would be lost.
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
        """Remove the oldest segments until the others are within the bound."""
        found = sorted(_sizes(self._folder))
        total_bytes = sum(size_bytes for _, size_bytes in found)
        for name, size_bytes in found:
            if total_bytes <= self._kept_bytes:
                break
            (self._folder / name).unlink(missing_ok=True)
            total_bytes -= size_bytes


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and size of each segment, without a ``Path``: hundreds may be checked several times a second."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_segment(entry.name):
                with contextlib.suppress(FileNotFoundError):  # others make room, too
                    yield entry.name, entry.stat().st_size


def _is_segment(name: str) -> bool:
    """Whether a name is ``WHEN-WRITER.decisions``; WHEN is in milliseconds since 1970, so names sort by time."""
    began_ms, dash, _ = name.partition("-")
    return name.endswith(SUFFIX) and dash == "-" and len(began_ms) == _TIME_DIGITS and began_ms.isdecimal()
