"""A run that a time-out ends: all that it has started is gone, and its folders with it."""

import glob
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long

# Made by the supervisor, before it answers; and by the first deployment.
STARTING, DEPLOYING = "clipper-bench-*/registry.sqlite3", "clipper-bench-*/artifacts/*/*"

Run = Callable[..., "subprocess.Popen[bytes]"]


def processes_of(folder: Path) -> dict[int, str]:
    """Those which have this as their folder for temporary files, or a home in it: pid to command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_text()
        except OSError:
            continue  # it has ended meanwhile, or is not ours
    return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The folder for temporary files. Sockets are below it, whose paths may be no longer than a system's are."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


@pytest.fixture
def run(temporary: Path) -> Iterator[Run]:
    environment = os.environ | {"TMPDIR": str(temporary)}
    started = []

    def start(*command: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, start_new_session=True, stdout=subprocess.DEVNULL
        )
        started.append(process)
        return process

    yield start
    for pid in processes_of(temporary):
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.wait(TIMEOUT_S)


@pytest.mark.parametrize(
    ("command", "moment"),
    [("benchmarks slowdown", DEPLOYING), ("benchmarks.paper failure", STARTING), ("examples.demo", DEPLOYING)],
)
def test_sigterm_leaves_nothing_running(temporary: Path, run: Run, command: str, moment: str) -> None:
    process = run(*command.split())
    # Not Path.glob, which fails where a folder goes away that it is looking into.
    until(lambda: glob.glob(moment, root_dir=temporary), failed=lambda: process.poll() is not None and "it has ended")  # noqa: PTH207
    # As timeout does: the command first, then its whole group.
    process.terminate()
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 128 + signal.SIGTERM
    assert processes_of(temporary) == {}
    assert list(temporary.iterdir()) == []
