"""A home, a folder and commands of each test's own; and commands in the test's own process."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.cli.main import main
from tests.cli.commands import MODEL, Command, commands, stop_server
from tests.cli.in_process import Result, Run
from tests.conftest import Api
from tests.supervisor.live_server import end_all_of


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A server's home, from which the server and all that it started are gone afterwards."""
    home = tmp_path / "home"
    yield home
    stop_server(home)
    end_all_of(home)


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


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``clipper`` with these arguments. It tells of no progress, which it does where a busy machine takes long."""
    monkeypatch.setattr("clipper.cli.output._SILENT_S", math.inf)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["clipper", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def run(bare: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As ``bare``, with a server to be found by its home."""
    monkeypatch.setenv("CLIPPER_HOME", str(api.home))
    return bare


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "digits.joblib"
    path.write_bytes(b"weights")
    return str(path)
