"""The API's OpenAPI description, as JSON under /schema."""

from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from clipper.api.schemas import Failure


class Description(JsonRenderPlugin):
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
