"""Keeps the event log: gives events their times, and writes them to a file of the home."""

import logging
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from clipper.api.events import Event
from clipper.base.whole_files import write_whole
from clipper.supervisor.history.event_log import MAX_EVENTS, EventLog, NewEvent

# The file is rewritten with only the latest events once it has twice as many.
MAX_LINES = 2 * MAX_EVENTS
# Clipper writes no larger file: a message has 500 characters, of at most 6 bytes each in JSON.
MAX_BYTES = MAX_LINES * 4096
# The bounds of JavaScript's numbers, and of the calendar.
MAX_ID = 2**53
END_OF_TIMES_S = 1e11


class EventFile:
    """The file of events. It raises no error over the file: ``problem`` says why it cannot be written, or read.

    Appended events survive the supervisor, but a power cut only if the system has written them by then.
    """

    def __init__(self, path: Path) -> None:
        self.problem: str | None = None
        self._path = path
        self._damage: str | None = None
        self._lines = 0
        self._descriptor: int | None = None

    def load(self) -> list[Event]:
        """Read the latest events, oldest first. A file with lines that cannot be read is kept under another name."""
        try:
            text = self._read()
        except OSError as error:
            self._fail(error)
            return []
        events: list[Event] = []
        lines = text.split(b"\n")
        for line in lines[:-1]:  # the text after the last line end is incomplete
            try:
                event = _decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            if (events[-1].id if events else 0) < event.id <= MAX_ID and 0 <= event.time_s < END_OF_TIMES_S:
                events.append(event)
        unreadable = len(lines) - 1 - len(events)
        events = events[-MAX_EVENTS:]
        if unreadable or lines[-1]:
            self._replace(events, unreadable)
        else:
            self._lines = len(lines) - 1
        return events

    def append(self, new: Sequence[Event], latest: Callable[[], Sequence[Event]]) -> bool:
        """Append events; return whether the file has them. One that is too long, or was removed, is written anew with
        ``latest``.
        """
        is_gone = self._descriptor is not None and not os.fstat(self._descriptor).st_nlink
        if is_gone or self._lines + len(new) > MAX_LINES:
            return self._write_anew(latest())
        lines = b"".join(_encode(event) + b"\n" for event in new)
        try:
            descriptor = self._open()
            size_bytes = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, lines)
                if written < len(lines):
                    raise OSError(f"only {written} of {len(lines)} bytes were written: is the disk full?")
            except OSError:
                os.ftruncate(descriptor, size_bytes)
                raise
        except OSError as error:
            self._fail(error)
            return False
        self._lines += len(new)
        self.problem = self._damage
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> bytes:
        descriptor = self._open()
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes > MAX_BYTES:
            self._damage = f"{self._path.name} has {size_bytes} bytes, more than this server writes"
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(max(size_bytes - MAX_BYTES, 0))
            return file.read(MAX_BYTES)

    def _open(self) -> int:
        if self._descriptor is None:
            # Opening a pipe would block, and a link could lead anywhere.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o600)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError("it is not a file")
            self._descriptor = descriptor
        return self._descriptor

    def _replace(self, events: Sequence[Event], unreadable: int) -> None:
        """Begin a file with the events that could be read. The old file is kept if more than its end was lost."""
        if unreadable:
            kept = self._path.with_name(f"{self._path.name}.damaged")
            self._damage = (
                f"{unreadable} lines of {self._path.name} cannot be read and are left out: the file is {kept.name} now"
            )
            try:
                self._path.replace(kept)
            except OSError as error:
                self._fail(error)
                return
        self.problem = self._damage
        self._write_anew(events)

    def _write_anew(self, events: Sequence[Event]) -> bool:
        try:
            write_whole(self._path, (_encode(event) + b"\n" for event in events))
        except OSError as error:
            self._fail(error)
            return False
        self.close()
        self._lines = len(events)
        self.problem = self._damage
        return True

    def _fail(self, error: OSError) -> None:
        self.close()
        self.problem = f"events cannot be kept in {self._path}: {error}; check the disk, and the file's owner and mode"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


log = logging.getLogger(__name__)

# How often a file that could not be written is tried again, and ended floods are reported.
LOOK_EVERY_S = 5.0


class EventKeeper:
    """Records events in ``log`` and in a file. A file that cannot be written stops nothing."""

    def __init__(self, file: EventFile) -> None:
        self._file = file
        self.log = EventLog(file.load())
        # The newest event in the file. Events that could not be written yet follow it in the log, which bounds them.
        self._saved_id = self.log.newest_id
        self._is_told = False

    def record(self, events: Sequence[NewEvent]) -> None:
        for event in events:
            self.log.add(event, time.monotonic(), time.time())
        if events:
            self._save()

    def problems(self) -> list[str]:
        return [] if self._file.problem is None else [self._file.problem]

    def look(self) -> None:
        """Report floods that are over, and write events that could not be written before."""
        self.log.end_windows(time.monotonic(), time.time())
        self._save()

    def close(self) -> None:
        self._file.close()

    def _save(self) -> None:
        unsaved = self.log.find(self._saved_id, MAX_EVENTS).events
        if not unsaved:
            return
        if self._file.append(unsaved, self.log.latest):
            self._saved_id = unsaved[-1].id
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            log.error("%(error)s", {"error": self._file.problem})
