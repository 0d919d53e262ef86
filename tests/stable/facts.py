"""The facts that callers may rely on: a line each, such as ``out Prediction.output is any``.

``in`` begins a fact of what callers send, ``out`` of what they get. A release keeps the facts of the release before. It
may add others, but no new demand (``requires``) on a call that was there.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

DEMAND = " requires "
_REFERENCE = "$ref"


def broken(kept: Iterable[str], now: Iterable[str]) -> list[str]:
    """Return the kept facts that no longer hold, and what is newly demanded of callers of what was there.

    A demand that is dropped breaks nobody.
    """
    kept, now = set(kept), set(now)
    gone = sorted(fact for fact in kept - now if DEMAND not in fact)
    known = "\n".join(["", *kept])
    demanded = (fact for fact in sorted(now - kept) if DEMAND in fact)
    return [*gone, *(fact for fact in demanded if f"\n{fact.partition(DEMAND)[0]} " in known)]


class Schemas:
    """The facts of JSON schemas that may name each other.

    Attributes:
        facts: what was found so far.
    """

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self.facts: set[str] = set()
        self._definitions = definitions

    def add(self, way: str, name: str, schema: Mapping[str, Any]) -> None:
        """Add the facts of a value that callers send (``in``) or get (``out``)."""
        self._type(way, name, schema)

    def _add_named(self, way: str, name: str) -> None:
        known = f"{way} {name} is known"
        if known not in self.facts:
            self.facts.add(known)
            self._type(way, name, self._definitions[name])

    def _type(self, way: str, name: str, schema: Mapping[str, Any]) -> None:
        kinds = set(self._kinds(way, name, schema))
        if way == "out":
            self.facts.add(f"out {name} is {' or '.join(sorted(kinds))}")
        else:
            self.facts |= {f"in {name} takes {kind}" for kind in kinds}

    def _kinds(self, way: str, name: str, schema: Mapping[str, Any]) -> Iterator[str]:
        """Yield the kinds of value that a schema allows, and add the facts of what is in it."""
        if _REFERENCE in schema:
            reference = schema[_REFERENCE].rpartition("/")[2]
            self._add_named(way, reference)
            yield reference
            return
        parts = [part for word in ("anyOf", "oneOf", "allOf") for part in schema.get(word, ())]
        for part in parts:
            if set(part) != {"required"}:
                yield from self._kinds(way, name, part)
        for value in schema.get("enum", [schema["const"]] if "const" in schema else []):
            self.facts.add(f"{way} {name} may be {value}")
        kinds = schema.get("type", [] if parts else "enum" if {"enum", "const"} & schema.keys() else "any")
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            yield kind
            if kind == "array":
                self._type(way, f"{name}[]", schema.get("items") or {})
            elif kind == "object":
                self._object(way, name, schema)

    def _object(self, way: str, name: str, schema: Mapping[str, Any]) -> None:
        for field, below in schema.get("properties", {}).items():
            self._type(way, f"{name}.{field}", below)
        values = schema.get("additionalProperties")
        if isinstance(values, Mapping):
            self._type(way, f"{name}.*", values)
        for field in schema.get("required", ()):
            self.facts.add(f"in {name}{DEMAND}{field}" if way == "in" else f"out {name} always has {field}")


def of_openapi(document: Mapping[str, Any]) -> set[str]:
    """Return the facts of an OpenAPI description: its calls, what they take and what they answer."""
    schemas = Schemas(document["components"]["schemas"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            call = f"{method.upper()} {path}"
            schemas.facts.add(f"{call} is known")
            for parameter in operation.get("parameters", ()):
                name = f"{call}?{parameter['name']}" if parameter["in"] == "query" else f"{call}#{parameter['name']}"
                schemas.add("in", name, parameter["schema"])
                if parameter.get("required") and parameter["in"] == "query":
                    schemas.facts.add(f"{call}{DEMAND}{parameter['name']}")
            for media, body in operation.get("requestBody", {}).get("content", {}).items():
                schemas.add("in", f"{call} {media}", body["schema"])
            for status, answer in operation["responses"].items():
                schemas.facts.add(f"{call} answers {status}")
                for media, body in answer.get("content", {}).items():
                    if "schema" in body:
                        schemas.add("out", f"{call} {status} {media}", body["schema"])
    return schemas.facts


def of_class(kind: type, name: str) -> Iterator[str]:
    """Yield the facts of a class: how it is called, its public methods and its fields."""
    yield f"{name} is known"
    yield from _of_call(kind, name)
    for field in getattr(kind, "__struct_fields__", getattr(kind, "_fields", ())):
        yield f"{name}.{field} is a field"
    for attribute in sorted(each for each in dir(kind) if not each.startswith("_")):
        member = inspect.getattr_static(kind, attribute)
        if isinstance(member, property):
            yield f"{name}.{attribute} is a property"
        elif isinstance(member, (staticmethod, classmethod)) or inspect.isfunction(member):
            if getattr(member, "__isabstractmethod__", False):
                yield f"{name}{DEMAND}{attribute}"
            yield from _of_call(getattr(kind, attribute), f"{name}.{attribute}")


def _of_call(called: Any, name: str) -> Iterator[str]:
    """Yield which arguments a function takes, by position and by name, and which it requires."""
    yield f"{name} is callable"
    parameters = [each for each in inspect.signature(called).parameters.values() if each.name != "self"]
    for place, parameter in enumerate(parameters):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            yield f"{name} takes {parameter.name} at {place}"
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            yield f"{name} takes {parameter.name} by name"
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            yield f"{name}{DEMAND}{parameter.name}"
