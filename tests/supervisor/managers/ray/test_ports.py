import socket
from contextlib import closing

import pytest

from clipper.errors import ContainerFailed
from clipper.supervisor.managers.ray.front import bind_in_range

HOST = "127.0.0.1"


def test_each_gets_a_port_of_the_range_that_nobody_has() -> None:
    # Whatever else runs here may have some of them.
    bound = []
    with pytest.raises(ContainerFailed, match=r"no port of 21780 to 21783 is free on 127\.0\.0\.1.*--ray-ports"):
        for _ in range(5):
            bound.append(bind_in_range(HOST, (21780, 21783)))
    ports = [each.getsockname()[1] for each in bound]
    assert len(set(ports)) == len(ports) and set(ports) <= set(range(21780, 21784))
    for each in bound:
        each.close()
    with closing(bind_in_range(HOST, (ports[0], ports[0]))) as again:
        assert again.getsockname()[1] == ports[0]
        # A port that nobody listens on yet is taken as well, also for a socket that would share it.
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((HOST, ports[0]))


def test_an_address_of_another_machine_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError, match="assign"):
        bind_in_range("192.0.2.250", (21780, 21783))
