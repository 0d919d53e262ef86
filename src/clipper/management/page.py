"""The API's page under /schema: plain HTML made from the OpenAPI description, with nothing from other sites."""

import html
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin

from clipper.management.schemas import Failure

_HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}td{{padding:.3rem 1rem .3rem 0;
vertical-align:top}}code{{font-size:.95em}}pre{{background:#f4f4f4;padding:1rem;overflow:auto}}</style></head><body>
<h1>{title} {version}</h1><p>Machine-readable: <a href="/schema/openapi.json">openapi.json</a></p>"""


class Described(JsonRenderPlugin):
    """The description itself, as JSON."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, with_errors(openapi_schema))


class PlainPage(OpenAPIRenderPlugin):
    """Lists every call, and every type with its fields."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        openapi_schema = with_errors(openapi_schema)
        info = openapi_schema["info"]
        head = _HEAD.format(title=html.escape(info["title"]), version=html.escape(info["version"]))
        schemas = openapi_schema.get("components", {}).get("schemas", {})
        types = "".join(_type(name, schemas[name]) for name in sorted(schemas))
        calls = f"<h2>Calls</h2><table>{_calls(openapi_schema['paths'])}</table>"
        return f"{head}{calls}<h2>Types</h2>{types}</body></html>".encode()


def with_errors(openapi_schema: dict[str, Any]) -> dict[str, Any]:
    """What each call answers that fails: the framework knows only of its own 400, and tells that wrong."""
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
    return openapi_schema


def _calls(paths: dict[str, Any]) -> str:
    return "".join(
        f"<tr><td><code>{method.upper()} {html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('summary') or '')}</td></tr>"
        for path, operations in sorted(paths.items())
        for method, operation in operations.items()
        if isinstance(operation, dict)
    )


def _type(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    fields = "\n".join(
        f"{field}{'' if field in required else '?'}: {_kind(kind)}"
        for field, kind in schema.get("properties", {}).items()
    )
    return f"<h3>{html.escape(name)}</h3><pre>{html.escape(fields)}</pre>"


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "oneOf" in schema:
        return " | ".join(_kind(option) for option in schema["oneOf"])
    if schema.get("type") == "array":
        return f"[{_kind(schema.get('items', {}))}]"
    return str(schema.get("type", "any JSON"))
