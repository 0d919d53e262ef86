"""The paper's first rule for the batch limit: additive increase, multiplicative decrease, against the SLO itself.

Crankshaw et al., "Clipper: A Low-Latency Online Prediction Serving System", NSDI 2017, section 4.3.1. The paper does
not state a step; this is the step of its authors' prototype. ``aimd_damped.py`` is Clipper's variation.
"""

from typing import ClassVar

STEP = 2
BACK_OFF = 0.9


class Aimd:
    """``limit`` grows by ``STEP`` with each full batch within the budget, and by a factor of ``BACK_OFF`` otherwise."""

    __slots__ = ("_budget_s", "_max_batch", "limit")

    share_of_slo: ClassVar[float] = 1.0

    def __init__(self, budget_s: float, max_batch: int) -> None:
        self.limit = 1
        self._budget_s, self._max_batch = budget_s, max_batch

    def record(self, size: int, service_s: float, was_full: bool) -> None:
        if service_s <= self._budget_s:
            if was_full and size >= self.limit:
                self.limit = min(self.limit + STEP, self._max_batch)
        elif size <= self.limit:
            # A larger batch was sent before the last back-off, so it says nothing about the present limit.
            self.limit = max(1, int(self.limit * BACK_OFF))

    def set_budget(self, budget_s: float) -> None:
        self._budget_s = budget_s
