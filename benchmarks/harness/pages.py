"""Pages whose numbers a script writes: each part stands between a line that names it and a line that ends it."""

import re
from collections.abc import Mapping, Sequence

import msgspec

_PART = re.compile(r"(?ms)^<!-- results: ([\w-]+) -->\n(.*?)^<!-- end of results -->$")


class PartMissing(Exception):
    """A page has no place for what a script wrote, or a place for what none writes."""


def fill(page: str, parts: Mapping[str, str]) -> str:
    """Return a page's text with these parts, which are Markdown, in their places.

    Raises:
        PartMissing: its places are not exactly those of ``parts``.
    """
    places = [found[1] for found in _PART.finditer(page)]
    if sorted(places) != sorted(parts):
        raise PartMissing(f"the page has the places {sorted(places)}, expected one for each of {sorted(parts)}")
    return _PART.sub(
        lambda found: f"<!-- results: {found[1]} -->\n\n{parts[found[1]].strip()}\n\n<!-- end of results -->", page
    )


def lines(values: Sequence[object]) -> str:
    """A list as JSON, with a line for each value: a change of one result is then a change of one line."""
    return "[\n" + b",\n".join(map(msgspec.json.encode, values)).decode() + "\n]\n"


def fields(values: Mapping[str, object]) -> str:
    """A mapping as JSON, with a line for each field."""
    return (
        "{\n"
        + ",\n".join(f'"{name}":{msgspec.json.encode(value).decode()}' for name, value in values.items())
        + "\n}\n"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown, with a line break behind it."""
    every = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in every)
