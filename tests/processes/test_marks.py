"""The mark finds what a process forked, also while that is becoming another program."""

import asyncio
import sys
from pathlib import Path

from clipper.processes.folder import ProcessFolder
from clipper.processes.marks import mark_of
from clipper.processes.proc import start_time
from started_processes import launch, written
from waiting import until_async

# One that left its session, and whose mark does not show when its parent ends, but a little later, as another program.
BETWEEN = """
import os, time
if os.fork() == 0:
    os.setsid()
    wait = "import os, sys, time\\nwhile os.getppid() == int(sys.argv[1]): time.sleep(0.001)\\ntime.sleep(0.02)\\n"
    wait += "os.execve('/bin/sleep', ['sleep', '60'], {'CLIPPER_PROCESS': sys.argv[2]})"
    os.execve(PYTHON, [PYTHON, "-c", wait, str(os.getppid()), os.environ["CLIPPER_PROCESS"]], {})
while not open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read(): time.sleep(0.001)
print("child", open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read(), flush=True)
time.sleep(600)
""".replace("PYTHON", repr(sys.executable))


def test_what_was_becoming_another_program_when_its_parent_ended_is_ended_too(
    folder: ProcessFolder, tmp_path: Path
) -> None:
    async def test() -> int:
        process = launch(folder, tmp_path, BETWEEN)
        pid = int((await written(tmp_path / "log", "\n")).split()[1])
        await until_async(lambda: not mark_of(pid))
        process.kill()
        await asyncio.wait_for(process.exited.wait(), 60)
        return pid

    pid = asyncio.run(test())
    assert start_time(pid) is None
