"""Decides which connection gives way to a new one when there are as many as there may be.

The one that has been idle for the longest goes first. One that has never sent anything may go at once; of one that was
answered, the client may be about to ask again, so it may go only after ``limits.GIVES_WAY_AFTER_S``. One whose request
arrives goes once it is slow. One that waits for an answer never goes.
"""

from collections.abc import Collection
from typing import Generic, Protocol, TypeVar

from clipper.frontend import limits

# For each connection that comes, about so many are looked at: some 10 us.
LOOKED_AT_FOR_EACH = 16


class Idle(Protocol):
    """A connection that may be idle."""

    @property
    def gives_way_from_s(self) -> float | None:
        """From when on it may give way; None while it waits for an answer."""


def slow_from_s(began_s: float, size_bytes: int) -> float:
    """Return from when on a request that began to arrive at ``began_s``, and has this much of its body, is slow."""
    return began_s + limits.ARRIVES_WITHIN_S + size_bytes / limits.ARRIVES_BYTES_PER_S


M = TypeVar("M", bound=Idle)


class GivingWay(Generic[M]):
    """The idle connections in the order in which they give way.

    To sort 10,000 takes some milliseconds. So they are sorted once a second and, if none is left of the last time, for
    connections that come in proportion.
    """

    def __init__(self) -> None:
        # With their times when they were sorted. The next is the last.
        self._order: list[tuple[float, M]] = []
        self._sorted_at_sweep = -1
        self._looks = 0

    def look(self, members: Collection[M], sweep: int) -> None:
        """Be told of all connections, in the order in which they were made, for each that comes.

        Args:
            sweep: a number that rises once a second.
        """
        self._looks += 1
        enough = min(len(members) // LOOKED_AT_FOR_EACH, limits.MAX_REFUSED_AT_ONCE)
        if sweep != self._sorted_at_sweep or (not self._order and self._looks >= enough):
            self._sorted_at_sweep, self._looks = sweep, 0
            idle = [(from_s, one) for one in members if (from_s := one.gives_way_from_s) is not None]
            idle.sort(key=lambda pair: pair[0])
            self._order = idle[::-1]

    def next(self, now_s: float) -> M | None:
        """Which of those gives way now, each once; None if none does."""
        while self._order and self._order[-1][0] <= now_s:
            from_s, one = self._order.pop()
            # It may have asked since.
            if one.gives_way_from_s == from_s:
                return one
        return None
