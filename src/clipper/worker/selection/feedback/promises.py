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
QUERIES = 64
# A chance is corrected to no less than this share of it: a worker that had no processor for a moment missed all that
# was in flight, and a model that is believed to have no chance at all could not even stand in for another one.
LEAST_SHARE = 0.1
# How much of a correction that keeps queries away fades with each query that asks for it: without that, a version that
# is passed over would never be known to be well again.
FADES = 1.0 / 256.0
# So many queries pass a model over until it is tried; twice as many each time, up to the largest number.
FIRST_TRY, MOST_TRY = 20, 1280
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
        """Return the corrected chance for a chance of the queue's. Corrections to less fade by being asked for."""
        found = self._range(chance)
        if not found.queries:
            return chance
        difference = found.in_time - found.told
        variance = max(found.told * (1.0 - found.told), LEAST_VARIANCE)
        if abs(difference) <= CLEARLY * sqrt(variance / found.queries):
            return chance
        if difference < 0.0:
            found.in_time -= FADES * difference
        return min(max(chance + difference, LEAST_SHARE * chance), 1.0)

    def _range(self, chance: float) -> _Range:
        return self._ranges[min(int(chance * RANGES), RANGES - 1)]


class Tries:
    """Says when a model that idles and is passed over all the same gets a query as well, for which nobody waits.

    Such a model is slow, or has not kept its promises. Without that it would not be known that it has become quick.
    """

    def __init__(self) -> None:
        # By model: how many queries have passed it over since the last try, and after how many it is tried.
        self._passed: dict[str, tuple[int, int]] = {}

    def is_due(self, model: str) -> bool:
        """Count a query that passed the model over. Return whether it gets this one as well."""
        passed, after = self._passed.get(model, (0, FIRST_TRY))
        is_due = passed + 1 >= after
        self._passed[model] = (0, min(2 * after, MOST_TRY)) if is_due else (passed + 1, after)
        return is_due

    def forget(self, model: str) -> None:
        """The model may be asked again."""
        self._passed.pop(model, None)
