"""Answers ``POST /v2/models/{app}/score``: a block of rows that are evaluated while no query waits.

The body is a batch as the container protocol has it: PREDICT, or PREDICT_COLUMNS for records. So are the answers, in
frames whose ids are the numbers of their first rows, in any order; a WELCOME before them says which version answers.
Rows of a block have no policy, no deadline, no default, no feedback and no place in the cache.
"""

import asyncio

from clipper.errors import Overloaded
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.endpoints import most_body_bytes
from clipper.worker.frontend.http.responses import bytes_head
from clipper.worker.frontend.inference.framing import error_json
from clipper.worker.frontend.long_work import LongWork, Steps
from clipper.worker.selection.application import Application
from clipper.worker.selection.scoring import Scoring, read_scoring

# A block that queries leave no time for is refused after this long, so that its client can send less at once.
MAX_WAIT_S = 60.0
# Answers of a block: many times the size of a block of numbers.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class ScoreCall:
    """The endpoint for an application's blocks. ``version``: that of the path; None if it names none.

    Blocks and their answers count against the memory of requests until they are answered.
    """

    methods = ("POST",)
    slo_s = float("inf")
    error_json = staticmethod(error_json)

    def __init__(self, application: Application, version: str | None, work: LongWork, max_body_bytes: int) -> None:
        terms = application.terms
        self.max_body_bytes = most_body_bytes(terms.input_type.elements, terms.max_batch, max_body_bytes)
        self._application, self._version, self._work = application, version, work

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = error_json
        self._work.begin(exchange, len(body), self._read(exchange, body, arrived_s))

    def _read(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float) -> Steps:
        budget = self._work.budget
        scoring = yield from read_scoring(self._application, self._version, body)
        exchange.admit_all(scoring.rows, arrived_s)
        if not budget.has_room(scoring.size_bytes):
            raise Overloaded("blocks of rows take up all memory for them: try again in a moment")
        _Run(exchange, scoring, budget).begin()


class _Run:
    """A request whose block is being evaluated; its exchange's ``started``."""

    def __init__(self, exchange: Exchange, scoring: Scoring, budget: Budget) -> None:
        self._exchange, self._scoring, self._budget = exchange, scoring, budget
        self._timer: asyncio.TimerHandle | None = None
        self._held_bytes = 0

    def begin(self) -> None:
        """Queue the block. Raises Overloaded."""
        scoring = self._scoring
        self._hold(scoring.size_bytes)
        # One timer for thousands of rows, and some tens of blocks at most.
        late = (
            f"queries left {scoring.model} no time for a block of {scoring.rows} rows within {MAX_WAIT_S:g} s: send "
            "fewer rows in a block"
        )
        self._timer = asyncio.get_running_loop().call_later(MAX_WAIT_S, self._fail, "timeout", late)
        self._exchange.started = self
        if not scoring.begin(self._take, self._fail):
            self.cancel()
            raise Overloaded(f"too many blocks of rows wait for {scoring.model}: send fewer at a time")

    def cancel(self) -> None:
        """Forget the block: it was answered, or its client has left."""
        self._scoring.end()
        if self._timer is not None:
            self._timer.cancel()
        self._hold(-self._held_bytes)

    def _hold(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        self._budget.held_bytes += size_bytes

    def _fail(self, code: str, message: str) -> None:
        self.cancel()
        self._exchange.refuse(code, message)

    def _take(self, size_bytes: int, is_last: bool) -> None:
        self._hold(size_bytes)
        if self._scoring.answer_bytes > MAX_ANSWER_BYTES:
            self._fail("too_large", f"outputs of a block are over {MAX_ANSWER_BYTES} bytes: send fewer rows in a block")
        elif not self._budget.has_room(0):
            self._fail("overloaded", "answers to blocks take up all memory for them: try again in a moment")
        elif is_last:
            self.cancel()
            parts = self._scoring.answer()
            size = sum(map(len, parts))
            self._exchange.respond_parts([bytes_head(size, close=self._exchange.closes), *parts])
