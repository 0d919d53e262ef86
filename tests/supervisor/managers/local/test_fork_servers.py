"""Containers that are forked: what they have of their own, and what becomes of them without their fork server."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.base.processes.limits import CONTAINER_NICENESS, MAX_OPEN_FILES
from clipper.base.processes.marks import mark_of
from clipper.base.processes.proc import parent_of, pids, start_time, variable
from clipper.base.processes.process import ManagedProcess
from clipper.errors import ContainerFailed
from clipper.supervisor.managers.launcher import slot_name
from clipper.supervisor.managers.local import fork_server, fork_servers
from clipper.supervisor.managers.local.fork_messages import Fork
from clipper.supervisor.managers.local.fork_servers import ForkServers
from clipper.supervisor.managers.local.warmth import Warmth
from clipper.supervisor.managers.logs import tail
from clipper.supervisor.managers.reconcile.plan import Slot
from tests.manager_bench import SLOT, SUM, Bench, run, send_batch
from tests.waiting import until_async

pytestmark = pytest.mark.long

OTHER = Slot("sum", "1", 2)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, fork_from=1)
    yield bench
    bench.close()


def forks(bench: Bench) -> ForkServers:
    return bench.launcher.forks


async def ready(bench: Bench, slot: Slot) -> int:
    def status() -> Any:
        return next(one for one in bench.manager.slots() if one.slot == slot)

    await until_async(lambda: status().phase != "starting")
    assert status().phase == "ready", status().start_failure
    pid: int = status().replica.pid
    return pid


TELLS = """
import json, multiprocessing, os, random, resource, sys, tempfile, threading
import numpy
here = {
    "authkey": multiprocessing.current_process().authkey.hex(),
    "random": random.random(), "numpy": numpy.random.random(), "temporary": tempfile.gettempdir(), "path": sys.path[1],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "tmpdir": os.environ["TMPDIR"], "threads": threading.active_count(), "argv": sys.argv[1:3],
    "room": os.environ.get("CLIPPER_ROOM"), "main": sys.modules["__main__"].__name__,
    "descriptors": sorted({os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in range(64)
                           if os.path.exists(f"/proc/self/fd/{fd}")}),
}
print("tells", json.dumps(here))
"""


def told(bench: Bench, slot: Slot) -> dict[str, Any]:
    lines = [line for line in tail(bench.manager.log_path(slot), 99) if line.startswith("tells ")]
    told: dict[str, Any] = json.loads(lines[-1].removeprefix("tells "))
    return told


def test_what_a_forked_container_has_of_its_own(bench: Bench) -> None:
    async def test() -> None:
        cores = sorted(os.sched_getaffinity(0))
        # It imports multiprocessing, so the fork server has.
        spec = bench.model(TELLS + SUM, cpus=0.5, needs=("joblib",))
        for slot in (SLOT, OTHER):
            bench.manager.start(slot, spec)
        ready_pids = [await ready(bench, slot) for slot in (SLOT, OTHER)]
        (server,) = forks(bench).pids()
        for slot, pid in zip((SLOT, OTHER), ready_pids):
            folder = str(bench.facilities.scratch / slot_name(slot))
            assert (parent_of(pid), os.getsid(pid), os.getpgid(pid)) == (server, pid, pid)
            assert mark_of(pid) == f"{bench.path / 'run'}/{slot_name(slot)}"
            assert variable(pid, "TMPDIR") == str(Path(f"/proc/{pid}/cwd").readlink()) == folder
            command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            assert command[1:3] == [b"-m", b"clipper.model.runtime"] and b"sum" in command
            assert os.getpriority(os.PRIO_PROCESS, pid) >= CONTAINER_NICENESS
            group = Path(f"/proc/{pid}/autogroup")
            assert not group.exists() or "nice" in group.read_text()
            assert len(os.sched_getaffinity(pid)) == 1 or len(cores) == 1
            here = told(bench, slot)
            assert here["temporary"] == here["path"] == here["tmpdir"] == folder
            assert (here["files"], here["core"], here["threads"], here["room"]) == (MAX_OPEN_FILES, 0, 1, None)
            assert here["argv"][0] == "--listen" and here["argv"][1].endswith(".sock")
            # Nothing of the fork server's is left open: its socket least of all.
            assert {name for name in here["descriptors"] if not name.startswith("/")} == set()
        first, second = told(bench, SLOT), told(bench, OTHER)
        assert all(first[name] != second[name] for name in ("authkey", "random", "numpy"))
        assert os.sched_getaffinity(ready_pids[0]) != os.sched_getaffinity(ready_pids[1]) or len(cores) == 1
        await bench.manager.stop_all()
        await forks(bench).end_all()
        assert start_time(server) is None
        bench.leaves_nothing()

    run(test(), bench)


LATE = """
import atexit, sys, threading
def late():
    threading.main_thread().join()
    print("the thread has written", file=sys.stderr, flush=True)
threading.Thread(target=late).start()
atexit.register(print, "what was registered has run", file=sys.stderr, flush=True)
sys.stdout = object()
"""


def test_what_a_model_does_at_its_end_is_waited_for(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(LATE + SUM))
        await bench.ready()
        log_path = bench.manager.log_path(SLOT)
        await bench.manager.stop_all()
        assert list(tail(log_path, 2)) == ["the thread has written", "what was registered has run"]

    run(test(), bench)


SPOILS = """
import json, locale, os, random, signal, sys, threading
os.chdir("/")
os.umask(0o000)
os.environ["TMPDIR"] = "/"
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
locale.setlocale(locale.LC_ALL, "C")
sys.setrecursionlimit(100_000)
random.seed(1)
threading.Thread(target=threading.Event().wait, daemon=True).start()
json.spoilt = True
os.closerange(0, 21)
if os.fork() == 0:
    signal.pause()
"""
SEES = """
import json, locale, os, signal, sys
print("tells", json.dumps({
    "folder": os.getcwd(), "umask": os.umask(0o022), "tmpdir": os.environ["TMPDIR"], "spoilt": hasattr(json, "spoilt"),
    "ignored": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN, "recursion": sys.getrecursionlimit(),
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "locale": locale.setlocale(locale.LC_ALL),
    "open": [os.path.exists(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)],
}))
"""


def test_what_one_does_to_itself_is_not_seen_by_the_next(bench: Bench) -> None:
    async def test() -> None:
        seen = []
        # Before the other is there, and after.
        for slot in (SLOT, OTHER):
            bench.manager.start(slot, bench.model(SEES + SUM))
            await ready(bench, slot)
            seen.append(told(bench, slot))
            if slot == SLOT:
                spoilt = Slot("sum", "1", 3)
                bench.manager.start(spoilt, bench.model(SPOILS + SUM))
                # It goes on as well as it would have if it had been started by itself.
                await ready(bench, spoilt)
        assert [one.pop("folder") for one in seen] == [one.pop("tmpdir") for one in seen]
        assert seen[0] == seen[1] and seen[1]["open"] == [True] * 3 and not seen[1]["spoilt"]
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test(), bench)


def test_one_that_takes_more_than_its_bound_at_once_says_so(bench: Bench) -> None:
    async def test() -> None:
        # Large enough for it to be forked.
        bench.manager.start(SLOT, bench.model("kept = bytearray(8 << 30)\n" + SUM, memory_bytes=700 << 20))
        assert "does not fit into the container's memory: raise --memory" in await bench.until_dead()
        (server,) = forks(bench).pids()
        # The bound is the container's own.
        bench.manager.start(OTHER, bench.model(SUM))
        assert parent_of(await ready(bench, OTHER)) == server
        await bench.manager.stop_all()

    run(test(), bench)


def test_how_one_ends_is_known(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model("import os; os._exit(9)"))
        assert "exited with code 9 before it was ready" in await bench.until_dead()
        bench.manager.start(SLOT, bench.model("raise RuntimeError('no such weights')"))
        await until_async(lambda: bench.status.phase == "dead")
        assert "exited with code 3" in bench.failure and "no such weights" in bench.failure
        bench.manager.start(SLOT, bench.model(SUM))
        os.kill(await bench.ready(), signal.SIGSEGV)
        assert "was killed by SIGSEGV" in await bench.until_dead()
        bench.leaves_nothing()

    run(test(), bench)


def test_containers_outlive_their_fork_server_and_others_get_a_new_one(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        pid = await bench.ready()
        (first,) = forks(bench).pids()
        os.kill(first, signal.SIGKILL)
        await until_async(lambda: forks(bench).pids() == [])
        assert start_time(pid) is not None
        bench.manager.start(OTHER, bench.model(SUM))
        other = await ready(bench, OTHER)
        (second,) = forks(bench).pids()
        assert parent_of(other) == second != first
        # Its exit code went to whoever is its parent now.
        os.kill(pid, signal.SIGKILL)
        await until_async(lambda: bench.manager.slots()[0].phase == "dead")
        assert str(bench.manager.slots()[0].last_error).endswith("container sum:1#1 exited")
        await bench.manager.stop_all()

    run(test(), bench)


def test_the_model_s_own_module_comes_before_one_of_the_same_name(bench: Bench) -> None:
    async def test() -> None:
        spec = bench.model("import colorsys_, json\ndef predict(inputs): return json.mine(inputs)\n")
        code = bench.facilities.artifacts / spec.artifact / "code"
        (code / "json.py").write_text("def mine(inputs): return [0.0] * len(inputs)\n")
        (code / "colorsys_.py").write_text("")
        bench.manager.start(SLOT, spec)
        pid = await bench.ready()
        (server,) = forks(bench).pids()
        assert parent_of(pid) == server
        assert "the model's code has json of its own" in tail(bench.manager.log_path(SLOT), 99)[0]
        await bench.manager.stop_all()

    run(test(), bench)


def test_one_stopped_while_its_fork_server_warms_up_leaves_nothing(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        replica = bench.status.replica
        await until_async(lambda: replica is not None and replica.progress is None and bool(processes(bench)))
        await bench.manager.stop_all()
        assert list(bench.facilities.scratch.iterdir()) == []
        await forks(bench).end_all()

    run(test(), bench)


def processes(bench: Bench) -> list[int]:
    """The ids of all processes of the bench."""
    run_folder = str(bench.path / "run")
    return [pid for pid in pids() if mark_of(pid).startswith(run_folder)]


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
        # What is known is not tried again, and told once.
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
        assert found == [None, None] and processes(bench) == []
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


KILLS_ITS_PARENT = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n"


@pytest.mark.scale
def test_a_model_that_kills_its_parent_ends_no_other_and_never_doubles(bench: Bench) -> None:
    """Without --run-as it could as well kill the server. What it kills here is the process that it was forked from."""

    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        pid = await bench.ready()
        bench.manager.start(OTHER, bench.model(KILLS_ITS_PARENT + SUM))
        # Whether the fork server could still say that it has forked it or not.
        await until_async(lambda: bench.manager.slots()[1].phase != "starting")
        await until_async(lambda: forks(bench).pids() == [])
        assert start_time(pid) is not None
        mark = f"{bench.path / 'run'}/{slot_name(OTHER)}"
        assert sum(mark_of(each) == mark for each in pids()) <= 1
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test(), bench)


LEAKS = """
import os
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(2000)]
for fd in kept:
    os.set_inheritable(fd, True)
if os.fork() == 0:
    os.setsid()
    import time
    time.sleep(600)
"""
GREEDY = "kept = []\ndef predict(inputs):\n    kept.append(bytearray(900 << 20)); import time; time.sleep(60)\n"


@pytest.mark.scale
def test_what_one_leaks_or_takes_too_much_of_is_not_that_of_others(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(OTHER, bench.model(LEAKS + SUM))
        leaking = await ready(bench, OTHER)
        # Its bound is large enough for it to be forked.
        bench.manager.start(SLOT, bench.model(GREEDY, memory_bytes=700 << 20))
        greedy = await ready(bench, SLOT)
        (server,) = forks(bench).pids()
        assert parent_of(leaking) == parent_of(greedy) == server
        assert len(list(Path(f"/proc/{greedy}/fd").iterdir())) < 50
        replica = next(one for one in bench.manager.slots() if one.slot == SLOT).replica
        assert replica is not None and replica.address is not None
        writer = await send_batch(replica.address)
        await until_async(lambda: next(one for one in bench.manager.slots() if one.slot == SLOT).phase == "dead")
        writer.close()
        assert start_time(leaking) is not None and forks(bench).pids() == [server]
        await bench.manager.stop_all()
        bench.leaves_nothing()

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
        assert sorted(processes(bench)) == direct.servers.pids()
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
        assert direct.servers.pids() == [] and processes(bench) == []

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
        (note,) = await bench.manager.left()
        replica = await bench.manager.adopt(note)
        assert replica is not None
        await bench.ready()
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test(), bench)
