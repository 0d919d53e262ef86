"""One real query worker under its keeper."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.base.processes.folder import ProcessFolder
from clipper.base.processes.proc import start_time
from clipper.base.processes.process import ManagedProcess, ProcessRecord
from clipper.control.address import UnixAddress
from clipper.control.difference import Difference
from clipper.control.messages import (
    AnyCommand,
    AnyReply,
    Applied,
    Apply,
    ApplyDifference,
    GetStatistics,
)
from clipper.control.server import ControlServer
from clipper.control.snapshot import (
    ApplicationSnapshot,
    ModelSnapshot,
    Snapshot,
    VersionSnapshot,
)
from clipper.settings.application import Link, Selection
from clipper.settings.pipeline import Step
from clipper.supervisor.folders import open_home
from clipper.supervisor.managers.worker_host import LocalWorkerHost
from clipper.supervisor.workers import worker_process
from clipper.supervisor.workers.ports import hold, port_of
from clipper.supervisor.workers.settings import WorkerNote, WorkerSettings
from clipper.supervisor.workers.worker_process import WorkerProcess
from tests.waiting import until_async


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessFolder]:
    home = open_home(tmp_path)
    processes = ProcessFolder(home.run, os.environ, home.python_path)
    yield processes
    processes.sweep(keep=())


def has_applied(worker: WorkerProcess, generation: int) -> bool:
    return worker.applied is not None and worker.applied.generation >= generation


def with_worker(
    path: Path, processes: ProcessFolder, test: Callable[[WorkerProcess], Awaitable[None]], port: int | None = None
) -> None:
    """Run ``test`` on a worker that is kept running meanwhile."""
    holder = hold("127.0.0.1", 0, "", check_free=True)
    settings = WorkerSettings("127.0.0.1", port or port_of(holder), 1000, store_digest="digest")
    store = f"sqlite:{path / 'selection.sqlite3'}"
    instances = iter(range(1, 100))

    async def run() -> None:
        host = LocalWorkerHost(processes, path / "run", path / "logs")
        worker = WorkerProcess(0, settings, host, store, lambda: next(instances), lambda: None)
        keeping = asyncio.create_task(worker.run())
        try:
            await test(worker)
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            await worker.drain()
        assert list((path / "run").glob("w*")) == []

    with holder:
        asyncio.run(run())


def test_it_gets_the_newest_snapshot_and_gets_it_again_after_a_death(processes: ProcessFolder, tmp_path: Path) -> None:
    async def test(worker: WorkerProcess) -> None:
        worker.tell(Snapshot(1))
        worker.tell(Snapshot(2))
        assert not has_applied(worker, 1)
        await until_async(lambda: has_applied(worker, 2))
        for generation in range(3, 30):
            worker.tell(Snapshot(generation))
        await until_async(lambda: has_applied(worker, 29))
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        await until_async(lambda: worker.phase == "backing_off")
        assert worker.applied is None
        assert worker.last_error is not None and "SIGKILL" in worker.last_error
        await until_async(lambda: has_applied(worker, 29))
        assert worker.restarts == 1
        assert (await worker.ask(GetStatistics(), 10)).worker.generation == 29

    with_worker(tmp_path, processes, test)


def test_one_that_hangs_is_replaced(processes: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(worker_process, "EXIT_AFTER_LOSS_S", 0.05)

    async def test(worker: WorkerProcess) -> None:
        worker.tell(Snapshot(1))
        await until_async(lambda: has_applied(worker, 1))
        assert worker.process is not None
        pid = worker.process.pid
        monkeypatch.setattr(worker_process, "CHECK_TIMEOUT_S", 0.3)
        os.kill(pid, signal.SIGSTOP)
        await until_async(lambda: worker.restarts == 1)
        monkeypatch.setattr(worker_process, "CHECK_TIMEOUT_S", 10.0)
        assert start_time(pid) is None
        assert worker.last_error is not None and "hung" in worker.last_error
        await until_async(lambda: has_applied(worker, 1))

    with_worker(tmp_path, processes, test)


def test_one_that_does_not_take_a_snapshot_is_replaced(
    processes: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "EXIT_AFTER_LOSS_S", 0.05)

    async def test(worker: WorkerProcess) -> None:
        worker.tell(Snapshot(1))
        await until_async(lambda: has_applied(worker, 1))
        monkeypatch.setattr(worker_process, "APPLY_TIMEOUT_S", 0.1)
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGSTOP)
        worker.tell(Snapshot(2))
        await until_async(lambda: worker.restarts == 1)
        assert worker.last_error is not None and "did not take a snapshot" in worker.last_error
        monkeypatch.setattr(worker_process, "APPLY_TIMEOUT_S", 15.0)
        await until_async(lambda: has_applied(worker, 2))

    with_worker(tmp_path, processes, test)


def test_one_whose_files_cannot_be_removed_is_started_again(
    processes: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clean_up = LocalWorkerHost.clean_up

    async def refused(host: LocalWorkerHost, *given: Any) -> None:
        await clean_up(host, *given)
        raise OSError(errno.EROFS, "Read-only file system")

    async def test(worker: WorkerProcess) -> None:
        worker.tell(Snapshot(1))
        await until_async(lambda: has_applied(worker, 1))
        monkeypatch.setattr(LocalWorkerHost, "clean_up", refused)
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        await until_async(lambda: worker.restarts == 1 and has_applied(worker, 1))
        assert "the files of worker-0 cannot be removed: [Errno 30] Read-only file system" in caplog.text

    with_worker(tmp_path, processes, test)


def test_one_whose_home_is_away_goes_on_and_is_told_later(
    processes: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_process, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(worker_process, "EXIT_AFTER_LOSS_S", 0.05)

    async def test(worker: WorkerProcess) -> None:
        worker.tell(Snapshot(1))
        await until_async(lambda: has_applied(worker, 1))
        process = worker.process
        (tmp_path / "run").rename(tmp_path / "away")
        worker.tell(Snapshot(2))
        await until_async(
            lambda: (
                "the server cannot tell whether worker-0 answers" in caplog.text
                and "could not be sent a snapshot" in caplog.text
            )
        )
        (tmp_path / "away").rename(tmp_path / "run")
        await until_async(lambda: has_applied(worker, 2))
        assert worker.process is process and worker.restarts == 0

    with_worker(tmp_path, processes, test)


def test_one_that_cannot_listen_says_where_to_look(processes: ProcessFolder, tmp_path: Path) -> None:
    async def test(worker: WorkerProcess) -> None:
        await until_async(lambda: worker.phase == "backing_off")
        assert worker.last_error is not None and "its log says why" in worker.last_error
        assert "cannot listen" in (tmp_path / "logs" / "worker-0.log").read_text()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with_worker(tmp_path, processes, test, port=taken.getsockname()[1])


class ScriptedWorker:
    """The control socket of a worker: answers snapshots and differences, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[AnyCommand] = []
        self.lost = False

    async def answer(self, command: AnyCommand) -> AnyReply:
        self.told.append(command)
        if isinstance(command, ApplyDifference):
            generation = 0 if self.lost else command.difference.generation
            return Applied(generation, {}, (), needs_whole=self.lost)
        assert isinstance(command, Apply)
        self.lost = False
        return Applied(command.snapshot.generation, {}, ())


def keeper_of(path: Path, processes: ProcessFolder, scripted: Path) -> WorkerProcess:
    """A keeper whose worker is up already, and listens there."""
    settings = WorkerSettings("127.0.0.1", 1, 1000, store_digest="digest")
    worker = WorkerProcess(0, settings, LocalWorkerHost(processes, path, path), "sqlite:x", lambda: 1, lambda: None)
    worker.control, worker.phase = UnixAddress(str(scripted)), "ready"
    return worker


def test_it_gets_differences_and_the_whole_where_it_asks_for_it(processes: ProcessFolder, tmp_path: Path) -> None:
    async def run() -> None:
        scripted = ScriptedWorker()
        listener = await asyncio.start_unix_server(ControlServer(scripted.answer)._serve_own, tmp_path / "w.sock")
        worker = keeper_of(tmp_path, processes, tmp_path / "w.sock")
        for generation in (1, 2, 3):
            scripted.lost = generation == 3
            worker.tell(Snapshot(generation))
            await until_async(lambda: has_applied(worker, generation) and not worker.applied.needs_whole)  # type: ignore[union-attr]  # noqa: B023
        assert scripted.told == [
            Apply(Snapshot(1)),
            ApplyDifference(Difference(1, 2)),
            ApplyDifference(Difference(2, 3)),
            Apply(Snapshot(3)),
        ]
        listener.close()

    asyncio.run(run())


def test_one_of_before_records_is_told_of_no_record_and_no_pipeline(processes: ProcessFolder, tmp_path: Path) -> None:
    def of(name: str, input_type: str, **fields: Any) -> ApplicationSnapshot:
        return ApplicationSnapshot(name, input_type, 20.0, None, Selection(), (Link("m"),), **fields)

    numbers, table = VersionSnapshot("1", "float64[2]"), VersionSnapshot("2", "age: float64, job: string?")
    applications = of("a", "float64[2]"), of("b", "age: float64"), of("c", "string", steps={"only": Step("a")})
    given = Snapshot(2, applications, (ModelSnapshot("m", "2", (numbers, table)),))

    async def run() -> None:
        scripted = ScriptedWorker()
        listener = await asyncio.start_unix_server(ControlServer(scripted.answer)._serve_own, tmp_path / "w.sock")
        worker = keeper_of(tmp_path, processes, tmp_path / "w.sock")
        process = ProcessRecord("worker-0", os.getpid(), start_time(os.getpid()) or 0, (), {})
        settings = WorkerSettings("127.0.0.1", 1, 1, store_digest="d")
        note = WorkerNote(0, 1, str(tmp_path / "w.sock"), settings)
        assert await worker.adopt(process, note)
        worker.tell(given)
        await until_async(lambda: has_applied(worker, 2))
        assert scripted.told == [Apply(Snapshot(2, applications[:1], (ModelSnapshot("m", "2", (numbers,)),)))]
        listener.close()
        assert isinstance(worker.process, ManagedProcess)
        worker.process.release()

    asyncio.run(run())
