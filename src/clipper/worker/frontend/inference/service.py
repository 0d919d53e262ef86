"""Endpoints of the Open Inference Protocol, whose models are the applications of the snapshot in force."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from clipper.control.statistics import WorkerStatistics
from clipper.errors import ClipperError, MalformedRequest
from clipper.values.decoding import NOT_JSON
from clipper.values.types import ModelId
from clipper.worker.frontend.clients import Clients
from clipper.worker.frontend.endpoint import Endpoint, Small
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.endpoints import FeedbackTaker, Observe, most_body_bytes
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.inference import metadata
from clipper.worker.frontend.inference.feedback import FeedbackReader
from clipper.worker.frontend.inference.framing import error_json
from clipper.worker.frontend.inference.infer import Call, Infer, Predict
from clipper.worker.frontend.inference.invocations import Invocations, PredictionsCodec, read_csv, read_invocation
from clipper.worker.frontend.inference.observe import ObserveCall
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.paths import Target, read_path
from clipper.worker.frontend.inference.score import ScoreCall
from clipper.worker.frontend.long_work import LongWork, Steps
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.selection.application import Application

log = logging.getLogger(__name__)

StatisticsSource = Callable[[Collection[ModelId]], Awaitable[Sequence[WorkerStatistics]]]

ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "DELETE")
UNSUPPORTED = {
    "load": "the query port loads and unloads no models: the management API does so at this path, for a token of the "
    "role admin; clipper deploy deploys a model",
    "shared_memory": "shared memory is not supported: send tensors in the request",
    "trace": "trace settings are not supported",
    "logging": "log settings are not supported",
    "parts": "a query has one answer, and not several parts: call infer, for which the model returns all of its output",
}
UNKNOWN_PATH = (
    "nothing at {!r}: expected /v2/models/MODEL or, behind it, /infer, /ready, /config, /stats, /predict, "
    "/observe or /score; "
    "/v2/health/live, /v2/health/ready, /v2/models/stats, /v2/repository/index, or /v2"
)


@dataclass(frozen=True, slots=True)
class Serving:
    """The common state of the fronts for REST and gRPC. ``applications``: the applications of the snapshot in force, by
    name. Fronts are told when an application changes.
    """

    applications: Mapping[str, Application]
    taker: FeedbackTaker
    statistics: "StatisticsReader"
    port: Port
    clients: Clients
    readiness: Readiness
    max_body_bytes: int

    def find(self, model: str, version: str | None) -> Application | None:
        """Return the application of this name, if this version of its models runs."""
        application = self.applications.get(model)
        is_known = application is not None and (version is None or version in application.terms.versions())
        return application if is_known else None

    def why_not_found(self, model: str, version: str | None) -> str:
        if model in self.applications:
            return f"model {model!r} has no running version {(version or '')[:100]!r}"
        return (
            f"model {model[:100]!r} does not exist: the models of this protocol are the applications, which `clipper "
            "app list` shows"
        )

    def visible(self, authorizations: Sequence[bytes]) -> list[Application]:
        """Return the applications that a client with these headers may know about."""
        return self.clients.visible(self.applications.values(), authorizations)

    def observe(self, application: Application) -> Observe:
        return Observe(application, self.taker, self.port.work, self.max_body_bytes)

    def config(self, application: Application, version: str | None) -> metadata.Json:
        terms = application.terms
        most_bytes = most_body_bytes(terms.input_type.elements, terms.max_batch, self.max_body_bytes)
        most_rows = metadata.most_rows(terms.input_type, terms.features_size, most_bytes)
        return metadata.config(model_metadata(application, version), most_rows)

    def server_metadata(self) -> metadata.Json:
        applications = self.applications.values()
        return metadata.server(version for application in applications for version in application.terms.versions())


class Inference:
    """All paths that begin with ``/v2``, unless an application has that name; and those of MLflow's clients."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._infer: dict[str, Infer] = {}
        self._predict: dict[str, Predict] = {}
        # In JSON, and in CSV.
        self._invocations: dict[str, tuple[Invocations, Invocations]] = {}
        self._observe: dict[str, tuple[Observe, FeedbackReader]] = {}
        self.follow(serving.applications.values())

    def follow(self, applications: Iterable[Application], gone: Iterable[str] = ()) -> None:
        """Serve these applications, too, by their present terms; no longer serve those with the names in ``gone``."""
        for name in gone:
            for known in (self._infer, self._predict, self._invocations, self._observe):
                known.pop(name, None)
        work, most_bytes = self._serving.port.work, self._serving.max_body_bytes
        for application in applications:
            name, terms = application.name, application.terms
            self._infer[name] = Infer(application, work, most_bytes)
            self._predict[name] = Predict(application, work, most_bytes)
            infer = Infer(application, work, most_bytes, PredictionsCodec())
            read_table = partial(read_csv, terms.input_type)
            self._invocations[name] = Invocations(infer, read_invocation), Invocations(infer, read_table)
            reader = FeedbackReader(
                terms.input_type,
                terms.features_size,
                terms.features_are_input,
                terms.null_is_nan,
                terms.ignores_unknown_fields,
            )
            self._observe[name] = self._serving.observe(application), reader

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """Return the endpoint for this path and this head's client, if there is one. Raises as ``Guarded.enter``."""
        asked = read_path(path)
        if asked is None:
            return None
        if (why := UNSUPPORTED.get(asked.kind)) is not None:
            return Small(lambda exchange, _: exchange.refuse("not_implemented", why), ANY_METHOD, error_json)
        if asked.model is None:
            return self._find_of_server(asked, head)
        serving = self._serving
        application = serving.find(asked.model, asked.version)
        if application is None or application.name not in self._infer:  # the application may only begin to be served
            return None
        endpoint: Endpoint
        match asked.kind:
            case "infer":
                endpoint = Call(self._infer[application.name], asked.version, head)
            case "predict":
                endpoint = Call(self._predict[application.name], asked.version, head)
            case "invocations":
                endpoint = self._invocations[application.name][head.is_csv]
            case "score":
                endpoint = ScoreCall(application, asked.version, serving.port.work, serving.max_body_bytes)
            case "observe":
                endpoint = ObserveCall(*self._observe[application.name], serving.port.work, head)
            case _:
                serving.clients.check(application, head.authorizations)
                return self._find_of_model(asked, application)
        return serving.clients.entered(application, endpoint, head.authorizations)

    def why_not_found(self, path: bytes) -> str | None:
        """Return the cause to answer if ``find`` found nothing; None if the protocol has no such path."""
        asked = read_path(path)
        if asked is not None and asked.model is not None:
            return self._serving.why_not_found(asked.model, asked.version)
        return UNKNOWN_PATH.format(path[:200].decode("latin-1")) if path.split(b"/")[1:2] == [b"v2"] else None

    def _find_of_model(self, asked: Target, application: Application) -> Endpoint:
        name = application.name
        if asked.kind == "model_ready":
            is_ready = self._serving.readiness.of_model(application, asked.version)
            return fixed({"name": name, "ready": is_ready}, 200 if is_ready else 503)
        if asked.kind == "statistics":
            return self._statistics_of([application], asked.version)
        if asked.kind == "config":
            return fixed(self._serving.config(application, asked.version))
        of_model = model_metadata(application, asked.version)
        terms = application.terms
        parameters = {"slo_ms": terms.slo_s * 1000, "input_type": str(terms.input_type)}
        return fixed(of_model | {"parameters": parameters})

    def _find_of_server(self, asked: Target, head: Head) -> Endpoint:
        serving = self._serving
        match asked.kind:
            case "live":
                return fixed({"live": True})
            case "ready":
                is_ready = serving.readiness.is_ready
                return fixed({"live": True, "ready": is_ready}, 200 if is_ready else 503)
            case "statistics":
                return self._statistics_of(serving.visible(head.authorizations))
            case "index":
                return index_of(serving.visible(head.authorizations))
        return fixed(serving.server_metadata())

    def _statistics_of(self, applications: Sequence[Application], version: str | None = None) -> Endpoint:
        def answer(exchange: Exchange, body: bytes | bytearray) -> None:
            asked = {application.name: versions_of(application, version) for application in applications}
            self._serving.statistics.ask(
                exchange,
                metadata.asked_models(asked),
                lambda workers: exchange.answer(200, msgspec.json.encode(metadata.statistics(asked, workers))),
            )

        return Small(answer, error_json=error_json)


def versions_of(application: Application, version: str | None) -> metadata.Versions:
    """Return the running versions of an application's models, or only the one that a request names."""
    versions = application.terms.versions()
    return versions if version is None else {version: versions[version]}


def model_metadata(application: Application, version: str | None) -> metadata.Json:
    terms = application.terms
    return metadata.model(
        application.name,
        [version] if version else list(terms.versions()),
        terms.input_type,
        terms.features_size,
        OutputTensors(terms.outputs(version)),
    )


def fixed(value: object, status: int = 200) -> Small:
    text = msgspec.json.encode(value)
    return Small(lambda exchange, _: exchange.answer(status, text), error_json=error_json)


class _IndexBody(msgspec.Struct):
    ready: bool = False


def index_of(applications: Sequence[Application]) -> Small:
    """Answer ``POST /v2/repository/index``: list all models, or those that are ready."""

    def answer(exchange: Exchange, body: bytes | bytearray) -> None:
        try:
            only_ready = bool(body) and msgspec.json.decode(body, type=_IndexBody).ready
        except NOT_JSON as error:
            raise MalformedRequest(f'body is not valid: {error}: expected {{"ready": true or false}}') from error
        versions = {application.name: application.terms.versions() for application in applications}
        exchange.answer(200, msgspec.json.encode(metadata.index(versions, only_ready)))

    return Small(answer, ("POST",), error_json)


class StatisticsReader:
    """Asks all workers for the statistics of versions. Requests that come meanwhile share the next answer.

    Each request in progress waits at most twice, which is the bound.
    """

    def __init__(self, source: StatisticsSource, work: LongWork) -> None:
        self._source, self._work = source, work
        self._waiting: list[tuple[Exchange, Collection[ModelId], Callable[[Sequence[WorkerStatistics]], None]]] = []
        self._task: asyncio.Task[None] | None = None

    def ask(
        self, exchange: Exchange, versions: Collection[ModelId], answer: Callable[[Sequence[WorkerStatistics]], None]
    ) -> None:
        self._waiting.append((exchange, versions, answer))
        if self._task is None:
            self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                workers = await self._source(frozenset(one for _, versions, _ in waiting for one in versions))
            except Exception as error:  # every request must be answered
                log.exception("failed to gather the workers' statistics")
                for exchange, _, _ in waiting:
                    exchange.refuse(ClipperError.code, f"{type(error).__name__}: {error}")
                continue
            for exchange, _, answer in waiting:
                self._work.begin(exchange, 0, _once(partial(answer, workers)))
        self._task = None


def _once(answer: Callable[[], None]) -> Steps:
    """Answer in a step of its own, in its turn, since many may ask at once."""
    yield
    answer()
