"""What a process says of the code that it runs, and what whole servers run."""

import os
import subprocess
import sys
from pathlib import Path

from clipper.base.build import form
from tests.supervisor.live_server import Server, with_application
from tests.waiting import TIMEOUT_S

# `make compiled` says so, where what is tested was installed from a wheel.
EXPECTED = os.environ.get("CLIPPER_FORM", "pure Python")


def test_what_runs_is_the_form_that_is_tested() -> None:
    assert form() == EXPECTED
    command = [Path(sys.executable).with_name("clipper"), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    assert told.stdout == f"clipper 0.1.0 ({EXPECTED})\n"


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
