"""What a soak decides: at which rate it asks, and whether a process or the disk has grown."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
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
# A judged stretch is cut into minutes, or into ten parts if it is shorter. A worker's resident memory moves up and down
# by 2.3 MB (standard deviation) as large inputs come and go: in two runs of an hour, samples of 10 s apart were
# correlated by .2 to .5, and those of a minute apart by .1 at most. So a minute tells nothing of how the next scatters.
PART_S, LEAST_PARTS = 60.0, 10
MAX_GROWTH = 0.01
# The standard normal quantile of 99 %: of a hundred processes whose memory only scatters, one seems to grow.
CERTAIN = 2.326

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trend:
    """How something moved while it was judged.

    Attributes:
        level: its median.
        growth: over the whole time that was judged, by its trend.
        per_hour: the same for an hour.
        least_growth: the least that it has grown with 99 % certainty, as its parts scatter around the trend; below 0
            where they scatter more than they grow.
    """

    level: float
    growth: float
    per_hour: float
    least_growth: float

    def is_flat(self, of_level: float = MAX_GROWTH, at_least: float = 0.0) -> bool:
        """Whether it grew by less than a share of its level, or than ``at_least``."""
        return self.growth <= max(of_level * self.level, at_least)

    @property
    def is_within_scatter(self) -> bool:
        """Whether what moves up and down by itself may have made the growth."""
        return self.least_growth <= 0


def rate_per_s(saturation_per_s: float, asked_per_s: float | None) -> float:
    """What is asked in all, in queries a second: ``asked_per_s`` if somebody said so."""
    return asked_per_s if asked_per_s is not None else min(saturation_per_s * OF_SATURATION, MAX_RATE_PER_S)


def trend(points: Sequence[Point], run_s: float) -> Trend | None:
    """Of one life in a run of ``run_s``, from pairs of a time in seconds and a number; None if it was too short.

    A third of the run is its warm-up. What is left is cut into parts, and the slope is the median of the slopes between
    any two parts' medians (Theil and Sen): a few samples from the middle of a deployment do not count.

    The least growth is by the lower end of that slope's confidence interval (P. K. Sen: "Estimates of the regression
    coefficient based on Kendall's tau", Journal of the American Statistical Association 63, 1968): of the N = n (n - 1)
    / 2 slopes between n parts, in ascending order, the slope at the place (N - z sqrt(n (n - 1) (2 n + 5) / 18)) / 2.
    """
    if not points:
        return None
    from_s = points[0][0] + run_s * WARM_UP_SHARE
    judged = [point for point in points if point[0] >= from_s]
    # A sampling period or two are missing at the ends.
    if len(judged) < 2 * LEAST_PARTS or judged[-1][0] - judged[0][0] < run_s * LEAST_JUDGED_SHARE:
        return None
    seen_s = judged[-1][0] - judged[0][0]
    count = min(max(LEAST_PARTS, round(seen_s / PART_S)), len(judged) // 2)
    size = len(judged) / count
    parts = [judged[round(size * number) : round(size * (number + 1))] for number in range(count)]
    middles = [(median(at_s for at_s, _ in part), median(value for _, value in part)) for part in parts]
    slopes = sorted((after[1] - before[1]) / (after[0] - before[0]) for before, after in combinations(middles, 2))
    slope, least = median(slopes), slopes[place_of_least(count)]
    return Trend(median(value for _, value in judged), slope * seen_s, slope * 3600, least * seen_s)


def place_of_least(parts: int) -> int:
    """Return the place, from 0 on, of the least slope among the ascending slopes between so many parts."""
    slopes = parts * (parts - 1) / 2
    return int((slopes - CERTAIN * sqrt(parts * (parts - 1) * (2 * parts + 5) / 18)) / 2) - 1
