"""The Python of a model is made ready once, whoever waits for it, and its making ends with whom it is for."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.proc import start_time
from clipper.errors import ContainerFailed
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.environments.interpreters import installed_packages
from clipper.supervisor.managers.environments.prepare import Prepared
from clipper.supervisor.managers.environments.provider import EnvironmentProvider
from tests.small_packages import SlowPackage, make_wheel, use_only
from tests.waiting import until_async


class Bench:
    """Environments of packages in ``path``, and an artifact with requirements."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifact = path / "artifacts" / "a1"
        self.artifact.mkdir(parents=True, exist_ok=True)
        self.told: list[str] = []
        processes = ProcessFolder(path, os.environ, path)
        self.environments = EnvironmentProvider(processes, path / "artifacts", path / "environments")

    def spec(self, requirements: str | None = None, **fields: Any) -> VersionSpec:
        (self.artifact / "requirements.txt").write_text(requirements or "")
        given = None if requirements is None else "requirements.txt"
        return VersionSpec("a1", "import", "model:predict", requirements=given, **fields)

    async def prepare(self, spec: VersionSpec) -> Prepared:
        return await self.environments.prepare(spec, self.told.append)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    use_only(tmp_path, monkeypatch)
    return Bench(tmp_path)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 200))


def test_what_needs_nothing_is_there_at_once(bench: Bench) -> None:
    async def test() -> None:
        assert await bench.prepare(bench.spec()) == Prepared(sys.executable)
        assert await bench.prepare(bench.spec(needs=("numpy",))) == Prepared(sys.executable)
        assert await bench.prepare(bench.spec(python="/some/python")) == Prepared("/some/python")
        assert bench.told == []

    run(test())


def test_an_environment_is_built_and_a_model_of_other_versions_is_told(bench: Bench) -> None:
    make_wheel(bench.path, "small", "1.0")

    async def test() -> None:
        prepared = await bench.prepare(bench.spec("small==1.0\n", needs=("small==2.0",)))
        assert installed_packages(prepared.python) == {"small": "1.0", "numpy": "2.0"}
        assert prepared.warning is not None
        assert "saved with small 2.0 but runs with 1.0" in prepared.warning
        assert {"looking for its environment", "installing 2 packages"} <= set(bench.told)
        # It is remembered, for as long as it is there.
        bench.told.clear()
        assert await bench.prepare(bench.spec("small==1.0\n", needs=("small==2.0",))) == prepared
        assert bench.told == []
        shutil.rmtree(Path(prepared.python).parents[1])
        assert await bench.prepare(bench.spec("small==1.0\n", needs=("small==2.0",))) == prepared
        assert Path(prepared.python).exists()

    run(test())


def test_what_the_model_needs_is_built_if_it_is_not_here(bench: Bench) -> None:
    make_wheel(bench.path, "small", "1.0")

    async def test() -> None:
        prepared = await bench.prepare(bench.spec(needs=("small==1.0",)))
        assert installed_packages(prepared.python)["small"] == "1.0"
        assert prepared.warning is None

    run(test())


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"requirements": "no-such-package"}, "no-such-package"),
        ({"python": "/nowhere/python3", "needs": ("numpy==1.0",)}, "/nowhere/python3"),
    ],
)
def test_what_cannot_be_had_fails_and_says_why(bench: Bench, fields: dict[str, Any], cause: str) -> None:
    async def test() -> None:
        with pytest.raises(ContainerFailed, match=cause):
            await bench.prepare(bench.spec(**fields))

    run(test())


def test_a_failure_with_long_lines_says_why(bench: Bench) -> None:
    """Its reply was longer than a line might be, and that was told instead."""
    folder = bench.path / "chatty"
    folder.mkdir()
    backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (folder / "pyproject.toml").write_text(backend)
    lines = r"('\U0001d11e' * 480 + '\n') * 60"
    says = f"sys.stderr.buffer.write(({lines}).encode()); sys.stderr.flush(); sys.exit(1)"
    (folder / "backend.py").write_text(f"import sys\ndef build_wheel(*_): {says}\n")

    async def test() -> None:
        with pytest.raises(ContainerFailed, match="its environment cannot be built") as failed:
            await bench.prepare(bench.spec(f"chatty @ file://{folder}"))
        assert "\U0001d11e" * 480 in "".join(failed.value.log_tail)

    run(test())


def test_replicas_wait_for_one_build_and_without_any_it_ends(bench: Bench) -> None:
    slow = SlowPackage.make(bench.path / "slow")

    async def test() -> None:
        spec = bench.spec(slow.requirement)
        tasks = [asyncio.create_task(bench.prepare(spec)) for _ in range(3)]
        await until_async(lambda: slow.builds)
        first, *others = tasks
        first.cancel()
        await asyncio.sleep(0)
        assert start_time(slow.builds[0]) is not None
        for task in others:
            task.cancel()
        # A loop that ended before would leave the builder's process to whichever test the collector comes in.
        await asyncio.wait(tasks)
        await until_async(lambda: start_time(slow.builds[0]) is None)
        assert len(slow.builds) == 1

    run(test())


LEAVE_ONE = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.supervisor.managers.environments.test_provider import Bench

async def main():
    bench = Bench(Path(sys.argv[1]))
    await bench.prepare(bench.spec(sys.argv[2]))

asyncio.run(main())
"""


@pytest.mark.long
def test_a_build_dies_with_its_supervisor_and_the_next_one_builds_it(bench: Bench) -> None:
    slow = SlowPackage.make(bench.path / "slow")

    async def test() -> None:
        argv = [sys.executable, "-c", LEAVE_ONE, str(bench.path), slow.requirement, str(Path(__file__).parents[4])]
        with subprocess.Popen(argv) as supervisor:
            await until_async(lambda: slow.builds)
            supervisor.send_signal(signal.SIGKILL)
        await until_async(lambda: start_time(slow.builds[0]) is None)
        task = asyncio.create_task(bench.prepare(bench.spec(slow.requirement)))
        await until_async(lambda: len(slow.builds) == 2)
        await asyncio.to_thread(slow.let_through)
        assert installed_packages((await task).python)["slow"] == "1.0"

    run(test())


def test_a_build_sees_only_its_part_of_the_servers_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package's build is a stranger's code."""
    monkeypatch.setenv("CLIPPER_STORE", "redis://:open-sesame@host/0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open-sesame")
    slow = SlowPackage.make(bench.path / "slow")

    async def test() -> None:
        task = asyncio.create_task(bench.prepare(bench.spec(slow.requirement)))
        await until_async(lambda: slow.builds)
        pid, seen = slow.builds[0], []
        # Those that run it, up to us, as well.
        while pid != os.getpid():
            seen.append(Path(f"/proc/{pid}/environ").read_bytes())
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert len(seen) >= 3
        assert all(b"open-sesame" not in environ and b"PATH=" in environ for environ in seen)
        assert b"PIP_FIND_LINKS" in seen[0]
        await asyncio.to_thread(slow.let_through)
        await task

    run(test())
