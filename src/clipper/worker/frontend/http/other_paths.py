"""Finds endpoints that depend on more of a request's head than its path, so that no table can hold them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from clipper.worker.frontend.clients import Clients
from clipper.worker.frontend.endpoint import Endpoint, Small
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http import openapi
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.inference.service import Inference
from clipper.worker.frontend.long_work import LongWork, Steps
from clipper.worker.frontend.readiness import Readiness, named
from clipper.worker.selection.application import Application

DESCRIPTION, READY = b"/openapi.json", b"/health/ready"


@dataclass(frozen=True, slots=True, eq=False)
class OtherPaths:
    """The paths of the Open Inference Protocol, the OpenAPI description and readiness, for all applications."""

    applications: Collection[Application]
    inference: Inference
    work: LongWork
    clients: Clients
    readiness: Readiness

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """Find the endpoint of a path, as ``Port.find`` does."""
        if path == DESCRIPTION:
            visible = self.clients.visible(self.applications, head.authorizations)
            return Small(lambda exchange, body: self.work.begin(exchange, len(body), self._describe(exchange, visible)))
        if path == READY:
            why_not = self.readiness.why_not(named(head.url))
            if why_not is None:
                return Small(lambda exchange, _: exchange.answer(200, b'{"status":"ready"}'))
            return Small(lambda exchange, _: exchange.refuse("unavailable", why_not))
        return self.inference.find(path, head)

    def why_not_found(self, path: bytes) -> str | None:
        """Return the cause to answer if ``find`` found nothing; None if the path is of no known form."""
        return self.inference.why_not_found(path)

    def _describe(self, exchange: Exchange, applications: Sequence[Application]) -> Steps:
        """Answer ``GET /openapi.json``: the port, and the applications that the caller may know."""
        frame = openapi.frame()
        paths = [msgspec.json.encode(frame.pop("paths"))]
        for application in applications:
            paths.append(msgspec.json.encode(openapi.paths_of(self._described(application))))
            yield
        rest = msgspec.json.encode(frame)
        # Each part is an object: join the contents of their braces into one object.
        exchange.answer(200, b'%b,"paths":{%b}}' % (rest[:-1], b",".join(each[1:-1] for each in paths)))

    def _described(self, application: Application) -> openapi.Described:
        terms = application.terms
        declared = terms.declared_outputs()
        return openapi.Described(
            application.name,
            terms.input_type,
            terms.slo_s,
            terms.features_size,
            self.clients.needs_key(application),
            terms.ignores_unknown_fields,
            # A policy's answer from several outputs, such as a mean of whole numbers, need not be of their type.
            declared.type if declared is not None and terms.selector.believes_one else None,
            terms.default,
            terms.nan_as_text,
        )
