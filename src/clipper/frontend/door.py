"""Admission of requests: how long the worker takes requests in during a turn of its loop, and which ones wait."""

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heapreplace
from typing import Any, Protocol

# A turn takes requests in for this share of the smallest SLO. The rest of the turn takes about as long, and a query
# spends three turns here: one reads it, one takes it in, and in one its batch comes back.
TURN_SHARE_OF_SLO = 0.1
# Shorter turns would make batches small for no gain. In longer ones, applications with large SLOs would hold up others.
LEAST_TURN_S, LONGEST_TURN_S = 0.000_5, 0.002
# Shares of that time: for requests without an SLO and what earlier visits have left while queries wait, and for
# refusing late queries while others can still be answered in time.
PATIENT_SHARE, LATE_SHARE = 0.25, 0.5
# A query that has waited for this share of its SLO is shed: it would take two more turns and a batch.
PATIENCE_SHARE_OF_SLO = 0.5
# Once the oldest query has waited for this share of its patience, the newest one is taken in first.
IN_ORDER_SHARE = 0.5


class Visitor(Protocol):
    """A connection that has read something and waits to take it in.

    Attributes:
        arrived_s: when it was read.
        patience_s: how long it may wait before it is shed; infinite unless it is known to be a query.
        asks: the endpoint that the query is for, or None.
    """

    arrived_s: float
    patience_s: float
    asks: object

    def enter(self, *, is_late: bool) -> None:
        """Take in what was read. ``is_late``: it has waited too long to be answered in time."""


class Line:
    """The queries of one application that wait.

    Attributes:
        visitors: by their time of arrival.
        used_s: the time that its visits took, and what others had used when it began: the smallest is next.
    """

    __slots__ = ("used_s", "visitors")

    def __init__(self, used_s: float) -> None:
        self.visitors: deque[Visitor] = deque()
        self.used_s = used_s

    def __lt__(self, other: "Line") -> bool:
        return self.used_s < other.used_s


class Door:
    """Lets connections take in requests for a bounded time in each turn of the loop.

    Without this bound, a worker would take in all that one poll returns before it sends or answers a batch, and would
    count that as arrived only then. If requests come faster than they can be taken in, turns would grow without bound,
    and every answer would be late. Here requests wait with their time of arrival.

    Requests are taken in first come, first served while waits are short. When waits grow, the newest goes first: it can
    still be answered in time, while in an old queue none would be (adaptive LIFO, Maurer 2015, "Fail at scale"). Late
    requests are refused in the rest of the turn's time, so refusing never costs more than answering.

    Queries of each application have a line of their own. Lines have equal shares of the time, not of the visits
    (start-time fair queueing, Goyal et al. 1996), so a flood to one application does not delay the others.

    A visit is short. What a connection has sent beyond it waits again, behind what others have just sent: one that
    sends thousands of requests at once competes with itself. Queries come first, then requests that are not known to be
    queries (unknown paths, errors, health, the first request with a head), then these rests. While all three wait, they
    have three quarters, an eighth and an eighth of the time, and a visit in each turn at least.

    The bound is the number of connections: each waits at most once. What they hold counts against the budget.

    Attributes:
        closes_s: input that is read before this time is taken in at once; ``opens`` decides for later input.
        slo_s: the smallest SLO of the served applications.
    """

    __slots__ = (
        "_call_soon",
        "_give_out",
        "_has_begun",
        "_lines",
        "_now_s",
        "_patient",
        "_rests",
        "_turn_s",
        "_used_s",
        "closes_s",
        "slo_s",
    )

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], Any],
        now_s: Callable[[], float],
        give_out: Callable[[], None],
    ) -> None:
        """``give_out`` is called after waiting requests were taken in: it sends batches before the loop polls again."""
        self._call_soon = call_soon
        self._now_s = now_s
        self._give_out = give_out
        self._lines: dict[object, Line] = {}
        self._patient: deque[Visitor] = deque()
        self._rests: deque[Visitor] = deque()
        self._turn_s = LONGEST_TURN_S
        # Of the line that was let in last, before it was.
        self._used_s = 0.0
        self._has_begun = False
        self.closes_s = 0.0
        self.slo_s = 1.0

    def set_slo(self, slo_s: float) -> None:
        self.slo_s = slo_s
        self._turn_s = min(max(slo_s * TURN_SHARE_OF_SLO, LEAST_TURN_S), LONGEST_TURN_S)

    def opens(self, now_s: float) -> bool:
        """Whether input that was read at ``now_s``, after ``closes_s``, is taken in at once.

        It is, once in a turn, if nobody waits. Returning True begins a new turn.
        """
        if self._has_begun or self._lines or self._patient or self._rests:
            return False
        self._begin(now_s)
        return True

    def wait(self, visitor: Visitor) -> None:
        """Queue ``visitor``, which must not be queued already."""
        if visitor.patience_s == float("inf"):
            self._patient.append(visitor)
        else:
            line = self._lines.get(visitor.asks)
            if line is None:
                line = self._lines[visitor.asks] = Line(self._used_s)
            line.visitors.append(visitor)
        self._close()

    def wait_again(self, visitor: Visitor) -> None:
        """Queue ``visitor``, which has had a visit, for the rest of what it has read."""
        self._rests.append(visitor)
        self._close()

    def _close(self) -> None:
        if not self._has_begun:
            self._begin(self._now_s())
        self.closes_s = 0.0

    def _begin(self, now_s: float) -> None:
        self._has_begun = True
        self.closes_s = now_s + self._turn_s
        self._call_soon(self._end)

    def _end(self) -> None:
        """Take in queued requests. All input of one poll has been taken in or queued, and the loop polls next."""
        self._has_begun = False
        if not (self._lines or self._patient or self._rests):
            return
        now_s = self._now_s()
        self._begin(now_s)
        ends_s, patient, rests = self.closes_s, len(self._patient), len(self._rests)
        if self._lines:
            others_s = self._turn_s * PATIENT_SHARE if patient or rests else 0.0
            now_s = self._tell_late(now_s, now_s + self._turn_s * LATE_SHARE)
            now_s = self._let_queries_in(now_s, ends_s - others_s)
            self._lines = {asks: line for asks, line in self._lines.items() if line.visitors}
        # Only those that waited at the turn's beginning: a visitor that waits again goes behind what is read next.
        now_s = self._let_in(self._patient, patient, now_s, (now_s + ends_s) / 2 if rests else ends_s)
        self._let_in(self._rests, rests, now_s, ends_s)
        if self._lines or self._patient or self._rests:
            self.closes_s = 0.0
        self._give_out()

    def _let_in(self, visitors: deque[Visitor], most: int, now_s: float, ends_s: float) -> float:
        """Let visitors in until ``ends_s``, and the first of them in any case: queries may have used up the turn."""
        for _ in range(most):
            visitor = visitors.popleft()
            visitor.enter(is_late=now_s - visitor.arrived_s > visitor.patience_s)
            now_s = self._now_s()
            if now_s >= ends_s:
                break
        return now_s

    def _tell_late(self, now_s: float, ends_s: float) -> float:
        for line in list(self._lines.values()):
            late = line.visitors
            while late and now_s < ends_s and now_s - late[0].arrived_s > late[0].patience_s:
                late.popleft().enter(is_late=True)
                now_s = self._now_s()
        return now_s

    def _let_queries_in(self, now_s: float, ends_s: float) -> float:
        turns = [line for line in self._lines.values() if line.visitors]
        heapify(turns)
        # Only those that wait now, as above.
        waiting = sum(len(line.visitors) for line in turns)
        while turns and waiting and now_s < ends_s:
            line = turns[0]
            visitors = line.visitors
            if now_s - visitors[0].arrived_s <= IN_ORDER_SHARE * visitors[0].patience_s:
                visitor = visitors.popleft()
            elif now_s - visitors[-1].arrived_s <= visitors[-1].patience_s:
                visitor = visitors.pop()
            else:
                heappop(turns)  # all of this line are late
                continue
            waiting -= 1
            self._used_s = line.used_s
            visitor.enter(is_late=False)
            before_s, now_s = now_s, self._now_s()
            line.used_s += now_s - before_s
            if visitors:
                heapreplace(turns, line)
            else:
                heappop(turns)
        return now_s
