"""What a soak decides: at which rate it asks, and whether a process or the disk has grown."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

# A server that runs for years is to have room: at saturation nothing is at rest, and queues decide what is measured.
OF_SATURATION = 0.5
# One process sends all of it, and does other things besides.
MAX_RATE_PER_S = 5_000.0
# Of the run, and of each process's life: caches fill, batch limits grow, the store's records of feedback come to age.
# Bounded tables are full within minutes. The allocator's pages spread for half an hour, ever more slowly, while the
# tables exchange all their entries (docs/soak.md).
WARM_UP_SHARE = 1 / 3
# A process that is judged is seen for so much of the run after its warm-up: of less a trend tells nothing.
LEAST_JUDGED_SHARE = 1 / 4
PARTS = 10
MAX_GROWTH = 0.01

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trend:
    """How something moved while it was judged.

    Attributes:
        level: its median.
        growth: over the whole time that was judged, by its trend.
        per_hour: the same for an hour.
    """

    level: float
    growth: float
    per_hour: float

    def is_flat(self, of_level: float = MAX_GROWTH, at_least: float = 0.0) -> bool:
        """Whether it grew by less than a share of its level, or than ``at_least``."""
        return self.growth <= max(of_level * self.level, at_least)


def rate_per_s(saturation_per_s: float, asked_per_s: float | None) -> float:
    """What is asked in all, in queries a second: ``asked_per_s`` if somebody said so."""
    return asked_per_s if asked_per_s is not None else min(saturation_per_s * OF_SATURATION, MAX_RATE_PER_S)


def trend(points: Sequence[Point], run_s: float) -> Trend | None:
    """Of one life in a run of ``run_s``, from pairs of a time in seconds and a number; None if it was too short.

    A third of the run is its warm-up. What is left is cut into ten parts, and the slope is the median of the slopes
    between any two parts' medians (Theil and Sen): a few samples from the middle of a deployment do not count.
    """
    if not points:
        return None
    from_s = points[0][0] + run_s * WARM_UP_SHARE
    judged = [point for point in points if point[0] >= from_s]
    # A sampling period or two are missing at the ends.
    if len(judged) < 2 * PARTS or judged[-1][0] - judged[0][0] < run_s * LEAST_JUDGED_SHARE:
        return None
    size = len(judged) / PARTS
    parts = [judged[round(size * number) : round(size * (number + 1))] for number in range(PARTS)]
    middles = [(median(at_s for at_s, _ in part), median(value for _, value in part)) for part in parts]
    slope = median((after[1] - before[1]) / (after[0] - before[0]) for before, after in combinations(middles, 2))
    level = median(value for _, value in judged)
    return Trend(level, slope * (judged[-1][0] - judged[0][0]), slope * 3600)
