"""One real query worker under its keeper."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from clipper.control.snapshot import Snapshot
from clipper.processes.folder import ProcessFolder
from clipper.processes.proc import start_time
from clipper.supervisor.folders import open_home
from clipper.supervisor.workers import worker as workers
from clipper.supervisor.workers.ports import hold, port_of
from clipper.supervisor.workers.worker import Worker, WorkerSettings
from waiting import until_async


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessFolder]:
    home = open_home(tmp_path)
    processes = ProcessFolder(home.run, os.environ, home.python_path)
    yield processes
    processes.sweep(keep=())


def has_applied(worker: Worker, generation: int) -> bool:
    return worker.applied is not None and worker.applied.generation >= generation


def with_worker(
    path: Path, processes: ProcessFolder, test: Callable[[Worker], Awaitable[None]], port: int | None = None
) -> None:
    """Run ``test`` on a worker that is kept running meanwhile."""
    holder = hold("127.0.0.1", 0, "", check_free=True)
    settings = WorkerSettings("127.0.0.1", port or port_of(holder), 1000, "digest")
    store = f"sqlite:{path / 'selection.sqlite3'}"
    instances = iter(range(1, 100))

    async def run() -> None:
        folders = (path / "run", path / "logs")
        worker = Worker(0, settings, processes, folders, store, lambda: next(instances), lambda: None)
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
    async def test(worker: Worker) -> None:
        worker.push(Snapshot(1))
        worker.push(Snapshot(2))
        assert not has_applied(worker, 1)
        await until_async(lambda: has_applied(worker, 2))
        for generation in range(3, 30):
            worker.push(Snapshot(generation))
        await until_async(lambda: has_applied(worker, 29))
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        await until_async(lambda: worker.phase == "backing_off")
        assert worker.applied is None
        assert worker.last_error is not None and "SIGKILL" in worker.last_error
        await until_async(lambda: has_applied(worker, 29))
        assert worker.restarts == 1
        assert (await worker.statistics(10)).generation == 29

    with_worker(tmp_path, processes, test)


def test_one_that_hangs_is_replaced(processes: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CHECK_EVERY_S", 0.05)
    monkeypatch.setattr(workers, "EXIT_AFTER_LOSS_S", 0.05)

    async def test(worker: Worker) -> None:
        worker.push(Snapshot(1))
        await until_async(lambda: has_applied(worker, 1))
        assert worker.process is not None
        pid = worker.process.pid
        monkeypatch.setattr(workers, "CHECK_TIMEOUT_S", 0.3)
        os.kill(pid, signal.SIGSTOP)
        await until_async(lambda: worker.restarts == 1)
        monkeypatch.setattr(workers, "CHECK_TIMEOUT_S", 10.0)
        assert start_time(pid) is None
        assert worker.last_error is not None and "hung" in worker.last_error
        await until_async(lambda: has_applied(worker, 1))

    with_worker(tmp_path, processes, test)


def test_one_that_does_not_take_a_snapshot_is_replaced(
    processes: ProcessFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "EXIT_AFTER_LOSS_S", 0.05)

    async def test(worker: Worker) -> None:
        worker.push(Snapshot(1))
        await until_async(lambda: has_applied(worker, 1))
        monkeypatch.setattr(workers, "APPLY_TIMEOUT_S", 0.1)
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGSTOP)
        worker.push(Snapshot(2))
        await until_async(lambda: worker.restarts == 1)
        assert worker.last_error is not None and "did not take a snapshot" in worker.last_error
        monkeypatch.setattr(workers, "APPLY_TIMEOUT_S", 15.0)
        await until_async(lambda: has_applied(worker, 2))

    with_worker(tmp_path, processes, test)


def test_one_that_cannot_listen_says_where_to_look(processes: ProcessFolder, tmp_path: Path) -> None:
    async def test(worker: Worker) -> None:
        await until_async(lambda: worker.phase == "backing_off")
        assert worker.last_error is not None and "its log tells why" in worker.last_error
        assert "cannot listen" in (tmp_path / "logs" / "worker-0.log").read_text()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with_worker(tmp_path, processes, test, port=taken.getsockname()[1])
