"""A log whose lines the worker's loop makes and a thread writes. The supervisor bounds the file: ``managers.logs``."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from clipper.base.background import Background

# The lines that may wait for the disk: those of a few seconds. Further lines are dropped.
MAX_WAITING_BYTES = 1024 * 1024
# The supervisor cuts the file long before this size. While no supervisor runs, further lines are dropped.
MAX_FILE_BYTES = 64 * 1024 * 1024
# How long lines gather before the thread writes: waking it for each costs the loop more than making the line.
GATHER_S = 0.05
LINES_AT_ONCE = 100_000
# A stop waits this long for the disk.
CLOSE_TIMEOUT_S = 2.0


class LogFile(Background[bytes]):
    """Appends lines, each with its line feed, to a file that is made with the first line."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"write {path.name}",
            most=MAX_WAITING_BYTES,
            at_once=LINES_AT_ONCE,
            gather_s=GATHER_S,
            close_s=CLOSE_TIMEOUT_S,
        )
        self._path = path
        self._file = -1

    def do(self, items: Sequence[bytes]) -> None:
        self._open()
        rest = memoryview(b"".join(items))
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def end(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _open(self) -> None:
        """Open the file, again if it was moved or removed. It is cut in place. Raises OSError, also at its bound."""
        if self._file >= 0:
            try:
                found = self._path.stat()
                if found.st_ino == os.fstat(self._file).st_ino:
                    if found.st_size > MAX_FILE_BYTES:
                        why = f"the file has over {MAX_FILE_BYTES} bytes, since no supervisor has cut it"
                        raise OSError(errno.EFBIG, why)
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)
            self._file = -1
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
