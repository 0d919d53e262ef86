"""Answers each method of the services. The module knows messages and clients, and nothing of streams."""

from collections.abc import Callable, Iterable, Mapping

from clipper.errors import NotFound, NotImplementedYet
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.endpoints import Observe
from clipper.worker.frontend.inference import metadata
from clipper.worker.frontend.inference.framing import inflate
from clipper.worker.frontend.inference.service import UNSUPPORTED, Serving, model_metadata, versions_of
from clipper.worker.frontend.long_work import Steps
from clipper.worker.frontend.rpc import feedback
from clipper.worker.frontend.rpc.calls import Call, check_size
from clipper.worker.frontend.rpc.infer import InferCall, KnownHeads, ModelInfer
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
# Triton's methods that are not supported, by their subject.
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


# A function that answers a call, now or later. It may raise ClipperError.
Unary = Callable[[Call], None]


class Services:
    """The services for all applications of the snapshot in force."""

    def __init__(self, serving: Serving) -> None:
        self._serving, self._port, self._clients = serving, serving.port, serving.clients
        self._readiness = readiness = serving.readiness
        self._known = KnownHeads()
        self._infer: dict[str, ModelInfer] = {}
        self._observe: dict[str, Observe] = {}
        # The bound holds for both kinds of large messages.
        self.most_message_bytes = serving.max_body_bytes
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
                    (METHODS["ServerMetadata"], lambda asked, call: serving.server_metadata()),
                    (METHODS["ModelMetadata"], lambda asked, call: model_metadata(*self._named(asked, call))),
                    (
                        METHODS["ModelConfig"],
                        lambda asked, call: {"config": serving.config(*self._named(asked, call))},
                    ),
                    (METHODS["RepositoryIndex"], self._index),
                    (CHECK, lambda asked, call: {"status": self.health(asked.get("service", ""))}),
                )
            },
        }
        self.follow(serving.applications.values())

    def follow(self, applications: Iterable[Application], gone: Iterable[str] = ()) -> None:
        """Serve these applications, too, by their present terms; no longer serve those with the names in ``gone``."""
        self._known.forget()
        for name in gone:
            self._infer.pop(name, None)
            self._observe.pop(name, None)
        work, most_bytes = self._port.work, self._serving.max_body_bytes
        for application in applications:
            self._infer[application.name] = ModelInfer(application, work, most_bytes, self._known)
            self._observe[application.name] = observe = self._serving.observe(application)
            # The bound does not fall when an application is gone: to look at all of a thousand takes as long as the
            # rest.
            self.most_message_bytes = max(self.most_message_bytes, observe.max_body_bytes)

    def health(self, service: str) -> str:
        """Return whether a service, or an application by its name, should be sent queries. Raises NotFound.

        An empty name means the whole server, which serves until it is stopping. Balancers usually name no service, and
        have to leave the server then.
        """
        if not service:
            return "NOT_SERVING" if self._readiness.is_stopping else "SERVING"
        if service not in SERVICES and service not in self._serving.applications:
            expected = f"{', '.join(SERVICES)}, an application, or none"
            raise NotFound(f"service {service[:100]!r} is not known: expected one of {expected}")
        why_not = self._readiness.why_not(() if service in SERVICES else (service,))
        return "SERVING" if why_not is None else "NOT_SERVING"

    # -- queries -------------------------------------------------------------------------------------------

    def infer(self, call: Call) -> None:
        asked = self._asked(call)
        check_size(len(call.message), asked.max_body_bytes)
        endpoint = self._clients.entered(asked.of.application, asked, call.authorizations)
        message = call.message
        call.ask(lambda exchange, *when: endpoint.handle(exchange, message, *when), asked.of, asked.slo_s)

    def _asked(self, call: Call) -> InferCall:
        asked = self._known.find(call.message)
        # A long message that came before the last snapshot may have been remembered after it.
        if asked is None or self._infer.get(asked.of.application.name) is not asked.of:
            model, version = who_is_asked(memoryview(call.message))
            application = self._application(model, version)
            asked = InferCall(self._infer[application.name], version, application.terms.slo_s)
        asked.deadline_s = call.deadline_s
        return asked

    def _application(self, model: str, version: str | None) -> Application:
        """Return an application that is served. Raises NotFound."""
        application = self._serving.find(model, version)
        if application is None or model not in self._infer:  # the application may only begin to be served
            raise NotFound(self._serving.why_not_found(model, version))
        return application

    # -- feedback ------------------------------------------------------------------------------------------

    def _feedback(self, call: Call) -> None:
        name, observations = feedback.split_request(memoryview(call.message))
        application = self._application(name, None)
        observe = self._observe[name]
        check_size(len(call.message), observe.max_body_bytes)
        endpoint = self._clients.entered(application, observe, call.authorizations)
        work, size_bytes, count = self._port.work, len(call.message), len(observations)

        def handed_on(exchange: Exchange, arrived_s: float, is_late: bool) -> Steps:
            endpoint.handle(exchange, (yield from feedback.as_body(observations)), arrived_s, is_late)

        def told_of(exchange: Exchange, answer: bytes) -> Steps:
            exchange.respond((yield from feedback.as_response(answer, count)))

        def then(answer: bytes) -> None:
            call.ask(lambda exchange, *_: work.begin(exchange, len(answer), told_of(exchange, answer)))

        call.ask(lambda exchange, *when: work.begin(exchange, size_bytes, handed_on(exchange, *when)), then=then)

    # -- messages of any method ------------------------------------------------------------------------------

    def inflated(self, call: Call, encoding: bytes, method: Unary) -> None:
        """Have a method answer a call with a compressed message."""
        work, compressed = self._port.work, call.message

        def then(message: bytes) -> None:
            call.message = message
            method(call)

        def inflating(exchange: Exchange) -> Steps:
            most_bytes, budget = self.most_message_bytes, self._port.budget
            exchange.respond(bytes((yield from inflate(compressed, encoding, most_bytes, budget))))

        call.ask(lambda exchange, *_: work.begin(exchange, len(compressed), inflating(exchange), asks=self), then=then)

    def reflected(self, call: Call) -> None:
        """Answer a request of the reflection service."""
        message = call.message

        def reflecting(exchange: Exchange) -> Steps:
            yield  # answers are a hundred times as long as requests: do not make many of them in a turn
            exchange.respond(reflect(message))

        call.ask(lambda exchange, *_: self._port.work.begin(exchange, len(message), reflecting(exchange)))

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
        try:
            return {"ready": self._readiness.of_model(*self._named(asked, call))}
        except NotFound:  # Triton answers this
            return {"ready": False}

    def _index(self, asked: Values, call: Call) -> Values:
        visible = self._serving.visible(call.authorizations)
        versions = {application.name: application.terms.versions() for application in visible}
        return {"models": metadata.index(versions, asked.get("ready", False))}

    def _statistics(self, call: Call) -> None:
        method = METHODS["ModelStatistics"]
        asked = decode(method.request, memoryview(call.message))
        if asked.get("name"):
            found = [self._named(asked, call)]
        else:
            found = [(application, None) for application in self._serving.visible(call.authorizations)]
        versions = {application.name: versions_of(application, version) for application, version in found}

        def begin(exchange: Exchange, arrived_s: float, is_late: bool) -> None:
            self._serving.statistics.ask(
                exchange,
                metadata.asked_models(versions),
                lambda workers: exchange.respond(encode(method.reply, metadata.statistics(versions, workers))),
            )

        call.ask(begin)


def _unsupported(why: str) -> Unary:
    def refuse(call: Call) -> None:
        raise NotImplementedYet(why)

    return refuse
