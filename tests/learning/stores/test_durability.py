"""Acknowledged feedback survives, in both stores."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from clipper.learning.stores.redis import RedisStore
from clipper.learning.stores.sqlite import SqliteStore
from tests.learning.stores.kept_states import load
from tests.redis_server import RedisServer

WRITER = """
import asyncio, sys
from pathlib import Path
from clipper.learning.stores.redis import RedisStore
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import Observation

async def write():
    store = RedisStore(sys.argv[1]) if sys.argv[1].startswith("redis:") else SqliteStore(Path(sys.argv[1]))
    for number in range(100_000):
        await store.commit([Observation(f"{number}", "app-1", {"": {"x": 1.0}})])
        await store.sync()
        print(number + 1, flush=True)

asyncio.run(write())
"""


def acknowledged_before_kill(address: str, count: int, kill_also: Callable[[], None]) -> int:
    """Let another process commit one by one, kill it and what it writes to; return what it was told is durable."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(count)]
        kill_also()
        writer.kill()
        lines += writer.stdout.readlines()
    return max(int(line) for line in lines if line.endswith(b"\n"))


def test_acknowledged_feedback_survives_a_kill_of_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "selection.sqlite3"

    acknowledged = acknowledged_before_kill(str(path), 200, lambda: None)

    assert load(lambda: SqliteStore(path))["x"] >= acknowledged


def test_acknowledged_feedback_survives_a_kill_of_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.start("--appendfsync", "everysec")

        acknowledged = acknowledged_before_kill(server.url, 3, server.kill)
        server.start()

        assert load(lambda: RedisStore(server.url))["x"] >= acknowledged
