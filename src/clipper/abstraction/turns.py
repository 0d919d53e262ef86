"""When queues give batches out: at the end of the loop's turn, or a little later while more queries are expected."""

import asyncio
from typing import Protocol

from clipper.abstraction.batching.dispatcher import Batch
from clipper.abstraction.batching.short_batches import ShortBatches

# A replica that idles should not do so for much longer than the cheap batches take that wait at all. Where many models
# share the queries, and each has few, waiting saves batches: exp3 over five models answers a sixth more (8 % twice).
MAX_WAIT_S = 0.002
# The same for objectives below 20 ms.
MAX_WAIT_SHARE = 0.1


class Waiting(Protocol):
    """A queue with queries that are not in a batch yet. ``slo_s`` is the smallest of those who ask it."""

    slo_s: float

    def gains_by_more(self) -> bool:
        """Whether a batch that left later, with more queries, would be better."""

    def take_due_turn(self) -> None:
        """Give batches out, unless that has been done already."""


class Turns:
    """Shared by the queues of a worker. A query that comes alone waits for nothing but the end of the loop's turn.

    Attributes:
        arrivals: queries that have been queued so far, counted by the queues.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Waiting, float]] = []
        self._end_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._out = ShortBatches()
        self.arrivals = 0

    @property
    def are_idle(self) -> bool:
        """Whether no queue waits, and no short batch is out whose clients would ask again."""
        return not self._waiting and not self._out.are_out

    def await_end(self, queue: Waiting) -> None:
        """Have ``queue`` take its turn once all that came with one poll has been read."""
        self._waiting.append((queue, self._loop.time()))
        self._schedule()

    def sent(self, batch: Batch) -> None:
        """A batch has left; ``ended`` follows."""
        self._out.sent(batch)

    def ended(self, batch: Batch) -> None:
        """It was answered, or its replica is gone."""
        self._out.ended(batch)
        if self._waiting:
            self._schedule()

    def _schedule(self) -> None:
        if not self._end_is_due:
            self._end_is_due = True
            self._loop.call_soon(self._end, self.arrivals)

    def _end(self, arrivals: int) -> None:
        self._end_is_due = False
        have_come, now_s = self.arrivals > arrivals, self._loop.time()
        is_worth_it = have_come or self._out.bring_more(now_s)
        waiting, self._waiting = self._waiting, []
        for queue, since_s in waiting:
            if is_worth_it and now_s < _until_s(queue, since_s) and queue.gains_by_more():
                self._waiting.append((queue, since_s))
            else:
                queue.take_due_turn()
        if self._waiting:
            self._look_again(have_come)

    def _look_again(self, have_come: bool) -> None:
        """With the next turn while queries come; else with the next batch that ends, or at the first bound."""
        if have_come:
            self._schedule()
        elif self._timer is None:
            first_s = min(_until_s(queue, since_s) for queue, since_s in self._waiting)
            self._timer = self._loop.call_at(first_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._waiting:
            self._schedule()


def _until_s(queue: Waiting, since_s: float) -> float:
    """Until when a queue waits that has done so since then."""
    return since_s + min(MAX_WAIT_S, queue.slo_s * MAX_WAIT_SHARE)
