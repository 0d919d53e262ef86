"""Keeps the event log: gives events their times, and writes them to the home."""

import logging
import time
from collections.abc import Sequence

from clipper.supervisor.history.events.file import EventFile
from clipper.supervisor.history.events.log import MAX_EVENTS, EventLog, NewEvent

log = logging.getLogger(__name__)

# A file that could not be written is tried again this often, and floods that are over are told.
LOOK_EVERY_S = 5.0


class EventKeeper:
    """Records events. A file that cannot be written stops nothing.

    Attributes:
        log: the latest events, also those that could not be written.
    """

    def __init__(self, file: EventFile) -> None:
        self._file = file
        self.log = EventLog(file.load())
        # The newest that is in the file. What could not be written yet is behind it in the log, which bounds it.
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
        """Tell of floods that are over, and write what could not be written before."""
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
