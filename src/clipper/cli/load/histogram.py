"""A histogram of latencies in microseconds, exact to 0.1 %, with the buckets of HdrHistogram at three digits.

Values below 2,048 µs have a bucket each. Above, each doubling has 1,024 buckets, twice as wide as those before it.
Only buckets with values take memory, so adding a second's histogram to that of the run costs little.
"""

from collections import Counter
from collections.abc import Iterator

# Leading bits of a value that select its bucket: each of 2,048 buckets is at most 1/1,024 of its values wide.
_BITS = 11
_HALF = 1 << (_BITS - 1)


class Histogram:
    """Counts of whole microseconds from 1 to ``highest_us``; a higher value counts as the highest."""

    __slots__ = ("_counts", "_highest_us", "count")

    def __init__(self, highest_us: int) -> None:
        self._highest_us = highest_us
        self._counts = Counter[int]()
        self.count = 0

    def record(self, seconds: float) -> None:
        """Count a time; its microsecond is rounded up."""
        value = min(int(seconds * 1e6) + 1, self._highest_us)
        shift = max(value.bit_length() - _BITS, 0)
        self._counts[shift * _HALF + (value >> shift)] += 1
        self.count += 1

    def add(self, other: "Histogram") -> None:
        self._counts.update(other._counts)
        self.count += other.count

    def percentile_ms(self, percent: float) -> float:
        """Return the least value that ``percent`` of the values do not exceed; of no values this is 0."""
        wanted, seen = max(round(percent / 100 * self.count), 1), 0
        for highest_ms, count in self._buckets():
            seen += count
            if seen >= wanted:
                return highest_ms
        return 0.0

    def curve(self, ticks_per_half: int) -> Iterator[tuple[float, float]]:
        """Yield percentages, and the value in ms that this percentage of the values does not exceed, up to 100 %.
        ``ticks_per_half``: points for each halving of the share that is left.
        """
        percent, seen, highest_ms = 0.0, 0, 0.0
        for highest_ms, count in self._buckets():
            seen += count
            while percent <= 100 * seen / self.count:
                yield percent, highest_ms
                percent += (100 - percent) / (2 * ticks_per_half)
                if seen == self.count:
                    break
        if self.count:
            yield 100.0, highest_ms

    def _buckets(self) -> Iterator[tuple[float, int]]:
        """Yield the highest value in ms and the count of each bucket that has values, lowest first."""
        for bucket in sorted(self._counts):
            shift = max(bucket // _HALF - 1, 0)
            yield (((bucket - shift * _HALF + 1) << shift) - 1) / 1e3, self._counts[bucket]
