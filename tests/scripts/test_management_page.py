import re

import management_page
import pytest

from clipper.api.server.app import create_app

PAGE = management_page.page()
PATHS = create_app(None).openapi_schema.to_schema()["paths"]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", PATHS)
def test_every_call_is_on_the_page(path: str) -> None:
    for method in PATHS[path]:
        assert f"### `{method.upper()} {path}`\n" in PAGE


def test_every_struct_that_is_linked_has_its_section() -> None:
    sections = {name.lower() for name in re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", PAGE)) <= sections


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (None, "any JSON"),
        ({}, "any JSON"),
        ({"type": "string"}, "text"),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, "whole number or null"),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Link"}}, "list of [Link](#link)"),
        ({"enum": ["a", None]}, '`"a"`, `null`'),
        ({"const": "input"}, '`"input"`'),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({"type": "object"}, "object"),
    ],
)
def test_types_are_in_words(schema: dict[str, object] | None, text: str) -> None:
    assert management_page.type_of(schema) == text
