"""Scales the steps of a pipeline together, by the load that will reach each step, before it arrives there.

A pipeline's queries arrive at its first step; later steps get them only as fast as the steps before answer, so
that their own arrivals reveal a need late, one step after another. So the rate of the pipeline's queries is multiplied
by the rows that a query has recently made at each version. The rate is that of an envelope: over windows of several
lengths, the largest rate that is not chance, as in the tuner of InferLine (Crankshaw et al., SoCC 2020, section 5).
Short windows show a burst or a step at once, and long ones a load that grows slowly.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from math import sqrt
from typing import TypeVar

# The lengths of the windows. In a window shorter than the first, there would be too few looks.
WINDOWS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# Arrivals within this many standard deviations are attributed to chance, assuming independent queries.
CHANCE = 2.0
# Each look with arrivals keeps this share of the old estimate of the rows that a query makes.
ROWS_KEPT = 0.9
# If more than this share of a look's queries got no answer, later steps were not asked for all: nothing is learned.
MOST_LOST = 0.02

K = TypeVar("K", bound=Hashable)


class Envelope:
    """The arrivals of a pipeline."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, float, int]] = deque()

    def look(self, at_s: float, interval_s: float, arrivals: int) -> float:
        """Take in the arrivals since the last look, and return the rate to be ready for, per second."""
        self._looks.append((at_s, interval_s, arrivals))
        while self._looks[0][0] <= at_s - WINDOWS_S[-1]:
            self._looks.popleft()
        most_per_s, seconds, count, window = 0.0, 0.0, 0, 0
        for looked_s, lasted_s, came in reversed(self._looks):
            while window < len(WINDOWS_S) and at_s - looked_s >= WINDOWS_S[window] - 1e-6:
                most_per_s = max(most_per_s, _sure_per_s(count, seconds))
                window += 1
            seconds, count = seconds + lasted_s, count + came
        return max(most_per_s, _sure_per_s(count, seconds))


def _sure_per_s(count: int, seconds: float) -> float:
    return max(0.0, count - CHANCE * sqrt(count)) / seconds if seconds >= WINDOWS_S[0] - 1e-6 else 0.0


class Coming:
    """The load to come of each version that a pipeline asks, in rows a second."""

    def __init__(self) -> None:
        self._envelope = Envelope()
        self._rows: dict[Hashable, float] = {}

    def look(self, at_s: float, interval_s: float, queries: int, lost: int, rows: Mapping[K, float]) -> dict[K, float]:
        """Take in the pipeline's load since the last look, and return the rows a second to be ready for.

        Args:
            queries, lost: of the pipeline; those that got a default or an error.
            rows: what each version had to evaluate for its steps.
        """
        per_s = self._envelope.look(at_s, interval_s, queries)
        if queries and lost <= MOST_LOST * queries:
            for version, each in rows.items():
                known = self._rows.get(version, each / queries)
                self._rows[version] = each / queries + ROWS_KEPT * (known - each / queries)
        self._rows = {version: self._rows[version] for version in rows if version in self._rows}
        return {version: per_s * self._rows[version] for version in rows if version in self._rows}


def within_total(now: Mapping[K, int], wanted: Mapping[K, int], total: int) -> dict[K, int]:
    """Return how many replicas each version of a pipeline gets if all may have ``total``, at least one each.

    A version that wants fewer than now gets that. The rest goes one by one to the version with the smallest part of
    what it wants, which is the step that limits the pipeline.
    """
    got = {version: min(now.get(version, 0), each) for version, each in wanted.items()}
    while sum(got.values()) > total and (able := [version for version in got if got[version] > 1]):
        got[max(able, key=lambda version: got[version] / wanted[version])] -= 1
    while sum(got.values()) < total and (lacking := [version for version in got if got[version] < wanted[version]]):
        got[min(lacking, key=lambda version: got[version] / wanted[version])] += 1
    return got
