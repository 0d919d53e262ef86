"""The rate of arrivals in queries a second, over about the last SLO."""

import math

# The rate is updated at most once in this fraction of the SLO: more often is no more accurate.
LEAST_SLOS = 0.02


class ArrivalRate:
    """An exponentially weighted mean rate, computed from a counter that the caller reads from time to time.

    Attributes:
        per_s: queries a second; 0 until two readings.
        due_s: the time from which the next call of ``look`` is worthwhile.
    """

    __slots__ = ("_arrivals", "_looked_s", "_seen", "_span_s", "due_s", "per_s")

    def __init__(self) -> None:
        self.per_s = 0.0
        self.due_s = -math.inf
        self._looked_s: float | None = None
        self._seen = 0
        self._arrivals = self._span_s = 0.0

    def look(self, arrivals: int, now_s: float, slo_s: float) -> None:
        """Update the rate. ``arrivals`` is the total number of queries so far."""
        if self._looked_s is None:
            self._looked_s, self._seen = now_s, arrivals
            self.due_s = now_s + LEAST_SLOS * slo_s
            return
        passed_s = now_s - self._looked_s
        if passed_s <= LEAST_SLOS * slo_s:
            return
        self.due_s = now_s + LEAST_SLOS * slo_s
        kept = math.exp(-passed_s / slo_s)
        self._arrivals = self._arrivals * kept + (arrivals - self._seen)
        self._span_s = self._span_s * kept + passed_s
        self._looked_s, self._seen = now_s, arrivals
        self.per_s = self._arrivals / self._span_s
