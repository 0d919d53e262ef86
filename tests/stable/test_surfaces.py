"""Each interface against what is kept of the last release in ``kept``, and docs/stability.md against the help."""

import re

import pytest

from scripts.option_tables import commands
from tests.stable.facts import broken
from tests.stable.surfaces import KEPT, ROOT, SURFACES, facts_of, kept

PAGE = (ROOT / "docs" / "stability.md").read_text()
EXPERIMENTAL = PAGE.partition("## Experimental")[2]


@pytest.mark.parametrize("surface", SURFACES)
def test_nothing_that_was_promised_is_gone(surface: str) -> None:
    assert broken(kept(surface), facts_of(surface)) == []


def test_each_surface_has_facts_and_no_file_is_of_none() -> None:
    assert {file.stem for file in KEPT.iterdir()} == SURFACES.keys()
    assert all(len(kept(surface)) > 10 for surface in SURFACES)


def test_the_page_and_the_help_call_the_same_options_experimental() -> None:
    marked = {
        name
        for _, command in commands()
        for parameter in command.params
        for name in parameter.opts
        if (parameter.help or "").startswith("Experimental:")
    }
    assert marked == set(re.findall(r"`(--[a-z-]+)`", EXPERIMENTAL))


def test_pages_of_what_is_experimental_say_so() -> None:
    pages = re.findall(r"^\| \[.*?\]\((.*?)\)", EXPERIMENTAL, re.MULTILINE)
    assert len(pages) > 3
    assert [page for page in pages if "stability.md#experimental" not in (ROOT / "docs" / page).read_text()] == []
