"""What a process says of the code that it runs, and what whole servers run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clipper import __version__
from clipper.base import build
from clipper.base.build import form
from tests.supervisor.live_server import Server, with_application
from tests.waiting import TIMEOUT_S

# `make compiled` says so, where what is tested was installed from a wheel.
EXPECTED = os.environ.get("CLIPPER_FORM", "pure Python")


def test_what_runs_is_the_form_that_is_tested() -> None:
    assert form() == EXPECTED
    command = [Path(sys.executable).with_name("clipper"), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    # A clone is used as it stands, and what is compiled was installed from a wheel.
    assert re.fullmatch(rf"clipper {re.escape(__version__)} \({EXPECTED}(, commit [0-9a-f]{{8}})?\)\n", told.stdout)


@pytest.mark.parametrize(
    ("noted", "told"),
    [
        (None, ""),
        ("{", ""),
        ('{"url": "file:///a.whl", "archive_info": {}}', ""),
        ('{"url": "https://example.org/c", "vcs_info": {"commit_id": "0123456789abcdef"}}', "commit 01234567"),
    ],
)
def test_the_commit_is_what_pip_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, noted: str | None, told: str
) -> None:
    note(monkeypatch, tmp_path, noted)
    assert build.commit() == told


def note(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str | None) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(folder))
    (folder / "clipper_serving-0.1.0.dist-info").mkdir()
    if text is not None:
        (folder / "clipper_serving-0.1.0.dist-info/direct_url.json").write_text(text)


def test_the_commit_of_a_clone_is_that_of_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note(monkeypatch, tmp_path, '{"url": "file:///clone", "dir_info": {"editable": true}}')
    monkeypatch.setattr(build, "PACKAGE", tmp_path)
    assert build.commit() == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    made = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert build.commit() == f"commit {made[:8]}"


def test_a_servers_worker_runs_that_form_and_answers(tmp_path: Path) -> None:
    server = Server(tmp_path / "home")
    try:
        with_application(server)
        assert server.predict("app", [1, 2])["output"] == "one"
        (worker,) = server.worker_pids
        is_compiled = "clipper__mypyc" in Path(f"/proc/{worker}/maps").read_text()
    finally:
        server.clean_up()
    assert is_compiled == (EXPECTED == "compiled")
