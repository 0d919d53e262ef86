"""A server on a home of its own, of which nothing is left after the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home")
    yield server
    server.clean_up()
