"""The management API as an ASGI application."""

from typing import Any

import msgspec
from litestar import Litestar, Request
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from clipper import __version__
from clipper.api.schemas import Failure
from clipper.api.server.operations import Operations
from clipper.api.server.routes.applications import Applications
from clipper.api.server.routes.models import Artifacts, Checks, Models, Replicas, Versions
from clipper.api.server.routes.repository import Repository
from clipper.api.server.routes.server import Keys, SeriesOfLate, Server, Tokens
from clipper.api.server.statuses import bad_body, clipper_error, http_error, unexpected_error
from clipper.errors import ClipperError

# Bodies other than artifacts and deployments have a few hundred bytes of JSON, with a default output perhaps some KB.
MAX_BODY_BYTES = 1024 * 1024
_ROUTES = (Applications, Artifacts, Checks, Keys, Models, Versions, Replicas, Repository, SeriesOfLate, Server, Tokens)


def create_app(operations: Operations) -> Litestar:
    """Build the API over ``operations``. It holds no state, and starts no thread. ``gate`` checks its callers."""
    return Litestar(
        route_handlers=_ROUTES,
        dependencies={"operations": Provide(lambda: operations, sync_to_thread=False)},
        exception_handlers={
            ClipperError: clipper_error,
            HTTPException: http_error,
            RecursionError: bad_body,
            UnicodeDecodeError: bad_body,
            Exception: unexpected_error,
        },
        openapi_config=OpenAPIConfig(
            title="Clipper management API",
            version=__version__,
            render_plugins=[_Description()],
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"token": []}],
        ),
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
    )


class _Description(JsonRenderPlugin):
    """Litestar's description, with Clipper's errors: Litestar describes only its own 400, whose body differs here."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        (_, failures) = msgspec.json.schema_components([Failure], ref_template="#/components/schemas/{name}")
        openapi_schema["components"]["schemas"] |= failures
        answer = {
            "description": "An error: its code, and the status for that",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
        }
        for operations in openapi_schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("400", None)
                operation["responses"]["default"] = answer
        return super().render(request, openapi_schema)
