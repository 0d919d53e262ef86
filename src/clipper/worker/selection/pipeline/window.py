"""Bounds how many queries of a pipeline are under way, so that steps hardly compute for queries that then fail.

If a later step is slower than those before it, or shares their processors, they hand it more queries than it can answer
in time. Its queue shows that only when the earlier steps have computed. So the bound is learned from the outcome. It is
looked at after each ``period`` p, the time that a query has::

    in vain(s) = queries that failed for want of time after a step s had answered them / queries that ended
    bound     := bound * max(1/2, min(0.92, 1 - in vain(any) - in vain(later)))   if too many were in vain
                 bound * 1.1                           if answers take less than half of the time that queries have
                 bound * (1 + min(0.1, 2 R n N / C^2)) else, if N queries have ended without, n since the last look

as TCP finds its window (Chiu and Jain, 1989), slowly near the last cut and then ever faster (CUBIC, Ha et al., 2008):
by R after C queries. C is a hundred times the number of queries that were in vain from one cut to the next, within
bounds, so that about a hundredth of all are if the next cut is due then.
The bound rises only while it keeps queries out. A query begins as another one ends, so the steps get queries at the
pace of the slowest one, whatever its speed is; by Little's law a query takes the bound divided by that speed. So if a
step becomes faster, queries pass faster at once, and the bound need not follow.

In the simulation of the tests, a chain whose last step is the slowest computes 1 % of its second step's rows in vain at
twice its capacity, and answers 0.97 of what the best split of its SLO does; without a bound they are 15 % and 0.95.
"""

from math import inf

# So large a part of the queries may fail after a step that is not a first one has answered. First steps may compute
# more in vain: their work is the price for filling the queues of the next ones.
MOST_LATER, MOST_FIRST = 0.01, 0.2
# Fewer than this may be chance.
LEAST_IN_VAIN = 4
# The counts are halved beyond so many queries, so that they are about the present.
COUNTED = 512
# If so few of the queries are answered, a step hangs, which is no reason to ask for fewer.
LEAST_ANSWERED = 0.1
LEAST_CUT, MOST_CUT = 0.92, 0.5
# While answers take a smaller part of the time, more queries would hardly be late: after a stall, for which it was cut.
QUICK = 0.5
# How much it has risen after a climb, which takes so many queries at least and at most; and the most for one look.
# Climbs of up to 20,000 answer up to a tenth fewer in time where batches stall now and then, in the simulation.
RISE, MOST_GROWTH = 0.08, 0.1
LEAST_CLIMB, MOST_CLIMB = 900.0, 2_500.0
# The bound is never lower.
LEAST = 4.0


class Window:
    """The bound of one pipeline. Each query that ``begin`` lets in is reported once to ``ended``."""

    def __init__(self) -> None:
        self.bound, self._under_way, self._most_under_way = inf, 0, 0
        # Queries that began before the last cut say nothing about it.
        self._cut_s = self._look_s = 0.0
        self._ended = self._answered = self._in_vain = self._later_in_vain = 0.0
        # Whether it has kept a query out since the last look; how many queries have ended since then; and how many have
        # ended, while it did, since the last cut.
        self._binds, self._recent, self._clean = False, 0, 0
        # How many queries were in vain after a later step since the last cut, or since the bound last kept none out,
        # whenever they began; and how many queries the present climb takes.
        self._cost, self._climb = 0, LEAST_CLIMB
        # Of the answers since the last look: how many, and the time that they took together.
        self._recent_answers, self._took_s = 0, 0.0

    def begin(self, now_s: float, period_s: float) -> bool:
        """Return whether a query may begin that has ``period_s``."""
        if now_s >= self._look_s:
            self._look(now_s, period_s)
        if self._under_way >= self.bound:
            self._binds = True
            return False
        self._under_way += 1
        self._most_under_way = max(self._most_under_way, self._under_way)
        return True

    def ended(self, began_s: float, now_s: float, *, is_answered: bool, is_in_vain: bool, is_later: bool) -> None:
        """Take the end of a query.

        Args:
            is_in_vain: it failed for want of time, after a step had answered it.
            is_later: that step, or one of these steps, was not a first one.
        """
        self._under_way -= 1
        self._cost += is_in_vain and is_later
        if began_s >= self._cut_s:
            self._ended += 1
            self._recent += 1
            if is_answered:
                self._recent_answers += 1
                self._took_s += now_s - began_s
            self._answered += is_answered
            self._in_vain += is_in_vain
            self._later_in_vain += is_in_vain and is_later

    def _look(self, now_s: float, period_s: float) -> None:
        self._look_s = now_s + period_s
        ended = max(self._ended, 1.0)
        all_share, later_share = self._in_vain / ended, self._later_in_vain / ended
        is_much = (later_share > MOST_LATER and self._later_in_vain >= LEAST_IN_VAIN) or (
            all_share > MOST_FIRST and self._in_vain >= LEAST_IN_VAIN
        )
        if is_much and self._answered >= LEAST_ANSWERED * ended:
            bound = min(self.bound, self._most_under_way)
            self.bound = max(LEAST, bound * max(MOST_CUT, min(LEAST_CUT, 1.0 - all_share - later_share)))
            # The queries that begin now have ended after two periods.
            self._cut_s, self._look_s = now_s, now_s + 2 * period_s
            self._ended = self._answered = self._in_vain = self._later_in_vain = 0.0
            self._clean = 0
            self._climb, self._cost = min(MOST_CLIMB, max(LEAST_CLIMB, self._cost / MOST_LATER)), 0
        else:
            if self._binds:
                self._clean += self._recent
                is_quick = self._took_s < QUICK * period_s * self._recent_answers
                growth = 2 * RISE * self._recent * self._clean / self._climb**2
                self.bound *= 1.0 + (MOST_GROWTH if is_quick else min(MOST_GROWTH, growth))
            else:
                self._cost = 0
            if self._ended > COUNTED:
                self._ended, self._answered = self._ended / 2, self._answered / 2
                self._in_vain, self._later_in_vain = self._in_vain / 2, self._later_in_vain / 2
        self._binds, self._recent, self._most_under_way = False, 0, self._under_way
        self._recent_answers, self._took_s = 0, 0.0
