"""Work on requests that takes too long for one turn of the loop: done in steps, between the loop's other events."""

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

# Between two ``yield`` it works for a few milliseconds at most.
Steps = Generator[None, None, None]


def done(steps: Generator[None, None, T]) -> T:
    """Run all steps at once, for work that is small; return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class Job:
    """A request's long work; its exchange's ``started``."""

    __slots__ = ("_work", "exchange", "has_ended", "held_bytes", "pieces", "steps")

    def __init__(self, work: "LongWork", exchange: Exchange, steps: Steps, held_bytes: int, pieces: int) -> None:
        self._work = work
        self.exchange = exchange
        self.steps = steps
        self.held_bytes = held_bytes
        self.pieces = pieces
        self.has_ended = False

    def cancel(self) -> None:
        """The client has disconnected: stop."""
        self._work.drop(self)


class LongWork:
    """Does jobs for a slice of time in each turn of the loop, however many there are.

    Jobs on large bodies run one after another, since each may take several times its body's memory. Small jobs take
    turns with them, so that they do not wait for the large ones.

    Feedback that was read takes ten times the memory of its text. So a large list waits, unread, while too many pieces
    are still to be learned.
    """

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], Any], budget: Budget, refused: MutableMapping[str, int]
    ) -> None:
        """``refused`` counts refused requests by error code."""
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
        """Start a request's work: do a first slice now if this turn has time for it, and the rest in later turns.

        If the budget has no room, the request is refused.

        Args:
            exchange: the request.
            body_bytes: size of its body.
            steps: answers the exchange, or starts what answers it.
            pieces: the most pieces of feedback that the body may hold.
        """
        held_bytes = body_bytes + limits.HELD_BYTES_PER_REQUEST
        if not self.budget.has_room(held_bytes):
            self._refused["overloaded"] = self._refused.get("overloaded", 0) + 1
            exchange.refuse(
                "overloaded", "requests that are being read take up all memory for them: try again in a moment"
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
        """Change the number of pieces of feedback that are still to be learned."""
        self._unlearned += pieces
        while self._unread and self._unlearned < limits.MAX_UNLEARNED:
            job, _ = self._unread.popitem(last=False)
            self._enqueue(job, self._large)

    def drop(self, job: Job) -> None:
        """Stop a job. A job that has begun leaves its queue when its turn comes."""
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
        # Jobs that begin later in this turn wait for the next one.
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
            log.exception("failed to handle a request")
            job.exchange.refuse("internal_error", "a bug in Clipper: the worker's log has its traceback")
        self.drop(job)
