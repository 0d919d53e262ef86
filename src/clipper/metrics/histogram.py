"""A histogram as plain integers: counting must cost next to nothing, reading may cost more."""

from bisect import bisect_left
from collections.abc import Sequence

from clipper.control.statistics import HistogramData


class Histogram:
    """Counts of values up to and including each bound, with one count more for what lies above the last."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def data(self) -> HistogramData:
        return HistogramData(tuple(self.counts), self.sum)
