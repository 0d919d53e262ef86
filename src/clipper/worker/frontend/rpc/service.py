"""What each method of the services does, for who calls it; it knows messages, and nothing of how calls come."""

from collections.abc import Callable, Iterable, Mapping

from clipper.errors import ClipperError, MalformedRequest, NotFound, NotImplementedYet
from clipper.worker.frontend.clients import Clients, Guarded
from clipper.worker.frontend.endpoint import Endpoint
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.endpoints import FeedbackTaker, Observe
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.inference import metadata
from clipper.worker.frontend.inference.inflate import inflate
from clipper.worker.frontend.inference.service import (
    UNSUPPORTED,
    StatisticsReader,
    StatisticsSource,
    model_metadata,
    why_not_known,
)
from clipper.worker.frontend.long_work import Steps
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.frontend.rpc import feedback
from clipper.worker.frontend.rpc.calls import Call, check_size
from clipper.worker.frontend.rpc.infer import Asked, KnownHeads, ModelInfer
from clipper.worker.frontend.rpc.protocols import CLIPPER, HEALTH, OPEN_INFERENCE
from clipper.worker.frontend.rpc.reflection import reflect
from clipper.worker.frontend.rpc.requests import who_is_asked
from clipper.worker.frontend.rpc.schema import Method
from clipper.worker.frontend.rpc.wire import Values, decode, encode
from clipper.worker.selection.application import Application

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


# Answers a call, now or later. It may raise ClipperError.
Unary = Callable[[Call], None]


class Services:
    """All applications of the snapshot in force."""

    def __init__(
        self,
        applications: Iterable[Application],
        taker: FeedbackTaker,
        statistics: StatisticsSource,
        port: Port,
        max_body_bytes: int,
        clients: Clients,
        readiness: Readiness,
    ) -> None:
        self._port = port
        self._readiness = readiness
        self._clients = clients
        self._known = KnownHeads()
        self._taker, self._max_body_bytes = taker, max_body_bytes
        self._applications: dict[str, Application] = {}
        self._infer: dict[str, ModelInfer] = {}
        self._observe: dict[str, Observe] = {}
        # Of both kinds of messages that are large.
        self.most_message_bytes = max_body_bytes
        self._teller = StatisticsReader(statistics, port.work)
        self.unary: Mapping[str, Unary] = {
            METHODS["ModelInfer"].path: self.infer,
            METHODS["ModelStatistics"].path: self._statistics,
            OBSERVE.path: self._feedback,
            **{path: _unsupported(why) for path, why in UNSUPPORTED_METHODS.items()},
            **{
                method.path: self._plain(method, tell)
                for method, tell in (
                    (METHODS["ServerLive"], lambda asked, call: {"live": True}),
                    (METHODS["ServerReady"], lambda asked, call: {"ready": readiness.is_ready}),
                    (METHODS["ModelReady"], self._model_ready),
                    (METHODS["ServerMetadata"], self._server_metadata),
                    (METHODS["ModelMetadata"], self._model_metadata),
                    (METHODS["ModelConfig"], self._model_config),
                    (METHODS["RepositoryIndex"], self._index),
                    (CHECK, lambda asked, call: {"status": self.health(asked.get("service", ""))}),
                )
            },
        }
        self.follow(applications)

    def follow(self, applications: Iterable[Application], gone: Iterable[str] = ()) -> None:
        """Serve these applications, too, by their present terms, and those of the names ``gone`` no more."""
        self._known.forget()
        for name in gone:
            for known in (self._applications, self._infer, self._observe):
                known.pop(name, None)
        made = self._port.refused, self._port.work, self._max_body_bytes
        for application in applications:
            self._applications[application.name] = application
            self._infer[application.name] = ModelInfer(application, *made, self._known)
            self._observe[application.name] = Observe(application, self._taker, *made)
            # It does not fall when one is gone: to look at all of a thousand takes as long as the rest.
            self.most_message_bytes = max(self.most_message_bytes, self._observe[application.name].max_body_bytes)

    def health(self, service: str) -> str:
        """Of a service, or of an application by its name: whether it should be sent queries. Of the server as a whole,
        unless it is stopping: it lives.

        A balancer that names no service, as is usual, has to leave a server that is stopping, too.

        Raises:
            NotFound: there is no such service.
        """
        if not service:
            return "NOT_SERVING" if self._readiness.is_stopping else "SERVING"
        if service not in SERVICES and service not in self._applications:
            expected = f"{', '.join(SERVICES)}, an application, or none"
            raise NotFound(f"service {service[:100]!r} is not known: expected one of {expected}")
        why_not = self._readiness.why_not(() if service in SERVICES else (service,))
        return "SERVING" if why_not is None else "NOT_SERVING"

    # -- queries -------------------------------------------------------------------------------------------

    def infer(self, call: Call) -> None:
        asked = self._asked(call)
        check_size(len(call.message), asked.max_body_bytes)
        endpoint = self._entered(asked.of.application, asked, call)
        message = call.message
        call.ask(lambda exchange, *when: endpoint.handle(exchange, message, *when), asked.of, asked.slo_s)

    def _asked(self, call: Call) -> Asked:
        asked = self._known.find(call.message)
        # A long message that came before the last snapshot may have been remembered after it.
        if asked is None or self._infer.get(asked.of.application.name) is not asked.of:
            model, version = who_is_asked(memoryview(call.message))
            application = self._application(model, version)
            asked = Asked(self._infer[application.name], version, application.terms.slo_s)
        asked.deadline_s = call.deadline_s
        return asked

    def _application(self, model: str, version: str | None) -> Application:
        """Raises NotFound."""
        application = self._applications.get(model)
        if application is None or (version is not None and version not in application.terms.versions()):
            raise NotFound(why_not_known(model, version, application is not None))
        return application

    def _entered(self, application: Application, endpoint: Endpoint, call: Call) -> Endpoint:
        guarded = self._clients.guarded(application, endpoint)
        return guarded.enter(call.authorizations) if isinstance(guarded, Guarded) else guarded

    # -- feedback ------------------------------------------------------------------------------------------

    def _feedback(self, call: Call) -> None:
        name, observations = feedback.split_request(memoryview(call.message))
        application = self._application(name, None)
        observe = self._observe[name]
        check_size(len(call.message), observe.max_body_bytes)
        endpoint = self._entered(application, observe, call)
        work, size_bytes, count = self._port.work, len(call.message), len(observations)

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            work.begin(exchange, size_bytes, self._handed_on(exchange, endpoint, observations, arrived_s, is_late))

        def then(answer: bytes) -> None:
            call.ask(
                lambda exchange, *_: work.begin(exchange, len(answer), self._told_of(exchange, answer, count)),
            )

        call.ask(begin, then=then)

    def _handed_on(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        observations: list[memoryview],
        arrived_s: float,
        is_late: bool,
    ) -> Steps:
        try:
            body = yield from feedback.as_body(observations)
        except ClipperError as error:
            self._refuse(exchange, error)
        else:
            endpoint.handle(exchange, body, arrived_s, is_late)

    def _told_of(self, exchange: Exchange, answer: bytes, count: int) -> Steps:
        try:
            exchange.respond((yield from feedback.as_response(answer, count)))
        except MalformedRequest as error:
            self._refuse(exchange, error)

    def _refuse(self, exchange: Exchange, error: ClipperError) -> None:
        self._port.count_refused(error.code)
        exchange.refuse_with(error)

    # -- messages of any method ------------------------------------------------------------------------------

    def inflated(self, call: Call, encoding: bytes, method: Unary) -> None:
        """Have a method answer a call whose message is compressed."""
        work, compressed = self._port.work, call.message

        def then(message: bytes) -> None:
            call.message = message
            method(call)

        call.ask(
            lambda exchange, *_: work.begin(
                exchange, len(compressed), self._inflating(exchange, compressed, encoding), asks=self
            ),
            then=then,
        )

    def _inflating(self, exchange: Exchange, message: bytes, encoding: bytes) -> Steps:
        try:
            whole = yield from inflate(message, encoding, self.most_message_bytes, self._port.budget)
        except ClipperError as error:
            self._refuse(exchange, error)
        else:
            exchange.respond(bytes(whole))

    def reflected(self, call: Call) -> None:
        """Answer one request of the reflection service."""
        message = call.message
        call.ask(
            lambda exchange, *_: self._port.work.begin(exchange, len(message), self._reflecting(exchange, message))
        )

    def _reflecting(self, exchange: Exchange, message: bytes) -> Steps:
        # Answers are a hundred times as long as requests: not many of them are made in one turn.
        yield
        try:
            exchange.respond(reflect(message))
        except ClipperError as error:
            self._refuse(exchange, error)

    # -- what is told ----------------------------------------------------------------------------------------

    def _plain(self, method: Method, tell: Callable[[Values, Call], Values]) -> Unary:
        def answer(call: Call) -> None:
            call.answer(encode(method.reply, tell(decode(method.request, memoryview(call.message)), call)))

        return answer

    def _named(self, asked: Values, call: Call) -> tuple[Application, str | None]:
        """Raises NotFound, Unauthorized, Forbidden."""
        application = self._application(asked.get("name", ""), asked.get("version") or None)
        self._clients.check(application, call.authorizations)
        return application, asked.get("version") or None

    def _model_ready(self, asked: Values, call: Call) -> Values:
        return {"ready": self._readiness.of_model(*self._named(asked, call))}

    def _server_metadata(self, asked: Values, call: Call) -> Values:
        applications = self._applications.values()
        return metadata.server(version for application in applications for version in application.terms.versions())

    def _model_metadata(self, asked: Values, call: Call) -> Values:
        return model_metadata(*self._named(asked, call))

    def _model_config(self, asked: Values, call: Call) -> Values:
        return {"config": metadata.config(model_metadata(*self._named(asked, call)))}

    def _index(self, asked: Values, call: Call) -> Values:
        found = metadata.index({application.name: application.terms.versions() for application in self._visible(call)})
        return {"models": [each for each in found if each["state"] == "READY" or not asked.get("ready")]}

    def _visible(self, call: Call) -> list[Application]:
        return self._clients.visible(self._applications.values(), call.authorizations)

    def _statistics(self, call: Call) -> None:
        method = METHODS["ModelStatistics"]
        asked = decode(method.request, memoryview(call.message))
        applications = [self._named(asked, call)[0]] if asked.get("name") else self._visible(call)
        versions = {application.name: application.terms.versions() for application in applications}

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            self._teller.ask(
                exchange,
                metadata.asked_models(versions),
                lambda workers: exchange.respond(encode(method.reply, metadata.statistics(versions, workers))),
            )

        call.ask(begin)


def _unsupported(why: str) -> Unary:
    def refuse(call: Call) -> None:
        raise NotImplementedYet(why)

    return refuse
