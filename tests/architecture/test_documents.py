"""What the documents promise of the tree: every part is on the map, every code explained, no file too long."""

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
    wanted = f"`{name}`" if name.endswith(".py") else f"`{name}/"
    assert wanted in text, f"ARCHITECTURE.md's code map does not name {name}"


def test_architecture_names_nothing_that_is_gone() -> None:
    code_map = (ROOT / "ARCHITECTURE.md").read_text().split("## Code map")[1].split("## ")[0]
    first_cells = [line.split("|")[1] for line in code_map.splitlines() if line.startswith("| `")]
    named = [name for cell in first_cells for name in re.findall(r"`([\w./]+)`", cell)]
    assert named
    assert [name for name in named if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_file_is_too_long_to_read(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MAX_LINES
