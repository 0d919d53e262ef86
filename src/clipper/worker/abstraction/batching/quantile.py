"""The paper's second rule for the batch limit: a quantile regression of a batch's time on its size, against the SLO.

Crankshaw et al., "Clipper: A Low-Latency Online Prediction Serving System", NSDI 2017, section 4.3.1: fit the 99th
percentile of a batch's time as ``α × size + β``, then ``limit = (SLO - β) / α``. As in its authors' prototype, the
samples are the first ``SAMPLES`` batches under AIMD, without the very first batch, and the line is then final.
``quantile_refit.py`` is Clipper's variation.
"""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from clipper.worker.abstraction.batching.aimd import Aimd

Array = npt.NDArray[np.float64]

SAMPLES = 1000
# The share of batches above the 99th percentile.
_SHARE_ABOVE = 0.01

# Bisections of the interval of slopes: the result is exact to a ten-thousandth of the largest possible slope.
_HALVINGS = 14


class Quantile:
    """The limit is that of ``Aimd`` for ``SAMPLES`` batches, and then the limit that the line through them allows."""

    __slots__ = ("_aimd", "_budget_s", "_line", "_max_batch", "_samples", "limit")

    share_of_slo: ClassVar[float] = 1.0

    def __init__(self, budget_s: float, max_batch: int) -> None:
        self.limit = 1
        self._budget_s, self._max_batch = budget_s, max_batch
        self._aimd = Aimd(budget_s, max_batch)
        self._samples: list[tuple[int, float]] = []
        self._line: tuple[float, float] | None = None

    def record(self, size: int, service_s: float, was_full: bool) -> None:
        if self._line is not None:
            return
        self._aimd.record(size, service_s, was_full)
        self.limit = self._aimd.limit
        self._samples.append((size, service_s))
        if len(self._samples) == SAMPLES:
            sizes, services_s = np.array(self._samples[1:], np.float64).T
            self._line = fit_line(sizes, services_s, int(_SHARE_ABOVE * len(sizes)))
            self._samples.clear()
            self.set_budget(self._budget_s)

    def set_budget(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._aimd.set_budget(budget_s)
        if self._line is not None:
            fixed_s, per_row_s = self._line
            rows = (budget_s - fixed_s) / per_row_s if per_row_s > 0 else float(self._max_batch)
            self.limit = round(min(max(rows, 1.0), self._max_batch))


def fit_line(sizes: Array, services_s: Array, above: int) -> tuple[float, float]:
    """Fit a quantile of service time as a line over batch size: intercept β and slope α, both at least 0.

    Minimises the pinball loss Σ ρ(service - β - α × size), ρ(r) = r × (τ - [r < 0]) (Koenker and Bassett, "Regression
    Quantiles", 1978). For a given α the best β is the τ-quantile of ``service - α × size``, and the remaining loss is
    convex in α: bisect on the sign of its slope, from 0 to the α at which β is 0.

    Args:
        sizes: rows of each batch, (samples,), at least 1.
        services_s: service time of each batch in seconds, (samples,).
        above: how many samples may lie above the line, less than all: τ is 1 - above / samples.
    """
    rank = len(sizes) - 1 - above
    balance = above / len(sizes) * float(sizes.sum())
    low_s, high_s = 0.0, ranked(services_s / sizes, rank)
    intercept_s = slope_s = 0.0
    for _ in range(_HALVINGS):
        slope_s = (low_s + high_s) / 2
        rests_s = services_s - slope_s * sizes
        order = np.argpartition(rests_s, rank)
        intercept_s = float(rests_s[order[rank]])
        if float(sizes[order[rank + 1 :]].sum()) > balance:
            low_s = slope_s
        else:
            high_s = slope_s
    return max(intercept_s, 0.0), slope_s


def ranked(values: Array, rank: int) -> float:
    """Return the value that has this many smaller values."""
    return float(np.partition(values, rank)[rank])
