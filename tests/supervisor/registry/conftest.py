import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis import Redis

from clipper.supervisor.registry.lease import LeaseTimes
from clipper.supervisor.registry.redis import RedisRegistry
from clipper.supervisor.registry.shared import Holder
from tests.redis_server import RedisServer
from tests.supervisor.registry.leases import Open

# No test waits for the end of a lease, which a busy machine would reach between two of its calls.
UNENDING = LeaseTimes(duration_s=3600.0)


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        server.start()
        yield server


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """For tests that end or stop it."""
    with RedisServer(tmp_path) as server:
        server.start()
        yield server
        assert server.process is not None
        server.process.send_signal(signal.SIGCONT)


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def open_one(server: RedisServer, home: str = "a", times: LeaseTimes = UNENDING) -> RedisRegistry:
            return stack.enter_context(closing(RedisRegistry(server.url, Holder(home, f"http://{home}"), times)))

        yield open_one
