"""Divides the time of each event-loop turn among requests: how much time, for whose requests, in which order."""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import Any, Generic, Protocol, TypeVar

# A turn spends this share of the smallest SLO on taking in requests. The rest of the turn takes about as long, and a
# query spends three turns here: one reads it, one takes it in, and one receives its batch's results.
TURN_SHARE_OF_SLO = 0.1
# Shorter turns would make batches small for no gain. In longer ones, applications with large SLOs would hold up others.
LEAST_TURN_S, LONGEST_TURN_S = 0.000_5, 0.002
# Shares of that time: for work other than queries while queries wait, and for refusing late queries while others can
# still be answered in time.
OTHERS_SHARE, LATE_SHARE = 0.25, 0.5
# Input is assumed to have waited unread for at most this many times that time: the longest full turn beside busy
# models. If the loop was blocked for longer, some of the input is newer. This is less than the
# patience below, so that no query is shed for time that it may not have waited.
MOST_UNREAD_TURNS = 4.0
# Long work runs for about this long at a time, then other connections have their turn.
VISIT_S = 0.000_5
# A query that has waited for this share of its SLO is shed: it would take two more turns and a batch.
PATIENCE_SHARE_OF_SLO = 0.5
# Once the oldest query has waited for this share of its patience, the newest one is taken in first.
IN_ORDER_SHARE = 0.5

T = TypeVar("T")

_ENDED = object()

# Lines of work other than queries: requests that are not known to be queries, and the unread rest of connections.
REQUESTS, RESTS = "requests", "rests"


class Work(Protocol):
    """Work that takes a fraction of a turn, such as the input of a connection, or a part of longer work."""

    def enter(self, *, is_late: bool) -> None:
        """Do the work. ``is_late``: it is a query that has waited too long to be answered in time."""


class Visitor(Work, Protocol):
    """Work that may wait in a line of queries.

    Attributes:
        arrived_s: when it was read.
        patience_s: how long it may wait before it is shed.
        asks: the name of its line of queries; None if it is not known to be a query.
    """

    @property
    def arrived_s(self) -> float: ...

    @property
    def patience_s(self) -> float: ...

    @property
    def asks(self) -> object: ...


class Line:
    """Work that waits in one line.

    Attributes:
        waiting: the work, in order of arrival; in a line of queries these are ``Visitor``.
        used_s: the time that its visits took, plus the time that other lines had used when this line began. The line
            with the smallest value is next.
        due: how many visits it may still have in this turn.
    """

    __slots__ = ("_is_of_queries", "due", "used_s", "waiting")

    def __init__(self, used_s: float, is_of_queries: bool) -> None:
        self.waiting: deque[Any] = deque()
        self.used_s = used_s
        self.due = 0
        self._is_of_queries = is_of_queries

    def __lt__(self, other: "Line") -> bool:
        return self.used_s < other.used_s

    def next(self, now_s: float) -> Work | None:
        """Remove and return the next work; None if all are late queries."""
        waiting = self.waiting
        first: Any = waiting[0]
        if not self._is_of_queries or now_s - first.arrived_s <= IN_ORDER_SHARE * first.patience_s:
            return waiting.popleft()  # type: ignore[no-any-return]
        return waiting.pop() if now_s - waiting[-1].arrived_s <= waiting[-1].patience_s else None


class Lines:
    """Lines that share time equally: the line that has used the least is next.

    This is start-time fair queueing (Goyal et al. 1996). ``by_name``: the lines in which work waits.
    """

    __slots__ = ("_are_of_queries", "_now_s", "_used_s", "by_name")

    def __init__(self, now_s: Callable[[], float], are_of_queries: bool) -> None:
        self._now_s = now_s
        self._are_of_queries = are_of_queries
        self.by_name: dict[object, Line] = {}
        # The used time of the line that was let in last, before its last visit.
        self._used_s = 0.0

    def add(self, work: Work, name: object) -> None:
        line = self.by_name.get(name)
        if line is None:
            line = self.by_name[name] = Line(self._used_s, self._are_of_queries)
        line.waiting.append(work)

    def begin_turn(self) -> None:
        """Let in only the work that waits now: work that queues again waits behind input that is read next."""
        for line in self.by_name.values():
            line.due = len(line.waiting)

    def tell_late(self, now_s: float, ends_s: float) -> float:
        """Let in the late queries, which are refused; return the time."""
        for line in list(self.by_name.values()):
            late = line.waiting
            while late and now_s < ends_s and now_s - late[0].arrived_s > late[0].patience_s:
                late.popleft().enter(is_late=True)
                now_s = self._now_s()
        return now_s

    def let_in(self, now_s: float, ends_s: float, least: int) -> float:
        """Let in waiting work until ``ends_s``, and at least ``least`` pieces; return the time."""
        turns = [line for line in self.by_name.values() if line.due and line.waiting]
        heapify(turns)
        while turns and (now_s < ends_s or least > 0):
            line = turns[0]
            work = line.next(now_s)
            if work is None:
                heappop(turns)
                continue
            self._used_s = line.used_s
            work.enter(is_late=False)
            before_s, now_s = now_s, self._now_s()
            line.used_s += now_s - before_s
            line.due, least = line.due - 1, least - 1
            if line.due and line.waiting:
                heapreplace(turns, line)
            else:
                heappop(turns)
        self.by_name = {name: line for name, line in self.by_name.items() if line.waiting}
        return now_s


class TurnBudget:
    """Bounds the time for work of all kinds in each turn of the loop.

    Without this bound, a worker would take in all requests that a poll returns before it sends or answers a batch, and
    would count them as arrived only then. If requests came faster than they can be taken in, turns would grow without
    bound, and every answer would be late. Here requests wait with their time of arrival.

    All work except for answers draws on this one budget, which so bounds the whole turn: requests, further input
    of their connections, long bodies, feedback, TLS handshakes.

    Queries come first. Each application has a line of its own for its queries, so a flood to one application does not
    delay the others; so have an application's long bodies, and the input of gRPC connections, which may contain
    queries. All other work shares the remaining time, at least a quarter, equally among its lines. After a
    visit that took longer than its time, the next visits wait longer.

    Queries are taken in first come, first served while waits are short. When waits grow, the newest goes first: it can
    still be answered in time, while in an old queue none would be (adaptive LIFO, Maurer 2015, "Fail at scale"). Late
    queries are refused in the rest of the turn's time, so refusing never costs more than answering.

    A visit is short. The rest of a connection's input waits again, behind what others have just sent: a connection that
    sends thousands of requests at once competes with itself.

    The number of connections bounds the waiting work: each connection waits at most once. The memory that they hold
    counts against the memory budget.

    Attributes:
        closes_s: work that comes before this time is done at once; for later work, ``is_open`` decides.
    """

    __slots__ = (
        "_began_s",
        "_call_soon",
        "_give_out",
        "_has_begun",
        "_others",
        "_over_s",
        "_queries",
        "_turn_s",
        "closes_s",
        "now_s",
    )

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], Any],
        now_s: Callable[[], float],
        give_out: Callable[[], None] = lambda: None,
    ) -> None:
        """``give_out`` is called after visits: it sends batches before the loop polls again."""
        self._call_soon = call_soon
        self.now_s = now_s
        self._give_out = give_out
        self._queries = Lines(now_s, True)
        self._others = Lines(now_s, False)
        self._turn_s = LONGEST_TURN_S
        # How much the last visits behind queries exceeded their share. The next visits get that much less time.
        self._over_s = 0.0
        self._has_begun = False
        self._began_s = self.closes_s = 0.0

    def set_slo(self, slo_s: float) -> None:
        """Follow the smallest SLO of the served applications."""
        self._turn_s = min(max(slo_s * TURN_SHARE_OF_SLO, LEAST_TURN_S), LONGEST_TURN_S)

    def is_open(self, now_s: float) -> bool:
        """Whether work that comes now is done at once: nothing waits, and the turn, which may begin now, has time."""
        if now_s < self.closes_s:
            return True
        if self._has_begun or self._queries.by_name or self._others.by_name:
            return False
        self._begin(now_s)
        return True

    def arrived_s(self, now_s: float) -> float:
        """Return the time of arrival to assume for input that is read now, while the turn is closed.

        It may have waited in the socket since the poll before this turn. If it counted from now, answers that are
        planned for the last moment would be late by the length of a turn.
        """
        return max(self._began_s, now_s - MOST_UNREAD_TURNS * self._turn_s)

    def wait(self, visitor: Visitor) -> None:
        """Queue ``visitor``, which must not be queued already; a query waits in the line that its ``asks`` names."""
        if visitor.asks is None:
            self._others.add(visitor, REQUESTS)
        else:
            self._queries.add(visitor, visitor.asks)
        self._close()

    def wait_behind(self, work: Work, line: object = RESTS) -> None:
        """Queue ``work``, which must not be queued already, in a line that has its turn behind queries."""
        self._others.add(work, line)
        self._close()

    def _close(self) -> None:
        if not self._has_begun:
            self._begin(self.now_s())
        self.closes_s = 0.0

    def _begin(self, now_s: float) -> None:
        self._has_begun = True
        self._began_s = now_s
        self.closes_s = now_s + self._turn_s
        self._call_soon(self._end)

    def _end(self) -> None:
        """Let in waiting work. All input of a poll has been taken in or queued, and the loop polls next."""
        self._has_begun = False
        queries, others = self._queries, self._others
        if not (queries.by_name or others.by_name):
            return
        now_s = self.now_s()
        self._begin(now_s)
        queries.begin_turn()
        others.begin_turn()
        ends_s, share_s, over_s = self.closes_s, self._turn_s * OTHERS_SHARE, self._over_s
        least = 1
        if queries.by_name:
            others_s, least = (max(share_s - over_s, 0.0), int(over_s < share_s)) if others.by_name else (0.0, 0)
            now_s = queries.tell_late(now_s, now_s + self._turn_s * LATE_SHARE)
            now_s = queries.let_in(now_s, ends_s - others_s, 0)
        ended_s = others.let_in(now_s, ends_s, least)
        self._over_s = max(over_s - share_s, 0.0) + max(ended_s - max(now_s, ends_s), 0.0)
        if queries.by_name or others.by_name:
            self.closes_s = 0.0
        self._give_out()


class Backlog(Generic[T]):
    """A ``Visitor`` that does ``items`` of one kind, one after another, in visits of about ``VISIT_S``."""

    def __init__(
        self,
        turn: TurnBudget,
        do: Callable[[T, float], bool],
        items: deque[T] | None = None,
        *,
        asks: object = None,
        line: object = None,
        in_turns: bool = False,
        may_go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            do: works on an item until about the given time; returns whether the item is done.
            items: the first items; the deque is used, not copied.
            asks: see ``Visitor``; None if this waits behind queries.
            line: the line behind queries in which it waits; None for a line of its own.
            in_turns: if true, an unfinished item waits behind the others; otherwise it continues first.
            may_go_on: whether work may be done now; its owner calls ``go_on`` when this changes.
        """
        self.items: deque[T] = deque() if items is None else items
        self.arrived_s = 0.0
        self.patience_s = float("inf")
        self.asks, self._line = asks, line
        self._turn, self._do, self._in_turns, self._may_go_on = turn, do, in_turns, may_go_on
        # Whether it is queued for a visit, or is in one.
        self._is_due = False

    def add(self, item: T) -> None:
        """Do the item in a later visit."""
        self.items.append(item)
        self.go_on()

    def begin(self, item: T) -> None:
        """Begin with the item now, if this turn has time and nothing is before it."""
        self.items.append(item)
        if not self._is_due and self._turn.is_open(self._turn.now_s()):
            self.enter(is_late=False)
        else:
            self.go_on()

    def go_on(self) -> None:
        """Wait for a visit, if there are items and they may be done."""
        if self._is_due or not self.items or not self._may_go_on():
            return
        self._is_due = True
        if self.asks is None:
            self._turn.wait_behind(self, self._line or self)
        else:
            self._turn.wait(self)

    def enter(self, *, is_late: bool) -> None:
        items, end_s = self.items, self._turn.now_s() + VISIT_S
        self._is_due = True
        try:
            while items and self._may_go_on():
                item = items.popleft()
                is_done = self._do(item, end_s)
                has_ended = self._turn.now_s() >= end_s
                if not is_done:
                    if has_ended and self._in_turns:
                        items.append(item)
                    else:
                        items.appendleft(item)
                if has_ended:
                    break
        finally:
            self._is_due = False
            self.go_on()


def take_step(steps: Iterator[None], end_s: float) -> bool:
    """Take the next of some work's short steps, for the ``do`` of a ``Backlog``; return whether there was none left."""
    return next(steps, _ENDED) is _ENDED
