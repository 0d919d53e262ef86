"""The code that a process says it runs, and the code that whole servers run."""

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
from tests.wheels import commit_to

# `make compiled` says so, where what is tested was installed from a wheel.
EXPECTED = os.environ.get("CLIPPER_FORM", "pure Python")


def test_what_runs_is_the_form_that_is_tested() -> None:
    assert form() == EXPECTED
    command = [Path(sys.executable).with_name("clipper"), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    # A clone is used as it stands, and what is compiled was installed from a wheel.
    assert re.fullmatch(
        rf"clipper {re.escape(__version__)} \({EXPECTED}(, commit [0-9a-f]{{8,}}(-dirty)?)?\)\n", told.stdout
    )


def test_the_commit_is_what_was_written_when_it_was_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "lib/site-packages/clipper"
    package.mkdir(parents=True)
    monkeypatch.setattr(build, "PACKAGE", package)
    commit_to(tmp_path)  # an environment inside of somebody's own repository
    assert build.commit() == ""
    (package / "COMMIT").write_text("01234567")
    assert build.commit() == "commit 01234567"


def test_the_commit_of_a_clone_is_that_of_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "src/clipper"
    package.mkdir(parents=True)
    monkeypatch.setattr(build, "PACKAGE", package)
    assert build.commit() == ""
    made = commit_to(tmp_path)
    assert build.commit() == f"commit {made[:8]}"
    file = tmp_path / "file"
    file.touch()
    assert build.commit() == f"commit {made[:8]}"  # git does not know the file yet
    subprocess.run(["git", "-C", str(tmp_path), "add", "file"], check=True)
    assert build.commit() == f"commit {made[:8]}-dirty"


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
