"""A home, a folder and commands of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import MODEL, Command, commands, stop_server


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A server's home, from which the server is gone afterwards."""
    home = tmp_path / "home"
    yield home
    stop_server(home)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the user works."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL)
    (folder / "offset.txt").write_text("100")
    return folder


@pytest.fixture
def clipper(home: Path, folder: Path) -> Command:
    return commands(home, folder)
