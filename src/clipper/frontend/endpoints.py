"""What each path of the query port does."""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from clipper.errors import ClipperError
from clipper.frontend.exchange import Exchange, Gather, Part
from clipper.frontend.inputs import make_reader
from clipper.frontend.predict_body import BodyReader, Request
from clipper.frontend.repeats import RepeatedBodies
from clipper.selection.application import Application


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
        row = known = self._repeats.find(body)
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
            query = self._application.predict(request.rows[0], exchange, now_s, request.version)
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
            query = self._application.predict(row, Part(gather, index), now_s, request.version)
            if not query.done:
                gather.add_query(query)


class Observe:
    """``POST /{app}/observe``, and the old system's name of it, ``/{app}/update``."""

    methods = ("POST",)

    def handle(self, exchange: Exchange, body: bytes, now_s: float) -> None:
        exchange.refuse("not_implemented", "feedback is not implemented in this version of Clipper")


class Health:
    """``GET /health/live``: this worker answers."""

    methods = ("GET", "HEAD")

    def handle(self, exchange: Exchange, body: bytes, now_s: float) -> None:
        exchange.answer(200, b'{"status":"live"}')


def make_endpoints(applications: Iterable[Application], refused: Counter[str]) -> dict[bytes, Endpoint]:
    """All paths, with and without a slash at the end; calls that are wrong are counted in ``refused``."""
    endpoints: dict[bytes, Endpoint] = {b"/health/live": Health()}
    for application in applications:
        predict, observe = Predict(application, refused), Observe()
        actions: dict[str, Endpoint] = {"predict": predict, "observe": observe, "update": observe}
        for action, endpoint in actions.items():
            path = f"/{application.name}/{action}".encode()
            endpoints[path] = endpoints[path + b"/"] = endpoint
    return endpoints
