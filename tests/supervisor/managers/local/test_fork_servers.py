"""Fork servers: which libraries they take, what they say, and how they end."""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from clipper.base.processes.proc import parent_of, start_time
from clipper.base.processes.process import ManagedProcess
from clipper.errors import ContainerFailed
from clipper.supervisor.managers.local import fork_server, fork_servers
from clipper.supervisor.managers.local.fork_server import Fork
from clipper.supervisor.managers.local.fork_servers import ForkServers
from clipper.supervisor.managers.local.warmth import Warmth
from tests.manager_bench import Bench, run
from tests.waiting import until_async

pytestmark = pytest.mark.long


class Direct:
    """Fork servers, asked without a manager."""

    def __init__(self, bench: Bench) -> None:
        self.log_path = bench.logs / "one.log"
        self.servers = bench.launcher.forks

    def warmth(self, *modules: str, python: str = sys.executable) -> Warmth:
        return Warmth(python, modules, (("OMP_NUM_THREADS", "1"),))

    async def fork(
        self, warmth: Warmth, name: str = "one", memory_bytes: int | None = None, folder: str = "/"
    ) -> ManagedProcess | None:
        # Of wrong usage: it ends with code 2.
        request = Fork(("--nonsense",), {"A": "b"}, folder, "/nowhere")
        return await self.servers.fork(name, warmth, request, self.log_path, memory_bytes, {"color": 1})


UNFIT = {
    "starts_a_thread": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    "opens_a_socket": "import socket\nkept = socket.socket()\n",
    "opens_a_pipe": "import os\nkept = os.pipe()\n",
    "fails": "raise RuntimeError('not today')\n",
    "exits": "raise SystemExit(0)\n",
    "vanishes": "import os\nos._exit(0)\n",
}


@pytest.mark.scale
def test_libraries_that_cannot_be_forked_with_are_not(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    said = {
        "starts_a_thread": "start 1 threads",
        "opens_a_socket": "open socket:",
        "opens_a_pipe": "open pipe:",
        "fails": "not today",
        "exits": "SystemExit",
        "vanishes": "exited with code 0",
    }

    caplog.set_level(logging.INFO)

    async def test() -> None:
        direct = Direct(bench)
        for module, text in UNFIT.items():
            (bench.path / "pythonpath" / f"{module}.py").write_text(text)
        for module, why in said.items():
            caplog.clear()
            assert await direct.fork(direct.warmth(module)) is None
            assert why in caplog.text
        # A module that is known not to fit is not tried again, and told once.
        caplog.clear()
        assert await direct.fork(direct.warmth("fails")) is None
        assert caplog.text == "" and direct.servers.pids() == []

    run(test(), bench)


@pytest.mark.scale
def test_one_that_ends_again_and_again_is_given_up_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        direct = Direct(bench)
        warmth = direct.warmth()
        for _ in range(fork_servers.MAX_DEATHS):
            assert await direct.fork(warmth) is not None
            (pid,) = direct.servers.pids()
            os.kill(pid, signal.SIGKILL)
            await until_async(lambda: direct.servers.pids() == [])
        assert await direct.fork(warmth) is None
        monkeypatch.setattr(fork_servers, "DEATHS_WITHIN_S", 0.0)
        assert await direct.fork(warmth) is not None

    run(test(), bench)


@pytest.mark.scale
def test_a_library_whose_import_hangs_is_waited_for_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        direct = Direct(bench)
        (bench.path / "pythonpath" / "hangs.py").write_text("import threading\nthreading.Event().wait()\n")
        monkeypatch.setattr(fork_server, "WARM_TIMEOUT_S", 5.0)
        # Several wait for one start.
        found = await asyncio.gather(*(direct.fork(direct.warmth("hangs"), name) for name in ("one", "two")))
        assert found == [None, None] and bench.pids() == []
        began_s = asyncio.get_running_loop().time()
        assert await direct.fork(direct.warmth("hangs")) is None
        assert asyncio.get_running_loop().time() < began_s + 1.0

    run(test(), bench)


@pytest.mark.scale
def test_a_library_whose_import_computes_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        direct = Direct(bench)
        computes = "import time\nend_s = time.monotonic() + 5.0\nwhile time.monotonic() < end_s:\n    pass\n"
        (bench.path / "pythonpath" / "computes.py").write_text(computes)
        monkeypatch.setattr(fork_server, "WARM_TIMEOUT_S", 4.0)
        assert await direct.fork(direct.warmth("computes")) is not None

    run(test(), bench)


LIES = """#!{python}
import json, os, socket, sys
channel = socket.socket(fileno=int(sys.argv[sys.argv.index("--socket") + 1]))
channel.send(b'{{"type": "Warm", "resident_bytes": 1}}')
while channel.recv(65536):
    channel.send({answer!r})
"""


@pytest.mark.parametrize(
    "answer",
    [
        b'{"type": "Forked", "pid": %d}',
        b'{"type": "Forked", "pid": 0}',
        b'{"type": "Forked", "pid": -1}',
        b'{"type": "Reaped", "code": 0}',
        b'{"type": "Forked"',
        b"\xff" * 70000,
        b"[]",
    ],
)
def test_what_it_says_is_checked(bench: Bench, answer: bytes) -> None:
    """It runs as the models' user. A process that it names is none that it could have us kill."""
    python = bench.path / "python"
    said = answer % os.getpid() if b"%d" in answer else answer
    python.write_text(LIES.format(python=sys.executable, answer=said))
    python.chmod(0o755)

    async def test() -> None:
        direct = Direct(bench)
        assert await direct.fork(direct.warmth(python=str(python))) is None
        assert direct.servers.pids() == []

    run(test(), bench)


def test_one_alone_begins_by_itself_and_so_does_one_with_little_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        direct = Direct(bench)
        warmth = direct.warmth()
        assert await direct.fork(warmth, memory_bytes=1 << 20) is None
        (pid,) = direct.servers.pids()
        forked = await direct.fork(warmth, memory_bytes=1 << 30)
        assert forked is not None
        await forked.has_exited_within(60)
        assert (forked.exit_code, parent_of(pid)) == (2, os.getpid())
        assert "are required: --listen" in direct.log_path.read_text()
        # The second of an hour is forked, also if the first is gone by then; and whoever comes back to a fork server.
        servers = ForkServers(bench.processes, bench.logs, fork_from=2)
        request = Fork(("--nonsense",), {}, "/", "/nowhere")
        for name, is_forked in (("first", False), ("first", False), ("second", True), ("first", True)):
            process = await servers.fork(name, warmth, request, direct.log_path, None, {})
            assert (process is not None) == is_forked
            if process is not None:
                await process.has_exited_within(60)
            servers.forget(name)
        await servers.end_all()
        # An hour later nobody knows of them.
        monkeypatch.setattr(fork_servers, "IDLE_S", -1.0)
        assert await servers.fork("third", warmth, request, direct.log_path, None, {}) is None
        assert servers.pids() == []
        # Neither for one alone, nor if nothing is to be forked.
        for fork_from in (2, None):
            servers = ForkServers(bench.processes, bench.logs, fork_from=fork_from)
            request = Fork((), {}, "/", "/nowhere")
            assert await servers.fork("one", warmth, request, direct.log_path, None, {}) is None
            assert servers.pids() == []

    run(test(), bench)


def test_what_was_there_before_the_servers_start_is_reason_for_one(bench: Bench) -> None:
    async def test() -> None:
        direct = Direct(bench)
        servers = ForkServers(bench.processes, bench.logs, fork_from=2)
        asleep, alone, awake = (direct.warmth(*modules) for modules in ((), ("json",), ("csv",)))
        for name, warmth, is_there in (
            ("taken-over", asleep, True),
            ("asleep", asleep, False),
            ("alone", alone, False),
            # Nobody waits for a fork server while all of its containers run.
            ("first", awake, True),
            ("second", awake, True),
        ):
            servers.note(name, warmth, is_there=is_there)
        await servers.warm_up()
        (pid,) = servers.pids()
        request = Fork(("--nonsense",), {}, "/", "/nowhere")
        forked = await servers.fork("asleep", asleep, request, direct.log_path, None, {})
        assert forked is not None and parent_of(forked.pid) in (pid, None)
        # One that has come meanwhile is not forgotten, and nothing is started twice.
        servers.note("asleep", asleep, is_there=False)
        await servers.warm_up()
        assert servers.pids() == [pid]
        await forked.has_exited_within(60)
        # One that has ended is missed before somebody wakes.
        servers.forget("asleep")
        os.kill(pid, signal.SIGKILL)
        await until_async(lambda: servers.pids() == [])
        await servers.warm_up()
        (other,) = servers.pids()
        assert other != pid
        await servers.end_all()
        # With the start method spawn there are none.
        servers = ForkServers(bench.processes, bench.logs, fork_from=None)
        for name in ("one", "two"):
            servers.note(name, asleep, is_there=False)
        await servers.warm_up()
        assert servers.pids() == []

    run(test(), bench)


def test_a_container_that_cannot_be_made_fails_and_leaves_no_process(bench: Bench) -> None:
    async def test() -> None:
        direct = Direct(bench)
        with pytest.raises(ContainerFailed, match="No such file"):
            await direct.fork(direct.warmth(), folder="/nowhere/at/all")
        assert sorted(bench.pids()) == direct.servers.pids()
        with pytest.raises(ContainerFailed, match="over 65536"):
            await direct.fork(direct.warmth(), folder="x" * 70000)

    run(test(), bench)


def test_more_variables_than_there_is_room_for_have_it_begin_anew(bench: Bench) -> None:
    async def test() -> None:
        direct = Direct(bench)
        request = Fork(("--nonsense",), {"A": "b" * 20000}, "/", "/nowhere")
        forked = await direct.servers.fork("one", direct.warmth(), request, direct.log_path, None, {})
        assert forked is not None
        await forked.has_exited_within(60)
        assert forked.exit_code == 2 and "are required: --listen" in direct.log_path.read_text()

    run(test(), bench)


def test_one_that_nobody_uses_is_ended_after_a_while(bench: Bench) -> None:
    async def test() -> None:
        direct = Direct(bench)
        forked = await direct.fork(direct.warmth())
        assert forked is not None
        await forked.has_exited_within(60)
        now_s = asyncio.get_running_loop().time()
        await direct.servers.end_idle(now_s + fork_servers.IDLE_S - 1)
        assert len(direct.servers.pids()) == 1
        await direct.servers.end_idle(now_s + fork_servers.IDLE_S + 1)
        assert direct.servers.pids() == [] and bench.pids() == []

    run(test(), bench)


@pytest.mark.scale
def test_it_ends_with_who_started_it(bench: Bench) -> None:
    program = f"""
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[4])!r})
from tests.manager_bench import SLOT, SUM, Bench

async def main():
    bench = Bench(Path({str(bench.path)!r}), fork_from=1)
    bench.manager.start(SLOT, bench.model(SUM))
    await bench.ready()
    print(*bench.launcher.forks.pids(), flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""

    async def test() -> None:
        pipe = asyncio.subprocess.PIPE
        earlier = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=pipe)
        assert earlier.stdout is not None
        pid = int(await earlier.stdout.read())
        await earlier.wait()
        await until_async(lambda: start_time(pid) is None)
        # Its container goes on, and is taken over.
        (note,) = await bench.manager.orphans()
        replica = await bench.manager.adopt(note)
        assert replica is not None
        await bench.ready()
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test(), bench)
