"""A histogram of plain integers: counting is nearly free, and reading may cost more."""

from bisect import bisect_left
from collections.abc import Sequence

from clipper.control.statistics import HistogramData


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float:
    """Return a quantile, interpolated linearly within its bucket; at most the last bound.

    Args:
        counts: the counts of a histogram with these bounds; at least one is not 0.
        share: the share of the values that are at most the quantile, from 0 to 1.
    """
    wanted = share * sum(counts)
    low = 0.0
    for count, high in zip(counts, bounds):
        if count and wanted <= count:
            return low + (high - low) * wanted / count
        wanted -= count
        low = high
    return low


class Histogram:
    """Counts of values up to and including each bound, plus a count of those above the last bound."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def record(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def data(self) -> HistogramData:
        return HistogramData(tuple(self.counts), self.sum)
