"""Models that take what they can get, each beside a neighbour that has to go on answering."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from clipper.base.processes import limits, usage
from clipper.base.processes.excess import Bounds
from clipper.base.processes.marks import mark_of
from clipper.base.processes.proc import pids
from clipper.base.processes.usage import UsageKeeper
from clipper.supervisor.managers.caller import Caller
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.values.types import InputType
from tests.manager_bench import SUM, Bench, run
from tests.started_processes import oddly_named
from tests.waiting import TIMEOUT_S, until_async

pytestmark = [pytest.mark.alone, pytest.mark.machine]

NEIGHBOUR, BAD = Slot("good", "1", 1), Slot("bad", "1", 1)
TYPE = InputType.parse("float64[1]")
ROW = struct.pack("<d", 1.0)
MIB = 1024**2

# Bodies of models that misbehave when they are asked. Their processes end by themselves, should nothing end them: a
# test that fails must not hurt the machine.
FORKS = "for _ in range(40):\n        if os.fork() == 0:\n            time.sleep(60); os._exit(0)\n    time.sleep(60)"
LEAVES = FORKS.replace("time.sleep(60); ", "os.setsid(); time.sleep(60); ")
BOMB = "while born.value < 300:\n        born.value += 1; os.fork()\n    time.sleep(60); os._exit(0)"
THREADS = "for _ in range(60): threading.Thread(target=time.sleep, args=(60,)).start()\n    time.sleep(60)"
LEAKS = (
    "for _ in range(4):\n        if os.fork() == 0:\n"
    "            kept = b'x' * (120 << 20); time.sleep(60); os._exit(0)\n    time.sleep(60)"
)
FILLS = "open('filled', 'wb').write(b'x' * (50 << 20)); time.sleep(60)"
FILLS_TEMPORARY = "tempfile.NamedTemporaryFile(delete=False).write(b'x' * (50 << 20)); time.sleep(60)"
LITTERS = "[open(f'{number}', 'w').close() for number in range(400)]; time.sleep(60)"

# Deeper than Python's recursion, and than any path is long.
NESTS = (
    "for _ in range(3000):\n        os.mkdir('deep' * 50); os.chdir('deep' * 50)\n    "
    "open('filled', 'wb').write(b'x' * (1 << 20)); time.sleep(60)"
)

MODEL = """
import multiprocessing, os, tempfile, threading, time
born = multiprocessing.Value("i", 0)
def predict(inputs):
    {what}
"""

TIGHT = Bounds(memory_bytes=400 * MIB, threads=30, disk_bytes=20 * MIB, files=100)


class Neighbourhood:
    """A model that behaves, one that does not, and who looks after both."""

    def __init__(self, path: Path) -> None:
        self.bench = Bench(path)
        self.answers = 0

    @property
    def bad(self) -> SlotStatus:
        return self.bench.manager.slots(BAD.model_id)[0]

    async def start(self, what: str, bounds: Bounds) -> None:
        for slot, body in ((NEIGHBOUR, SUM), (BAD, MODEL.format(what=what))):
            spec = self.bench.model(body, slot.model, memory_bytes=bounds.memory_bytes, input_type=str(TYPE))
            self.bench.manager.start(slot, spec)
        await until_async(lambda: all(status.phase == "ready" for status in self.bench.manager.slots()))
        for container in self.bench.launcher.running():
            container.bounds = bounds

    async def ask(self, slot: Slot) -> str | None:
        """The model's message if it fails."""
        (status,) = self.bench.manager.slots(slot.model_id)
        assert status.replica is not None
        assert status.replica.address is not None
        with closing(await Caller.dial(status.replica.address)) as caller:
            return await caller.predict(TYPE, [ROW])

    async def keep_asking(self) -> None:
        while True:
            async with asyncio.timeout(TIMEOUT_S):
                assert await self.ask(NEIGHBOUR) is None
            self.answers += 1

    def processes(self, slot: Slot) -> list[int]:
        return [pid for pid in pids() if mark_of(pid) == f"{self.bench.path}/run/{slot.model}@{slot.version}-1"]


@asynccontextmanager
async def neighbourhood(path: Path, what: str, bounds: Bounds = TIGHT) -> AsyncIterator[Neighbourhood]:
    """Both models up, the neighbour asked without pause; at the end it has answered every time, and nothing is left."""
    found = Neighbourhood(path)
    tasks: list[asyncio.Task[None]] = []
    try:
        await found.start(what, bounds)
        asking = asyncio.create_task(found.keep_asking())
        tasks = [asyncio.create_task(UsageKeeper(found.bench.launcher.running).run()), asking]
        yield found
        before = found.answers
        await until_async(lambda: found.answers > before or asking.done())
        assert not asking.done(), asking.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await found.bench.manager.stop_all()
        found.bench.processes.sweep(keep=())
    found.bench.leaves_nothing()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(usage, "LOOK_AT_DISK_EVERY", 1)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param(FORKS, "threads in", id="forks"),
        pytest.param(LEAVES, "threads in", id="forks that leave its session"),
        # Whichever of its bounds it reaches first: of threads or of memory.
        pytest.param(BOMB, " processes: ", id="fork bomb"),
        pytest.param(THREADS, "threads: the bound is 30", id="threads"),
        pytest.param(LEAKS, "MiB of memory in", id="leaks in what it forked"),
        pytest.param(FILLS, "to its folder: the bound is 20 MiB", id="fills its folder"),
        pytest.param(FILLS_TEMPORARY, "to its folder: the bound is 20 MiB", id="fills the temporary folder"),
        pytest.param(LITTERS, "files in its folder: the bound is 100", id="makes many files"),
        pytest.param(NESTS, "nested folders too deeply", id="nests folders"),
    ],
)
def test_what_takes_too_much_is_killed_with_all_that_it_started(tmp_path: Path, what: str, said: str) -> None:
    async def test() -> None:
        async with neighbourhood(tmp_path, what) as found:
            with pytest.raises(OSError):  # the connection breaks
                await asyncio.wait_for(found.ask(BAD), TIMEOUT_S)
            await until_async(lambda: found.bad.phase == "dead")
            error = str(found.bad.last_error)
            assert "container bad:1#1 was killed because it " in error and said in error
            await until_async(lambda: not found.processes(BAD))
            assert found.processes(NEIGHBOUR)

    run(test())


def test_processes_of_odd_names_lift_no_bound(tmp_path: Path) -> None:
    """Any user of the machine can have some."""

    async def test() -> None:
        async with neighbourhood(tmp_path, LITTERS) as found:
            with oddly_named():
                with pytest.raises(OSError):  # the connection breaks
                    await asyncio.wait_for(found.ask(BAD), TIMEOUT_S)
                await until_async(lambda: found.bad.phase == "dead")
            assert "files in its folder: the bound is 100" in str(found.bad.last_error)

    run(test())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        pytest.param("bytes(8 << 30)", "MemoryError", id="memory"),
        pytest.param("[open('/dev/null') for _ in range(10000)]", "Too many open files", id="files"),
        pytest.param(
            f"tempfile.TemporaryFile(dir='/tmp').truncate({limits.MAX_FILE_BYTES + 1})", "File too large", id="file"
        ),
    ],
)
def test_what_the_kernel_refuses_is_the_answer_to_one_query(tmp_path: Path, what: str, said: str) -> None:
    async def test() -> None:
        async with neighbourhood(tmp_path, what, replace(TIGHT, memory_bytes=1024 * MIB)) as found:
            assert said in str(await found.ask(BAD))
            assert said in str(await found.ask(BAD))
            assert found.bad.phase == "ready" and found.bad.restarts == 0

    run(test())
