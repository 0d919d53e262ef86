"""The ring that keeps series: the latest points of each, at equal steps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# A subject must be idle for this many steps (ten minutes of 2 s) before a busy subject may take over its series.
IDLE_STEPS = 300
# Digits after the point of values that are read: float32 is no more precise for values of this size.
DIGITS = 5

NO_VALUE = float("nan")


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    kind: str
    name: str


@dataclass(slots=True)
class _Kept:
    """The series of a subject: their rows, and when the subject was last busy."""

    busy_step: int
    rows: dict[str, int] = field(default_factory=dict)


class SeriesRing:
    """Keeps the latest ``points`` values of each series, in 4 bytes each; a gap is NaN.

    If all rows are in use, a busy subject gets the rows of the subject that has been idle for longest, if that is
    ``IDLE_STEPS`` or more; otherwise the new series is left out.
    """

    def __init__(self, points: int, max_series: int) -> None:
        self._points = points
        self._values = np.empty((max_series, points), np.float32)
        # A view of the same memory: writing a value through it takes half the time.
        self._cells = self._values.data.cast("B").cast("f")
        self._subjects: dict[Subject, _Kept] = {}
        self._free: list[int] = []
        self._used = 0
        self._first_step = self._step = -1
        self._idle: list[Subject] | None = None
        self._left_out: set[Subject] = set()

    @property
    def length(self) -> int:
        """The number of points so far: a point for each step since the first, at most ``points``."""
        return 0 if self._step < 0 else min(self._step - self._first_step + 1, self._points)

    @property
    def left_out(self) -> frozenset[Subject]:
        """The subjects that lacked room for a series when they were last written."""
        return frozenset(self._left_out)

    def begin(self, step: int) -> None:
        """Begin a step, whose number is above the last; steps between, and series that are not written, are gaps."""
        if step <= self._step:
            raise ValueError(f"step {step} does not follow {self._step}")
        if self._step < 0:
            self._first_step = step
        elif step - self._step >= self._points:
            self._values[: self._used] = NO_VALUE
        for passed in range(max(self._step + 1, step - self._points + 1), step + 1):
            self._values[: self._used, passed % self._points] = NO_VALUE
        self._step = step
        self._idle = None

    def write(self, subject: Subject, values: Mapping[str, float], *, is_busy: bool, steps: int = 1) -> None:
        """Write a subject's values for this step and the ``steps`` - 1 before. A series without a value has a gap."""
        self._left_out.discard(subject)
        kept = self._subjects.get(subject)
        if kept is None:
            kept = self._subjects[subject] = _Kept(self._step)
        if is_busy:
            kept.busy_step = self._step
        rows, cells, points = kept.rows, self._cells, self._points
        positions = [step % points for step in range(self._step - min(steps, self.length) + 1, self._step + 1)]
        for name, value in values.items():
            row = rows.get(name)
            if row is None:
                row = self._new_row(is_busy=is_busy)
                if row is None:
                    self._left_out.add(subject)
                    continue
                rows[name] = row
            for position in positions:
                cells[row * points + position] = value

    def leave_out(self, subject: Subject) -> None:
        """Count a subject that is not written at all."""
        self._left_out.add(subject)

    def keep_only(self, subjects: Iterable[Subject]) -> None:
        kept = set(subjects)
        self._left_out &= kept
        for gone in self._subjects.keys() - kept:
            self.drop(gone)

    def drop(self, subject: Subject) -> None:
        if (kept := self._subjects.pop(subject, None)) is not None:
            self._free.extend(kept.rows.values())

    def names(self, subject: Subject) -> tuple[str, ...]:
        kept = self._subjects.get(subject)
        return () if kept is None else tuple(sorted(kept.rows))

    def read(self, subject: Subject, names: Sequence[str], points: int) -> dict[str, list[float]]:
        """Return the last ``points`` values of these series, oldest first, or as many as there are; NaN is a gap."""
        return self.read_all([subject], names, points)[0]

    def read_all(self, subjects: Iterable[Subject], names: Sequence[str], points: int) -> list[dict[str, list[float]]]:
        """Read several subjects like ``read``: a call for thousands of series takes a fraction of many calls' time."""
        rows = [
            -1 if kept is None else kept.rows.get(name, -1)
            for kept in map(self._subjects.get, subjects)
            for name in names
        ]
        length = min(points, self.length)
        positions = np.arange(self._step - length + 1, self._step + 1) % self._points
        index = np.array(rows, np.intp)
        known = index >= 0
        # A row that was never written is uninitialised memory, and is not read.
        found = np.full((len(rows), length), NO_VALUE)
        found[known] = self._values[index[known, np.newaxis], positions]
        lists = iter(np.round(found, DIGITS).tolist())
        return [dict(zip(names, lists)) for _ in range(len(rows) // len(names))]

    def _new_row(self, *, is_busy: bool) -> int | None:
        if not self._free and self._used < len(self._values):
            self._free.append(self._used)
            self._used += 1
        if not self._free and is_busy:
            self._make_room()
        if not self._free:
            return None
        row = self._free.pop()
        self._values[row] = NO_VALUE
        return row

    def _make_room(self) -> None:
        if self._idle is None:
            idle = [one for one, kept in self._subjects.items() if self._step - kept.busy_step >= IDLE_STEPS]
            self._idle = sorted(idle, key=lambda one: -self._subjects[one].busy_step)
        while self._idle and not self._free:
            subject = self._idle.pop()
            self.drop(subject)
            self._left_out.add(subject)
