"""A server on a home of its own, of which nothing is left after the test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Server, processes_of


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home")
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()
    for pid in processes_of(server.home):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
