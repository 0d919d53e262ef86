"""A variation of the paper's AIMD, ``aimd.py``: meets a share of the SLO, grows fast, and ignores a single miss.

The comments at the constants say what differs and why. The constants were tried in
``tests/worker/abstraction/batching/simulation.py``.
"""

from typing import ClassVar

from clipper.worker.abstraction.batching.service_line import ServiceLine

# Full batches at one limit before it grows by a step. The slowest of them must stay within the target, which makes the
# target a high quantile. Judged batch by batch, noise of 10 % let the limit creep up until the median met the target.
_WINDOW = 8

# The step is this fraction of the limit at which doubling, or the last back-off, ended. Growth from half the target to
# the whole takes about 16 windows, less than a second of batches, and an overshoot by one step is less than a back-off.
_STEPS = 16

# The paper's 10 %: the right limit hardly moves, so a near miss calls for a small correction.
_GENTLE = 0.9

# Bound of a deep back-off, which is proportional to the miss. At 10 % a time it would take 22 batches, each far too
# long, to follow a model that became ten times slower: that is seconds. Halving takes four.
_DEEP = 0.5

# The replica's speed has changed if two recent batches took twice the expected time, or this many batches in a row took
# half of it. Then all that was learned is dropped: old small batches and new large ones together would look like a
# large fixed time.
_CHANGE = 2.0
_FASTER_RUN = 4

# Windows, or back-offs at a limit of 1, for which the limit holds before it tries a larger one against the fit. The fit
# may rest on small sizes, where a small time per row drowns in the noise of a large fixed time; a wrong fit would then
# hold the limit for good. A try every 500 batches or so costs a few slow batches, which is too little to measure.
_HOLD = 64
_PROBES = 8  # such a try adds one part in this many of the limit

# A back-off takes two misses among this many batches. Garbage collection, a page fault or the OS scheduler make about
# one batch in a hundred slow, whatever its size; the paper's rule loses 10 % each time.
_RECENT_BATCHES = 4
_RECENT_MASK = (1 << _RECENT_BATCHES) - 1


class DampedAimd:
    """``limit`` follows the largest batch that meets the budget.

    The limit starts at 1 and doubles with each full batch that took at most half the target. Doubling is always safe:
    whatever part of the time is per row, twice the rows take at most twice as long. So the limit is found in about ten
    batches, and found again as fast when a slow model recovers. Beyond half the target the limit grows by steps, or
    doubles once per window if most of the time is known to be fixed.
    """

    share_of_slo: ClassVar[float] = 0.3

    def __init__(self, budget_s: float, max_batch: int) -> None:
        self.limit = 1
        self._max_batch = max_batch
        self._budget_s = self._target_s = budget_s
        self._line = ServiceLine()
        self._step = 1
        self._faster_run = 0  # batches in a row far faster than expected
        self._held = 0  # windows or back-offs without growth
        self._recent = 0  # one bit for each batch, the latest lowest: whether it missed
        self._miss_s = 0.0  # service time of the latest miss
        self._window = 0
        self._slowest_s = 0.0

    def record(self, size: int, service_s: float, was_full: bool) -> None:
        self._line.compare(size, service_s)
        # A batch above the limit was sent before the last back-off, so it says nothing about the present limit.
        missed = service_s > self._target_s and size <= self.limit
        self._recent = (self._recent << 1 | missed) & _RECENT_MASK
        if missed:
            self._missed(size, service_s, was_full)
            return
        self._look_for_recovery(size, service_s)
        self._line.add(size, service_s)
        if was_full and size == self.limit < self._max_batch:
            self._fitted(service_s)

    def set_budget(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._target_s = self._line.target_s(budget_s)
        self._start_window()

    def _look_for_recovery(self, size: int, service_s: float) -> None:
        is_faster = self._line.is_known and _CHANGE * service_s < self._line.at(size)
        self._faster_run = self._faster_run + 1 if is_faster else 0
        if self._faster_run == _FASTER_RUN:
            self._line.reset()
            self._faster_run = 0

    def _fitted(self, service_s: float) -> None:
        if 2 * service_s <= self._target_s:
            self._resize(min(2 * self.limit, self._max_batch))
            return
        self._window += 1
        self._slowest_s = max(self._slowest_s, service_s)
        if self._window == _WINDOW:
            self._grow()

    def _grow(self) -> None:
        """Grow if the window's slowest batch would have met the target with the added rows as well.

        While the time per row is unknown, grow by a step: only another size reveals it.
        """
        self._target_s = self._line.target_s(self._budget_s)
        _, per_row_s = self._line.terms()
        spare_s = self._target_s - self._slowest_s
        self._start_window()
        if self._line.is_known and self.limit * per_row_s <= spare_s:
            self._resize(min(2 * self.limit, self._max_batch))
        elif not self._line.is_known or self._step * per_row_s <= spare_s:
            self._add(self._step)
        elif self._held >= _HOLD:
            self._add(max(1, self.limit // _PROBES))
        else:
            self._held += 1

    def _add(self, rows: int) -> None:
        self.limit = min(self.limit + rows, self._max_batch)
        self._held = 0

    def _missed(self, size: int, service_s: float, was_full: bool) -> None:
        """Back off if this was not the only recent miss. A single miss is an outlier: it is not even learned."""
        lesser_s, self._miss_s = min(self._miss_s, service_s), service_s
        if not self._recent & (self._recent - 1):
            return
        if lesser_s > _CHANGE * self._line.at(size):
            self._line.reset()
        self._line.add(size, service_s)
        self._recent = 0
        self._target_s = self._line.target_s(self._budget_s)
        if self.limit > 1:
            factor = min(max(self._target_s / lesser_s, _DEEP), _GENTLE)
            self._resize(max(1, int(self.limit * factor)))
        elif was_full:
            self._leave_one()

    def _leave_one(self) -> None:
        """At a limit of 1, try 2: if most of the time is fixed a larger limit is better, and two rows show whether."""
        self._held += 1
        if self._held >= _HOLD:
            self._held = 0
            self._line.reset()
        if not self._line.is_known:
            self._resize(min(2, self._max_batch))

    def _resize(self, limit: int) -> None:
        self.limit = limit
        self._step = max(1, limit // _STEPS)
        self._start_window()

    def _start_window(self) -> None:
        self._window = 0
        self._slowest_s = 0.0
