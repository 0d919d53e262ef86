"""The documents keep their promises on the tree: every part is on the map, every code explained, no file too long."""

import re
from pathlib import Path

import pytest

from tests.architecture.source_tree import PACKAGE, ROOT, files

MAX_LINES = 450


def top_level_names() -> list[str]:
    entries = [entry for entry in PACKAGE.iterdir() if entry.name != "__pycache__" and entry.name != "py.typed"]
    return sorted(entry.name for entry in entries if entry.name != "__init__.py")


@pytest.mark.parametrize("name", top_level_names())
def test_architecture_names_every_part(name: str) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    wanted = f"`{name}`" if name.endswith(".py") else f"[`{name}/`](src/clipper/{name}/README.md)"
    assert wanted in text, f"ARCHITECTURE.md's rooms do not name {name}"


def test_architecture_is_two_screens() -> None:
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 250


@pytest.mark.parametrize(
    "page", [ROOT / "ARCHITECTURE.md", *sorted(PACKAGE.glob("*/README.md"))], ids=lambda page: page.parent.name
)
def test_documents_name_nothing_that_is_gone(page: Path) -> None:
    """Each path with a folder is the end of a file's path, in the package or beside it."""
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text())
    there = {
        f"/{file.relative_to(ROOT)}" for file in [*files(), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("scripts/*.py")]
    }
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in there)] == []


@pytest.mark.parametrize("page", sorted(PACKAGE.glob("*/README.md")), ids=lambda page: page.parent.name)
def test_a_rooms_readme_names_all_its_files(page: Path) -> None:
    named = set(re.findall(r"`(?:\w+/)*(\w+\.py)`", page.read_text()))
    modules = {file.name for file in page.parent.rglob("*.py") if file.name != "__init__.py"}
    assert sorted(modules - named) == [], f"add these to the table of files in {page.relative_to(ROOT)}"


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_file_is_too_long_to_read(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MAX_LINES
