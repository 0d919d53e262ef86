"""How far a job has come: a file beside its output, from which a killed job resumes.

``OUT.partial`` has the rows that are done, and ``OUT.journal`` a line of JSON for each chunk of them, written after
the rows: where the next rows begin, how long the partial output then is, and a checksum. Output without a line is cut
off, and its rows are asked again; so no row is lost or there twice. The first line is about the job, and the last one
says that the output is complete.

Each line ends with a checksum of itself and all lines before it. Lines behind one that was changed are not believed.
"""

import fcntl
import os
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from clipper.cli.output import reported
from clipper.errors import Conflict, InvalidArgument

# The formats of files, by the end of their names.
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}

# A power cut may lose data that is not on disk. This often the rows are flushed to disk, and then the journal.
SYNC_S = 1.0
_READ_BYTES = 1024 * 1024
# A line of the job has the paths of its inputs; a longer line was not written here.
_LINE_BYTES = 16 * 1024 * 1024
_COMPLETE = b'"complete"'


class Job(msgspec.Struct, frozen=True):
    """The subject of a job. All of it must be the same when it goes on.

    Attributes:
        asked: the application or model, and its version.
        sources: path, size in bytes and time of the last change of each input.
        output_type: the type of the outputs, by which columns were made; None if it was not known.
        digest: of the model, if the job has a server of its own.
    """

    asked: str
    version: str
    sources: tuple[tuple[str, int, int], ...]
    prefix: str
    output_type: str | None = None
    digest: str = ""
    journal: int = 2


class Done(msgspec.Struct, frozen=True, array_like=True):
    """The finished part: all before ``position`` of the source with this number."""

    source: int = 0
    position: int = 0
    rows: int = 0
    failed: int = 0
    size_bytes: int = 0
    crc: int = 0


def read_sources(paths: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of change of each input. Raises InvalidArgument if one cannot be read."""
    found = []
    for path in paths:
        with reported(path, "read"):
            stat = path.stat()
        if not path.is_file():
            raise InvalidArgument(f"{path} is no file: expected one that can be read twice, and from the middle")
        found.append((str(path.absolute()), stat.st_size, stat.st_mtime_ns))
    return tuple(found)


class Journal:
    """The journal of a job, and its partial output.

    Raises Conflict if another process is at the same job, and InvalidArgument if a file cannot be written, as on a full
    disk: the finished part stays. ``is_complete``: whether all rows are done, and at most the moves of the output to
    its place are not.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.partial = output.with_name(f"{output.name}.partial")
        self.path = output.with_name(f"{output.name}.journal")
        self.job: Job | None = None
        self.done = Done()
        self.is_complete = False
        self._check = 0
        self._rows: BinaryIO | None = None
        self._synced_s = time.monotonic()
        with reported(self.path, "written"):
            self._file = _locked(self.path, output)
        with reported(self.path, "read"):
            self._read()

    def _read(self) -> None:
        """Find what is done: the lines whose rows are in the partial output."""
        self._file.seek(0)
        kept, has_rows, is_moved = 0, False, not self.partial.exists()
        with (Path(os.devnull) if is_moved else self.partial).open("rb") as rows:
            while text := self._unchanged(self._file.readline(_LINE_BYTES)):
                try:
                    if self.job is None:
                        self.job = msgspec.json.decode(text, type=Job)
                    elif text == _COMPLETE:
                        self.is_complete = has_rows
                    else:
                        done = msgspec.json.decode(text, type=Done)
                        if not is_moved and _crc_of(rows, done.size_bytes - self.done.size_bytes) != done.crc:
                            break
                        self.done, has_rows = done, True
                except msgspec.DecodeError:
                    break
                self._check = zlib.crc32(text, self._check)
                kept = self._file.tell()
        is_there = self.is_complete and self.output.exists() if is_moved else has_rows
        if not is_there:  # without its beginning, the output is begun anew
            self.job, self.done, self.is_complete, self._check, kept = None, Done(), False, 0, 0
        self._file.truncate(kept)
        self._file.seek(0, os.SEEK_END)

    def _unchanged(self, line: bytes) -> bytes:
        """Return the text of a line; empty if it is not as it was written."""
        text, _, check = line.rpartition(b" ")
        return text if check == b"%08x\n" % zlib.crc32(text, self._check) else b""

    def begin(self, job: Job, header: bytes) -> None:
        """Begin the output of a job, or go on with that of the same job. Raises Conflict if it is another job's."""
        if self.job is not None and job != self.job:
            raise Conflict(
                f"{self.path} is of another job, or its input, model or version has changed since: to begin anew, "
                f"remove {self.path} and {self.partial}"
            )
        with reported(self.partial, "written"):
            self._rows = self.partial.open("r+b" if self.partial.exists() else "w+b")
            if self.job is None:
                self.job = job
                self._rows.truncate(0)
                self._write_line(msgspec.json.encode(job))
                self.add(Done(), header)
            else:
                self._rows.truncate(self.done.size_bytes)
                self._rows.seek(self.done.size_bytes)

    def add(self, done: Done, data: bytes) -> None:
        """Write rows, and that they are done. Of ``done`` the size and the checksum are set here."""
        assert self._rows is not None
        size_bytes, crc = self.done.size_bytes + len(data), zlib.crc32(data)
        with reported(self.partial, "written"):
            self._rows.write(data)
            self._rows.flush()
            self.done = msgspec.structs.replace(done, size_bytes=size_bytes, crc=crc)
            is_due = time.monotonic() - self._synced_s > SYNC_S
            if is_due:
                os.fdatasync(self._rows.fileno())
            self._write_line(msgspec.json.encode(self.done))
            if is_due:
                os.fdatasync(self._file.fileno())
                self._synced_s = time.monotonic()

    def check_source(self, number: int) -> None:
        """Raise Conflict if an input has changed since the job began: rows of both would be in one output."""
        assert self.job is not None
        before = self.job.sources[number]
        if read_sources([Path(before[0])]) != (before,):
            raise Conflict(
                f"{before[0]} has changed while it was read: to begin anew once it changes no more, remove {self.path} "
                f"and {self.partial}"
            )

    def _write_line(self, text: bytes) -> None:
        self._check = zlib.crc32(text, self._check)
        self._file.write(b"%b %08x\n" % (text, self._check))
        self._file.flush()

    def finish(self, made: Path | None) -> None:
        """Put the output in its place. ``made``: a file made of the partial output; None if that is the output."""
        assert self._rows is not None and self.job is not None
        for number in range(len(self.job.sources)):
            self.check_source(number)
        with reported(self.output, "written"):
            os.fsync(self._rows.fileno())
            if self.output.exists():
                raise Conflict(f"{self.output} exists by now: move it away, and run the same command again to finish")
            self._write_line(_COMPLETE)
            os.fsync(self._file.fileno())
            (made or self.partial).replace(self.output)
        self.clear()

    def clear(self) -> None:
        """Remove what a complete job leaves."""
        with reported(self.path, "removed"):
            self.partial.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave the job as it is. A journal without a job is removed."""
        # If the disk was full, this writes the buffered data again; it has no line in the journal.
        with suppress(OSError):
            if self._rows is not None:
                self._rows.close()
        if self.job is None:
            self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()


def _locked(path: Path, output: Path) -> BinaryIO:
    """Open a journal for this process alone, which may have to wait for one that another process removes."""
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise Conflict(f"another process writes {output}: wait for its end") from error
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


def _crc_of(file: BinaryIO, size_bytes: int) -> int | None:
    """Return the checksum of the next bytes; None if there are fewer."""
    crc, left = 0, size_bytes
    while left > 0:
        data = file.read(min(left, _READ_BYTES))
        if not data:
            return None
        crc, left = zlib.crc32(data, crc), left - len(data)
    return crc
