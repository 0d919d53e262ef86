"""The server itself: health, status, metrics, stop."""

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.params import FromQuery, QueryParameter
from prometheus_client import CONTENT_TYPE_LATEST

from clipper.api.events import DEFAULT_EVENTS, MAX_EVENTS_AT_ONCE, Events, Kind, Step
from clipper.api.schemas import Health, Logs, Status, Stopping
from clipper.api.server.routes import After, Lines, Names, Port, read_places
from clipper.errors import Unavailable

AfterEvent = Annotated[
    int | None, QueryParameter(ge=0, description="only events with higher ids; the latest if left out")
]
ByWorker = Annotated[
    bool, QueryParameter(description="each worker's own numbers, with the label worker, and not their sum")
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_EVENTS_AT_ONCE, description="how many events at most")]


class Server(Controller):
    path = "/"
    tags = ("server",)

    @get("/health/live", security=[{}], summary="Whether the supervisor answers")
    async def live(self) -> Health:
        return Health("live")

    @get("/health/ready", security=[{}], summary="Whether queries are answered: 200, or 503; /status says why not")
    async def ready(self, operations: Port) -> Health:
        # This call needs no token, so it gives neither names nor errors.
        if problems := await operations.why_not_ready():
            raise Unavailable(f"not ready for {len(problems)} reasons: clipper status, or GET /status, lists them")
        return Health("ready")

    @get("/status", summary="Version, processes, addresses and counts")
    async def status(self, operations: Port) -> Status:
        return await operations.status()

    @get("/history", summary="What happened and was decided lately, oldest first")
    async def history(self, operations: Port) -> list[Step]:
        return await operations.history()

    @get("/events", summary="What happened, kept over restarts, oldest first; next is what to give as after")
    async def events(
        self,
        operations: Port,
        after: AfterEvent = None,
        limit: Limit = DEFAULT_EVENTS,
        kind: FromQuery[Kind | None] = None,
        subject: FromQuery[str | None] = None,
        who: FromQuery[str | None] = None,
    ) -> Events:
        return await operations.events(after, limit, kind, subject, who)

    @get("/logs", summary="The last lines of the server's own logs and its workers'")
    async def logs(
        self, operations: Port, lines: Lines = 100, name: FromQuery[str | None] = None, after: After = None
    ) -> Logs:
        return await operations.server_logs(name, lines, read_places(after))

    @get("/metrics", summary="Prometheus text of all workers and containers", media_type="text/plain")
    async def metrics(
        self, operations: Port, by_worker: ByWorker = False, application: Names = None, model: Names = None
    ) -> Response[bytes]:
        return Response(await operations.metrics(by_worker, application, model), media_type=CONTENT_TYPE_LATEST)

    @post(
        "/stop",
        status_code=202,
        summary="Begin to stop: drain the workers, after a delay that a second call ends, then the containers",
    )
    async def stop(self, operations: Port) -> Stopping:
        return await operations.stop()
