"""docs/languages.md and the SDKs' pages against the code that they show, and the links that they give."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "languages.md", *sorted((ROOT / "sdk").glob("*/README.md"))]


def block(page: str, language: str) -> str:
    return (ROOT / page).read_text().split(f"```{language}\n")[1].split("```")[0]


@pytest.mark.parametrize(
    ("page", "language", "example"),
    [
        ("sdk/cpp/README.md", "cpp", "sdk/cpp/example/sum.cpp"),
        ("sdk/java/README.md", "java", "sdk/java/example/SumContainer.java"),
    ],
)
def test_the_example_is_the_one_that_is_shown(page: str, language: str, example: str) -> None:
    assert (ROOT / example).read_text().endswith(block(page, language))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([\w./-]+)[)#]", page.read_text())
    named = re.findall(r"\b(?:sdk|tests)/[\w./]+\w", page.read_text())
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []
