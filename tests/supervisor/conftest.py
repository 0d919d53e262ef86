"""Servers on homes of their own, of which nothing is left after the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Server, processes_of, with_application


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home")
    yield server
    server.clean_up()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests of a file that leave nothing behind on it."""
    server = Server(tmp_path_factory.mktemp("shared") / "home")
    try:
        yield with_application(server)
        assert server.stop() == 0
        assert processes_of(server.home) == {}
    finally:
        server.clean_up()
