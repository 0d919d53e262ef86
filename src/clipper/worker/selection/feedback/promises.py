"""How far a version keeps the chances that its queue gives: what makes them wrong is corrected by what came of them.

A queue does not know that a version fails, that its times vary with the input, or which queries its scheduler gives up
once more have come than can be met. So for each of five ranges of chances the mean chance that was told is kept, and
the share of queries that were in time. If the two clearly differ, further chances of that range are corrected by the
difference.
"""

from math import sqrt

import msgspec

RANGES = 5
# Queries that a mean is over: old ones say little of how a version is now.
QUERIES = 32
# So many standard deviations are no chance; the least variance is that of 19 in time of 20.
CLEARLY, LEAST_VARIANCE = 2.5, 0.05


class _Range(msgspec.Struct, gc=False):
    """Queries, up to ``QUERIES``; the mean chance that they were told, and the share that was in time."""

    queries: int = 0
    told: float = 0.0
    in_time: float = 0.0


class Promises:
    """One version's, in one application and worker."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges = [_Range() for _ in range(RANGES)]

    def ended(self, chance: float, *, was_in_time: bool) -> None:
        """Count a query that was asked with this chance of the queue's."""
        found = self._range(chance)
        if found.queries < QUERIES:
            found.queries += 1
        found.told += (chance - found.told) / found.queries
        found.in_time += (float(was_in_time) - found.in_time) / found.queries

    def believed(self, chance: float) -> float:
        """Return the corrected chance for a chance of the queue's."""
        found = self._range(chance)
        if not found.queries:
            return chance
        difference = found.in_time - found.told
        variance = max(found.told * (1.0 - found.told), LEAST_VARIANCE)
        if abs(difference) <= CLEARLY * sqrt(variance / found.queries):
            return chance
        return min(max(chance + difference, 0.0), 1.0)

    def _range(self, chance: float) -> _Range:
        return self._ranges[min(int(chance * RANGES), RANGES - 1)]
