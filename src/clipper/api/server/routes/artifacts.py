"""Model artifacts: streamed to disk, named by their digest."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Controller, Request, Response, head, put
from litestar.exceptions import InternalServerException
from litestar.params import PathParameter

from clipper.api.server.routes import Port
from clipper.errors import MalformedRequest, NotFound

# The largest open models' weights in one file; a bound so that a stray upload cannot fill the disk for ever.
MAX_ARTIFACT_BYTES = 16 * 1024**3

Digest = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$", description="SHA-256 of the tar, in lower-case hex")]


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
    """The body as it comes. Without this, a client that goes away would count as a fault of the server."""
    try:
        async for chunk in request.stream():
            yield chunk
    except InternalServerException as error:
        raise MalformedRequest("the upload broke off: send it again") from error
