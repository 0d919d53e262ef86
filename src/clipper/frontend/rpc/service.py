"""What each method of the services does, for who calls it; it knows messages, and nothing of how calls come."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from clipper.errors import ClipperError, NotFound
from clipper.frontend.clients import Clients, Guarded
from clipper.frontend.endpoints import Endpoint, FeedbackTaker, Observe
from clipper.frontend.exchange import Exchange
from clipper.frontend.inference import metadata
from clipper.frontend.inference.service import (
    UNSUPPORTED,
    StatisticsReader,
    StatisticsSource,
    is_model_ready,
    model_metadata,
    why_not_known,
)
from clipper.frontend.port import Port
from clipper.frontend.rpc import feedback
from clipper.frontend.rpc.calls import Call, Refused, check_size
from clipper.frontend.rpc.infer import Asked, KnownHeads, ModelInfer
from clipper.frontend.rpc.protocols import CLIPPER, HEALTH, OPEN_INFERENCE
from clipper.frontend.rpc.requests import who_is_asked
from clipper.frontend.rpc.schema import Method
from clipper.frontend.rpc.wire import Values, decode, delimited, encode
from clipper.selection.application import Application

_INFERENCE = OPEN_INFERENCE.services[0]
METHODS = _INFERENCE.methods
CHECK, WATCH = (HEALTH.services[0].methods[name] for name in ("Check", "Watch"))
OBSERVE = CLIPPER.services[0].methods["Observe"]
SERVICES = (_INFERENCE.name, CLIPPER.services[0].name)
# Triton's methods that are not supported, by what they are about.
UNSUPPORTED_METHODS = {
    f"/{_INFERENCE.name}/{name}": UNSUPPORTED[why]
    for why, names in {
        "load": "RepositoryModelLoad RepositoryModelUnload",
        "shared_memory": " ".join(
            f"{kind}SharedMemory{action}"
            for kind in ("System", "Cuda")
            for action in ("Status", "Register", "Unregister")
        ),
        "trace": "TraceSetting",
        "logging": "LogSettings",
    }.items()
    for name in names.split()
}


class Caller(NamedTuple):
    """Who calls.

    Attributes:
        authorizations: what was sent as ``authorization``.
        deadline_s: by when an answer is wanted, on the loop's clock; None if at any time.
    """

    authorizations: Sequence[bytes]
    deadline_s: float | None


# Raises ClipperError or Refused.
Unary = Callable[[bytes, Caller], Awaitable[bytes]]


class Services:
    """All of one snapshot's applications."""

    def __init__(
        self,
        applications: Iterable[Application],
        taker: FeedbackTaker,
        statistics: StatisticsSource,
        port: Port,
        max_body_bytes: int,
        clients: Clients,
    ) -> None:
        self._port = port
        self._clients = clients
        self._known = KnownHeads()
        self._applications = {application.name: application for application in applications}
        self._infer = {
            name: ModelInfer(application, port.refused, port.work, max_body_bytes, self._known)
            for name, application in self._applications.items()
        }
        self._observe = {
            name: Observe(application, taker, port.refused, port.work, max_body_bytes)
            for name, application in self._applications.items()
        }
        self._teller = StatisticsReader(statistics)
        endpoints: list[Endpoint] = list(self._observe.values())
        # Of both kinds of messages that are large.
        self.most_message_bytes = max([max_body_bytes, *(each.max_body_bytes for each in endpoints)])
        self.unary: Mapping[str, Unary] = {
            METHODS["ModelInfer"].path: self.infer,
            METHODS["ModelStatistics"].path: self._statistics,
            OBSERVE.path: self._feedback,
            **{
                method.path: self._plain(method, tell)
                for method, tell in (
                    (METHODS["ServerLive"], lambda asked, caller: {"live": True}),
                    (METHODS["ServerReady"], lambda asked, caller: {"ready": self.is_ready}),
                    (METHODS["ModelReady"], self._model_ready),
                    (METHODS["ServerMetadata"], self._server_metadata),
                    (METHODS["ModelMetadata"], self._model_metadata),
                    (METHODS["ModelConfig"], self._model_config),
                    (METHODS["RepositoryIndex"], self._index),
                    (CHECK, lambda asked, caller: {"status": self.health(asked.get("service", ""))}),
                )
            },
        }

    @property
    def is_ready(self) -> bool:
        return all(application.terms.is_ready for application in self._applications.values())

    def health(self, service: str) -> str:
        """Of the server as a whole, which answers, or of a service: whether queries can be answered.

        Raises:
            NotFound: there is no such service.
        """
        if not service:
            return "SERVING"
        if service not in SERVICES:
            raise NotFound(f"service {service[:100]!r} is not known: expected one of {', '.join(SERVICES)}, or none")
        return "SERVING" if self.is_ready else "NOT_SERVING"

    # -- queries -------------------------------------------------------------------------------------------

    async def infer(self, message: bytes, caller: Caller) -> bytes:
        asked = self._asked(message, caller)
        check_size(len(message), asked.max_body_bytes)
        endpoint = self._entered(asked.of.application, asked, caller)
        call = Call(self._port, lambda exchange, *when: endpoint.handle(exchange, message, *when))
        return await call.answer(asked.of, asked.slo_s, len(message))

    async def infer_in_stream(self, message: bytes, caller: Caller) -> bytes:
        """As ``infer``, of one of a stream's requests: an error is an answer, too."""
        try:
            return delimited(2, await self.infer(message, caller))
        except Refused as error:
            return delimited(1, str(error).encode())
        except ClipperError as error:
            self._port.count_refused(error.code)
            return delimited(1, str(error).encode())

    def _asked(self, message: bytes, caller: Caller) -> Asked:
        asked = self._known.find(message)
        if asked is None:
            model, version = who_is_asked(memoryview(message))
            application = self._application(model, version)
            asked = Asked(self._infer[application.name], version, application.terms.slo_s)
        asked.deadline_s = caller.deadline_s
        return asked

    def _application(self, model: str, version: str | None) -> Application:
        """Raises NotFound."""
        application = self._applications.get(model)
        if application is None or (version is not None and version not in application.terms.versions()):
            raise NotFound(why_not_known(model, version, application is not None))
        return application

    def _entered(self, application: Application, endpoint: Endpoint, caller: Caller) -> Endpoint:
        guarded = self._clients.guarded(application, endpoint)
        return guarded.enter(caller.authorizations) if isinstance(guarded, Guarded) else guarded

    # -- feedback ------------------------------------------------------------------------------------------

    async def _feedback(self, message: bytes, caller: Caller) -> bytes:
        name, observations = feedback.split_request(memoryview(message))
        application = self._application(name, None)
        observe = self._observe[name]
        check_size(len(message), observe.max_body_bytes)
        endpoint = self._entered(application, observe, caller)
        body = await feedback.as_body(observations)
        answer = await Call(self._port, lambda exchange, *when: endpoint.handle(exchange, body, *when)).answer()
        return await feedback.as_response(answer, len(observations))

    # -- what is told ----------------------------------------------------------------------------------------

    def _plain(self, method: Method, tell: Callable[[Values, Caller], Values]) -> Unary:
        async def answer(message: bytes, caller: Caller) -> bytes:
            return encode(method.reply, tell(decode(method.request, memoryview(message)), caller))

        return answer

    def _named(self, asked: Values, caller: Caller) -> tuple[Application, str | None]:
        """Raises NotFound, Unauthorized, Forbidden."""
        application = self._application(asked.get("name", ""), asked.get("version") or None)
        self._clients.check(application, caller.authorizations)
        return application, asked.get("version") or None

    def _model_ready(self, asked: Values, caller: Caller) -> Values:
        return {"ready": is_model_ready(*self._named(asked, caller))}

    def _server_metadata(self, asked: Values, caller: Caller) -> Values:
        applications = self._applications.values()
        return metadata.server(version for application in applications for version in application.terms.versions())

    def _model_metadata(self, asked: Values, caller: Caller) -> Values:
        return model_metadata(*self._named(asked, caller))

    def _model_config(self, asked: Values, caller: Caller) -> Values:
        return {"config": metadata.config(model_metadata(*self._named(asked, caller)))}

    def _index(self, asked: Values, caller: Caller) -> Values:
        found = metadata.index(
            {application.name: application.terms.versions() for application in self._visible(caller)}
        )
        return {"models": [each for each in found if each["state"] == "READY" or not asked.get("ready")]}

    def _visible(self, caller: Caller) -> list[Application]:
        return self._clients.visible(self._applications.values(), caller.authorizations)

    async def _statistics(self, message: bytes, caller: Caller) -> bytes:
        method = METHODS["ModelStatistics"]
        asked = decode(method.request, memoryview(message))
        applications = [self._named(asked, caller)[0]] if asked.get("name") else self._visible(caller)
        versions = {application.name: application.terms.versions() for application in applications}

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            self._teller.ask(
                exchange, lambda workers: exchange.respond(encode(method.reply, metadata.statistics(versions, workers)))
            )

        return await Call(self._port, begin).answer()
