"""Corrects the chances that a version's queue gives, by the outcomes of earlier queries.

A queue does not know that a version fails, that its times vary with the input, or which queries its scheduler gives up
if too many have come. So this module keeps, for no chance at all and for each of five ranges of chances, the mean
chance that was told and the share of queries that were in time. If the two clearly differ, it corrects further chances
of that range by the difference. Queries without a chance have a range of their own: a burst makes a model full, and
the outcomes of queries with a small chance would have further ones wait for it in vain.
"""

from math import ceil, sqrt

import msgspec

RANGES = 5
# The queries in a mean: old queries say little about a version's present state.
QUERIES = 64
# A chance is corrected to no less than this share of it: a worker that had no processor for a moment missed all that
# was in flight, and a model that is believed to have no chance at all could not even stand in for another one.
LEAST_SHARE = 0.1
# The share by which a downward correction fades at each use. Otherwise nothing would show that a version which gets no
# queries has recovered.
FADES = 1.0 / 256.0
# The queries that pass a model over until it is tried; twice as many each time, up to the second number.
FIRST_TRY, MOST_TRY = 20, 1280
# A difference of this many standard deviations is no chance; the least variance is that of 19 queries in time of 20.
CLEARLY, LEAST_VARIANCE = 2.5, 0.05


class _Range(msgspec.Struct, gc=False):
    """The number of queries, up to ``QUERIES``; their mean predicted chance, and the share that was in time."""

    queries: int = 0
    told: float = 0.0
    in_time: float = 0.0


class Promises:
    """The promises of a version, in an application and a worker."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges = [_Range() for _ in range(RANGES + 1)]

    def ended(self, chance: float, *, was_in_time: bool) -> None:
        """Count a query that was asked with this chance of the queue's."""
        found = self._range(chance)
        if found.queries < QUERIES:
            found.queries += 1
        found.told += (chance - found.told) / found.queries
        found.in_time += (float(was_in_time) - found.in_time) / found.queries

    def believed(self, chance: float) -> float:
        """Return the corrected chance for a chance of the queue's. Each call lets a correction to less fade."""
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
        return self._ranges[ceil(chance * RANGES)]


class Tries:
    """Decides when an idle model that gets no queries is tried: a query asks it without waiting for it.

    Such a model is slow, or has not kept its promises. Without a try, nothing would show that it has become quick.
    """

    def __init__(self) -> None:
        # For each model, the queries that have passed it over since the last try, and the number after which it is
        # tried. These are the models of a set of terms, with which this object ends.
        self._passed: dict[str, tuple[int, int]] = {}

    def is_due(self, model: str) -> bool:
        """Count a query that passed the model over. Return whether the model gets this query as well."""
        passed, after = self._passed.get(model, (0, FIRST_TRY))
        is_due = passed + 1 >= after
        self._passed[model] = (0, min(2 * after, MOST_TRY)) if is_due else (passed + 1, after)
        return is_due

    def forget(self, model: str) -> None:
        """Forget the queries that passed a model over, since it may be asked again."""
        self._passed.pop(model, None)
