"""The endpoints of the query port: what each path does."""

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol

from clipper.control.feedback import Feedback, Outcome
from clipper.errors import ClipperError, Overloaded
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.clients import Guarded
from clipper.worker.frontend.endpoint import Endpoint, Small
from clipper.worker.frontend.exchange import Exchange, Gather, Part
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.long_work import LongWork, Steps, Unlearned
from clipper.worker.frontend.observe_body import MAX_OBSERVATIONS, MIN_OBSERVATION_BYTES, ObserveReader
from clipper.worker.frontend.predict_body import BodyReader
from clipper.worker.frontend.predict_request import Request
from clipper.worker.frontend.repeats import MIN_BODY_BYTES, RepeatedBodies
from clipper.worker.selection.application import Application
from clipper.worker.selection.query import Asker

log = logging.getLogger(__name__)


# Reads the feedback in a request, with an error in place of each wrong piece; and returns whether it is a list.
Reading = Generator[None, None, tuple[list[Feedback | ClipperError], bool]]
# Answers that are formatted in a step.
_OUTCOMES_PER_STEP = 500


class Predict:
    """The endpoint ``POST /{app}/predict``."""

    methods = ("POST",)
    error_json = staticmethod(responses.error_json)

    def __init__(self, application: Application, work: LongWork, max_body_bytes: int) -> None:
        terms = application.terms
        self.max_body_bytes = most_body_bytes(terms.input_type.elements, terms.max_batch, max_body_bytes)
        self._application = application
        self._work = work
        self._body = BodyReader(terms.make_reader(), terms.features_size)
        self._repeats = RepeatedBodies()
        self.slo_s = terms.slo_s

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        # The answer to a batch has a part for each input, so a late batch is read to count them.
        if is_late and b'"input_batch"' not in body and b'"input_columns"' not in body:
            self._application.shed(exchange)
            return
        if isinstance(body, bytearray):
            self._work.begin(exchange, len(body), self._answer_in_steps(exchange, body, arrived_s), asks=self)
            return
        row = known = self._repeats.find(body) if len(body) >= MIN_BODY_BYTES else None
        if row is None:
            row = self._body.read_plain(body)
        if row is not None:
            query = self._application.predict(row, exchange, arrived_s, None, None, None, None, exchange.note)
            if not query.done:
                exchange.started = query
            elif known is None:
                self._repeats.remember(body, row)
        elif len(body) <= limits.DIRECT_BODY_BYTES and (request := self._body.read_single(body)) is not None:
            self._predict_one(exchange, request, arrived_s)
        else:
            self._work.begin(exchange, len(body), self._answer_in_steps(exchange, body, arrived_s), asks=self)

    def _answer_in_steps(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float) -> Steps:
        request = yield from self._body.read(body)
        if request.is_batch:
            yield from predict_batch(self._application, exchange, request, arrived_s, self._work.budget)
        else:
            self._predict_one(exchange, request, arrived_s)

    def _predict_one(self, exchange: Exchange, request: Request, arrived_s: float) -> None:
        query = self._application.predict(
            request.rows[0],
            exchange,
            arrived_s,
            request.version,
            request.context,
            request.features[0],
            request.timeout_s,
            exchange.note,
        )
        if not query.done:
            exchange.started = query


def predict_batch(
    application: Application,
    exchange: Exchange,
    request: Request,
    arrived_s: float,
    budget: Budget,
    finish: Callable[[list[Any], int], None] | None = None,
    part: Callable[[Gather, int], Asker] | None = None,
) -> Steps:
    """Ask each input of a batch, and answer all together.

    Args:
        finish: see ``Gather``.
        part: makes the asker of an input; None makes a ``Part``.

    Raises:
        ClipperError: the batch as a whole is refused.
    """
    exchange.admit_all(len(request.rows), arrived_s)
    gather = Gather(exchange, len(request.rows), budget, finish)
    try:
        for index, (row, features) in enumerate(zip(request.rows, request.features)):
            if gather.has_ended:
                return  # refused: the answer is already too large
            query = application.predict(
                row,
                Part(gather, index) if part is None else part(gather, index),
                arrived_s,
                request.version,
                request.context,
                features,
                request.timeout_s,
                exchange.note,
            )
            if not query.done:
                gather.add_query(query)
            yield
    except BaseException:  # also if the client disconnects before all queries are sent
        gather.cancel()
        raise
    if not gather.has_ended:
        exchange.started = gather


class FeedbackTaker(Protocol):
    """Learns from feedback, here or in the worker that answered the query."""

    async def observe(self, application: Application, feedback: Sequence[Feedback]) -> list[Outcome]:
        """Return an outcome for each piece, in order."""

    def observe_one(self, application: Application, feedback: Feedback, tell: Callable[[Outcome], None]) -> None:
        """Learn from a single piece, and ``tell`` its outcome."""


class Observe:
    """The endpoint ``POST /{app}/observe``, and ``/{app}/update``, its name in the old system."""

    methods = ("POST",)
    slo_s = float("inf")
    error_json = staticmethod(responses.error_json)

    def __init__(self, application: Application, taker: FeedbackTaker, work: LongWork, max_body_bytes: int) -> None:
        terms = application.terms
        self.max_body_bytes = most_body_bytes(terms.input_type.elements, terms.max_batch, max_body_bytes)
        self._application = application
        self._taker = taker
        self._work = work
        self.reader = ObserveReader(terms.make_reader(), terms.features_size)
        self._lines = work.lines_of(application.name)
        # The loop only keeps weak references to tasks. Their number is bounded by the requests in progress.
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        size_bytes = len(body)
        is_taken = size_bytes <= limits.DIRECT_BODY_BYTES and self._lines.of(size_bytes).has_room
        single = self.reader.read_single(bytes(body)) if is_taken else None
        if single is not None:
            self._observe_later(exchange, [single], False, size_bytes)
        else:
            pieces = min(size_bytes // MIN_OBSERVATION_BYTES, MAX_OBSERVATIONS)
            self.learn_from(exchange, self.reader.read(body), size_bytes, pieces, arrived_s)

    def learn_from(self, exchange: Exchange, reading: Reading, body_bytes: int, pieces: int, arrived_s: float) -> None:
        """Learn from the feedback that ``reading`` returns, and answer.

        Args:
            reading: reads the body in steps of a few milliseconds at most.
            pieces: the most pieces of feedback that it may hold.
        """
        steps = self._read_in_steps(exchange, reading, body_bytes, arrived_s)
        self._work.begin(exchange, body_bytes, steps, self._lines.of(body_bytes), pieces)

    def _read_in_steps(self, exchange: Exchange, reading: Reading, body_bytes: int, arrived_s: float) -> Steps:
        items, is_list = yield from reading
        exchange.admit_all(len(items), arrived_s)
        self._observe_later(exchange, items, is_list, body_bytes)

    def _observe_later(
        self, exchange: Exchange, items: "list[Feedback | ClipperError]", is_list: bool, body_bytes: int
    ) -> None:
        budget = self._work.budget
        held_bytes = body_bytes + limits.HELD_BYTES_PER_REQUEST + limits.HELD_BYTES_PER_FEEDBACK * len(items)
        if not budget.has_room(held_bytes):
            raise Overloaded("feedback that is not learned yet takes up all memory for it: try again in a moment")
        budget.held_bytes += held_bytes
        # The feedback is learned even if the client disconnects, and counts as in flight until then.
        exchange.started = None
        taken = _Taken(self._work, held_bytes, self._work.take(self._lines.of(body_bytes), len(items)), exchange)
        if not is_list and isinstance(single := items[0], Feedback):
            self._taker.observe_one(self._application, single, taken)
            return
        task = asyncio.ensure_future(self._observe(exchange, items, is_list))

        def end(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            taken.end()

        self._tasks.add(task)
        task.add_done_callback(end)

    async def _observe(self, exchange: Exchange, items: "list[Feedback | ClipperError]", is_list: bool) -> None:
        feedback = [item for item in items if isinstance(item, Feedback)]
        try:
            taken = iter(await self._taker.observe(self._application, feedback))
        except Exception as error:  # every request must be answered
            name = self._application.name
            log.exception("failed to observe feedback for application %(application)s", {"application": name})
            exchange.refuse(ClipperError.code, f"{type(error).__name__}: {error}")
            return
        texts: list[bytes] = []
        for start in range(0, len(items), _OUTCOMES_PER_STEP):
            outcomes = [
                next(taken) if isinstance(item, Feedback) else Outcome(error=item.code, cause=str(item))
                for item in items[start : start + _OUTCOMES_PER_STEP]
            ]
            texts += map(responses.outcome_json, outcomes)
            if is_list:
                await asyncio.sleep(0)
        if is_list:
            exchange.answer(200, responses.outcomes_json(texts))
        else:
            _answer_one(exchange, outcomes[0])


class _Taken:
    """Feedback that counts as under way; takes the outcome of a single piece."""

    __slots__ = ("_exchange", "_held_bytes", "_unlearned", "_work")

    def __init__(self, work: LongWork, held_bytes: int, unlearned: Unlearned, exchange: Exchange) -> None:
        self._work, self._held_bytes, self._unlearned, self._exchange = work, held_bytes, unlearned, exchange

    def __call__(self, outcome: Outcome) -> None:
        _answer_one(self._exchange, outcome)
        self.end()

    def end(self) -> None:
        self._work.budget.held_bytes -= self._held_bytes
        self._work.learned(self._unlearned)


def _answer_one(exchange: Exchange, outcome: Outcome) -> None:
    if outcome.error is not None:
        exchange.refuse(outcome.error, outcome.cause)
    else:
        exchange.answer(200, responses.outcome_json(outcome))


def live() -> Endpoint:
    """Return the endpoint ``GET /health/live``, which shows that this worker answers."""
    return Small(lambda exchange, _: exchange.answer(200, b'{"status":"live"}'))


def most_body_bytes(elements: int, max_batch: int, otherwise: int) -> int:
    """Return the bound of bodies: ``otherwise``, or more if the models' largest batch of such inputs needs it."""
    needed = max_batch * elements * limits.BODY_BYTES_PER_NUMBER
    return max(otherwise, min(needed, limits.MAX_TYPED_BODY_BYTES))


def make_endpoints(
    applications: Iterable[Application],
    taker: FeedbackTaker,
    work: LongWork,
    max_body_bytes: int = limits.MAX_BODY_BYTES,
    guard: Callable[[Application, Endpoint], Endpoint | Guarded] = lambda _, endpoint: endpoint,
) -> dict[bytes, Endpoint | Guarded]:
    """Return the endpoints of all paths, with and without a trailing slash.

    Args:
        guard: puts an application's keys and limits in front of an endpoint.
    """
    endpoints: dict[bytes, Endpoint | Guarded] = {b"/health/live": live()}
    for application in applications:
        predict = Predict(application, work, max_body_bytes)
        observe = Observe(application, taker, work, max_body_bytes)
        guarded = guard(application, predict), guard(application, observe)
        for path in paths_of(application.name):
            endpoints[path] = guarded[0] if path.rstrip(b"/").endswith(b"predict") else guarded[1]
    return endpoints


def paths_of(application: str) -> list[bytes]:
    """Return the paths of an application, with and without a trailing slash."""
    paths = [f"/{application}/{action}".encode() for action in ("predict", "observe", "update")]
    return paths + [path + b"/" for path in paths]
