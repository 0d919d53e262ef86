"""Decides which connection gives way when a new one comes and there are too many, or when memory is short.

The connection that has been idle for the longest gives way first. A connection that has never sent anything may go at
once. A connection that was answered may go only after ``limits.GIVES_WAY_AFTER_S``, because its client may be about to
ask again. A connection whose request is arriving goes once it is slow. A connection that waits for an answer never
goes.

When memory is short, the request that has been arriving for the longest goes first, however fast it comes: it has held
up most others, and a client that sends half a request again and again soon has the oldest.
"""

from collections.abc import Callable, Collection
from itertools import islice
from math import inf
from typing import Generic, TypeVar

from clipper.worker.frontend import limits

# The connections that ``look`` checks for each new connection: some 10 us.
LOOKED_AT_FOR_EACH = 16
# The connections that are sorted at once: some 5 ms. Sorting all 10,000 would hold up the loop for 30 ms.
SORTED_AT_ONCE = 2_000


def slow_from_s(began_s: float, size_bytes: int) -> float:
    """Return when a request counts as slow, if it began to arrive at ``began_s`` and has this much of its body."""
    return began_s + limits.ARRIVES_WITHIN_S + size_bytes / limits.ARRIVES_BYTES_PER_S


M_co = TypeVar("M_co", covariant=True)


class GivingWay(Generic[M_co]):
    """The connections that may give way, in their order.

    They are sorted once a second and, if none of the last order gives way now, in proportion to the connections that
    come. If there are very many, only a part is sorted, in the order in which connections were made: the first part
    with a connection that gives way, or the part with the connection that will give way soonest.
    """

    def __init__(self, members: Collection[M_co], time_of: Callable[[M_co], float | None]) -> None:
        """
        Args:
            members: all connections, in the order in which they were made; the caller changes them.
            time_of: returns the time from which a connection gives way; None if it does not.
        """
        self._members, self._time_of = members, time_of
        # The connections with their times when they were sorted. The last is the next to give way.
        self._order: list[tuple[float, M_co]] = []
        self._sorted_at_sweep = -1
        self._looks = 0

    def look(self, sweep: int, now_s: float) -> None:
        """Sort the connections if that is due. Called for each new one. ``sweep``: a number that grows each second."""
        self._looks += 1
        enough = min(len(self._members) // LOOKED_AT_FOR_EACH, limits.MAX_OVER_BOUND)
        if sweep == self._sorted_at_sweep and (self._gives_way(now_s) or self._looks < enough):
            return
        self._sorted_at_sweep, self._looks = sweep, 0
        self._order = []
        for start in range(0, len(self._members), SORTED_AT_ONCE):
            part = islice(self._members, start, start + SORTED_AT_ONCE)
            order = [(from_s, one) for one in part if (from_s := self._time_of(one)) is not None]
            order.sort(key=lambda pair: pair[0])
            order.reverse()
            if order and order[-1][0] < self.next_s:
                self._order = order
            if self._gives_way(now_s):
                break

    @property
    def next_s(self) -> float:
        """The time when the next connection gives way unless its client sends before; infinity if none does."""
        return self._order[-1][0] if self._order else inf

    def _gives_way(self, now_s: float) -> bool:
        return self.next_s <= now_s

    def next(self, now_s: float) -> M_co | None:
        """Remove and return a connection that gives way now; None if none does."""
        while self._gives_way(now_s):
            from_s, one = self._order.pop()
            self._looks += 1
            # Its client may have sent a request since.
            if self._time_of(one) == from_s:
                return one
        return None
