"""A log of lines that a worker's loop gives and a thread writes. The supervisor bounds the file: ``managers.logs``.

A slow or full disk costs lines, which are counted, and never the loop's time.
"""

import errno
import logging
import os
import threading
from pathlib import Path
from queue import SimpleQueue

log = logging.getLogger(__name__)

# How many lines may wait for the disk: those of some seconds. Further ones are dropped.
MAX_WAITING_BYTES = 1024 * 1024
# The supervisor cuts the file long before. While no supervisor runs, nobody does, and further lines are dropped.
MAX_FILE_BYTES = 64 * 1024 * 1024
# How many lines gather before the thread is woken: waking it for each costs the loop more than making the line.
GATHER_S = 0.05
# A stop waits this long for the disk.
CLOSE_TIMEOUT_S = 2.0


class LogFile:
    """Appends to one file, which is made with the first line.

    Attributes:
        written, dropped: numbers of lines.
        problem: why the last write failed; None if it succeeded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closing = threading.Event()
        self._file = -1
        # Only one side writes each of these: the loop or the thread.
        self._given_bytes = self._taken_bytes = 0
        self._over = 0
        self._failed = self.written = 0
        self.problem: str | None = None

    @property
    def dropped(self) -> int:
        return self._over + self._failed

    def add(self, line: bytes) -> None:
        """Write a line soon, or drop it if too much waits. ``line`` ends with a line feed."""
        if self._given_bytes - self._taken_bytes > MAX_WAITING_BYTES:
            self._over += 1
            return
        if self._thread is None:
            # A daemon, so that a hanging disk does not keep the worker from ending.
            self._thread = threading.Thread(target=self._write_all, name=self._path.name, daemon=True)
            self._thread.start()
        self._given_bytes += len(line)
        self._queue.put(line)

    def close(self) -> None:
        """Write what waits, if the disk allows. Blocks for ``CLOSE_TIMEOUT_S`` at most."""
        if self._thread is not None:
            self._is_closing.set()
            self._queue.put(None)
            self._thread.join(CLOSE_TIMEOUT_S)

    def _write_all(self) -> None:
        is_over = False
        while not is_over:
            lines = [self._queue.get()]
            self._is_closing.wait(GATHER_S)
            lines += [self._queue.get() for _ in range(self._queue.qsize())]
            is_over = None in lines
            if found := [line for line in lines if line is not None]:
                self._write(found)
        if self._file >= 0:
            os.close(self._file)

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        try:
            self._open()
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._failed += len(lines)
            if self.problem is None:  # log it once, not for each line
                log.warning(
                    "cannot write %(file)s, so its lines are dropped: %(error)s", {"file": self._path, "error": error}
                )
            self.problem = f"{self._path.name}: {type(error).__name__}: {error}"
        else:
            self.written += len(lines)
            if self.problem is not None:
                log.warning("%(file)s can be written again", {"file": self._path})
            self.problem = None
        self._taken_bytes += len(data)

    def _open(self) -> None:
        """Open the file, also again if it was moved or removed. The supervisor cuts it in place.

        Raises:
            OSError: it cannot be opened, or is as large as it may be.
        """
        if self._file >= 0:
            try:
                found = self._path.stat()
                if found.st_ino == os.fstat(self._file).st_ino:
                    if found.st_size > MAX_FILE_BYTES:
                        raise OSError(errno.EFBIG, f"over {MAX_FILE_BYTES} bytes, since no supervisor has cut it")
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)
            self._file = -1
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
