"""Processes are recorded, taken over by their records, and swept up by their marks."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipper.base.processes.folder import ProcessFolder, passed_on
from clipper.base.processes.proc import start_time
from clipper.errors import ContainerFailed
from tests.started_processes import SLEEP, folder_in, gone, launch, written
from tests.waiting import TIMEOUT_S


def test_only_what_a_process_needs_of_our_environment_is_passed_on() -> None:
    environ = {
        "PATH": "p",
        "LC_ALL": "C",
        "LANG": "C",
        "HOME": "h",
        "TMPDIR": "t",
        "PYTHONHOME": "x",
        "CLIPPER_HOME": "x",
    }
    assert passed_on(environ) == {"PATH": "p", "LC_ALL": "C", "LANG": "C", "HOME": "h", "TMPDIR": "t"}


def test_a_program_that_is_not_there(folder: ProcessFolder, tmp_path: Path) -> None:
    async def start() -> None:
        argv = ["/nowhere/python"]
        folder.launch("one", argv, log_path=tmp_path / "log", cwd=tmp_path, environment={}, extra={})

    with pytest.raises(ContainerFailed, match="/nowhere/python"):
        asyncio.run(start())


def test_one_that_cannot_be_watched_does_not_run(
    folder: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def none_left(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    async def run() -> None:
        # The start itself needs more descriptors than the watch, so a limit would stop it before.
        monkeypatch.setattr(os, "pidfd_open", none_left)
        with pytest.raises(ContainerFailed, match="one cannot be watched"):
            launch(folder, tmp_path, SLEEP)
        monkeypatch.undo()
        assert start_time(started[0]) is None

    asyncio.run(run())


SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from clipper.base.processes.folder import ProcessFolder

class Folder(ProcessFolder):
    def update(self, record):
        print(record.pid, flush=True)
        if sys.argv[2] == "before the record":
            os.kill(os.getpid(), 9)
        super().update(record)

async def main(path):
    folder = Folder(path / "run", os.environ, path)
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    folder.launch("one", argv, log_path=path / "log", cwd=path, environment={}, extra={"color": 1})
    os.kill(os.getpid(), 9)

asyncio.run(main(Path(sys.argv[1])))
"""


def left_by_a_killed_supervisor(path: Path, when: str) -> int:
    """The pid of the process that it started."""
    argv = [sys.executable, "-c", SUPERVISOR, str(path), when]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert run.returncode == -signal.SIGKILL, run.stderr
    pid = int(run.stdout)
    assert start_time(pid) is not None
    return pid


def test_a_process_is_adopted_by_its_record(folder: ProcessFolder, tmp_path: Path) -> None:
    pid = left_by_a_killed_supervisor(tmp_path, "after the record")

    async def adopt() -> None:
        (record,) = folder.recorded()
        assert (record.name, record.pid, record.extra) == ("one", pid, {"color": 1})
        process = folder.adopt(record)
        assert process is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(process.exited.wait(), TIMEOUT_S)
        assert folder.adopt(record) is None

    asyncio.run(adopt())


def test_a_process_that_only_has_the_pid_of_the_record_is_not_adopted(folder: ProcessFolder, tmp_path: Path) -> None:
    async def run() -> None:
        process = launch(folder, tmp_path, SLEEP)
        (record,) = folder.recorded()
        later = type(record)(record.name, record.pid, record.start_time + 1, record.argv, record.extra)
        assert folder.adopt(later) is None
        assert start_time(process.pid) == record.start_time
        await process.stop(20)

    asyncio.run(run())


def test_a_process_that_was_never_recorded_is_swept_up(folder: ProcessFolder, tmp_path: Path) -> None:
    pid = left_by_a_killed_supervisor(tmp_path, "before the record")
    assert folder.recorded() == []
    folder.sweep(keep=("another",))
    asyncio.run(gone(pid))


def test_sweeping_spares_adopted_processes_and_those_of_another_home(tmp_path: Path) -> None:
    async def run() -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
        ours, other = folder_in(tmp_path / "a"), folder_in(tmp_path / "b")
        kept, swept = launch(ours, tmp_path, SLEEP, "kept"), launch(ours, tmp_path, SLEEP, "swept")
        foreign = launch(other, tmp_path, SLEEP, "swept")
        # A process that the system is still making ready to run shows no environment, hence no mark.
        await written(tmp_path / "log", "up\n" * 3)
        ours.sweep(keep=("kept",))
        await asyncio.wait_for(swept.exited.wait(), TIMEOUT_S)
        assert not kept.exited.is_set() and not foreign.exited.is_set()
        await asyncio.gather(kept.stop(20), foreign.stop(20))

    asyncio.run(run())


def test_an_unreadable_record_is_removed(folder: ProcessFolder, tmp_path: Path) -> None:
    (tmp_path / "run" / "one.json").write_text("{")
    assert folder.recorded() == []
    assert list((tmp_path / "run").iterdir()) == []
