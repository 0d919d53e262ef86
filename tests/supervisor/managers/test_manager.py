"""One suite for every kind of manager: real containers, in processes, in a real Docker and on a real Ray cluster.

Processes are started by themselves, and forked from one that has their libraries.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.base.processes.proc import pids, start_time
from clipper.supervisor.managers import manager
from clipper.supervisor.managers import replica as replicas
from clipper.supervisor.managers.logs import tail
from clipper.supervisor.managers.replica import LOG_TAIL_LINES
from tests.manager_bench import SLOT, SUM, Bench, run
from tests.waiting import until_async

MakeBench = Callable[..., Bench]


def at_length(kind: str) -> Any:
    return pytest.param(kind, marks=[pytest.mark.long, pytest.mark.machine])


DOCKER = at_length("docker")
ON_RAY = pytest.param("ray", marks=[pytest.mark.scale, pytest.mark.machine])
FORKED = pytest.param("local over fork", marks=pytest.mark.scale)


@pytest.fixture(params=["local", FORKED, DOCKER, ON_RAY])
def make_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeBench]:
    """Takes what else ``Bench`` takes. Whatever a test leaves running is ended."""
    kind, _, transport = request.param.partition(" over ")
    servers = {"docker": "docker_daemon", "ray": "ray_cluster"}
    environ = request.getfixturevalue(servers[kind]).environ if kind in servers else None
    benches = []

    def make(**options: Any) -> Bench:
        if transport == "fork":
            options |= {"fork_from": 1}
        elif transport:
            options |= {"transport": transport}
        benches.append(Bench(tmp_path, kind, environ, **options))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


# Where it matters how a container is dialled.
by_any_transport = pytest.mark.parametrize(
    "make_bench",
    ["local", "local over fork", DOCKER, at_length("docker over tcp"), at_length("ray")],
    indirect=True,
)


@by_any_transport
def test_a_container_has_its_variables_and_no_record_has_its_secrets(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.secret_values = lambda names: dict.fromkeys(names, "a well kept secret")
        body = f"import os\nprint('it has', os.environ['LEVEL'], os.environ['KEY'], flush=True)\n{SUM}"
        bench.manager.start(SLOT, bench.model(body, env={"LEVEL": "7"}, secrets=("KEY",), input_type="float64[4]"))
        await bench.ready()
        await bench.manager.save_logs(SLOT.model_id)
        assert "it has 7 a well kept secret" in bench.manager.log_path(SLOT).read_text()
        for record in bench.path.glob("run/*.json"):
            assert "a well kept secret" not in record.read_text()
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test(), bench)


@by_any_transport
def test_a_container_comes_up_and_stops_and_leaves_only_its_log(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM, input_type="float64[4]"))
        assert bench.status.phase == "starting"
        pid = await bench.ready()
        replica = bench.status.replica
        assert replica is not None and replica.welcome is not None
        assert str(replica.welcome.input_type) == "float64[4]"
        assert replica.note.id == "sum:1#1.g1"
        assert replica.address is not None and is_there(replica.address.address, bench.kind)
        await bench.manager.stop_all()
        assert start_time(pid) is None
        assert bench.manager.slots() == []
        bench.leaves_nothing()
        assert "stopped" in tail(bench.manager.log_path(SLOT), 1)[0]

    run(test(), bench)


def test_a_model_that_cannot_be_loaded_is_a_start_failure_with_the_log(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model("print('old')\nraise RuntimeError('no such weights')"))
        assert "exited with code 3" in await bench.until_dead()
        assert "no such weights" in bench.failure
        assert len(bench.failure.splitlines()) <= LOG_TAIL_LINES + 1
        bench.leaves_nothing()
        # The next failure shows nothing of the log of an earlier start.
        bench.manager.start(SLOT, bench.model("raise RuntimeError('other')"))
        assert bench.status.restarts == 1
        await bench.until_dead()
        assert "other" in bench.failure and "no such weights" not in bench.failure

    run(test(), bench)


def test_a_model_that_loads_for_ever_is_given_up_in_time(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model("import time; time.sleep(600)", start_timeout_s=0.5))
        starting = bench.status.replica
        assert starting is not None
        await until_async(lambda: starting.pid is not None)
        assert "within its start_timeout_s of 0.5 s" in await bench.until_dead()
        assert starting.pid is not None and start_time(starting.pid) is None
        bench.leaves_nothing()

    run(test(), bench)


def test_one_that_is_stopped_while_it_starts_leaves_nothing(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        await asyncio.sleep(0)
        await bench.manager.stop_all()
        assert bench.manager.slots() == []
        bench.leaves_nothing()

    run(test(), bench)


def test_a_death_is_noticed_and_counted(bench: Bench) -> None:
    async def test() -> None:
        spec = bench.model(SUM)
        bench.manager.start(SLOT, spec)
        os.kill(await bench.ready(), signal.SIGKILL)
        assert "SIGKILL" in await bench.until_dead()
        assert bench.status.start_failure is None
        assert bench.manager.slots()[0].history.streak == 1
        bench.manager.start(SLOT, spec)
        await bench.ready()
        assert bench.status.restarts == 1
        assert bench.status.replica is not None and bench.status.replica.note.id == "sum:1#1.g2"
        await bench.manager.stop_all()
        bench.leaves_nothing()

    run(test(), bench)


def test_a_model_over_its_memory_limit_dies_of_it(bench: Bench) -> None:
    async def test() -> None:
        # Every page is written to: only then has it been taken.
        spec = bench.model(f"taken = b'x' * (1 << 30)\n{SUM}", memory_bytes=512 << 20)
        bench.manager.start(SLOT, spec)
        await bench.until_dead()
        assert "memory" in bench.failure.lower()

    run(test(), bench)


def test_what_it_writes_is_in_its_log_while_it_runs(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(f"print('weights of 2019')\n{SUM}"))
        await bench.ready()
        await bench.manager.save_logs(SLOT.model_id)
        (lines,) = [tail(path, 99) for path in bench.manager.log_paths(SLOT.model_id).values()]
        assert "weights of 2019" in lines and "listening on" in lines[-1]
        # Twice saved is not twice there.
        await bench.manager.save_logs(SLOT.model_id)
        await bench.manager.stop_all()
        lines = tail(bench.manager.log_path(SLOT), 99)
        assert lines.count("weights of 2019") == 1 and "stopped" in lines[-1]

    run(test(), bench)


@by_any_transport
def test_a_batch_that_hangs_gets_its_replica_killed(make_bench: MakeBench) -> None:
    bench = make_bench(batch_timeout_s=0.2)

    async def test() -> None:
        bench.manager.start(SLOT, bench.model("import time\ndef predict(inputs): time.sleep(600)"))
        pid = await bench.ready()
        writer = await bench.predict()
        assert "hung: a batch ran for over 0.2 s" in await bench.until_dead()
        assert start_time(pid) is None
        writer.close()

    run(test(), bench)


FREEZES = "import os, signal\ndef predict(inputs): os.kill(os.getpid(), signal.SIGSTOP)\n"


def test_a_container_that_does_not_answer_pings_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "PING_EVERY_S", 0.05)

    async def test() -> None:
        bench.manager.start(SLOT, bench.model(FREEZES))
        await bench.ready()
        writer = await bench.predict()
        # Not before: a machine that is slow to answer would end it too soon.
        monkeypatch.setattr(replicas, "PING_TIMEOUT_S", 0.3)
        assert "no answer to a ping" in await bench.until_dead()
        writer.close()

    run(test(), bench)


def test_what_a_model_forked_dies_with_it(bench: Bench) -> None:
    # As long as no other process sleeps.
    seconds = f"{600 + os.getpid() / 1e7:.7f}"
    forks = f"import subprocess\nsubprocess.Popen(['sleep', '{seconds}'], start_new_session=True)\n"

    async def test() -> None:
        bench.manager.start(SLOT, bench.model(forks + SUM))
        await bench.ready()
        assert is_running(seconds)
        await bench.manager.stop_all()
        await until_async(lambda: not is_running(seconds))

    run(test(), bench)


def is_running(argument: str) -> bool:
    """Whether any process of the machine was started with that."""
    return any(argument.encode() in arguments_of(Path(f"/proc/{pid}/cmdline")) for pid in pids())


def arguments_of(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:
        return []  # it is gone


LEAVE_ONE = '''
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from clipper.base.processes.proc import pids, stat_fields
from tests.manager_bench import SLOT, Bench
from tests.waiting import until_async

def is_stopped(pid, address):
    """Whether that process is, or one that was started with the address: in Docker a process has a pid of its own."""
    for each in {pid, *pids()}:
        try:
            told = Path(f"/proc/{each}/cmdline").read_bytes()
        except OSError:  # it is gone
            continue
        fields = stat_fields(each)
        if fields and fields[0] == b"T" and (each == pid or address.encode() in told):
            return True
    return False

async def main():
    bench = Bench(Path(sys.argv[2]), sys.argv[3], os.environ, transport=sys.argv[4], fork_from=int(sys.argv[7]))
    bench.manager.start(SLOT, bench.model(sys.argv[5]))
    pid = await bench.ready()
    await bench.manager.save_logs(SLOT.model_id)
    if sys.argv[6] == "asked":
        await bench.predict()
        address = bench.status.replica.address.address
        await until_async(lambda: is_stopped(pid, address))
    os.kill(os.getpid(), 9)

asyncio.run(main())
'''


def is_there(address: str, kind: str) -> bool:
    """Whether somebody listens, as only this machine may reach it; nodes of Ray are elsewhere."""
    scheme, _, path = address.partition(":")
    if scheme == "unix":
        return Path(path).is_socket()
    host, _, port = path.rpartition(":")
    with socket.create_connection((host, int(port))):
        return kind == "ray" or host == "127.0.0.1"


async def leave_one(bench: Bench, body: str, state: str = "idle") -> None:
    """Have another process start a container, and die. One that is ``asked`` has stopped itself over a batch."""
    root = str(Path(__file__).parents[3])
    argv = (root, str(bench.path), bench.kind, bench.transport, body, state, str(bench.fork_from))
    environ = {**os.environ, **bench.environ}
    earlier = await asyncio.create_subprocess_exec(sys.executable, "-c", LEAVE_ONE, *argv, env=environ)
    assert await earlier.wait() == -signal.SIGKILL


@by_any_transport
def test_the_container_of_a_killed_supervisor_is_taken_over(bench: Bench) -> None:
    async def test() -> None:
        await leave_one(bench, f"print('once')\n{SUM}")
        (note,) = await bench.manager.orphans()
        assert note.ready and note.slot == SLOT
        replica = await bench.manager.adopt(note)
        assert replica is not None
        await replica.settled.wait()
        pid = await bench.ready()
        await bench.manager.stop_all()
        assert start_time(pid) is None
        bench.leaves_nothing()
        lines = tail(bench.manager.log_path(SLOT), 99)
        assert lines.count("once") == 1 and "stopped" in lines[-1]

    run(test(), bench)


def test_one_that_hangs_is_taken_over_and_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "ADOPTION_TIMEOUT_S", 0.3)

    async def test() -> None:
        await leave_one(bench, FREEZES, "asked")
        (note,) = await bench.manager.orphans()
        assert await bench.manager.adopt(note) is not None
        assert "was not ready" in await bench.until_dead()
        bench.leaves_nothing()

    run(test(), bench)


def test_one_that_nobody_wants_any_more_is_ended(bench: Bench) -> None:
    async def test() -> None:
        await leave_one(bench, SUM)
        launcher = bench.launchers[bench.kind]
        # A cluster is not asked by a look.
        assert [note.slot for note, _ in await launcher.seen()] == ([] if bench.kind == "ray" else [SLOT])
        (note,) = await bench.manager.orphans()
        await bench.manager.end_orphan(note)
        assert await bench.manager.orphans() == [] == await launcher.seen()
        bench.leaves_nothing()

    run(test(), bench)
