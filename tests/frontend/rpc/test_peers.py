"""Connections that are hung up on."""

import socket
from pathlib import Path
from urllib.parse import quote

import pytest

from clipper.frontend.rpc.peers import hang_up


@pytest.mark.parametrize(
    ("family", "host", "name"), [(socket.AF_INET, "127.0.0.1", "ipv4"), (socket.AF_INET6, "::1", "ipv6")]
)
def test_hangs_up_on_the_one_client_that_is_meant(family: socket.AddressFamily, host: str, name: str) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        clients = [socket.create_connection(listener.getsockname()[:2]) for _ in range(3)]
        servers = [listener.accept()[0] for _ in clients]
        shown = f"[{host}]" if ":" in host else host
        port = clients[1].getsockname()[1]
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert hang_up(f"{name}:{quote(shown, safe=':')}:{port}")
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        clients[1].settimeout(10)
        assert clients[1].recv(1) == b""
        for index in (0, 2):
            servers[index].sendall(b"x")
            assert clients[index].recv(1) == b"x"
        for one in (*clients, *servers):
            one.close()


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:1", "unix:/tmp/x", "unknown"])
def test_nobody_is_there(peer: str) -> None:
    assert not hang_up(peer)
