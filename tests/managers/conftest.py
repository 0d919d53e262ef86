"""A dockerd for all tests of managers."""

from collections.abc import Iterator

import pytest

from docker_daemon import DockerDaemon, running_daemon


@pytest.fixture(scope="session")
def docker_daemon() -> Iterator[DockerDaemon]:
    with running_daemon() as daemon:
        yield daemon
