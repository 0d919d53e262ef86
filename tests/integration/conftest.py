"""Shared by the tests of the query port: one system a file."""

from collections.abc import Iterator

import pytest

from tests.integration.http_system import ask_once, http_system
from tests.serving import Client, Serving


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with http_system() as system:
        yield system


@pytest.fixture
def client(system: Serving) -> Iterator[Client]:
    with system.worker.connect() as client:
        yield client
    assert ask_once(system).json["output"] == 6, "the worker no longer answers others"
