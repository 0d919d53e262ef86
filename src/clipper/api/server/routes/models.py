"""Models: their artifacts, versions and replicas, and checks of what may be deployed or created later."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Controller, Request, Response, delete, get, head, post, put
from litestar.exceptions import InternalServerException
from litestar.params import FromQuery, JSONBody, PathParameter

from clipper.api.schemas import MAX_ARTIFACT_BYTES, Logs, Model, Replica, Rollback, Scale, Version
from clipper.api.server.routes import After, Lines, Name, Names, Port, read_places
from clipper.errors import MalformedRequest, NotFound
from clipper.settings.application import NewApplication
from clipper.settings.version import Deployment

# A deployment may contain a sample, and an image of 3x224x224 is 3 MB of JSON. The registry keeps it.
MAX_DEPLOYMENT_BYTES = 4 * 1024 * 1024

Digest = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$", description="SHA-256 of the tar, in lower-case hex")]


class Models(Controller):
    path = "/models"
    tags = ("models",)

    @get(summary="List the models, or the named models")
    async def list_all(self, operations: Port, name: Names = None) -> list[Model]:
        return await operations.list_models(name)

    @get("/{model:str}", summary="Show a model: its versions and their replicas")
    async def show(self, operations: Port, model: Name) -> Model:
        return await operations.get_model(model)

    @delete("/{model:str}", summary="Remove a model with all its versions")
    async def remove(self, operations: Port, model: Name) -> None:
        await operations.delete_model(model)

    @post("/{model:str}/rollback", status_code=200, summary="Make the previous, or the given, version current")
    async def rollback(self, operations: Port, model: Name, data: JSONBody[Rollback]) -> Model:
        return await operations.rollback(model, data.version, data.allow_stopped)

    @post("/{model:str}/scale", status_code=202, summary="Set how many replicas a version has, or may have")
    async def scale(self, operations: Port, model: Name, data: JSONBody[Scale]) -> Version:
        return await operations.scale(model, data.replicas, data.version)

    @get("/{model:str}/deployments", summary="Show how to deploy each version again, by its name")
    async def deployments(self, operations: Port, model: Name) -> dict[str, Deployment]:
        return await operations.list_deployments(model)

    @get("/{model:str}/logs", summary="Show the last lines of its containers' logs")
    async def logs(
        self,
        operations: Port,
        model: Name,
        lines: Lines = 100,
        version: FromQuery[str | None] = None,
        replica: FromQuery[str | None] = None,
        after: After = None,
    ) -> Logs:
        return await operations.logs(model, version, replica, lines, read_places(after))


class Versions(Controller):
    path = "/models/{model:str}/versions"
    tags = ("models",)

    @post(
        status_code=202,
        request_max_body_size=MAX_DEPLOYMENT_BYTES,
        summary="Deploy a version; poll it until it is ready or failed",
    )
    async def deploy(self, operations: Port, model: Name, data: JSONBody[Deployment]) -> Version:
        return await operations.deploy(model, data)

    @get("/{version:str}", summary="Show a version")
    async def show(self, operations: Port, model: Name, version: Name) -> Version:
        return await operations.get_version(model, version)

    @delete("/{version:str}", summary="Remove a version that is neither current nor pinned")
    async def remove(self, operations: Port, model: Name, version: Name) -> None:
        await operations.delete_version(model, version)


class Replicas(Controller):
    path = "/replicas"
    tags = ("replicas",)

    @get(summary="List the replicas, or those of the named models")
    async def list_all(self, operations: Port, model: Names = None) -> list[Replica]:
        return await operations.list_replicas(model)

    @get("/{replica:str}", summary="Show a replica, by its id with '#' written as %23")
    async def show(self, operations: Port, replica: Name) -> Replica:
        return await operations.get_replica(replica)


class Artifacts(Controller):
    path = "/artifacts"
    tags = ("artifacts",)

    @head("/{sha256:str}", summary="Whether the artifact is there: 200 or 404")
    async def ask(self, operations: Port, sha256: Digest) -> None:
        if not await operations.has_artifact(sha256):
            raise NotFound(f"artifact {sha256} is not here: PUT it first")

    @put(
        "/{sha256:str}",
        summary="Upload an uncompressed tar: 201, or 200 if it was there",
        request_max_body_size=MAX_ARTIFACT_BYTES,
    )
    async def add(self, operations: Port, sha256: Digest, request: Request[Any, Any, Any]) -> Response[None]:
        is_new = await operations.add_artifact(sha256, _chunks(request))
        return Response(None, status_code=201 if is_new else 200)


async def _chunks(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Without this, a client that goes away would count as a fault of the server."""
    try:
        async for chunk in request.stream():
            yield chunk
    except InternalServerException as error:
        raise MalformedRequest("the upload broke off: send it again") from error


class Checks(Controller):
    path = "/checks"
    tags = ("checks",)

    @post("/application", status_code=204, summary="Check an application that may be created or changed later")
    async def application(self, operations: Port, data: JSONBody[NewApplication]) -> None:
        await operations.check_application(data)

    @post("/deployment", status_code=204, summary="Check a deployment whose artifact may be uploaded later")
    async def deployment(self, operations: Port, data: JSONBody[Deployment]) -> None:
        await operations.check_deployment(data)
