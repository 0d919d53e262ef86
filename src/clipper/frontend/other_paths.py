"""Paths that are in no table: what they lead to depends on more of a head than its path."""

from collections.abc import Iterable

import msgspec

from clipper.frontend import openapi, responses
from clipper.frontend.clients import Clients
from clipper.frontend.endpoints import Endpoint
from clipper.frontend.exchange import Exchange
from clipper.frontend.heads import Head
from clipper.frontend.inference.service import Inference
from clipper.frontend.long_work import LongWork, Steps
from clipper.inputs.long_text import SHORT_TEXT_BYTES
from clipper.selection.application import Application

DESCRIPTION = b"/openapi.json"


class OtherPaths:
    """The Open Inference Protocol's, and the description of what applications take."""

    def __init__(
        self, applications: Iterable[Application], inference: Inference, work: LongWork, clients: Clients
    ) -> None:
        self._applications = tuple(applications)
        self._inference = inference
        self._work = work
        self._clients = clients

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """As ``Port.find``."""
        if path == DESCRIPTION:
            visible = self._clients.visible(self._applications, head.authorizations)
            return Description([self._described(each) for each in visible], self._work)
        return self._inference.find(path, head)

    def why_not_found(self, path: bytes) -> str | None:
        """What to say where ``find`` found nothing; None if nothing is known of the path."""
        return self._inference.why_not_found(path)

    def _described(self, application: Application) -> openapi.Described:
        return openapi.Described(
            application.name,
            application.terms.input_type,
            application.terms.slo_s,
            application.terms.features_size,
            self._clients.needs_key(application),
        )


class Description:
    """``GET /openapi.json``: the description of the query port, with the applications that who asks may know of."""

    methods = ("GET", "HEAD")
    slo_s = float("inf")
    max_body_bytes = SHORT_TEXT_BYTES
    error_json = staticmethod(responses.error_json)

    def __init__(self, applications: list[openapi.Described], work: LongWork) -> None:
        self._applications = applications
        self._work = work

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        self._work.begin(exchange, len(body), self._answer(exchange))

    def _answer(self, exchange: Exchange) -> Steps:
        description = openapi.frame()
        paths = [msgspec.json.encode(description.pop("paths"))]
        for application in self._applications:
            paths.append(msgspec.json.encode(openapi.paths_of(application)))
            yield
        rest = msgspec.json.encode(description)
        # Each of them is an object: between the first one's bracket and the last one's stand the fields of all.
        exchange.answer(200, b'%b,"paths":{%b}}' % (rest[:-1], b",".join(each[1:-1] for each in paths)))
