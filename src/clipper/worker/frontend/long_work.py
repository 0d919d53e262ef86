"""Work that takes too long for a turn of the loop: it is done in steps, between the loop's other events."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

from clipper.base.turn_budget import Backlog, TurnBudget
from clipper.errors import ClipperError, Overloaded
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.feedback_line import MAX_WAIT_S, FeedbackLine
from clipper.worker.frontend.http.responses import BUG, Part, Parts, too_long

T = TypeVar("T")

log = logging.getLogger(__name__)

# Between two ``yield`` it works for a few milliseconds at most.
Steps = Generator[None, None, None]


def done(steps: Generator[None, None, T]) -> T:
    """Run all steps of small work at once; return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


@dataclass(slots=True, eq=False)
class Job:
    """A request's long work; its exchange's ``started``, if it has one. ``name`` is its backlog's."""

    work: "LongWork"
    exchange: Exchange | None
    steps: Steps
    held_bytes: int
    name: object = None
    is_large: bool = False
    line: "FeedbackLine[Job] | None" = None
    pieces: int = 0
    has_begun: bool = False
    is_in_step: bool = False
    has_ended: bool = False

    def cancel(self) -> None:
        self.work.drop(self)


@dataclass(frozen=True, slots=True)
class Unlearned:
    """Feedback that was read but is not learned yet."""

    line: "FeedbackLine[Job]"
    pieces: int
    taken_s: float


class FeedbackLines:
    """The lines of an application's feedback: no other application waits because much feedback comes, or takes long.

    Lists with a body over ``SHORT_TEXT_BYTES`` have a line of their own, so that other feedback need not wait for them.
    """

    __slots__ = ("__weakref__", "_large", "_small")

    def __init__(self) -> None:
        self._small: FeedbackLine[Job] = FeedbackLine()
        self._large: FeedbackLine[Job] = FeedbackLine()

    def of(self, body_bytes: int) -> FeedbackLine[Job]:
        return self._large if body_bytes > SHORT_TEXT_BYTES else self._small


class LongWork:
    """Does jobs in visits of the turn's budget, however many there are.

    Each application has a line for its jobs, and another for jobs on large bodies. An application's jobs are done one
    after another, and only a few on large bodies are under way, since each may take several times its body's memory.
    Work on outputs and answers is done behind queries, all at the same time, so that no long output holds up another;
    a few answers are made at a time.

    Feedback waits, unread, while enough feedback is still to be learned: see ``FeedbackLine``. Feedback that was read
    takes ten times the memory of its text.
    """

    def __init__(self, turn: TurnBudget, budget: Budget, refused: Counter[str]) -> None:
        """Make an empty backlog. ``refused`` counts refused requests by error code."""
        self._turn = turn
        self._now_s = turn.now_s
        self.refused = refused
        self.budget = budget
        # The jobs by their line of feedback, or by the application that they query and whether they are large.
        self._backlogs: dict[object, Backlog[Job]] = {}
        self._outputs = Backlog[Job](turn, self._do, in_turns=True)
        # Long answers that are being made, and those that wait for that: each may take several times its memory.
        self._making: set[Job] = set()
        self._to_make: deque[Job] = deque()
        # The number of large jobs that have begun, and the memory that those of each backlog hold.
        self._large = 0
        self._large_bytes: Counter[object] = Counter()
        # Lines live as long as an endpoint has them: an endpoint that replaces another goes on with its measurements.
        self._of_applications: WeakValueDictionary[str, FeedbackLines] = WeakValueDictionary()
        # The lines in which requests may wait.
        self._lines: set[FeedbackLine[Job]] = set()
        self._unread_bytes = 0

    def lines_of(self, application: str) -> FeedbackLines:
        """Return the lines of an application's feedback, by its name."""
        lines = self._of_applications.get(application)
        if lines is None:
            lines = self._of_applications[application] = FeedbackLines()
        return lines

    def begin(
        self,
        exchange: Exchange,
        body_bytes: int,
        steps: Steps,
        line: FeedbackLine[Job] | None = None,
        pieces: int = 0,
        asks: object = None,
    ) -> None:
        """Start a request's work: do a first part now if this turn has time for it, and the rest in later turns.

        If the budget has no room, or the steps raise ClipperError, the request is refused.

        Args:
            steps: answers the exchange, or starts what answers it.
            line: the line in which it waits, if it brings feedback.
            pieces: the most pieces of feedback that the body may hold.
            asks: the application that it queries: its work is done one after another, and other applications' has time
                of its own. None if it is no query: then it is done behind queries.
        """
        held_bytes = body_bytes + limits.HELD_BYTES_PER_REQUEST
        waits = line is not None and not line.has_room
        is_large = body_bytes > SHORT_TEXT_BYTES
        name: object = (asks, is_large) if line is None else line
        others_bytes = self._large_bytes[name] if line is None else 0
        what = ""
        if not self.budget.has_room(held_bytes):
            what = "requests that are being read take up all memory for them"
        elif waits and self._unread_bytes + held_bytes > limits.MAX_UNREAD_BYTES:
            what = "feedback that waits unread takes up all memory for it"
        elif others_bytes and others_bytes + held_bytes > limits.MAX_LARGE_BYTES:
            what = "long bodies for one application take up all memory for them"
        if what:
            self.refuse(exchange, Overloaded(f"{what}: try again in a moment"))
            return
        self.budget.held_bytes += held_bytes
        self._large_bytes[name] += is_large * held_bytes
        job = Job(self, exchange, steps, held_bytes, name, is_large, line, pieces)
        exchange.started = job
        if line is not None and waits:
            line.wait(job, self._now_s())
            self._lines.add(line)
            self._unread_bytes += held_bytes
        else:
            self._enqueue(job, asks)

    def do(self, steps: Steps) -> None:
        """Do work on outputs that belongs to no request, such as reading an output or writing a long answer."""
        self._outputs.begin(Job(self, None, steps, 0))

    def answer(
        self,
        exchange: Exchange,
        parts: Parts,
        size_bytes: int,
        respond: Callable[[list[Part]], None] | None = None,
    ) -> None:
        """Make a long answer. If the budget has no room for it, the request is refused.

        Args:
            size_bytes: a bound on their size.
            respond: takes the parts; the default is ``exchange.answer_parts``.
        """
        if size_bytes > limits.MAX_ANSWER_BYTES:
            exchange.refuse("too_large", too_long(size_bytes))
        elif not self.budget.has_room(size_bytes):
            why = "answers that are being made or read take up all memory for them: try again later"
            self.refuse(exchange, Overloaded(why))
        else:
            self.budget.held_bytes += size_bytes
            steps = self._answer_in_steps(exchange, parts, respond or exchange.answer_parts)
            exchange.started = job = Job(self, exchange, steps, size_bytes)
            self._to_make.append(job)
            self._make()

    def _make(self) -> None:
        while self._to_make and len(self._making) < limits.MAX_LARGE_JOBS:
            job = self._to_make.popleft()
            if not job.has_ended:
                self._making.add(job)
                self._outputs.begin(job)

    def _answer_in_steps(self, exchange: Exchange, parts: Parts, respond: Callable[[list[Part]], None]) -> Steps:
        made = yield from parts
        job = exchange.started
        if isinstance(job, Job):  # from now on its connection counts the answer
            self.budget.held_bytes -= job.held_bytes
            job.held_bytes = 0
        respond(made)

    def take(self, line: FeedbackLine[Job], pieces: int) -> Unlearned:
        """Note that feedback was read, and is being learned from now on."""
        taken = Unlearned(line, pieces, self._now_s())
        line.take(pieces, taken.taken_s)
        return taken

    def learned(self, taken: Unlearned) -> None:
        now_s = self._now_s()
        taken.line.learned(taken.pieces, taken.taken_s, now_s)
        self._let_in(taken.line, now_s)

    def sweep(self) -> None:
        """Refuse feedback that has waited for too long, and forget lines without work. Called once a second."""
        self._backlogs = {name: backlog for name, backlog in self._backlogs.items() if backlog.items}
        self._large_bytes = +self._large_bytes
        for line in list(self._lines):
            for job in line.overdue(self._now_s()):
                self._unread_bytes -= job.held_bytes
                self._end(job)
                assert job.exchange is not None  # all waiting jobs here are requests
                why = (
                    f"the feedback has waited for {MAX_WAIT_S:g} s, because more comes than this worker can learn "
                    "from: send it again later, or send less at once"
                )
                self.refuse(job.exchange, Overloaded(why))
            if not line.waiting:
                self._lines.discard(line)

    def drop(self, job: Job) -> None:
        """Stop a job. A job that has begun leaves its queue when its turn comes."""
        if job.has_ended:
            return
        self._end(job)
        if job.line is None:
            return
        if job.line.leave(job):
            self._unread_bytes -= job.held_bytes
        else:
            job.line.give_back(job.pieces)
            self._let_in(job.line, self._now_s())

    def _end(self, job: Job) -> None:
        job.has_ended = True
        self.budget.held_bytes -= job.held_bytes
        self._large_bytes[job.name] -= job.is_large * job.held_bytes
        if not job.is_in_step:
            job.steps.close()
        if job in self._making:
            self._making.discard(job)
            self._make()
        if job.is_large and job.has_begun:
            self._large -= 1
            for backlog in self._backlogs.values():
                backlog.go_on()

    def refuse(self, exchange: Exchange, error: ClipperError) -> None:
        """Refuse a request, and count it."""
        self.refused[error.code] += 1
        exchange.refuse_with(error)

    def _let_in(self, line: FeedbackLine[Job], now_s: float) -> None:
        while (job := line.next(now_s)) is not None:
            self._unread_bytes -= job.held_bytes
            self._enqueue(job, None)

    def _enqueue(self, job: Job, asks: object) -> None:
        if job.line is not None:
            job.line.take(job.pieces, self._now_s())
        backlog = self._backlogs.get(job.name)
        if backlog is None:
            items: deque[Job] = deque()
            queries = None if job.line is not None or asks is None else job.name
            backlog = Backlog(self._turn, self._do, items, asks=queries, may_go_on=lambda: self._may_go_on(items[0]))
            self._backlogs[job.name] = backlog
        backlog.begin(job)

    def _may_go_on(self, job: Job) -> bool:
        return job.has_begun or job.has_ended or not job.is_large or self._large < limits.MAX_LARGE_JOBS

    def _do(self, job: Job, end_s: float) -> bool:
        """Do a part of a job; return whether it has ended."""
        if job.has_ended:
            return True
        self._large += job.is_large and not job.has_begun
        job.has_begun = job.is_in_step = True
        try:
            for _ in job.steps:
                if job.has_ended:  # the step asked for memory, for which its own request had to end
                    break
                if self._now_s() >= end_s:
                    return False
        except Exception as error:  # a bug costs one request, as in the connection
            if job.exchange is not None and isinstance(error, ClipperError):
                self.refuse(job.exchange, error)
            else:
                log.exception("failed to handle a request")
                if job.exchange is not None:
                    job.exchange.refuse("internal_error", BUG)
        finally:
            job.is_in_step = False
        if job.has_ended:
            job.steps.close()
        self.drop(job)
        return True
