"""Chooses the next rate to try, to find the highest one that keeps the SLO."""

from enum import Enum

# Rates are doubled until a rate breaks the SLO; then the gap is halved until both its ends are this close.
GROWTH = 2.0
PRECISION = 1.05
# The range of rates. Below it, a run would have to last for minutes to be significant. The upper end is twice the rate
# that a process can send.
MIN_PER_S, MAX_PER_S = 1.0, 1e5
# A rate that breaks the SLO is tried again at once: the first time the server may have had to adapt to it, or the
# machine was busy with something else.
TRIES = 2


class Verdict(Enum):
    KEPT = "kept"
    BROKEN = "broken"
    # This says nothing about the server, which did not get that many queries.
    SENDER_TOO_SLOW = "sender_too_slow"


class Sweep:
    """A search: try ``next_per_s`` and ``tell`` the verdict, until it is None.

    Attributes:
        kept_per_s: the highest rate so far that kept the SLO; None if no rate has.
        too_high_per_s: the lowest rate so far that broke the SLO; None if no rate has.
        limited_by_sender: whether the load generator could not send ``too_high_per_s``; the server may do more.
    """

    def __init__(self, first_per_s: float) -> None:
        self.next_per_s: float | None = min(max(first_per_s, MIN_PER_S), MAX_PER_S)
        self.kept_per_s: float | None = None
        self.too_high_per_s: float | None = None
        self.limited_by_sender = False
        self._failed = 0

    def tell(self, verdict: Verdict) -> None:
        """Take the verdict on ``next_per_s``, which is then the next rate."""
        tried_per_s = self.next_per_s
        if tried_per_s is None:
            raise ValueError("the sweep has ended")
        if verdict is Verdict.KEPT:
            self.kept_per_s = tried_per_s
        else:
            self._failed += 1
            if self._failed < TRIES:
                return
            self.too_high_per_s, self.limited_by_sender = tried_per_s, verdict is Verdict.SENDER_TOO_SLOW
        self._failed = 0
        self.next_per_s = self._next_per_s()

    def _next_per_s(self) -> float | None:
        kept_per_s, too_high_per_s = self.kept_per_s, self.too_high_per_s
        if kept_per_s is None:
            assert too_high_per_s is not None
            return max(too_high_per_s / GROWTH, MIN_PER_S) if too_high_per_s > MIN_PER_S else None
        if too_high_per_s is None:
            return min(kept_per_s * GROWTH, MAX_PER_S) if kept_per_s < MAX_PER_S else None
        # By ratio, not by difference: the ends may be a thousand apart, or one.
        return (kept_per_s * too_high_per_s) ** 0.5 if too_high_per_s / kept_per_s > PRECISION else None
