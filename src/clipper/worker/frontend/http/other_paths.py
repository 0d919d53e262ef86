"""Finds paths that depend on more of a request's head than its path, so that no table can hold them."""

from collections.abc import Collection

import msgspec

from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend.clients import Clients
from clipper.worker.frontend.endpoint import Endpoint
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http import openapi, responses
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.inference.service import Inference
from clipper.worker.frontend.long_work import LongWork, Steps
from clipper.worker.frontend.readiness import Readiness, named
from clipper.worker.selection.application import Application

DESCRIPTION, READY = b"/openapi.json", b"/health/ready"


class OtherPaths:
    """The paths of the Open Inference Protocol, the OpenAPI description, and the readiness."""

    def __init__(
        self,
        applications: Collection[Application],
        inference: Inference,
        work: LongWork,
        clients: Clients,
        readiness: Readiness,
    ) -> None:
        """Find paths of ``applications``, which the worker serves at the moment of each call."""
        self._applications = applications
        self._inference = inference
        self._work = work
        self._clients = clients
        self._readiness = readiness

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """Find the endpoint of a path, as ``Port.find`` does."""
        if path == DESCRIPTION:
            visible = self._clients.visible(self._applications, head.authorizations)
            return Description([self._described(each) for each in visible], self._work)
        if path == READY:
            return Ready(self._readiness.why_not(named(head.url)))
        return self._inference.find(path, head)

    def why_not_found(self, path: bytes) -> str | None:
        """Return the cause to answer if ``find`` found nothing; None if the path is of no known form."""
        return self._inference.why_not_found(path)

    def _described(self, application: Application) -> openapi.Described:
        terms = application.terms
        declared = terms.declared_outputs()
        return openapi.Described(
            application.name,
            terms.input_type,
            terms.slo_s,
            terms.features_size,
            self._clients.needs_key(application),
            terms.ignores_unknown_fields,
            # What a policy makes of several outputs, such as a mean of whole numbers, need not be of their type.
            declared.type if declared is not None and terms.selector.believes_one else None,
            terms.default,
            terms.nan_as_text,
        )


class Ready:
    """The endpoint ``GET /health/ready``: whether this server should be sent queries, or those of some applications."""

    methods = ("GET", "HEAD")
    slo_s = float("inf")
    max_body_bytes = SHORT_TEXT_BYTES
    error_json = staticmethod(responses.error_json)

    def __init__(self, why_not: str | None) -> None:
        self._why_not = why_not

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        if self._why_not is None:
            exchange.answer(200, b'{"status":"ready"}')
        else:
            exchange.refuse("unavailable", self._why_not)


class Description:
    """The endpoint ``GET /openapi.json``, which describes the port and the applications that the caller may know."""

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
        # Each part is an object: join the contents of their braces into one object.
        exchange.answer(200, b'%b,"paths":{%b}}' % (rest[:-1], b",".join(each[1:-1] for each in paths)))
