import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipper.errors import ContainerFailed
from clipper.processes.enter import entering
from clipper.processes.managed import MARK, ManagedProcess, ProcessFolder, is_own_want, mark_of, passed_on, start_time
from clipper.run_as import RunAs
from waiting import until_async


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ProcessFolder]:
    folder = folder_in(tmp_path)
    yield folder
    folder.sweep(keep=())


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


async def exit_code_of(folder: ProcessFolder, path: Path, program: str) -> tuple[int | None, str]:
    process = launch(folder, path, program)
    await asyncio.wait_for(process.exited.wait(), 60)
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


def test_a_program_that_is_not_there(folder: ProcessFolder, tmp_path: Path) -> None:
    async def start() -> None:
        argv = ["/nowhere/python"]
        folder.launch("one", argv, log_path=tmp_path / "log", cwd=tmp_path, environment={}, extra={})

    with pytest.raises(ContainerFailed, match="/nowhere/python"):
        asyncio.run(start())


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


@pytest.mark.parametrize("how", ["stop", "exit"])
def test_what_a_process_forked_goes_with_it(folder: ProcessFolder, tmp_path: Path, how: str) -> None:
    async def run() -> None:
        gate = tmp_path / "gate"
        process = launch(folder, tmp_path, FORKS + f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)")
        await until_async(lambda: (tmp_path / "log").read_text().count("child") >= 2)
        if how == "stop":
            await process.stop(0.05)
        gate.touch()
        await asyncio.wait_for(process.exited.wait(), 60)
        for line in (tmp_path / "log").read_text().splitlines():
            await gone(int(line.split()[1]))

    asyncio.run(run())


SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from clipper.processes.managed import ProcessFolder

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
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
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
        await asyncio.wait_for(process.exited.wait(), 60)
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


def test_sweeping_spares_what_was_adopted_and_the_processes_of_another_home(tmp_path: Path) -> None:
    async def run() -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
        ours, other = folder_in(tmp_path / "a"), folder_in(tmp_path / "b")
        kept, swept = launch(ours, tmp_path, SLEEP, "kept"), launch(ours, tmp_path, SLEEP, "swept")
        foreign = launch(other, tmp_path, SLEEP, "swept")
        # A process that the system is still making ready to run shows no environment, hence no mark.
        await written(tmp_path / "log", "up\n" * 3)
        ours.sweep(keep=("kept",))
        await asyncio.wait_for(swept.exited.wait(), 60)
        assert not kept.exited.is_set() and not foreign.exited.is_set()
        await asyncio.gather(kept.stop(20), foreign.stop(20))

    asyncio.run(run())


def test_an_unreadable_record_is_removed(folder: ProcessFolder, tmp_path: Path) -> None:
    (tmp_path / "run" / "one.json").write_text("{")
    assert folder.recorded() == []
    assert list((tmp_path / "run").iterdir()) == []


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
            assert is_own_want(refused.value)
            process.kill()
            # Its exit is seen, but whether it has forked anything cannot be.
            assert not await process.has_exited_within(0.2)
        assert await process.has_exited_within(60)

    asyncio.run(run())


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


def test_a_container_of_another_user_imports_nothing_that_others_may_have_put_in_its_way(tmp_path: Path) -> None:
    for name in ("os.py", "msgspec.py", "clipper/__init__.py", "usercustomize.py", "sitecustomize.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('it was imported')")
    own = [sys.executable, "-c", "print(open('/proc/self/status').read())"]
    argv = entering(RunAs("", os.geteuid(), os.getegid()), None, None, own)
    assert argv[1:4] == ["-s", "-P", "-m"]
    if os.geteuid() == 0:
        home = {"HOME": str(tmp_path)}
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, env=home)
        assert "NoNewPrivs" in done.stdout and "it was imported" not in done.stderr
        missing = entering(RunAs("", 0, 0), None, None, ["/nowhere/python"])
        done = subprocess.run(missing, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stderr.startswith("clipper: it cannot be started with /nowhere/python")
