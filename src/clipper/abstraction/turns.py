"""When queues give batches out: at the end of the loop's turn, or a little later while more queries are expected."""

import asyncio
import logging
from typing import Protocol

from clipper.abstraction.alarm import Alarm
from clipper.abstraction.batching.flow import Batch, Flow

log = logging.getLogger(__name__)


class Waiting(Protocol):
    """A queue with queries that are not in a batch yet."""

    def waits_for_flow(self, now_s: float, *, have_come: bool) -> bool:
        """Whether a batch that left later, with more queries, would be better."""

    def flow_wait_ends_s(self) -> float:
        """Until when it waits so, at most."""

    def take_due_turn(self) -> None:
        """Give batches out, unless that has been done already."""


class Turns:
    """Shared by the queues of a worker: calls each at the end of the loop's turn, again while it waits.

    Attributes:
        flow: what the queues tell each other of the worker's queries.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Waiting] = []
        self._end_is_due = False
        self._look_again = Alarm(self._loop, self._wake)
        self.flow = Flow()

    @property
    def are_idle(self) -> bool:
        """Whether no queue waits."""
        return not self._waiting

    def await_end(self, queue: Waiting) -> None:
        """Have ``queue`` take its turn once all that came with one poll has been read."""
        self._waiting.append(queue)
        self._schedule()

    def end(self) -> None:
        """This is the turn's end: no more is read before the loop polls again."""
        if self._end_is_due:
            self._end(self.flow.arrivals)

    def ended(self, batch: Batch) -> None:
        """It was answered, or its replica is gone."""
        self.flow.ended(batch)
        if self._waiting:
            self._schedule()

    def _schedule(self) -> None:
        if not self._end_is_due:
            self._end_is_due = True
            self._loop.call_soon(self._end, self.flow.arrivals)

    def _end(self, arrivals: int) -> None:
        self._end_is_due = False
        have_come, now_s = self.flow.arrivals > arrivals, self._loop.time()
        waiting, self._waiting = self._waiting, []
        for queue in waiting:
            try:
                if queue.waits_for_flow(now_s, have_come=have_come):
                    self._waiting.append(queue)
                else:
                    queue.take_due_turn()
            except Exception:  # a bug: it does not cost the other models their turns
                log.exception("a model's batches could not be given out")
        if not self._waiting:
            return
        # Look again with the next turn while queries come; else with the next batch that ends, or at the first bound.
        if have_come:
            self._schedule()
            return
        self._look_again.set(min(queue.flow_wait_ends_s() for queue in self._waiting))

    def _wake(self) -> None:
        if self._waiting:
            self._schedule()
