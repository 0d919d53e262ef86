"""The deadlines of an application's queries."""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from clipper.worker.selection.query import Query

# The loop's timers are rounded to whole milliseconds, so they may fire half a millisecond early.
TIMER_EARLY_S = 0.0005
# The most queries that are answered in a turn: a millisecond of work, or four by gRPC. All queries of a batch have the
# same deadline.
MAX_EXPIRING = 100


class Deadlines:
    """Calls ``finish`` with each query that has no answer at its deadline.

    Queries of an application have the same SLO, so they expire in order of arrival: a FIFO and a timer serve all.
    Queries that waited before the worker took them in may come out of order, and are inserted in their place.
    """

    def __init__(self, finish: Callable[[Query], None]) -> None:
        self._finish = finish
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Query] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many queries wait for their answer."""
        return sum(not query.done for query in self._waiting)

    def wait(self, query: Query) -> None:
        waiting = self._waiting
        # Removing one answered query for each new one keeps the list short. The rest of a burst leaves at its
        # deadlines.
        if waiting and waiting[0].done:
            waiting.popleft()
        if waiting and waiting[-1].deadline_s > query.deadline_s:
            # The query waited before the worker took it in, and later queries did not.
            waiting.insert(bisect_left(waiting, query.deadline_s, key=lambda other: other.deadline_s), query)
            if waiting[0] is query:
                self._arm()
        else:
            waiting.append(query)
        if self._timer is None:
            self._timer = self._loop.call_at(query.deadline_s, self._expire)

    def open_until(self, at_s: float) -> list[Query]:
        """Return the queries that wait, the first ones first, up to the first whose deadline is after ``at_s``."""
        found: list[Query] = []
        for query in self._waiting:
            if query.done:
                continue
            found.append(query)
            if query.deadline_s > at_s:
                break
        return found

    def bring_forward(self, budget_s: float) -> None:
        """Apply a smaller SLO to waiting queries as well, which keeps the FIFO in order."""
        latest_s = self._loop.time() + budget_s
        if self._waiting and self._waiting[-1].deadline_s > latest_s:
            for query in self._waiting:
                query.deadline_s = min(query.deadline_s, latest_s)
            self._arm()

    def clear(self) -> list[Query]:
        """Stop all deadlines, and return the queries that wait for their answer."""
        waiting, self._waiting = self._waiting, deque()
        self._arm()
        return [query for query in waiting if not query.done]

    def _expire(self) -> None:
        now_s = self._loop.time() + TIMER_EARLY_S
        waiting = self._waiting
        # The rest stays due; other events of the loop get their turn first.
        for _ in range(MAX_EXPIRING):
            if not waiting or not (waiting[0].done or waiting[0].deadline_s <= now_s):
                break
            query = waiting.popleft()
            if not query.done:
                self._finish(query)
        self._arm()

    def _arm(self) -> None:
        """Set the timer to the first deadline, or cancel it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._waiting[0].deadline_s, self._expire) if self._waiting else None
