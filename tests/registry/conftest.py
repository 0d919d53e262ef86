from collections.abc import Iterator

import pytest

from redis_server import RedisServer


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        server.start()
        yield server
