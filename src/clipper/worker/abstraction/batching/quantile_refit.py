"""A variation of the paper's quantile regression, ``quantile.py``: the fit follows the replica.

Machines change speed, so the line is fitted again and again, to another percentile and against a share of the SLO: see
``_SHARE_ABOVE``.
"""

import math
from typing import ClassVar

import numpy as np

from clipper.worker.abstraction.batching.quantile import Array, fit_line, ranked
from clipper.worker.abstraction.batching.service_line import FIXED_TIMES, LEAST_SPREAD

# Number of kept samples. Fewer make the line unsteady; more make the fit slow: this many take 0.3 ms.
_WINDOW = 1024

# Batches between fits: 0.2 s of them at an SLO of 20 ms, so a fit costs 10 µs for each batch.
_FIT_EVERY = 32
# Batches before the first fit. The next fits follow each time that the number of samples has doubled.
_FIRST_FIT = 6

# Share of the batches that may take longer than the line says: the line is the 90th percentile. The paper's is the 99th
# percentile of one batch, against the whole SLO. Here the budget is 0.3 of the SLO, and a query waits for up to three
# batches; all three exceed their 90th percentile for one query in a thousand. In the simulation the 90th percentile
# meets the SLO wherever the 99th does, with a tenth of the samples. With the 99th, at 20 % noise or 3 % outliers, the
# limit wandered between a tenth and twice of the right one, and up to three quarters of the throughput was lost.
_SHARE_ABOVE = 0.1

# This many standard deviations of the expected number of samples above the line count as chance. It keeps two outliers
# among the first ten samples from setting the limit.
_CHANCE = 1.5

# This many batches in a row far above the line, or below nearly all samples, mean that the speed has changed. By chance
# that happens at most once in 10^6 batches and costs little: the next fits rest on fewer samples for a second.
_CHANGE_RUN = 6
# "Far above" is above the line by this factor; "below nearly all" is below the 5th percentile by the other factor.
# The window absorbs smaller changes.
_HIGH_MARGIN = 1.25
_LOW_PERCENTILE = 0.05
_LOW_MARGIN = 0.9

# The limit may exceed the largest size in a fit by this factor.
_MAX_GROWTH = 2
# While all sizes were alike, the limit grows by this factor to see other sizes: the spread that ``LEAST_SPREAD`` needs.
_PROBE = 1.25
# Fits without growth before the limit grows against the line: see ``aimd_damped._HOLD``.
_HOLD = 16

# A coarse clock may read 0; a line through 0 has no ratios.
_LEAST_S = 1e-9


class RefittedQuantile:
    """``limit`` is the batch size whose high quantile of service time equals the budget.

    It starts as ``DampedAimd`` does: it doubles with each full batch that took at most half of the budget, which is
    safe for any affine service time. Then the line decides. Growth beyond the sizes seen is bounded, so batches of the
    new size soon check each fit. A change of speed drops the samples from before it.
    """

    share_of_slo: ClassVar[float] = 0.3

    def __init__(self, budget_s: float, max_batch: int) -> None:
        self.limit = 1
        self._max_batch = max_batch
        self._budget_s = budget_s
        self._sizes: Array = np.zeros(_WINDOW)
        self._services_s: Array = np.zeros(_WINDOW)
        self._count = self._above_run = self._below_run = 0
        self._slowest_s = 0.0
        self._forget()
        self._is_exploring = True

    def record(self, size: int, service_s: float, was_full: bool) -> None:
        service_s = max(service_s, _LEAST_S)
        self._sizes[self._count % _WINDOW] = size
        self._services_s[self._count % _WINDOW] = service_s
        self._count += 1
        is_at_limit = was_full and size >= self.limit
        self._was_full |= is_at_limit
        self._slowest_s = max(self._slowest_s, service_s)
        if self._is_exploring:
            self._explore(service_s, is_at_limit)
            return
        self._look_for_change(size, service_s)
        if self._count >= self._next_fit:
            self._fit()

    def set_budget(self, budget_s: float) -> None:
        if budget_s != self._budget_s:
            self._budget_s = budget_s
            self._next_fit = self._count + 1

    def _explore(self, service_s: float, is_at_limit: bool) -> None:
        if service_s > self._budget_s or (is_at_limit and 2 * service_s > self._budget_s):
            self._is_exploring = False
            self._next_fit = max(self._count + 1, _FIRST_FIT)
        elif is_at_limit:
            self.limit = min(2 * self.limit, self._max_batch)

    def _look_for_change(self, size: int, service_s: float) -> None:
        smallest, largest = self._fitted_sizes
        if not smallest <= size <= _PROBE * largest:
            return  # the line says little about sizes outside its fit
        high_s = self._high_s + self._high_per_row_s * size
        self._above_run = self._above_run + 1 if service_s > high_s * _HIGH_MARGIN else 0
        self._below_run = self._below_run + 1 if size <= largest and service_s < high_s * self._low_share else 0
        if self._above_run == _CHANGE_RUN:
            self._forget()
        elif self._below_run == _CHANGE_RUN:
            self._forget()
            self._is_exploring = True

    def _forget(self) -> None:
        """Drop the line and all samples except those that showed the change; fit again once there are enough."""
        kept = np.arange(self._count - min(self._count, _CHANGE_RUN), self._count) % _WINDOW
        self._sizes[: len(kept)] = self._sizes[kept]
        self._services_s[: len(kept)] = self._services_s[kept]
        self._count = len(kept)
        self._next_fit = _FIRST_FIT
        self._fixed_s: float | None = None
        self._high_s = self._high_per_row_s = self._low_share = 0.0
        self._fitted_sizes = 0, 0
        self._held = 0
        self._above_run = self._below_run = 0
        self._was_full = False

    def _fit(self) -> None:
        count = min(self._count, _WINDOW)
        sizes, services_s = self._sizes[:count], self._services_s[:count]
        self._next_fit = self._count + min(count, _FIT_EVERY)
        if sizes.std() >= LEAST_SPREAD * sizes.mean():
            self._high_s, self._high_per_row_s = fit_line(sizes, services_s, _samples_above(count))
            self._fixed_s = self._high_s
        else:
            self._high_s, self._high_per_row_s = fit_slope(sizes, services_s, self._fixed_s or 0.0)
        shares = services_s / (self._high_s + self._high_per_row_s * sizes)
        self._low_share = _LOW_MARGIN * ranked(shares, int(_LOW_PERCENTILE * count))
        self._fitted_sizes = int(sizes.min()), int(sizes.max())
        self._follow()
        self._was_full = False
        self._slowest_s = 0.0

    def _follow(self) -> None:
        """Set the limit from the line: up only after a full batch since the last fit, down only after a miss."""
        # The same as ``ServiceLine.target_s``, for the quantile.
        target_s = max(self._budget_s, FIXED_TIMES * self._high_s)
        ideal = self._ideal(target_s)
        self._held += self._was_full
        if ideal > self.limit and self._was_full:
            self.limit = max(self.limit, min(ideal, _MAX_GROWTH * self._fitted_sizes[1]))
            self._held = 0
        elif ideal < self.limit and self._slowest_s > target_s:
            self.limit = max(1, ideal)

    def _ideal(self, target_s: float) -> int:
        """Return the size at which the line meets the target, or a probe above the limit if the slope is unknown."""
        ideal = float(self._max_batch)
        if self._high_per_row_s > 0:
            ideal = min(ideal, (target_s - self._high_s) / self._high_per_row_s)
        if (self._fixed_s is None or self._held >= _HOLD) and (ideal >= self.limit or self.limit == 1):
            ideal = min(max(ideal, self.limit + 1, self.limit * _PROBE), self._max_batch)
        return int(ideal)


def fit_slope(sizes: Array, services_s: Array, fixed_s: float) -> tuple[float, float]:
    """Fit the line if all sizes are alike: keep the given intercept as far as it fits, and meet the high quantile."""
    rank = len(sizes) - 1 - _samples_above(len(sizes))
    intercept_s = min(fixed_s, ranked(services_s, rank))
    return intercept_s, ranked((services_s - intercept_s) / sizes, rank)


def _samples_above(samples: int) -> int:
    """Return how many samples may lie above the line: a tenth plus what chance explains, and at least one."""
    expected = _SHARE_ABOVE * samples
    return min(max(1, int(expected + _CHANCE * math.sqrt(expected) + 0.5)), samples - 1)
