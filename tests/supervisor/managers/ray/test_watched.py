import asyncio
import logging
import socket
from pathlib import Path

import pytest

from clipper.supervisor.managers.ray.actor_tasks import WatchedTasks
from clipper.supervisor.managers.ray.front import TlsFront, make_identity
from tests.waiting import until_async


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_front_that_cannot_listen_ends_its_container_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    async def test() -> None:
        reasons: list[str] = []
        watched = WatchedTasks(reasons.append)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        watched.start("its TLS front", TlsFront(listener, make_identity()[1], tmp_path / "s").run)
        watched.start("bounding its log", for_ever)
        await asyncio.sleep(0)
        assert reasons == []
        # It fails when the container begins to listen: nobody awaits it then.
        listener.close()
        with socket.socket(socket.AF_UNIX) as container:
            container.bind(str(tmp_path / "s"))
            await until_async(lambda: len(reasons) == 1)
        assert reasons[0].startswith("cannot go on: its TLS front failed: OSError: ")
        watched.cancel()

    asyncio.run(test())
    assert "its TLS front failed" in caplog.text and "Traceback" in caplog.text


def test_a_task_that_returns_has_failed_as_well() -> None:
    async def test() -> None:
        reasons: list[str] = []
        watched = WatchedTasks(reasons.append)
        watched.start("bounding its log", lambda: asyncio.sleep(0))
        await until_async(lambda: reasons == ["cannot go on: bounding its log failed: it has returned"])

    asyncio.run(test())


def test_tasks_that_are_cancelled_have_not_failed() -> None:
    async def test() -> None:
        reasons: list[str] = []
        watched = WatchedTasks(reasons.append)
        watched.start("bounding its log", for_ever)
        await asyncio.sleep(0)
        watched.cancel()
        (task,) = watched._tasks
        await asyncio.wait([task])
        assert reasons == [] and task.cancelled()

    asyncio.run(test())
