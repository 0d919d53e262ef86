"""Clipper's commands as a user runs them: processes of their own, in a home and a folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from clipper.cli.process import running, wait_until_gone

# They tell of no progress, however long a busy machine takes.
_SILENT = "from clipper.cli import output; output._SILENT_S = 1e9; "
CLIPPER = [sys.executable, "-c", f"{_SILENT}from clipper.cli.main import main; main()"]
# A module ``model`` of the user's.
MODEL = """
class Sum:
    input_type = "float64[4]"

    def __init__(self, model_data):
        self.offset = float(open(model_data).read()) if model_data else 0.0

    def predict_batch(self, inputs):
        return [float(row.sum()) + self.offset for row in inputs]


class Broken:
    def __init__(self, model_data):
        raise RuntimeError("the weights are for another planet")
"""

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def commands(home: Path, folder: Path, **always: str) -> Command:
    """Run commands in ``folder``. Names are variables of the environment: ``always``, and those of one command."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        variables = {**os.environ, "CLIPPER_HOME": str(home), **always, **environment}
        return subprocess.run(
            [*CLIPPER, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=200, check=False
        )

    return run


def succeed(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def stop_server(home: Path) -> None:
    if server := running(home):
        os.kill(server.pid, signal.SIGTERM)
        wait_until_gone(home, server.pid)
