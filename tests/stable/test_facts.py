"""Changes that break a caller, and changes that do not."""

from abc import abstractmethod
from typing import Any

import pytest

from tests.stable.facts import Schemas, broken, of_class, of_openapi

NAME = {"type": "string"}


def facts(way: str, schema: dict[str, Any]) -> set[str]:
    schemas = Schemas({"Inner": {"type": "object", "required": ["a"], "properties": {"a": NAME}}})
    schemas.add(way, "Body", schema)
    return schemas.facts


def of(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def each_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


@pytest.mark.parametrize(
    ("way", "before", "after", "breaks"),
    [
        ("in", of(["a"], a=NAME), of(["a"], a=NAME, b=NAME), False),
        ("in", of(["a"], a=NAME), of(["a", "b"], a=NAME, b=NAME), True),
        ("in", of(["a"], a=NAME), of([], a=NAME), False),
        ("in", of([], a=NAME), of([]), True),
        ("in", of([], a=NAME), of([], a={"type": ["string", "null"]}), False),
        ("in", of([], a={"type": ["string", "null"]}), of([], a=NAME), True),
        ("in", of([], a={"enum": ["x"]}), of([], a={"enum": ["x", "y"]}), False),
        ("in", of([], a={"enum": ["x", "y"]}), of([], a={"enum": ["x"]}), True),
        ("in", of([], a=of([], b=NAME)), of([], a=of(["b"], b=NAME)), True),
        ("in", of([], a=each_of(of([], b=NAME))), of([], a=each_of(of(["b"], b=NAME))), True),
        ("in", of([], a={"$ref": "#/x/Inner"}), of([], a=NAME), True),
        ("in", of([], a=NAME), of([], a={"anyOf": [NAME, {"$ref": "#/x/Inner"}]}), False),
        ("out", of(["a"], a=NAME), of(["a", "b"], a=NAME, b=NAME), False),
        ("out", of(["a"], a=NAME), of([], a=NAME), True),
        ("out", of(["a"], a=NAME), of(["a"], a={"type": ["string", "null"]}), True),
        ("out", of(["a"], a=NAME), of(["a"], a={"type": "integer"}), True),
        ("out", {"type": "object", "additionalProperties": NAME}, {"type": "object"}, True),
    ],
)  # fmt: skip
def test_what_breaks(way: str, before: dict[str, Any], after: dict[str, Any], breaks: bool) -> None:
    assert bool(broken(facts(way, before), facts(way, after))) is breaks


def test_a_call_that_is_gone_or_asks_for_more_breaks() -> None:
    def document(*names: str, required: bool = False) -> dict[str, Any]:
        parameter = {"name": "n", "in": "query", "required": required, "schema": NAME}
        operation = {"parameters": [parameter], "responses": {"200": {"content": {"text/plain": {"schema": NAME}}}}}
        return {"paths": {f"/{name}": {"get": operation} for name in names}, "components": {"schemas": {}}}

    assert broken(of_openapi(document("a")), of_openapi(document("a", "b"))) == []
    assert "GET /a is known" in broken(of_openapi(document("a", "b")), of_openapi(document("b")))
    assert broken(of_openapi(document("a")), of_openapi(document("a", required=True))) == ["GET /a requires n"]


class Before:
    def ask(self, name: str, wait: bool = True) -> None: ...


class After:
    def ask(self, name: str, wait: bool = True, *, timeout_s: float = 1.0) -> None: ...
    def tell(self, name: str) -> None: ...


class Demanding:
    def ask(self, name: str, wait: bool) -> None: ...


class Abstract:
    def ask(self, name: str, wait: bool = True) -> None: ...
    @abstractmethod
    def select(self) -> None: ...


class Reordered:
    def ask(self, wait: bool = True, name: str = "") -> None: ...


@pytest.mark.parametrize(
    ("now", "gone"),
    [
        (After, []),
        (Demanding, ["C.ask requires wait"]),
        (Abstract, ["C requires select"]),
        (Reordered, ["C.ask takes name at 0", "C.ask takes wait at 1"]),
    ],
)
def test_of_classes(now: type, gone: list[str]) -> None:
    assert broken(of_class(Before, "C"), of_class(now, "C")) == gone
