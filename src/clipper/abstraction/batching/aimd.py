"""Additive increase, multiplicative decrease of the batch limit, around a budget of time.

After Crankshaw et al., "Clipper: A Low-Latency Online Prediction Serving System", NSDI 2017, section 4.3: grow by a
fixed step while batches stay within the objective, back off by 10 % when one does not. What differs, and why,
is said at the constants; ``tests/abstraction/batching/simulation.py`` is where they were tried.
"""

from clipper.abstraction.batching.service_line import ServiceLine

# Full batches at one limit before it grows by a step. A step wants the slowest of them within the target, which
# makes the target a high quantile: one batch at a time, noise of 10 % let it creep up to a median at the target.
_WINDOW = 8

# The step is this part of the limit at which doubling, or the last back-off, ended: from half the target to all of it
# in about 16 windows, below a second of batches, and an overshoot by one step stays below a back-off.
_STEPS = 16

# The paper's 10 %: what is right hardly moves, so a miss near it calls for little.
_GENTLE = 0.9

# Bound of a deep back-off. In proportion to the miss, since 10 % at a time takes 22 batches, each far too
# long, to follow a model that became ten times slower: seconds. Halving takes four.
_DEEP = 0.5

# Twice the expected time, twice of late: the replica's speed has changed, and what was learnt of it is dropped. Half of
# it, so many times in a row, is the same: small batches from before and large ones since would pass for a large fixed
# time.
_CHANGE = 2.0
_FASTER_RUN = 4

# Windows, or back-offs at a limit of 1, that the limit holds before it tries a larger one whatever it expects. What
# it expects rests on small sizes, where a small time per row drowns in the noise of a large fixed one; a wrong
# guess would hold for good. Every 500 batches or so, a few of which come out too long, costs nothing that shows.
_HOLD = 64
_PROBES = 8  # and by which part of it

# A back-off takes two misses among this many batches. Garbage collection, a page fault or the scheduler make one
# batch in some hundred slow, whatever its size; the paper's rule then loses 10 % each time.
_RECENT_BATCHES = 4
_RECENT_MASK = (1 << _RECENT_BATCHES) - 1


class Aimd:
    """The paper's first controller: ``limit`` follows the largest batch that meets the budget.

    Starts at 1 and doubles with each full batch that took at most half the target. That is safe at any time, not
    only at the start: whatever part of the time is per row, twice the rows take at most twice as long. So it finds
    its size in about ten batches, and again as fast when a slow model recovers. Beyond half, it grows by steps, or
    doubles at each window where most of the time is known to be fixed.
    """

    __slots__ = (
        "_budget_s",
        "_faster_run",
        "_held",
        "_line",
        "_max_batch",
        "_miss_s",
        "_recent",
        "_slowest_s",
        "_step",
        "_target_s",
        "_window",
        "limit",
    )

    def __init__(self, budget_s: float, max_batch: int) -> None:
        self.limit = 1
        self._max_batch = max_batch
        self._budget_s = self._target_s = budget_s
        self._line = ServiceLine()
        self._step = 1
        self._faster_run = 0  # batches in a row far faster than expected
        self._held = 0  # windows or back-offs without growth
        self._recent = 0  # one bit a batch, the latest lowest: whether it missed
        self._miss_s = 0.0  # the miss before
        self._window = 0
        self._slowest_s = 0.0

    def observe(self, size: int, service_s: float, was_full: bool) -> None:
        self._line.compare(size, service_s)
        # A larger one was sent before the last back-off: it tells nothing of the limit since then.
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
        """Grow if the slowest batch of the window would have met the target with as many rows more.

        While the time per row is not known, a step is tried: only another size can tell.
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
        """Take it seriously if it was not the only miss of late; an outlier is not even learnt from."""
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
        """The limit cannot be lower; but if the time is mostly fixed it should be higher, and two rows tell."""
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
