"""Processes that tests start, in a run folder of their own."""

import os
import sys
from pathlib import Path

from clipper.processes.folder import ProcessFolder
from clipper.processes.proc import start_time
from clipper.processes.process import ManagedProcess
from waiting import until_async


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
