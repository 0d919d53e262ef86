"""The supervisor's end of a control channel over TCP: its authority, and for which epochs it has a certificate."""

import asyncio
import os
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from clipper.base.processes.folder import ProcessFolder
from clipper.control.difference import EPOCH_BITS
from clipper.control.messages import (
    AnyCommand,
    Apply,
    CommandRefused,
    Drain,
    Draining,
    GetRecentInput,
    RecentInput,
)
from clipper.control.snapshot import Snapshot
from clipper.errors import Unavailable
from clipper.supervisor.folders import open_home
from clipper.supervisor.registry.redis import RedisRegistry
from clipper.supervisor.registry.shared import Holder
from clipper.supervisor.workers.credentials import SupervisorCredentials, home_authority, shared_authority
from clipper.supervisor.workers.settings import WorkerSettings
from clipper.supervisor.workers.worker_process import WorkerProcess
from tests.control_channel import LISTENS, NOW, Listening, authority, listening
from tests.redis_server import RedisServer
from tests.waiting import until_async


@pytest.fixture
def processes(tmp_path: Path) -> ProcessFolder:
    home = open_home(tmp_path / "home")
    return ProcessFolder(home.run, os.environ, home.python_path)


def at(days: list[float]) -> Callable[[], datetime]:
    return lambda: NOW + timedelta(days=days[-1])


def test_a_home_has_one_authority_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "control-authority.pem"
    made = home_authority(path).certificate
    assert home_authority(path).certificate == made
    assert path.stat().st_mode & 0o777 == 0o600
    for content in (b"", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(Unavailable, match="remove it, and a new one is made"):
            home_authority(path)
    path.unlink()
    assert home_authority(path).certificate != made
    with pytest.raises(Unavailable):
        home_authority(tmp_path / "none" / "x")


def test_servers_that_share_a_registry_share_the_authority(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        redis.start()
        certificates = []
        for home in ("a", "b"):
            with closing(RedisRegistry(redis.url, Holder(home, f"http://{home}"))) as registry:
                registry.acquire()
                certificates.append(shared_authority(registry).certificate)
                registry.release()
    assert certificates[0] == certificates[1]


def test_a_certificate_is_made_for_each_epoch_and_anew_each_day() -> None:
    days = [0.0]
    credentials = SupervisorCredentials(authority(0), now=at(days))
    first = credentials.secured(3, 7)
    assert first.expects == LISTENS
    assert credentials.secured(3, 8).context is first.context
    assert credentials.secured(4, 7).context is not first.context
    second = credentials.secured(3, 7)
    days.append(1.1)
    assert credentials.secured(3, 7).context is not second.context


def test_who_leads_by_a_lease_speaks_for_no_later_epoch() -> None:
    credentials = SupervisorCredentials(authority(0), last_epoch=3)
    assert credentials.secured(4, 7).context is credentials.secured(3, 7).context
    assert credentials.secured(2, 7).context is not credentials.secured(3, 7).context


def test_who_may_not_speak_for_its_epoch_is_answered_and_kills_nobody(processes: ProcessFolder, tmp_path: Path) -> None:
    """As with a registry that was restored from before the workers' epoch."""

    async def run() -> None:
        async with listening(tmp_path) as worker:
            keeper = keeper_of(worker, tmp_path, processes, epoch=3, last_epoch=3)
            keeper.tell(Snapshot((4 << EPOCH_BITS) + 1))
            await until_async(lambda: keeper.last_error is not None)
            assert keeper.last_error == "supervisor/3 may not speak for epoch 4"
            assert await keeper.ask(GetRecentInput("m"), 9) == RecentInput()

    asyncio.run(run())


def keeper_of(
    worker: Listening, folder: Path, processes: ProcessFolder, epoch: int, last_epoch: int | None = None
) -> WorkerProcess:
    """A keeper whose worker is up, on TCP."""
    settings, credentials = (
        WorkerSettings("127.0.0.1", 1, 1000, store_digest="digest"),
        SupervisorCredentials(authority(0), last_epoch),
    )
    keeper = WorkerProcess(
        0, settings, processes, (folder, folder), "sqlite:x", lambda: 1, lambda: None, epoch=epoch,
        credentials=credentials,
    )  # fmt: skip
    keeper.control, keeper.instance, keeper.phase = worker.address, LISTENS.number, "ready"
    return keeper


def test_one_that_was_replaced_is_told_so_and_kills_nobody(processes: ProcessFolder, tmp_path: Path) -> None:
    async def run() -> None:
        async with listening(tmp_path) as worker:
            newer = keeper_of(worker, tmp_path, processes, epoch=5)
            newer.tell(now := Snapshot((5 << EPOCH_BITS) + 1))
            await until_async(lambda: newer.applied is not None)
            older = keeper_of(worker, tmp_path, processes, epoch=4)
            older.tell(Snapshot((4 << EPOCH_BITS) + 9))
            await until_async(lambda: older.last_error is not None)
            assert older.last_error == ("supervisor/4 sent Apply for epoch 4, and this worker obeys epoch 5")
            with pytest.raises(CommandRefused):
                await older.ask(Drain(4), 9)
            assert await older.ask(GetRecentInput("m"), 9) == RecentInput()
            assert await newer.ask(Drain(5), 9) == Draining()
            took: list[AnyCommand] = [Apply(now), GetRecentInput("m"), Drain(5)]
            assert worker.took == took

    asyncio.run(run())
