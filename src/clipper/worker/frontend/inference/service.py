"""Endpoints of the Open Inference Protocol, whose models are the applications of the snapshot in force."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial

import msgspec

from clipper.control.statistics import WorkerStatistics
from clipper.errors import ClipperError
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.values.types import ModelId
from clipper.worker.frontend.clients import Clients, Guarded
from clipper.worker.frontend.endpoint import Endpoint
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.endpoints import FeedbackTaker, Observe
from clipper.worker.frontend.http.heads import Head
from clipper.worker.frontend.inference import metadata
from clipper.worker.frontend.inference.errors import error_json
from clipper.worker.frontend.inference.feedback import FeedbackReader
from clipper.worker.frontend.inference.infer import Call, Infer
from clipper.worker.frontend.inference.observe import ObserveCall
from clipper.worker.frontend.inference.paths import Asked, read_path
from clipper.worker.frontend.inference.predict import Predict
from clipper.worker.frontend.long_work import LongWork, Steps
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.selection.application import Application

log = logging.getLogger(__name__)

StatisticsSource = Callable[[Collection[ModelId]], Awaitable[Sequence[WorkerStatistics]]]

UNSUPPORTED = {
    "load": "loading and unloading models is not supported: use clipper deploy, clipper model rollback and clipper "
    "model remove, or the management API",
    "shared_memory": "shared memory is not supported: send tensors in the request",
    "trace": "trace settings are not supported",
    "logging": "log settings are not supported",
}


class Inference:
    """All paths that begin with ``/v2``, unless an application has that name.

    Args:
        applications: those to begin with; see ``follow``.
        taker: learns from feedback.
        statistics: returns what all workers have counted.
        refused: counts refused calls by error code.
        work: runs long work.
        max_body_bytes: see ``most_body_bytes``.
        clients: keys and limits.
        readiness: whether the server should be sent queries.
    """

    def __init__(
        self,
        applications: Iterable[Application],
        taker: FeedbackTaker,
        statistics: StatisticsSource,
        refused: Counter[str],
        work: LongWork,
        max_body_bytes: int,
        clients: Clients,
        readiness: Readiness,
    ) -> None:
        self._taker, self._refused, self._work, self._max_body_bytes = taker, refused, work, max_body_bytes
        self._applications: dict[str, Application] = {}
        self._infer: dict[str, Infer] = {}
        self._predict: dict[str, Predict] = {}
        self._observe: dict[str, tuple[Observe, FeedbackReader]] = {}
        self._budget = work.budget
        self._statistics = StatisticsReader(statistics, work)
        self._clients = clients
        self._readiness = readiness
        self.follow(applications)

    def follow(self, applications: Iterable[Application], gone: Iterable[str] = ()) -> None:
        """Serve these applications, too, by their present terms, and those of the names ``gone`` no more."""
        for name in gone:
            for known in (self._applications, self._infer, self._predict, self._observe):
                known.pop(name, None)
        made = self._refused, self._work, self._max_body_bytes
        for application in applications:
            name, terms = application.name, application.terms
            self._applications[name] = application
            self._infer[name] = Infer(application, *made)
            self._predict[name] = Predict(application, *made)
            reader = FeedbackReader(terms.input_type, terms.features_size, terms.features_are_input)
            self._observe[name] = Observe(application, self._taker, *made), reader

    def find(self, path: bytes, head: Head) -> Endpoint | None:
        """Return the endpoint for this path and the client that sent this head; None if there is none. Raises
        MalformedRequest, Unauthorized, Forbidden, as ``Guarded.enter``."""
        asked = read_path(path)
        if asked is None:
            return None
        if (why := UNSUPPORTED.get(asked.kind)) is not None:
            return Refuse("not_implemented", why)
        if asked.model is None:
            return self._find_of_server(asked, head)
        application = self._applications.get(asked.model)
        if application is None or (asked.version is not None and asked.version not in application.terms.versions()):
            return None
        if asked.kind == "infer":
            return self._entered(application, Call(self._infer[application.name], asked.version, head), head)
        if asked.kind == "predict":
            return self._entered(application, Call(self._predict[application.name], asked.version, head), head)
        if asked.kind == "observe":
            observe, reader = self._observe[application.name]
            return self._entered(application, ObserveCall(observe, reader, self._budget, head), head)
        self._clients.check(application, head.authorizations)
        return self._find_of_model(asked, application)

    def why_not_found(self, path: bytes) -> str | None:
        """Return the cause to answer if ``find`` found nothing; None if the path is not of the protocol."""
        asked = read_path(path)
        if asked is None or asked.model is None:
            return None
        return why_not_known(asked.model, asked.version, asked.model in self._applications)

    def _find_of_model(self, asked: Asked, application: Application) -> Endpoint:
        name = application.name
        if asked.kind == "model_ready":
            is_ready = self._readiness.of_model(application, asked.version)
            return Fixed({"name": name, "ready": is_ready}, 200 if is_ready else 503)
        if asked.kind == "statistics":
            return StatisticsOf(self._statistics, [application])
        of_model = model_metadata(application, asked.version)
        if asked.kind == "config":
            return Fixed(metadata.config(of_model))
        return Fixed(of_model | {"parameters": {"slo_ms": application.terms.slo_s * 1000}})

    def _find_of_server(self, asked: Asked, head: Head) -> Endpoint:
        applications = self._applications.values()
        match asked.kind:
            case "live":
                return Fixed({"live": True})
            case "ready":
                is_ready = self._readiness.is_ready
                return Fixed({"live": True, "ready": is_ready}, 200 if is_ready else 503)
            case "statistics":
                return StatisticsOf(self._statistics, self._clients.visible(applications, head.authorizations))
            case "index":
                return Index(self._clients.visible(applications, head.authorizations))
        return Fixed(
            metadata.server(version for application in applications for version in application.terms.versions())
        )

    def _entered(self, application: Application, endpoint: Endpoint, head: Head) -> Endpoint:
        guarded = self._clients.guarded(application, endpoint)
        return guarded.enter(head.authorizations) if isinstance(guarded, Guarded) else guarded


def why_not_known(model: str, version: str | None, is_application: bool) -> str:
    """Return the cause for a model that is not an application, or for a version that does not run."""
    if not is_application:
        return (
            f"model {model[:100]!r} is not known: a model's name is an application's, and `clipper app list` shows "
            "these"
        )
    return f"model {model!r} has no running version {(version or '')[:100]!r}"


def model_metadata(application: Application, version: str | None) -> metadata.Json:
    """Return the metadata of an application, or of one running version."""
    terms = application.terms
    return metadata.model(
        application.name,
        [version] if version else list(terms.versions()),
        terms.input_type,
        terms.features_size,
        metadata.output_type(terms.outputs(version)),
    )


class _Small:
    """An endpoint that needs no body, or a small one."""

    methods: tuple[str, ...] = ("GET", "HEAD")
    slo_s = float("inf")
    max_body_bytes = SHORT_TEXT_BYTES
    error_json = staticmethod(error_json)


class Fixed(_Small):
    """Answers with fixed JSON."""

    def __init__(self, value: object, status: int = 200) -> None:
        self._body = msgspec.json.encode(value)
        self._status = status

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.answer(self._status, self._body)


class Refuse(_Small):
    """Answers that a feature is not supported, whatever the method."""

    methods = ("GET", "HEAD", "POST", "PUT", "DELETE")

    def __init__(self, code: str, cause: str) -> None:
        self._code, self._cause = code, cause

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = error_json
        exchange.refuse(self._code, self._cause)


class _IndexBody(msgspec.Struct):
    ready: bool = False


class Index(_Small):
    """``POST /v2/repository/index``: lists all models, or those that are ready."""

    methods = ("POST",)

    def __init__(self, applications: Sequence[Application]) -> None:
        self._applications = applications

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.error_json = error_json
        try:
            only_ready = bool(body) and msgspec.json.decode(body, type=_IndexBody).ready
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            exchange.refuse("malformed_request", f'body is not valid: {error}: expected {{"ready": true or false}}')
            return
        found = metadata.index({application.name: application.terms.versions() for application in self._applications})
        shown = [each for each in found if each["state"] == "READY"] if only_ready else found
        exchange.answer(200, msgspec.json.encode(shown))


class StatisticsOf(_Small):
    """Answers with the statistics of some applications."""

    def __init__(self, reader: "StatisticsReader", applications: Sequence[Application]) -> None:
        self._reader = reader
        self._applications = applications

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        asked = {application.name: application.terms.versions() for application in self._applications}

        def answer(workers: Sequence[WorkerStatistics]) -> None:
            exchange.answer(200, msgspec.json.encode(metadata.statistics(asked, workers)))

        self._reader.ask(exchange, metadata.asked_models(asked), answer)


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
    """Many may ask at once: each answer is made in its turn."""
    yield
    answer()
