"""The processes of an earlier supervisor that are adopted: decisions on notes, without its processes."""

import asyncio
import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.proc import start_time
from clipper.base.processes.process import ManagedProcess, ProcessRecord
from clipper.control.messages import CHANNEL_VERSION
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.catalog import Numbers
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders
from clipper.supervisor.managers.launcher import ContainerNote
from clipper.supervisor.managers.worker_host import LocalWorkerHost
from clipper.supervisor.registry.records import ModelRecord, VersionRecord
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.workers import takeover
from clipper.supervisor.workers.settings import WorkerNote
from clipper.supervisor.workers.worker_process import WorkerProcess
from clipper.supervisor.workers.workers import Workers
from tests.supervisor.rollout.fake_records import records_of

PORT = 4711
SPEC = VersionSpec("a", "import", "m:f")


@pytest.fixture
def home(tmp_path: Path) -> HomeFolders:
    return HomeFolders(tmp_path, tmp_path / "run")


def config(home: HomeFolders, **fields: Any) -> Config:
    return replace(Config(home.root, query_port=0), **fields)


def left(home: HomeFolders, *, later: int = 0, extra: dict[str, Any] | None = None, **fields: Any) -> ProcessRecord:
    """The record of a worker that runs, and whose pid is ours; ``later``: it was another one's before."""
    started = (start_time(os.getpid()) or 0) - later
    settings = takeover.worker_settings(config(home, **fields), home, PORT, fields.pop("digest", "d"))
    note = msgspec.to_builtins(WorkerNote(0, 5, "w5.sock", settings, "0.1.0", CHANNEL_VERSION)) | (extra or {})
    return ProcessRecord("worker-0", os.getpid(), started, (), note)


@pytest.mark.parametrize(
    ("given", "goes_on"),
    [
        ({}, True),
        ({"later": 1}, False),  # its pid has passed to another process
        ({"cache_bytes": 1}, True),  # it is replaced, with the others, while they answer
        ({"max_body_bytes": 9}, True),
        ({"max_output_bytes": 9}, True),
        ({"host": "0.0.0.0"}, False),
        ({"tls_cert": Path("c"), "tls_key": Path("k")}, False),
        ({"extra": {"channel": CHANNEL_VERSION + 1}}, True),
        ({"extra": {"channel": CHANNEL_VERSION + 2}}, False),
        ({"extra": {"settings": {}}}, False),
    ],
)
def test_which_workers_are_gone_on_with(home: HomeFolders, given: dict[str, Any], goes_on: bool) -> None:
    port = takeover.left_query_port([left(home, **given)], config(home), home, "d")
    assert port == (PORT if goes_on else None)
    assert takeover.left_query_port([left(home, **given)], config(home), home, "another store") is None
    assert takeover.left_query_port([left(home, **given)], config(home, query_port=PORT + 1), home, "d") is None


@pytest.mark.parametrize(
    ("given", "is_adopted", "is_outdated"),
    [
        ({}, True, False),
        ({"later": 1}, False, False),
        ({"cache_bytes": 1}, True, True),
        ({"host": "0.0.0.0"}, False, False),
        ({"extra": {"build": "0.0.9"}}, True, True),
        ({"extra": {"build": ""}}, True, True),
        ({"extra": {"index": 1}}, True, False),  # as a spare, which is drained
        ({"extra": {"index": 2}}, False, False),
    ],
)
def test_a_worker_with_other_code_or_settings_is_replaced_after_take_over(
    home: HomeFolders, given: dict[str, Any], is_adopted: bool, is_outdated: bool
) -> None:
    settings = takeover.worker_settings(config(home), home, PORT, "d")

    def make(index: int, node: str) -> WorkerProcess:
        host = LocalWorkerHost(processes, home.run, home.logs)
        return WorkerProcess(index, settings, host, "", lambda: 7, lambda: None, "0.1.0", is_spare=index == 1)

    processes = ProcessFolder(home.run, {}, home.python_path)

    async def adopt() -> list[WorkerProcess]:
        workers = Workers(make, 1)
        with contextlib.closing(SqliteRegistry(home.registry)) as registry:
            instances = Numbers(registry, "worker")
            await takeover.take_over_workers([left(home, **given)], workers, settings, instances)
        adopted = [worker for worker in workers if worker.process is not None]
        for worker in adopted:
            assert isinstance(worker.process, ManagedProcess)
            worker.process.release()
        return adopted

    assert [worker.is_outdated for worker in asyncio.run(adopt())] == [is_outdated] * is_adopted


class Containers:
    """The processes that a manager has found, and the fate of each."""

    def __init__(self, *notes: ContainerNote) -> None:
        self.notes = list(notes)
        self.ended: list[ContainerNote] = []

    async def orphans(self) -> list[ContainerNote]:
        return self.notes

    async def adopt(self, note: ContainerNote) -> Any:
        return SimpleNamespace(note=note)

    async def end_orphan(self, note: ContainerNote) -> None:
        self.ended.append(note)


def test_which_containers_are_gone_on_with() -> None:
    def note(version: str, index: int, number: int, spec: VersionSpec = SPEC) -> ContainerNote:
        return ContainerNote("m", version, index, number, f"unix:c{number}", spec)

    def version(name: str, **fields: Any) -> VersionRecord:
        return VersionRecord("m", name, SPEC, Batching(), True, 2, float(name), **fields)

    wanted = [note("1", 1, 7), note("1", 2, 8)]
    ended = [
        note("1", 2, 9),  # there is one in its place already
        note("1", 3, 10),  # one too many
        note("2", 1, 11),  # it sleeps
        note("3", 1, 12),  # it was removed
        note("4", 1, 13, VersionSpec("b", "import", "m:f")),  # another is deployed under its name
    ]
    catalog = records_of(
        ModelRecord("m", current="1", previous="4"),
        version("1", state="ready"),
        version("2", state="sleeping"),
        version("4", state="ready"),
    )
    containers, passed_over = Containers(*wanted, *ended), []
    starts = SimpleNamespace(pass_over=passed_over.append)
    adopted = asyncio.run(takeover.take_over_containers(catalog, containers, starts))  # type: ignore[arg-type]
    assert [replica.note for replica in adopted] == wanted
    assert containers.ended == ended
    assert passed_over == list(range(7, 14))
