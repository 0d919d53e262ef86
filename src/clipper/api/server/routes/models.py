"""Models and their versions."""

from litestar import Controller, delete, get, post
from litestar.params import FromQuery, JSONBody

from clipper.api.schemas import Logs, Model, Rollback, Scale, Version
from clipper.api.server.routes import After, Lines, Name, Names, Port, read_places
from clipper.settings.version import Deployment

# A deployment may contain a sample, and an image of 3x224x224 is 3 MB of JSON. The registry keeps it.
MAX_DEPLOYMENT_BYTES = 4 * 1024 * 1024


class Models(Controller):
    path = "/models"
    tags = ("models",)

    @get(summary="List the models, or those named")
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

    @get("/{model:str}/logs", summary="The last lines of its containers' logs")
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
