"""The local manager over the real container runtime, in real processes."""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import clipper
from clipper.containers.protocol import messages
from clipper.containers.protocol.messages import encode_hello
from clipper.managers import limits, manager
from clipper.managers import replica as replicas
from clipper.managers.launcher import slot_name
from clipper.managers.local import Folders, LocalLauncher
from clipper.managers.logs import tail
from clipper.managers.manager import Manager, SlotStatus
from clipper.managers.model_environments import ModelEnvironments
from clipper.managers.processes import ProcessFolder, start_time
from clipper.managers.reconcile.plan import Slot
from clipper.managers.warm_up import Sample
from clipper.registry.records import VersionSpec
from clipper.types import DType, InputType, ModelId

SLOT = Slot("sum", "1", 1)


class Bench:
    """A manager on folders of its own, and a model in its artifacts."""

    def __init__(self, path: Path, batch_timeout_s: float = 30.0, sample: Sample | None = None) -> None:
        self.path = path
        self.logs, python_path = self._folder("logs"), self._folder("pythonpath")
        self.folders = Folders(*map(self._folder, ("artifacts", "scratch", "run")))
        if not (python_path / "clipper").exists():
            (python_path / "clipper").symlink_to(Path(clipper.__file__).parent)
        self.processes = ProcessFolder(path / "run", os.environ, python_path)
        numbers = itertools.count(1)
        environments = ModelEnvironments(self.processes, self.folders.artifacts, path / "environments")
        self.launcher = LocalLauncher(self.processes, self.folders, environments)

        async def find_sample(_id: ModelId, _type: InputType) -> Sample | None:
            return sample

        self.manager = Manager(
            {"local": self.launcher},
            self.logs,
            lambda: next(numbers),
            lambda _: batch_timeout_s,
            find_sample,
            lambda: None,
        )

    def _folder(self, name: str) -> Path:
        (self.path / name).mkdir(exist_ok=True)
        return self.path / name

    def model(self, body: str, artifact: str = "a1", **fields: Any) -> VersionSpec:
        """The spec of a model whose module is ``body`` with a function ``predict``."""
        code = self.folders.artifacts / artifact / "code"
        code.mkdir(parents=True, exist_ok=True)
        (code / "my_model.py").write_text(body)
        return VersionSpec(artifact, "import", "my_model:predict", **fields)

    @property
    def status(self) -> SlotStatus:
        (status,) = self.manager.slots()
        return status

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)

    async def ready(self) -> int:
        """The pid, once it is ready."""
        await self.until(lambda: self.status.phase == "ready")
        replica = self.status.replica
        assert replica is not None and replica.pid is not None
        return replica.pid

    def leaves_nothing(self) -> None:
        assert list(self.folders.scratch.iterdir()) == []
        assert list((self.path / "run").iterdir()) == []


SUM = "def predict(inputs): return [float(sum(row)) for row in inputs]\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.processes.sweep(keep=())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 60))


def test_a_container_comes_up_and_stops_and_leaves_only_its_log(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM, input_type="float64[4]"))
        assert bench.status.phase == "starting"
        pid = await bench.ready()
        replica = bench.status.replica
        assert replica is not None and replica.welcome is not None
        assert str(replica.welcome.input_type) == "float64[4]"
        assert replica.note.id == "sum:1#1.g1"
        assert Path(replica.address.removeprefix("unix:")).is_socket()
        assert Path(f"/proc/{pid}/cwd").readlink() == bench.folders.scratch / slot_name(SLOT)
        assert os.getpriority(os.PRIO_PROCESS, pid) == limits.CONTAINER_NICENESS
        await bench.manager.stop_all()
        assert start_time(pid) is None
        assert bench.manager.slots() == []
        bench.leaves_nothing()
        assert bench.manager.log_path(SLOT).exists()

    run(test())


def test_a_model_that_cannot_be_loaded_is_a_start_failure_with_the_log(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model("print('old')\nraise RuntimeError('no such weights')"))
        await bench.until(lambda: bench.status.phase == "dead")
        failure = bench.status.start_failure
        assert failure is not None
        assert "exited with code 3" in failure.reason
        assert any("no such weights" in line for line in failure.log_tail)
        assert len(failure.log_tail) <= replicas.LOG_TAIL_LINES
        bench.leaves_nothing()
        # What an earlier start said is no part of what the next one fails with.
        bench.manager.start(SLOT, bench.model("raise RuntimeError('other')"))
        assert bench.status.restarts == 1
        await bench.until(lambda: bench.status.phase == "dead")
        failure = bench.status.start_failure
        assert failure is not None and not any("no such weights" in line for line in failure.log_tail)

    run(test())


def test_a_python_that_is_not_there_is_a_start_failure(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM, python="/nowhere/python3"))
        await bench.until(lambda: bench.status.phase == "dead")
        assert bench.status.start_failure is not None
        assert "/nowhere/python3" in bench.status.start_failure.reason

    run(test())


def test_a_model_that_loads_for_ever_is_given_up_in_time(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model("import time; time.sleep(600)", start_timeout_s=0.5))
        starting = bench.status.replica
        assert starting is not None
        await bench.until(lambda: starting.pid is not None)
        pid = starting.pid
        await bench.until(lambda: bench.status.phase == "dead")
        assert bench.status.start_failure is not None
        assert "within its start_timeout_s of 0.5 s" in bench.status.start_failure.reason
        assert pid is not None and start_time(pid) is None

    run(test())


def test_a_death_is_noticed_and_counted(bench: Bench) -> None:
    async def test() -> None:
        spec = bench.model(SUM)
        bench.manager.start(SLOT, spec)
        os.kill(await bench.ready(), signal.SIGKILL)
        await bench.until(lambda: bench.status.phase == "dead")
        assert bench.status.last_error is not None and "SIGKILL" in bench.status.last_error
        assert bench.status.start_failure is None
        assert bench.manager.observed()[0].history.streak == 1
        bench.manager.start(SLOT, spec)
        await bench.ready()
        assert bench.status.restarts == 1
        assert bench.status.replica is not None and bench.status.replica.note.id == "sum:1#1.g2"
        await bench.manager.stop_all()

    run(test())


async def predict(bench: Bench) -> asyncio.StreamWriter:
    """Send one batch, and do not wait for its answer."""
    replica = bench.status.replica
    assert replica is not None
    reader, writer = await asyncio.open_unix_connection(replica.address.removeprefix("unix:"))
    writer.write(encode_hello())
    await reader.read(4096)
    writer.writelines(messages.encode_predict(1, DType.FLOAT64, 0, [bytes(8)]))
    return writer


def test_a_batch_that_hangs_gets_its_replica_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, batch_timeout_s=0.2)

    async def test() -> None:
        bench.manager.start(SLOT, bench.model("import time\ndef predict(inputs): time.sleep(600)"))
        pid = await bench.ready()
        writer = await predict(bench)
        await bench.until(lambda: bench.status.phase == "dead")
        assert bench.status.last_error is not None
        assert "hung: a batch ran for over 0.2 s" in bench.status.last_error
        assert start_time(pid) is None
        writer.close()

    run(test())


def test_a_container_that_does_not_answer_pings_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "PING_TIMEOUT_S", 0.3)
    monkeypatch.setattr(replicas, "PING_EVERY_S", 0.05)

    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM))
        os.kill(await bench.ready(), signal.SIGSTOP)
        await bench.until(lambda: bench.status.phase == "dead")
        assert bench.status.last_error is not None and "no answer to a ping" in bench.status.last_error

    run(test())


def test_what_a_model_forked_dies_with_it(bench: Bench) -> None:
    forks = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); print('child', os.getpid(), flush=True); time.sleep(600); os._exit(0)\n"
    )

    async def test() -> None:
        bench.manager.start(SLOT, bench.model(forks + SUM))
        await bench.ready()
        log = bench.manager.log_path(SLOT)
        await bench.until(lambda: "child" in log.read_text())
        child = int(next(line.split()[1] for line in tail(log, 99) if line.startswith("child")))
        assert start_time(child) is not None
        await bench.manager.stop_all()
        await bench.until(lambda: start_time(child) is None)

    run(test())


TELLS = """
import os, resource, tempfile
import numpy, sklearn.linear_model, threadpoolctl
print("threads", {pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
print("cores", sorted(os.sched_getaffinity(0)))
print("gpus", os.environ.get("CUDA_VISIBLE_DEVICES"))
print("files", resource.getrlimit(resource.RLIMIT_NOFILE)[1], "core", resource.getrlimit(resource.RLIMIT_CORE)[1])
print("temporary", tempfile.gettempdir() == os.getcwd())
"""


def told(bench: Bench, slot: Slot) -> dict[str, str]:
    lines = [line.partition(" ") for line in tail(bench.manager.log_path(slot), 99)]
    return {name: value for name, _, value in lines}


def test_what_a_replica_gets_of_the_machine(bench: Bench) -> None:
    cores = limits.machine_cores()
    second = Slot("sum", "1", 2)
    wanted: list[tuple[Slot, dict[str, Any], str, str]] = [
        (SLOT, {"cpus": 0.5, "gpus": "0,3"}, "{1}", "0,3"),
        (second, {"cpus": 1}, "{1}", ""),
        (Slot("sum", "2", 1), {"gpus": "all"}, "{1}", "None"),
        (Slot("sum", "3", 1), {"cpus": len(cores)}, f"{{{len(cores)}}}", ""),
    ]

    async def test() -> None:
        for slot, fields, _, _ in wanted:
            bench.manager.start(slot, bench.model(TELLS + SUM, **fields))
        await bench.until(lambda: all(status.phase == "ready" for status in bench.manager.slots()))
        for slot, _, threads, gpus in wanted:
            said = told(bench, slot)
            assert (said["threads"], said["gpus"]) == (threads, gpus)
            assert (said["files"], said["temporary"]) == (f"{limits.MAX_OPEN_FILES} core 0", "True")
        # One core each, and another one as long as there are any; all where nothing was asked for, or all.
        pinned = [told(bench, slot)["cores"] for slot in (SLOT, second)]
        assert pinned == [f"[{cores[0]}]", f"[{cores[1 % len(cores)]}]"]
        assert {told(bench, slot)["cores"] for slot, *_ in wanted[2:]} == {str(cores)}
        await bench.manager.stop_all()

    run(test())


def test_more_gpus_than_there_are_is_a_start_failure(bench: Bench) -> None:
    async def test() -> None:
        bench.manager.start(SLOT, bench.model(SUM, gpus="64"))
        await bench.until(lambda: bench.status.phase == "dead")
        assert "it asks for 64 GPUs, and this machine has" in str(bench.status.last_error)

    run(test())


@pytest.mark.parametrize(
    ("body", "start_timeout_s", "complaint"),
    [
        ("import os\ndef predict(inputs): os._exit(9)", 60.0, "exited with code 9 over the warm-up sample"),
        ("import time\ndef predict(inputs): time.sleep(600)", 1.0, "was not warm within its start_timeout_s of 1 s"),
    ],
)
@pytest.mark.parametrize("is_given", [True, False])
def test_a_model_that_dies_or_hangs_over_its_warm_up_does_not_come_up(
    tmp_path: Path, body: str, start_timeout_s: float, complaint: str, is_given: bool
) -> None:
    bench = Bench(tmp_path, sample=Sample(bytes(8), is_given, max_batch=1024))

    async def test() -> None:
        bench.manager.start(SLOT, bench.model(body, start_timeout_s=start_timeout_s))
        await bench.until(lambda: bench.status.phase == "dead")
        assert bench.status.start_failure is not None
        assert complaint in bench.status.start_failure.reason
        bench.leaves_nothing()

    run(test())


LEAVE_ONE = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_local import SLOT, SUM, Bench

async def main():
    bench = Bench(Path(sys.argv[1]))
    bench.manager.start(SLOT, bench.model(SUM))
    await bench.ready()
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.parametrize("answers", [True, False])
def test_the_container_of_a_killed_supervisor_is_taken_over_if_it_answers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    if not answers:
        monkeypatch.setattr(manager, "ADOPTION_TIMEOUT_S", 0.3)

    async def test() -> None:
        argv = (sys.executable, "-c", LEAVE_ONE, str(bench.path), str(Path(__file__).parent))
        earlier = await asyncio.create_subprocess_exec(*argv)
        assert await earlier.wait() == -signal.SIGKILL
        (record,) = bench.processes.recorded()
        (note,) = await bench.manager.left()
        assert note.ready and note.slot == SLOT
        if not answers:
            os.kill(record.pid, signal.SIGSTOP)
        replica = await bench.manager.adopt(note)
        assert replica is not None
        await replica.settled.wait()
        if answers:
            assert bench.status.phase == "ready"
            assert bench.status.replica is not None and bench.status.replica.pid == record.pid
            await bench.manager.stop_all()
        else:
            await bench.until(lambda: bench.status.phase == "dead")
        assert start_time(record.pid) is None
        bench.leaves_nothing()

    run(test())
