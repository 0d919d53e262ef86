"""Containers that are forked: what they have of their own, and what becomes of them without their fork server."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from clipper.base.processes.limits import CONTAINER_NICENESS, MAX_OPEN_FILES
from clipper.base.processes.marks import mark_of
from clipper.base.processes.proc import parent_of, pids, start_time, variable
from clipper.supervisor.managers.launcher import slot_name
from clipper.supervisor.managers.local.fork_servers import ForkServers
from clipper.supervisor.managers.logs import tail
from clipper.supervisor.managers.reconcile.plan import Slot
from tests.manager_bench import SLOT, SUM, Bench, run, send_batch
from tests.waiting import until_async

pytestmark = pytest.mark.long

OTHER = Slot("sum", "1", 2)


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
        await until_async(lambda: replica is not None and replica.progress is None and bool(bench.pids()))
        await bench.manager.stop_all()
        assert list(bench.facilities.scratch.iterdir()) == []
        await forks(bench).end_all()

    run(test(), bench)


KILLS_ITS_PARENT = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n"


@pytest.mark.scale
def test_a_model_that_kills_its_parent_ends_no_other_and_never_doubles(bench: Bench) -> None:
    """Without --run-as it could as well kill the server. Here it kills the process that it was forked from."""

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
