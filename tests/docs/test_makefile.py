"""The programs of the Makefile that CI does not run start, with the paths that it gives them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import TIMEOUT_S

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "target",
    ["fuzz", "fuzz-server", "flood", "soak", "peers", "peers-rpc", "conformance", "against", "workers", "scale", "gpu"],
)
def test_a_program_starts(target: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    dry = subprocess.run(
        ["make", "--no-print-directory", "-n", target],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    command = dry.stdout.splitlines()[-1].replace(".venv/bin/python", shlex.quote(sys.executable))
    done = subprocess.run(
        f"{command} --help",
        shell=True,
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
