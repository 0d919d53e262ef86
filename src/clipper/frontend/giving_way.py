"""Decides which connection gives way: to a new one when there are as many as there may be, or when memory is short.

The one that has been idle for the longest goes first. One that has never sent anything may go at once; of one that was
answered, the client may be about to ask again, so it may go only after ``limits.GIVES_WAY_AFTER_S``. One whose request
arrives goes once it is slow. One that waits for an answer never goes.

When memory is short, the request that has been arriving for the longest goes first, however fast it comes: it has
held most others up, and who sends half a request again and again is soon the oldest.
"""

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from clipper.frontend import limits

# For each connection that comes, about so many are looked at: some 10 us.
LOOKED_AT_FOR_EACH = 16


def slow_from_s(began_s: float, size_bytes: int) -> float:
    """Return from when on a request that began to arrive at ``began_s``, and has this much of its body, is slow."""
    return began_s + limits.ARRIVES_WITHIN_S + size_bytes / limits.ARRIVES_BYTES_PER_S


M_co = TypeVar("M_co", covariant=True)


class GivingWay(Generic[M_co]):
    """The connections that may give way, in their order.

    To sort 10,000 takes some milliseconds. So they are sorted once a second and, if none is left of the last time, for
    connections that come in proportion.
    """

    def __init__(self, members: Collection[M_co], time_of: Callable[[M_co], float | None]) -> None:
        """
        Args:
            members: all connections, in the order in which they were made; the caller changes them.
            time_of: from when on a connection gives way; None if it does not.
        """
        self._members, self._time_of = members, time_of
        # With their times when they were sorted. The next is the last.
        self._order: list[tuple[float, M_co]] = []
        self._sorted_at_sweep = -1
        self._looks = 0

    def look(self, sweep: int) -> None:
        """Look at the connections, for each that comes. ``sweep``: a number that rises once a second."""
        self._looks += 1
        enough = min(len(self._members) // LOOKED_AT_FOR_EACH, limits.MAX_REFUSED_AT_ONCE)
        if sweep != self._sorted_at_sweep or (not self._order and self._looks >= enough):
            self._sorted_at_sweep, self._looks = sweep, 0
            idle = [(from_s, one) for one in self._members if (from_s := self._time_of(one)) is not None]
            idle.sort(key=lambda pair: pair[0])
            self._order = idle[::-1]

    def next(self, now_s: float) -> M_co | None:
        """Which of those gives way now, each once; None if none does."""
        while self._order and self._order[-1][0] <= now_s:
            from_s, one = self._order.pop()
            # It may have asked since.
            if self._time_of(one) == from_s:
                return one
        return None
