"""The server itself: health, status, events, series, metrics, stop, and the tokens and keys of its two ports."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.params import FromQuery, JSONBody, QueryParameter
from msgspec.structs import replace
from prometheus_client import CONTENT_TYPE_LATEST

from clipper.api.events import DEFAULT_EVENTS, MAX_EVENTS_AT_ONCE, Events, Kind, Step
from clipper.api.schemas import (
    CreatedKey,
    CreatedToken,
    Health,
    Key,
    Logs,
    NewKey,
    NewToken,
    Status,
    Stopping,
    Token,
)
from clipper.api.series import MAX_SERIES_S, Series, SeriesOverview
from clipper.api.server.routes import After, Lines, Name, Names, Port, read_places
from clipper.errors import Unavailable

AfterEvent = Annotated[
    int | None, QueryParameter(ge=0, description="only events with higher ids; the latest if left out")
]
ByWorker = Annotated[
    bool, QueryParameter(description="each worker's own numbers, with the label worker, and not their sum")
]
Seconds = Annotated[int, QueryParameter(ge=2, le=MAX_SERIES_S, description="how much of the series, back from now")]
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

    @get("/events", summary="List events, oldest first, also those before a restart; give next as after")
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


class SeriesOfLate(Controller):
    path = "/series"
    tags = ("series",)

    @get(summary="The last two minutes of all applications, models and workers")
    async def overview(self, operations: Port) -> SeriesOverview:
        return await operations.series_overview()

    @get("/applications/{app:str}", summary="All series of an application, of up to an hour")
    async def of_application(self, operations: Port, app: Name, seconds: Seconds = MAX_SERIES_S) -> Series:
        return await operations.application_series(app, seconds)

    @get("/models/{model:str}", summary="All series of a model, of up to an hour")
    async def of_model(self, operations: Port, model: Name, seconds: Seconds = MAX_SERIES_S) -> Series:
        return await operations.model_series(model, seconds)


class Keys(Controller):
    path = "/keys"
    tags = ("keys",)

    @get(summary="List the keys: their names, applications and limits")
    async def list_all(self, operations: Port, request: Request[Any, Any, Any]) -> list[Key]:
        keys = await operations.list_keys()
        if request.state.role == "admin":
            return keys
        # A fingerprint is part of a hash: with it, one could check a guess of a weak key without asking the server.
        return [replace(key, fingerprint=None) for key in keys]

    @post(summary="Make a key; it is shown only now")
    async def create(self, operations: Port, data: JSONBody[NewKey]) -> CreatedKey:
        return await operations.create_key(data)

    @delete("/{key:str}", summary="Revoke a key, by its name; answers once every worker refuses it")
    async def revoke(self, operations: Port, key: Name) -> None:
        await operations.revoke_key(key)


class Tokens(Controller):
    path = "/tokens"
    tags = ("tokens",)

    @get(summary="List the tokens that were made: their names and roles")
    async def list_all(self, operations: Port) -> list[Token]:
        return await operations.list_tokens()

    @post(summary="Make a token; it is shown only now")
    async def create(self, operations: Port, data: JSONBody[NewToken]) -> CreatedToken:
        return await operations.create_token(data)

    @delete("/{token:str}", summary="Revoke a token, by its name")
    async def revoke(self, operations: Port, token: Name) -> None:
        await operations.revoke_token(token)
