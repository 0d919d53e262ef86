"""The mark finds what a process forked, also while that is becoming another program."""

import asyncio
import sys
from itertools import count
from pathlib import Path

import pytest

from clipper.base.processes import marks
from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.marks import mark_of
from clipper.base.processes.proc import pids
from tests.started_processes import gone, launch, written
from tests.waiting import TIMEOUT_S, until, until_async

# One that left its session, and whose mark shows, as that of another program, only once GO is there.
BETWEEN = """
import os, time
if os.fork() == 0:
    os.setsid()
    wait = "import os, sys, time\\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.001)\\n"
    wait += "os.execve('/bin/sleep', ['sleep', '600'], {'CLIPPER_PROCESS': sys.argv[2]})"
    os.execve(PYTHON, [PYTHON, "-c", wait, GO, os.environ["CLIPPER_PROCESS"]], {})
while not open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read(): time.sleep(0.001)
print("child", open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read(), flush=True)
time.sleep(600)
""".replace("PYTHON", repr(sys.executable))


def test_a_child_that_was_executing_when_its_parent_ended_is_ended_too(
    folder: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count(1)

    async def test() -> int:
        process = launch(folder, tmp_path, BETWEEN.replace("GO", repr(str(tmp_path / "go"))))
        pid = int((await written(tmp_path / "log", "\n")).split()[1])
        await until_async(lambda: not mark_of(pid))

        def look() -> list[int]:
            """It becomes another program behind all looks but the last that have to find nothing."""
            if next(looks) == marks.CLEAN_LOOKS:
                (tmp_path / "go").touch()
                until(lambda: mark_of(pid))
            return pids()

        monkeypatch.setattr(marks, "pids", look)
        process.kill()
        await asyncio.wait_for(process.exited.wait(), TIMEOUT_S)
        return pid

    pid = asyncio.run(test())
    asyncio.run(gone(pid))
    assert next(looks) > 2 * marks.CLEAN_LOOKS


def test_processes_that_end_together_are_looked_for_together(
    folder: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def look() -> list[int]:
        looks.append(1)
        return pids()

    monkeypatch.setattr(marks, "pids", look)

    async def test() -> None:
        names = [f"p{number}" for number in range(20)]
        started = [launch(folder, tmp_path, "import time; time.sleep(600)", name) for name in names]
        await asyncio.gather(*(process.stop(grace_s=0) for process in started))
        assert all(process.exited.is_set() for process in started)

    asyncio.run(test())
    # Each of them alone takes CLEAN_LOOKS of them.
    assert len(looks) < 20 * marks.CLEAN_LOOKS


def test_what_cannot_be_looked_for_is_looked_for_again(
    folder: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[int] = []

    def fails_at_first() -> list[int]:
        looks.append(1)
        if len(looks) == 2:
            raise OSError(24, "Too many open files")
        return pids()

    monkeypatch.setattr(marks, "pids", fails_at_first)

    async def test() -> None:
        # Two at once for the same mark, as after a process that was started anew.
        await asyncio.gather(folder.endings.end("of nobody"), folder.endings.end("of nobody"))

    asyncio.run(test())
    assert len(looks) == 2 + marks.CLEAN_LOOKS
    assert "processes marked of nobody cannot be looked for now" in caplog.text
