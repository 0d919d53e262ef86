"""How many queries come a second, over the last few objectives' time."""

import math

# The rate forgets over so many times the SLO.
SPAN_SLOS = 1.0
# It is looked at no sooner than so many times the SLO after the last look: more often tells no more.
LEAST_SLOS = 0.02


class ArrivalRate:
    """A mean over the past that forgets exponentially, from a count looked at now and then."""

    __slots__ = ("_arrivals", "_looked_s", "_seen", "_span_s", "per_s")

    def __init__(self) -> None:
        self.per_s = 0.0
        self._looked_s: float | None = None
        self._seen = 0
        self._arrivals = self._span_s = 0.0

    def look(self, arrivals: int, now_s: float, slo_s: float) -> None:
        """``arrivals``: how many have come in all."""
        if self._looked_s is None:
            self._looked_s, self._seen = now_s, arrivals
            return
        passed_s = now_s - self._looked_s
        if passed_s <= LEAST_SLOS * slo_s:
            return
        kept = math.exp(-passed_s / (SPAN_SLOS * slo_s))
        self._arrivals = self._arrivals * kept + (arrivals - self._seen)
        self._span_s = self._span_s * kept + passed_s
        self._looked_s, self._seen = now_s, arrivals
        self.per_s = self._arrivals / self._span_s
