"""The calls of the Open Inference Protocol's model repository extension that change something."""

from typing import Any

from litestar import Controller, Request, Response, post
from litestar.params import JSONBody
from litestar.types import ExceptionHandlersMap

from clipper.api.schemas import Load
from clipper.api.server.routes import Name, Port
from clipper.api.server.statuses import STATUSES
from clipper.errors import ClipperError, InvalidArgument


def _refused(_request: Request[Any, Any, Any], error: ClipperError) -> Response[dict[str, str]]:
    """Answer an error in the protocol's form, whose clients show ``error``, and with this API's ``cause``."""
    body = {"error": str(error), "code": error.code, "cause": str(error)}
    return Response(body, status_code=STATUSES[error.code], media_type="application/json")


_ERRORS: ExceptionHandlersMap = {ClipperError: _refused}


class Repository(Controller):
    """The models of the protocol are applications."""

    path = "/v2/repository/models/{application:str}"
    tags = ("applications",)

    @post(
        "/load",
        status_code=200,
        exception_handlers=_ERRORS,
        summary="Load the models of an application that were unloaded",
    )
    async def load(self, operations: Port, application: Name, data: JSONBody[Load | None] = None) -> dict[str, str]:
        named = sorted(name for name in (data or Load()).parameters if name == "config" or name.startswith("file:"))
        if named:
            raise InvalidArgument(f"the parameter {named[0]!r:.100} is not supported: clipper deploy deploys a model")
        await operations.load(application)
        return {}

    @post(
        "/unload",
        status_code=200,
        exception_handlers=_ERRORS,
        summary="Unload the models of an application: they answer nothing until loaded",
    )
    async def unload(self, operations: Port, application: Name, data: JSONBody[Load | None] = None) -> dict[str, str]:
        await operations.unload(application)
        return {}
