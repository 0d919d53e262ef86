"""Servers on homes of their own, of which nothing is left after the tests."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.live_server import Own, Server, processes_of, with_application


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


@pytest.fixture
def own(shared: Server, request: pytest.FixtureRequest) -> Iterator[Own]:
    """A model and an application on the shared server, which go with the test."""
    name = f"own-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    own = Own(shared, name).start()
    yield own
    shared.call("DELETE", f"/applications/{own.name}")
    shared.call("DELETE", own.url)
