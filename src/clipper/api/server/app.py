"""The management API as an ASGI application."""

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from clipper import __version__
from clipper.api.server.description import Description
from clipper.api.server.operations import Operations
from clipper.api.server.routes.applications import Applications
from clipper.api.server.routes.artifacts import Artifacts
from clipper.api.server.routes.checks import Checks
from clipper.api.server.routes.keys import Keys
from clipper.api.server.routes.models import Models, Versions
from clipper.api.server.routes.replicas import Replicas
from clipper.api.server.routes.series import SeriesOfLate
from clipper.api.server.routes.server import Server
from clipper.api.server.routes.tokens import Tokens
from clipper.api.server.statuses import clipper_error, http_error, not_unicode, too_deep, unexpected_error
from clipper.errors import ClipperError

# Every body but an artifact and a deployment is a few hundred bytes of JSON, and a default output perhaps some KB.
MAX_BODY_BYTES = 1024 * 1024


def create_app(operations: Operations) -> Litestar:
    """Build the API over ``operations``. It holds no state of its own, and starts no thread.

    It does not check who calls: ``gate`` does.
    """
    return Litestar(
        route_handlers=[
            Applications,
            Artifacts,
            Checks,
            Keys,
            Models,
            Versions,
            Replicas,
            SeriesOfLate,
            Server,
            Tokens,
        ],
        dependencies={"operations": Provide(lambda: operations, sync_to_thread=False)},
        exception_handlers={
            ClipperError: clipper_error,
            HTTPException: http_error,
            RecursionError: too_deep,
            UnicodeDecodeError: not_unicode,
            Exception: unexpected_error,
        },
        openapi_config=OpenAPIConfig(
            title="Clipper management API",
            version=__version__,
            render_plugins=[Description()],
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"token": []}],
        ),
        request_max_body_size=MAX_BODY_BYTES,
        logging_config=None,
    )
