"""How long requests are taken in during a turn of the worker's loop, and which of them wait for another."""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

# A turn takes requests in for this share of the smallest SLO. It is as long again for all else that is done in it,
# and a query sees three: the one that reads it, the one that takes it in, and the one that its batch comes back in.
TURN_SHARE_OF_SLO = 0.1
# Shorter turns would make batches small for nothing; longer ones would let the applications of large SLOs hold up
# others that come later.
LEAST_TURN_S, LONGEST_TURN_S = 0.000_5, 0.002
# Of that time, what is for requests without an SLO while queries wait, and for queries that can be answered in time
# while there are others that have to be told that they cannot.
PATIENT_SHARE, LATE_SHARE = 0.25, 0.5
# A query that has waited for so much of its SLO is shed: its answer takes two more turns and a batch.
PATIENCE_SHARE_OF_SLO = 0.5
# Once the first one has waited for so much of its patience, the last one is taken in first.
IN_ORDER_SHARE = 0.5


class Visitor(Protocol):
    """A connection that has read something.

    Attributes:
        arrived_s: when it read it.
        patience_s: for how long it may wait, before it is only told that there is no time for it; infinite if it is no
            query, or is not known to be one.
        asks: what the query is for.
    """

    arrived_s: float
    patience_s: float
    asks: object

    def enter(self, *, is_late: bool) -> None:
        """Take in what was held back. ``is_late``: it has waited for too long."""


class Door:
    """Lets connections take in what they have read, for a bounded time in each turn of the loop.

    Without it all that one poll of the loop reads would be taken in before a batch leaves or is answered, as if it had
    come that moment. Where requests come faster than the worker can take them in, turns then grow without a bound, and
    every answer is late, though the worker does nothing but answer. What waits here is known to wait, and for how long.

    First come, first served, as long as that keeps waits short. When it does not, the last come first: those can
    still be answered in time, while of those that have waited for long none would be, nor any behind them (adaptive
    LIFO, Maurer 2015, "Fail at scale"). Those are told so with what is left of the turn's time, so that to refuse
    never costs more than to answer.

    Queries for each application have a line of their own, and lines take turns: a flood of one does not make those of
    another wait.

    Bounded by the connections, each of which waits once; what it holds counts for the budget of requests.

    Attributes:
        closes_s: what is read before then is taken in at once; ``opens`` tells what else is.
    """

    __slots__ = ("_call_soon", "_give_out", "_has_begun", "_lines", "_now_s", "_patient", "_turn_s", "closes_s")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], Any],
        now_s: Callable[[], float],
        give_out: Callable[[], None],
    ) -> None:
        """``give_out``: called when some that waited have entered: batches leave before the loop polls again."""
        self._call_soon = call_soon
        self._now_s = now_s
        self._give_out = give_out
        self._lines: dict[object, deque[Visitor]] = {}
        self._patient: deque[Visitor] = deque()
        self._turn_s = LONGEST_TURN_S
        self._has_begun = False
        self.closes_s = 0.0

    def set_slo(self, slo_s: float) -> None:
        """The smallest SLO of the applications that are served."""
        self._turn_s = min(max(slo_s * TURN_SHARE_OF_SLO, LEAST_TURN_S), LONGEST_TURN_S)

    def opens(self, now_s: float) -> bool:
        """Whether what was read at ``now_s``, after ``closes_s``, is taken in at once.

        It is if nobody waits before it and this is another turn; it is taken to be, the first time in a turn.
        """
        if self._has_begun or self._lines or self._patient:
            return False
        self._begin(now_s)
        return True

    def wait(self, visitor: Visitor) -> None:
        """Have ``visitor`` enter when it is its turn. It must not be waiting already."""
        if visitor.patience_s == float("inf"):
            self._patient.append(visitor)
        else:
            self._lines.setdefault(visitor.asks, deque()).append(visitor)
        if not self._has_begun:
            self._begin(self._now_s())
        self.closes_s = 0.0

    def _begin(self, now_s: float) -> None:
        self._has_begun = True
        self.closes_s = now_s + self._turn_s
        self._call_soon(self._end)

    def _end(self) -> None:
        """What one poll has read is taken in or waits. Those that wait enter now, and then the loop polls again."""
        self._has_begun = False
        if not self._lines and not self._patient:
            return
        now_s = self._now_s()
        self._begin(now_s)
        ends_s = self.closes_s
        now_s = self._let_patient_in(now_s, now_s + self._turn_s * PATIENT_SHARE if self._lines else ends_s)
        now_s = self._tell_late(now_s, now_s + self._turn_s * LATE_SHARE)
        self._let_queries_in(now_s, ends_s)
        self._lines = {asks: line for asks, line in self._lines.items() if line}
        if self._lines or self._patient:
            self.closes_s = 0.0
        self._give_out()

    def _let_patient_in(self, now_s: float, ends_s: float) -> float:
        # As many as wait now: one that waits again after it entered does so behind what the next poll reads.
        for _ in range(len(self._patient)):
            if now_s >= ends_s:
                break
            self._patient.popleft().enter(is_late=False)
            now_s = self._now_s()
        return now_s

    def _tell_late(self, now_s: float, ends_s: float) -> float:
        for line in list(self._lines.values()):
            while line and now_s < ends_s and now_s - line[0].arrived_s > line[0].patience_s:
                line.popleft().enter(is_late=True)
                now_s = self._now_s()
        return now_s

    def _let_queries_in(self, now_s: float, ends_s: float) -> None:
        turns = deque(line for line in self._lines.values() if line)
        # As many as wait now, as above.
        waiting = sum(len(line) for line in turns)
        while turns and waiting and now_s < ends_s:
            line = turns.popleft()
            if now_s - line[0].arrived_s <= IN_ORDER_SHARE * line[0].patience_s:
                visitor = line.popleft()
            elif now_s - line[-1].arrived_s <= line[-1].patience_s:
                visitor = line.pop()
            else:
                continue  # all of them are late
            waiting -= 1
            visitor.enter(is_late=False)
            now_s = self._now_s()
            if line:
                turns.append(line)
