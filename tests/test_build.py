"""What a process says of the code that it runs, and what whole servers run."""

import os
import subprocess
from pathlib import Path

from benchmarks.servers import clipper, clipper_command
from clipper.build import form
from tests.waiting import TIMEOUT_S

MODELS = Path(__file__).parents[1] / "benchmarks" / "models"
# `make compiled` says so, where what is tested was installed from a wheel.
EXPECTED = os.environ.get("CLIPPER_FORM", "pure Python")


def test_what_runs_is_the_form_that_is_tested() -> None:
    assert form() == EXPECTED
    told = subprocess.run(
        [clipper_command(), "--version"], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    assert told.stdout == f"clipper 0.1.0 ({EXPECTED})\n"


def test_a_servers_worker_runs_that_form_and_answers() -> None:
    with clipper() as server:
        server.run("deploy", "sum", "total:total", "--input-type", "doubles", folder=MODELS)
        server.run("app", "create", "sum", "--model", "sum", "--slo-ms", "10000", "--default", "-1")
        assert server.run("predict", "sum", "[1, 2, 3]")["output"] == 6
        _, worker = server.process_ids()
        is_compiled = "clipper__mypyc" in Path(f"/proc/{worker}/maps").read_text()
    assert is_compiled == (EXPECTED == "compiled")
