"""The latest events in memory: numbers them, bounds floods, and finds requested events."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from clipper.api.events import Event, Events, Kind, Level
from clipper.values.types import CLIPPER, Caller

# Events take some 300 bytes each. A deployment makes three.
MAX_EVENTS = 10_000
# The most characters of a message, which may quote a container.
MAX_MESSAGE = 500
# In one window, this many events of a kind on a subject are kept. An event at its end counts the others.
BURST = 20
WINDOW_S = 600.0
# The most windows open at once. With more subjects and kinds, the oldest window ends early.
MAX_WINDOWS = 4096


class NewEvent(Struct, frozen=True):
    """An event without a number and a time; see ``Event``. ``by``: the caller whose change it was, if known."""

    kind: Kind
    subject: str
    message: str
    version: str | None = None
    level: Level = "info"
    by: Caller | None = None


@dataclass(slots=True)
class _Window:
    """The events of a kind on a subject since ``began_s``, and the last one that was not kept."""

    began_s: float
    count: int = 0
    left_out: int = 0
    last: NewEvent | None = None


class EventLog:
    """Keeps ``MAX_EVENTS``. Two clocks come in: ``now_s`` never goes back, ``time_s`` is for people."""

    def __init__(self, known: Iterable[Event] = ()) -> None:
        """Begin with the ``known`` events of an earlier supervisor, oldest first."""
        self._events = deque(known, maxlen=MAX_EVENTS)
        self._windows: dict[tuple[Kind, str], _Window] = {}

    def __len__(self) -> int:
        return len(self._events)

    @property
    def newest_id(self) -> int:
        """The number of the newest event; 0 if there is none."""
        return self._events[-1].id if self._events else 0

    def add(self, new: NewEvent, now_s: float, time_s: float) -> None:
        """Add an event; an event of a flood is only counted."""
        self.end_windows(now_s, time_s)
        window = self._windows.get((new.kind, new.subject))
        if window is None:
            if len(self._windows) >= MAX_WINDOWS:
                self._end(next(iter(self._windows)), time_s)
            window = self._windows[new.kind, new.subject] = _Window(now_s)
        window.count += 1
        if window.count > BURST:
            window.left_out += 1
            window.last = new
        else:
            self._append(new, time_s)

    def end_windows(self, now_s: float, time_s: float) -> None:
        """Add an event for each window that is over and has left events out, in the order of their starts."""
        while self._windows:
            key = next(iter(self._windows))
            if now_s - self._windows[key].began_s < WINDOW_S:
                break
            self._end(key, time_s)

    def find(
        self,
        after: int | None,
        limit: int,
        kind: Kind | None = None,
        subject: str | None = None,
        who: str | None = None,
    ) -> Events:
        """Return the first ``limit`` events after the number ``after``; the last ``limit`` of all if that is None."""
        events = self._events
        if after is None:
            latest = (one for one in reversed(events) if _fits(one, kind, subject, who))
            return Events(tuple(islice(latest, limit))[::-1], self.newest_id)
        later = islice(events, bisect_right(events, after, key=lambda one: one.id), None)
        found = tuple(islice((one for one in later if _fits(one, kind, subject, who)), limit))
        return Events(found, found[-1].id if len(found) == limit else self.newest_id)

    def latest(self) -> tuple[Event, ...]:
        return tuple(self._events)

    def _end(self, key: tuple[Kind, str], time_s: float) -> None:
        window = self._windows.pop(key)
        if window.last is not None:
            message = f"{window.left_out} more events like those before, the last of them: {window.last.message}"
            self._append(replace(window.last, message=message), time_s)

    def _append(self, new: NewEvent, time_s: float) -> None:
        message = new.message if len(new.message) <= MAX_MESSAGE else new.message[: MAX_MESSAGE - 1] + "…"
        by, id_ = new.by or CLIPPER, self.newest_id + 1
        self._events.append(
            Event(id_, time_s, new.kind, new.subject, message, new.version, new.level, by.name, by.address)
        )


def _fits(event: Event, kind: Kind | None, subject: str | None, who: str | None) -> bool:
    return kind in (None, event.kind) and subject in (None, event.subject) and who in (None, event.who)
