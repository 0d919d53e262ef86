"""The calls and bodies of the management API as text of a page, from the API's own OpenAPI description."""

import json
from collections.abc import Mapping
from typing import Any

from clipper.api.server.app import create_app

_METHODS = ("get", "head", "post", "put", "patch", "delete")


def page() -> str:
    # Nothing is called, so there need be nothing to call.
    schema = create_app(None).openapi_schema.to_schema()  # type: ignore[arg-type]
    schemas = schema["components"]["schemas"]
    calls = [
        (path, method, operations[method])
        for path, operations in sorted(schema["paths"].items())
        for method in _METHODS
        if method in operations
    ]
    shown = [_call(path, method, operation) for path, method, operation in calls]
    bodies = ["## Bodies and answers", *(_struct(name, schemas[name]) for name in sorted(schemas))]
    return "\n".join(["## Calls\n", *shown, *bodies])


def _call(path: str, method: str, operation: Mapping[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`\n", f"{operation['summary']}.\n"]
    rows = [_parameter(each) for each in operation.get("parameters", []) if each["in"] == "query"]
    if rows:
        lines += ["| query parameter | type | meaning |\n|---|---|---|", *rows, ""]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        lines.append(f"Body: {type_of(body)}.\n")
    for status, response in sorted(operation["responses"].items()):
        content = response.get("content", {})
        kind = next((each.get("schema") for each in content.values()), None)
        if status.startswith("2"):
            lines.append(f"Answers {status}{': ' + type_of(kind) if kind else ''}.\n")
    return "\n".join(lines)


def _parameter(parameter: Mapping[str, Any]) -> str:
    return f"| `{parameter['name']}` | {type_of(parameter['schema'])} | {parameter.get('description') or ''} |"


def _struct(name: str, schema: Mapping[str, Any]) -> str:
    needed = set(schema.get("required", ()))
    rows = [
        f"| `{field}` | {type_of(kind)} | {_default(field, kind, needed)} |"
        for field, kind in schema.get("properties", {}).items()
    ]
    return "\n".join([f"### {name}\n", "| field | type | default |\n|---|---|---|", *rows, ""])


def _default(field: str, schema: Mapping[str, Any], needed: set[str]) -> str:
    if "default" in schema:
        return f"`{json.dumps(schema['default'])}`"
    return "required" if field in needed else ""


def type_of(schema: Mapping[str, Any] | None) -> str:
    """A type of JSON in words, with a link to each struct in it."""
    if not schema:
        return "any JSON"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if either := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(dict.fromkeys(map(type_of, either)))
    kind = schema.get("type")
    if kind == "array":
        return f"list of {type_of(schema.get('items'))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {type_of(values)}" if isinstance(values, Mapping) and values else "object"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(
        str(kind), str(kind or "any JSON")
    )
