"""Processes that tests start, in a run folder of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.proc import start_time
from clipper.base.processes.process import ManagedProcess
from tests.waiting import until_async


def folder_in(path: Path) -> ProcessFolder:
    (path / "run").mkdir(exist_ok=True)
    return ProcessFolder(path / "run", os.environ, path / "none")


def launch(folder: ProcessFolder, path: Path, program: str, name: str = "one") -> ManagedProcess:
    argv = [sys.executable, "-c", program]
    return folder.launch(name, argv, log_path=path / "log", cwd=path, environment={"A": "b"}, extra={"color": 1})


async def written(path: Path, text: str) -> str:
    """The log, once ``text`` is in it."""
    await until_async(lambda: text in path.read_text())
    return path.read_text()


async def gone(pid: int) -> None:
    await until_async(lambda: start_time(pid) is None)


SLEEP = "import time; print('up', flush=True); time.sleep(600)"

# Any user can give a process any of these. The first is cut inside a character, as the kernel cuts names at 15 bytes;
# the last two look like more fields, and like lines of /proc/PID/status, to whoever splits at the wrong places.
ODD_NAMES = ("ABCDEFGHIJKLMNé".encode()[:15], b"\xff\xfe\x00", b") Z 1 (\n", b"x\rUid:\t7 7 7 7", b"\x0bPPid:\t1\x85")
# It leaves a child of the same name that nobody collects, which is a zombie.
_TAKES_A_NAME = """
import os, sys
with open("/proc/self/comm", "wb", buffering=0) as file:
    file.write(bytes.fromhex(sys.argv[1]))
os.setuid(int(sys.argv[2]))
child = os.fork()
if child == 0:
    os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
os.write(1, b"%d\\n" % child)
sys.stdin.read()
"""


@contextmanager
def oddly_named(names: tuple[bytes, ...] = ODD_NAMES, user: int | None = None) -> Iterator[list[tuple[int, int]]]:
    """Processes of these names, and for each a zombie: their pids, and those of their zombies."""
    with ExitStack() as stack:
        found = []
        for name in names:
            argv = [sys.executable, "-S", "-c", _TAKES_A_NAME, name.hex(), str(os.geteuid() if user is None else user)]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={})
            stack.enter_context(process)
            assert process.stdout is not None and process.stdin is not None
            stack.callback(process.stdin.close)
            found.append((process.pid, int(process.stdout.readline())))
        yield found
