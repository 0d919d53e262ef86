"""The guard as a process, and an actor's process that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from clipper.base.processes.marks import MARK
from clipper.base.processes.proc import pids, start_time
from tests.waiting import TIMEOUT_S, until


def test_it_ends_what_a_killed_process_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "clipper-1"
    (folder / "run").mkdir(parents=True)
    environ = {**os.environ, MARK: f"{folder}/run/m@1-1"}
    left = subprocess.Popen(["sleep", "600"], env=environ, start_new_session=True)
    # Of another actor, whose folder's name begins with this one's.
    other = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: f"{folder}2/run/m@1-1"})
    command = [sys.executable, "-m", "clipper.supervisor.managers.ray.guard", str(folder)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        # It goes on as nobody's child.
        assert guard.wait(TIMEOUT_S) == 0
        (pid,) = guards_of(folder)
        # Once it listens to nothing but its input, a signal to all that Ray has started does not end it.
        until(lambda: ignores(pid, signal.SIGTERM))
        os.kill(pid, signal.SIGTERM)
        assert start_time(left.pid) is not None
        guard.communicate(timeout=TIMEOUT_S)
        assert left.wait(TIMEOUT_S) == -signal.SIGKILL
        until(lambda: guards_of(folder) == [])
        assert not folder.exists()
        assert other.poll() is None
    finally:
        for process in (left, other, guard):
            process.kill()
            process.wait()


def guards_of(folder: Path) -> list[int]:
    wanted = ["clipper.supervisor.managers.ray.guard", str(folder)]
    return [pid for pid in pids() if arguments_of(pid)[-2:] == wanted]


def arguments_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []  # it is gone


def ignores(pid: int, number: signal.Signals) -> bool:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(lines["SigIgn"], 16) >> (number - 1) & 1)
