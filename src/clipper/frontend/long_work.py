"""Work on requests that takes longer than others should wait: done in pieces, between the loop's other events."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, MutableMapping
from typing import Any, TypeVar

from clipper.frontend import limits
from clipper.frontend.budget import Budget
from clipper.frontend.exchange import Exchange
from clipper.inputs.long_text import SHORT_TEXT_BYTES

T = TypeVar("T")

log = logging.getLogger(__name__)

# What begins after each ``yield`` is a piece of work of a few milliseconds at most.
Steps = Generator[None, None, None]


def done(steps: Generator[None, None, T]) -> T:
    """Do all of the steps at once, where they take little; return what they do."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Job:
    """A request that is being worked on: what its exchange has started."""

    __slots__ = ("_work", "exchange", "has_ended", "held_bytes", "pieces", "steps")

    def __init__(self, work: "LongWork", exchange: Exchange, steps: Steps, held_bytes: int, pieces: int) -> None:
        self._work = work
        self.exchange = exchange
        self.steps = steps
        self.held_bytes = held_bytes
        self.pieces = pieces
        self.has_ended = False

    def cancel(self) -> None:
        """The client is gone."""
        self._work.drop(self)


class LongWork:
    """Does jobs for a slice of time in each turn of the loop, however many there are.

    Jobs on large bodies are done one after another, since each may take several times its body's memory while it is
    done; smaller ones in turns with them, so that they do not wait for these.

    Of feedback no more is read than is soon learned from, since what is read takes ten times its text: a large list
    waits, unread, until less is.
    """

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], Any], budget: Budget, refused: MutableMapping[str, int]
    ) -> None:
        """``refused``: counts the requests that are refused, by error code."""
        self._call_soon = call_soon
        self._refused = refused
        self.budget = budget
        self._small: deque[Job] = deque()
        self._large: deque[Job] = deque()
        self._unread: OrderedDict[Job, None] = OrderedDict()
        self._unlearned = 0
        self._end_s = 0.0
        self._is_due = False
        self._is_larges_turn = False

    def begin(self, exchange: Exchange, body_bytes: int, steps: Steps, pieces: int = 0) -> None:
        """Do a first slice of a request's work at once, if this turn has time for it, and go on in later turns.

        Args:
            steps: answers the exchange, or starts what does. Where the budget has no room, the request is refused.
            pieces: how many pieces of feedback it may turn out to be.
        """
        held_bytes = body_bytes + limits.HELD_BYTES_PER_REQUEST
        if not self.budget.has_room(held_bytes):
            self._refused["overloaded"] = self._refused.get("overloaded", 0) + 1
            exchange.refuse(
                "overloaded", "requests that are being read hold as much memory as they may: try again in a moment"
            )
            return
        self.budget.held_bytes += held_bytes
        job = Job(self, exchange, steps, held_bytes, pieces)
        exchange.started = job
        if body_bytes <= SHORT_TEXT_BYTES:
            self._enqueue(job, self._small)
        elif pieces and self._unlearned >= limits.MAX_UNLEARNED:
            self._unread[job] = None
        else:
            self._enqueue(job, self._large)

    def count_unlearned(self, pieces: int) -> None:
        """So many more pieces of feedback are to be learned from, or fewer."""
        self._unlearned += pieces
        while self._unread and self._unlearned < limits.MAX_UNLEARNED:
            job, _ = self._unread.popitem(last=False)
            self._enqueue(job, self._large)

    def drop(self, job: Job) -> None:
        """Do no more of it. Its place in a queue of what has begun is left when its turn comes."""
        if not job.has_ended:
            job.has_ended = True
            self.budget.held_bytes -= job.held_bytes
            job.steps.close()
            if job in self._unread:
                del self._unread[job]
            else:
                self.count_unlearned(-job.pieces)

    def _enqueue(self, job: Job, queue: deque[Job]) -> None:
        self._unlearned += job.pieces
        queue.append(job)
        if not self._is_due:
            self._work(time.perf_counter() + limits.SLICE_S)

    def _work(self, end_s: float) -> None:
        # What begins in this turn after this has to wait for the next one.
        self._is_due = True
        self._call_soon(self._next_turn)
        while (self._small or self._large) and time.perf_counter() < end_s:
            self._is_larges_turn = bool(self._large) and not (self._is_larges_turn and self._small)
            queue = self._large if self._is_larges_turn else self._small
            self._do(queue[0], end_s)
            if queue[0].has_ended:
                queue.popleft()

    def _next_turn(self) -> None:
        self._is_due = False
        if self._small or self._large:
            self._work(time.perf_counter() + limits.SLICE_S)

    def _do(self, job: Job, end_s: float) -> None:
        try:
            for _ in () if job.has_ended else job.steps:
                if time.perf_counter() >= end_s:
                    return
        except Exception:  # a bug costs one request, as in the connection
            log.exception("a request could not be handled")
            job.exchange.refuse("internal_error", "a bug in Clipper: the worker's log has its traceback")
        self.drop(job)
