"""The rules that the scheduler is measured beside. They know the mean times of batches; their settings are searched.

``eager``      drop what cannot be met, then as many as the most urgent left allows.
``window``     may drop more, where the batch then answers more a second (Nexus, SOSP 2019, section 6.3).
``expected``   the same by expected values over the spread of times.
``symphony``   as ``window``, but a batch waits until its most urgent could take no more (arXiv 2308.07470).
``fixed``      a size, and how long a batch waits for it: what is set by hand elsewhere.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.batching.profiles import Profile, Query
from benchmarks.batching.simulation import Rule

Array = npt.NDArray[np.float64]

PLACES = 64
# A rule that waits looks again when the queue has grown by this factor.
SEEN_TIMES = 1.02
# Five equally likely values of 1 + |N(0, noise)| are 1 + noise × these.
HALF_NORMAL = (0.126, 0.385, 0.674, 1.036, 1.645)


@dataclass(slots=True)
class Waiting:
    """What waits, most urgent first, as arrays."""

    due_s: Array
    # Of the rows before each and, last, of all.
    rows_s: Array


@dataclass(slots=True)
class Known:
    """A rule that knows the times. ``margin``: by what factor batches are taken to be slower than the mean."""

    profile: Profile
    margin: float = 1.0
    queue: list[Query] = field(default_factory=list)
    waits_until_s: float = 0.0
    seen: int = 0

    def push(self, query: Query) -> None:
        if not self.queue or query.due_s >= self.queue[-1].due_s:
            self.queue.append(query)
        else:
            bisect.insort(self.queue, query, key=lambda each: each.due_s)

    def finished(self, replica: int, now_s: float) -> None:
        """It knows already."""

    def decide(self, now_s: float, idle: Sequence[int]) -> tuple[list[tuple[int, list[Query]]], float]:
        batches = []
        for replica in sorted(idle, key=lambda replica: self.profile.speeds[replica]):
            if not self.queue or self.still_waits(now_s):
                break
            waiting = Waiting(
                np.array([query.due_s for query in self.queue]),
                np.cumsum([0.0, *(self.profile.row_s(query.size_bytes) for query in self.queue)]),
            )
            drop, take, until_s = self.pick(replica, waiting, now_s)
            self.waits_until_s, self.seen = until_s, len(self.queue)
            if until_s > now_s:
                break
            batch = self.queue[drop : drop + take]
            del self.queue[: drop + take]
            if batch:
                batches.append((replica, batch))
        return batches, self.waits_until_s if self.waits_until_s > now_s else math.inf

    def still_waits(self, now_s: float) -> bool:
        """Whether it waits and hardly more has come since: then there is no need to look at the whole queue again."""
        return now_s < self.waits_until_s and len(self.queue) < self.seen * SEEN_TIMES

    def pick(self, replica: int, waiting: Waiting, now_s: float) -> tuple[int, int, float]:
        """How many to drop and to take, and until when to wait with that."""
        raise NotImplementedError

    def times_s(self, replica: int, waiting: Waiting, first: Array, end: Array) -> Array:
        """The mean times of batches from ``first`` to before ``end``."""
        profile, rows = self.profile, end - first
        rows_s = waiting.rows_s[end.astype(int)] - waiting.rows_s[first.astype(int)]
        if profile.pad > 1:
            rows_s = np.ceil(rows / profile.pad) * profile.pad * profile.per_row_s
        times_s: Array = (profile.fixed_s + rows_s) * profile.speeds[replica]
        return times_s

    def ends(self, replica: int, waiting: Waiting, first: Array, now_s: float, ratio: float) -> Array:
        """Where the largest batches end that meet their most urgent query, if they take ``ratio`` times the mean."""
        profile = self.profile
        room_s = (waiting.due_s[first.astype(int)] - now_s) / (ratio * profile.speeds[replica]) - profile.fixed_s
        if profile.pad > 1:
            rows = np.floor(room_s / (profile.pad * profile.per_row_s) + 1e-9) * profile.pad
            padded: Array = np.clip(first + rows, first, len(waiting.due_s))
            return padded
        end = np.searchsorted(waiting.rows_s, waiting.rows_s[first.astype(int)] + room_s + 1e-12, "right") - 1
        exact: Array = np.maximum(end, first).astype(float)
        return exact

    def best_window(self, replica: int, waiting: Waiting, now_s: float) -> tuple[int, int]:
        """The batch that answers most a second of those that meet their most urgent query."""
        length = len(waiting.due_s)
        first = np.unique(np.arange(min(length, PLACES)) * length // min(length, PLACES)).astype(float)
        end = self.ends(replica, waiting, first, now_s, self.margin)
        per_s = (end - first) / self.times_s(replica, waiting, first, np.maximum(end, first + 1))
        best = int(np.argmax(per_s))
        if per_s[best] <= 0:
            return length, 0
        return int(first[best]), int(end[best] - first[best])

    def stale(self, replica: int, waiting: Waiting, now_s: float, rows: int) -> int:
        """How many cannot be met any more by a batch of so many."""
        needed_s = self.profile.mean_s(rows) * self.profile.speeds[replica] * self.margin
        return int(np.searchsorted(waiting.due_s, now_s + needed_s))


class Eager(Known):
    def pick(self, replica: int, waiting: Waiting, now_s: float) -> tuple[int, int, float]:
        drop = self.stale(replica, waiting, now_s, 1)
        if drop == len(waiting.due_s):
            return drop, 0, 0.0
        end = self.ends(replica, waiting, np.array([float(drop)]), now_s, self.margin)
        return drop, max(int(end[0]) - drop, 1), 0.0


class Window(Known):
    def pick(self, replica: int, waiting: Waiting, now_s: float) -> tuple[int, int, float]:
        return (*self.best_window(replica, waiting, now_s), 0.0)


class Symphony(Known):
    def pick(self, replica: int, waiting: Waiting, now_s: float) -> tuple[int, int, float]:
        drop, take = self.best_window(replica, waiting, now_s)
        if not take or drop + take < len(waiting.due_s):
            return drop, take, 0.0
        row_s = float(waiting.rows_s[-1]) / len(waiting.due_s) * self.profile.speeds[replica]
        took_s = self.times_s(replica, waiting, np.array([float(drop)]), np.array([float(drop + take)]))[0] + row_s
        return drop, take, float(waiting.due_s[drop] - took_s * self.margin - 1e-9)


class Expected(Known):
    def pick(self, replica: int, waiting: Waiting, now_s: float) -> tuple[int, int, float]:
        length = len(waiting.due_s)
        ratios = [1 + self.profile.noise * value for value in HALF_NORMAL]
        places = np.unique(np.arange(min(length, PLACES)) * length // min(length, PLACES)).astype(float)
        first = np.tile(places, len(ratios) + 1)
        end = np.concatenate(
            [*(self.ends(replica, waiting, places, now_s, ratio) for ratio in ratios), np.full(len(places), length)]
        )
        end = np.maximum(end, first + 1)
        mean_s = self.times_s(replica, waiting, first, end)
        in_time, took_s = np.zeros(len(first)), np.zeros(len(first))
        for ratio in ratios:
            late = np.searchsorted(waiting.due_s, now_s + mean_s * ratio)
            in_time += np.clip(end - np.maximum(late, first), 0, None)
            took_s += mean_s * ratio
        best = int(np.argmax(in_time / took_s))
        if not in_time[best]:
            return length, 0, 0.0
        return int(first[best]), int(end[best] - first[best]), 0.0


@dataclass(slots=True)
class Fixed(Known):
    size: int = 1
    delay_s: float = 0.0

    def pick(self, replica: int, waiting: Waiting, now_s: float) -> tuple[int, int, float]:
        drop = self.stale(replica, waiting, now_s, min(self.size, len(waiting.due_s)))
        del self.queue[:drop]
        if not self.queue:
            return 0, 0, 0.0
        if len(self.queue) < self.size:
            oldest_s = min(query.arrival_s for query in self.queue[:PLACES])
            return 0, self.size, oldest_s + self.delay_s - 1e-12
        return 0, self.size, 0.0

    def still_waits(self, now_s: float) -> bool:
        return now_s < self.waits_until_s and len(self.queue) < self.size


def searched(profile: Profile) -> dict[str, Callable[[], Rule]]:
    """All of them, with each setting that is tried."""
    half = profile.half_slo_rows()
    rules: dict[str, Callable[[], Rule]] = {"expected": lambda: Expected(profile)}
    for margin in (1.0, 1.1, 1.25):
        rules[f"eager, margin {margin}"] = lambda margin=margin: Eager(profile, margin)  # type: ignore[misc]
        rules[f"window, margin {margin}"] = lambda margin=margin: Window(profile, margin)  # type: ignore[misc]
    for margin in (1.05, 1.2):
        rules[f"symphony, margin {margin}"] = lambda margin=margin: Symphony(profile, margin)  # type: ignore[misc]
    for size in (max(1, half // 2), half, 2 * half):
        for delay_s in (0.0, profile.slo_s / 8):
            rules[f"fixed {size}, {delay_s * 1e3:g} ms"] = (
                lambda size=size, delay_s=delay_s: Fixed(profile, 1.1, size=size, delay_s=delay_s)  # type: ignore[misc]
            )
    return rules
