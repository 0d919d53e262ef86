import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.learning.stores.redis import RedisStore
from clipper.learning.stores.sqlite import SqliteStore
from tests.learning.stores.kept_states import MakeStore
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        server.start()
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Opens the same store again each time, as another worker or a restarted one does."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "selection.sqlite3")
    server: RedisServer = request.getfixturevalue("redis_server")
    subprocess.run(["redis-cli", "-p", str(server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
    return lambda: RedisStore(server.url)
