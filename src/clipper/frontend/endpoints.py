"""What each path of the query port does."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from clipper.errors import ClipperError
from clipper.feedback import Feedback, Outcome
from clipper.frontend import responses
from clipper.frontend.exchange import Exchange, Gather, Part
from clipper.frontend.inputs import make_reader
from clipper.frontend.observe_body import ObserveReader
from clipper.frontend.predict_body import BodyReader, Request
from clipper.frontend.repeats import MIN_BODY_BYTES, RepeatedBodies
from clipper.selection.application import Application

log = logging.getLogger(__name__)


class Endpoint(Protocol):
    """One path. ``handle`` answers the exchange, now or later."""

    @property
    def methods(self) -> tuple[str, ...]: ...

    def handle(self, exchange: Exchange, body: bytes, now_s: float) -> None: ...


class Predict:
    """``POST /{app}/predict``."""

    methods = ("POST",)

    def __init__(self, application: Application, refused: Counter[str]) -> None:
        self._application = application
        self._refused = refused
        self._body = BodyReader(make_reader(application.input_type))
        self._repeats = RepeatedBodies()

    def handle(self, exchange: Exchange, body: bytes, now_s: float) -> None:
        row = known = self._repeats.find(body) if len(body) >= MIN_BODY_BYTES else None
        if row is None:
            row = self._body.read_plain(body)
        if row is None:
            self._handle_any_form(exchange, body, now_s)
            return
        query = self._application.predict(row, exchange, now_s)
        if not query.done:
            exchange.started = query
        elif known is None:
            self._repeats.remember(body, row)

    def _handle_any_form(self, exchange: Exchange, body: bytes, now_s: float) -> None:
        try:
            request = self._body.read(body)
            if request.is_batch:
                self._predict_batch(exchange, request, now_s)
                return
            query = self._application.predict(request.rows[0], exchange, now_s, request.version, request.context)
        except ClipperError as error:
            self._refused[error.code] += 1
            exchange.refuse(error.code, str(error))
            return
        if not query.done:
            exchange.started = query

    def _predict_batch(self, exchange: Exchange, request: Request, now_s: float) -> None:
        gather = Gather(exchange, len(request.rows))
        exchange.started = gather
        for index, row in enumerate(request.rows):
            query = self._application.predict(row, Part(gather, index), now_s, request.version, request.context)
            if not query.done:
                gather.add_query(query)


class FeedbackTaker(Protocol):
    """Who learns from feedback, here or in the worker that answered the query."""

    async def observe(self, application: Application, feedback: Sequence[Feedback]) -> list[Outcome]: ...


class Observe:
    """``POST /{app}/observe``, and the old system's name of it, ``/{app}/update``."""

    methods = ("POST",)

    def __init__(self, application: Application, taker: FeedbackTaker, refused: Counter[str]) -> None:
        self._application = application
        self._taker = taker
        self._refused = refused
        self._body = ObserveReader(make_reader(application.input_type))
        # The loop itself keeps only weak references to tasks. As many as there are requests under way.
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange, body: bytes, now_s: float) -> None:
        try:
            items, is_list = self._body.read(body)
        except ClipperError as error:
            self._refused[error.code] += 1
            exchange.refuse(error.code, str(error))
            return
        task = asyncio.ensure_future(self._observe(exchange, items, is_list))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _observe(self, exchange: Exchange, items: "list[Feedback | ClipperError]", is_list: bool) -> None:
        feedback = [item for item in items if isinstance(item, Feedback)]
        try:
            taken = iter(await self._taker.observe(self._application, feedback))
        except Exception as error:  # a request must be answered, whatever went wrong
            log.exception("feedback on %s failed", self._application.name)
            exchange.refuse(ClipperError.code, f"{type(error).__name__}: {error}")
            return
        outcomes = [
            next(taken) if isinstance(item, Feedback) else Outcome(error=item.code, cause=str(item)) for item in items
        ]
        if is_list:
            exchange.answer(200, responses.outcomes_json(outcomes))
        elif outcomes[0].error is not None:
            exchange.refuse(outcomes[0].error, outcomes[0].cause)
        else:
            exchange.answer(200, responses.outcome_json(outcomes[0]))


class Health:
    """``GET /health/live``: this worker answers."""

    methods = ("GET", "HEAD")

    def handle(self, exchange: Exchange, body: bytes, now_s: float) -> None:
        exchange.answer(200, b'{"status":"live"}')


def make_endpoints(
    applications: Iterable[Application], taker: FeedbackTaker, refused: Counter[str]
) -> dict[bytes, Endpoint]:
    """All paths, with and without a slash at the end; calls that are wrong are counted in ``refused``."""
    endpoints: dict[bytes, Endpoint] = {b"/health/live": Health()}
    for application in applications:
        predict, observe = Predict(application, refused), Observe(application, taker, refused)
        actions: dict[str, Endpoint] = {"predict": predict, "observe": observe, "update": observe}
        for action, endpoint in actions.items():
            path = f"/{application.name}/{action}".encode()
            endpoints[path] = endpoints[path + b"/"] = endpoint
    return endpoints
