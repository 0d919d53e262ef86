import socket

import pytest

from clipper.errors import Conflict
from clipper.supervisor.workers import ports
from clipper.supervisor.workers.ports import hold, listen, port_of


def shared(port: int) -> socket.socket:
    """As a worker does it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_a_port_that_is_held_is_the_workers_and_nobody_elses() -> None:
    with hold("127.0.0.1", 0, "--query-port", check_free=True) as holder:
        port = port_of(holder)
        with pytest.raises(Conflict, match=f"port {port}.*--other"):
            listen("127.0.0.1", port, "--other").close()
        with shared(port) as worker, socket.create_connection(("127.0.0.1", port)) as client:
            accepted, address = worker.accept()  # the holder of the port gets no connection
            assert address == client.getsockname()
            accepted.close()
            with pytest.raises(Conflict):
                hold("127.0.0.1", port, "--query-port", check_free=True)
            hold("127.0.0.1", port, "--query-port", check_free=False).close()


def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(Conflict, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0, "--host")
    with pytest.raises(Conflict, match=r"192\.0\.2\.1"):
        hold("192.0.2.1", 1, "--host", check_free=False)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("fe80::1", "http://[fe80::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_urls_can_be_used_on_this_machine(host: str, url: str) -> None:
    assert ports.url(host, 80) == url
