"""A server that runs out of descriptors, or has few: it loses nothing, and takes nobody for hung."""

import os
import resource
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from clipper.base.open_files import ENOUGH, raise_limit
from tests.supervisor.live_server import APP, Server, with_application
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.alone


def connect(server: Server, count: int) -> list[socket.socket]:
    """Connections to the management port that ask nothing."""
    address = urlsplit(server.place.management_url)
    return [socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S) for _ in range(count)]


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_no_descriptor_is_left(server: Server) -> None:
    with_application(server)
    assert server.process is not None
    (worker,) = server.worker_pids
    pid = server.process.pid
    # Without what is open for a moment only, such as the connection that a worker is asked by.
    most = min(open_files(pid) for _ in range(200)) + 8
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    connections = connect(server, 100)
    # Whether the worker answers is asked every 5 s, and cannot be asked now.
    until(lambda: "the server cannot tell whether worker-0 answers" in server.log)
    assert server.worker_pids == [worker]
    assert server.predict("app", [1, 2])["output"] == "one"
    # One that dies meanwhile is not lost, nor is its successor started twice.
    os.kill(worker, signal.SIGKILL)
    until(
        lambda: server.log.count("worker-0 cannot be") + server.log.count("what worker-0 forked cannot be looked for")
    )
    for connection in connections:
        connection.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    until(lambda: server.worker_pids not in ([], [worker]))
    server.until_ready()
    assert len(server.worker_pids) == 1
    assert server.predict("app", [1, 2])["output"] == "one"
    # Nobody is left who answers by what was before.
    server.call("DELETE", "/applications/app")
    assert {server.predict("app", [1, 2])["error"] for _ in range(20)} == {"not_found"}
    server.call("POST", "/applications", APP)
    assert server.stop() == 0


def test_more_clients_than_a_server_with_few_descriptors_can_have(server: Server) -> None:
    server.through = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    with_application(server)
    (worker,) = server.worker_pids
    assert server.process is not None
    assert "may open 256 files" in server.log
    assert "may open 256 files" in (server.home / "logs" / "worker-0.log").read_text()
    connections = connect(server, 300)
    for _ in range(3):
        assert server.call("GET", "/health/live") == {"status": "live"}
    server.call("PATCH", "/applications/app", {"slo_ms": 19_000})
    assert open_files(server.process.pid) < 128
    assert server.worker_pids == [worker]
    assert "hung" not in server.log and "not known" not in server.log
    for connection in connections:
        connection.close()


def test_a_limit_is_raised_as_far_as_it_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, before[1]), before[1]))
        most = raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert most == before[1] or before[1] == resource.RLIM_INFINITY
        assert ENOUGH == 8192
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_idle_connections_and_endless_heads_keep_nobody_out(shared: Server) -> None:
    def memory_kb() -> int:
        assert shared.process is not None
        lines = Path(f"/proc/{shared.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    before_kb, idle = memory_kb(), connect(shared, 300)
    assert shared.call("GET", "/health/live") == {"status": "live"}
    endless = connect(shared, 64)
    for connection in endless:
        try:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nX: " + b"x" * (4 << 20))
        except ConnectionError:
            continue
    assert shared.call("GET", "/health/live") == {"status": "live"}
    # Of the 256 MB that were sent, the server still has only memory that its allocator keeps.
    assert memory_kb() - before_kb < 40_000
    for connection in (*idle, *endless):
        connection.close()
