"""A process is watched to its end, and ended with all that it forked."""

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.marks import MARK, mark_of
from clipper.base.processes.proc import is_own_shortage
from tests.started_processes import SLEEP, gone, launch, written
from tests.waiting import TIMEOUT_S, until_async

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
# A child in the group, and one that left it; both ignore SIGTERM.
FORKS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
    # One write: a reader must not see half a line.
    os.write(1, b'child %d\\n' % os.getpid())
    time.sleep(600)
"""


async def exit_code_of(folder: ProcessFolder, path: Path, program: str) -> tuple[int | None, str]:
    process = launch(folder, path, program)
    await asyncio.wait_for(process.exited.wait(), TIMEOUT_S)
    return process.exit_code, process.how_it_ended


def test_an_exit_is_noticed_with_its_code(folder: ProcessFolder, tmp_path: Path) -> None:
    exits = asyncio.run(exit_code_of(folder, tmp_path, "raise SystemExit(3)"))
    assert exits == (3, "exited with code 3")
    killed = asyncio.run(exit_code_of(folder, tmp_path, "import os; os.kill(os.getpid(), 9)"))
    assert killed[0] == -signal.SIGKILL
    assert killed[1].startswith("was killed by SIGKILL")


def test_what_a_process_inherits(folder: ProcessFolder, tmp_path: Path) -> None:
    program = "import os; print(os.listdir('/proc/self/fd'), os.getsid(0) == os.getpid(), sorted(os.environ))"
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    asyncio.run(exit_code_of(folder, tmp_path, program))
    os.close(leak)
    output = (tmp_path / "log").read_text()
    # The fourth is the listing's own.
    assert output.startswith("['0', '1', '2', '3'] True ")
    assert MARK in output and "'A'" in output and "CLIPPER_HOME" not in output


def test_stopping_is_graceful_where_it_can_be(folder: ProcessFolder, tmp_path: Path) -> None:
    async def stopped(program: str, grace_s: float) -> int | None:
        process = launch(folder, tmp_path, program)
        await written(tmp_path / "log", "up")
        await process.stop(grace_s)
        assert process.exited.is_set()
        (tmp_path / "log").unlink()
        return process.exit_code

    assert asyncio.run(stopped(SLEEP, 20.0)) == -signal.SIGTERM
    assert asyncio.run(stopped(STUBBORN, 0.05)) == -signal.SIGKILL


@pytest.mark.parametrize("turns", range(5))
def test_a_cancellation_that_comes_with_the_exit_is_not_lost(folder: ProcessFolder, tmp_path: Path, turns: int) -> None:
    """Else who watches a worker would start it again, although the server stops."""

    async def run() -> None:
        process = launch(folder, tmp_path, SLEEP)
        waits = asyncio.create_task(process.has_exited_within(60))
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        process.exited.set()
        for _ in range(turns):
            await asyncio.sleep(0.0)
        if waits.cancel():
            with pytest.raises(asyncio.CancelledError):
                await waits
        process.exited.clear()
        process.kill()
        await until_async(process.exited.is_set)

    asyncio.run(run())


@pytest.mark.parametrize("how", ["stop", "exit"])
def test_what_a_process_forked_goes_with_it(folder: ProcessFolder, tmp_path: Path, how: str) -> None:
    async def run() -> None:
        gate = tmp_path / "gate"
        process = launch(folder, tmp_path, FORKS + f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)")
        await until_async(lambda: (tmp_path / "log").read_text().count("child") >= 2)
        if how == "stop":
            await process.stop(0.05)
        gate.touch()
        await asyncio.wait_for(process.exited.wait(), TIMEOUT_S)
        for line in (tmp_path / "log").read_text().splitlines():
            await gone(int(line.split()[1]))

    asyncio.run(run())


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """As for a process that has opened all that it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_cannot_be_looked_for_is_not_taken_to_be_gone(folder: ProcessFolder, tmp_path: Path) -> None:
    async def run() -> None:
        process = launch(folder, tmp_path, SLEEP)
        await written(tmp_path / "log", "up")
        with no_descriptor_left():
            with pytest.raises(OSError, match="Too many open files") as refused:
                mark_of(process.pid)
            assert is_own_shortage(refused.value)
            process.kill()
            # Its exit is seen, but whether it has forked anything cannot be.
            assert not await process.has_exited_within(0.2)
        assert await process.has_exited_within(60)

    asyncio.run(run())


def test_a_child_that_is_adopted_is_reaped(folder: ProcessFolder, tmp_path: Path) -> None:
    """A supervisor that starts again in its own process finds children that no object of it stands for."""

    async def adopted_exit() -> tuple[int, int | None]:
        process = launch(folder, tmp_path, SLEEP)
        process.release()
        adopted = folder.adopt(process.record)
        assert adopted is not None
        adopted.kill()
        await asyncio.wait_for(adopted.exited.wait(), TIMEOUT_S)
        assert process._child is not None
        await process._child.reap()
        return adopted.pid, adopted.exit_code

    pid, exit_code = asyncio.run(adopted_exit())
    assert exit_code == -signal.SIGKILL
    assert not Path(f"/proc/{pid}").exists()
