"""A server that may open few files, and more clients than that."""

import os
import resource
import signal
from pathlib import Path

from live_server import Server, with_application

from clipper.worker.descriptors import most_connections
from serving import Client, post
from waiting import until

DESCRIPTORS = 256


def test_more_connections_than_descriptors_do_not_cost_the_worker(server: Server) -> None:
    with_application(server)
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    (old,) = server.worker_pids
    os.kill(old, signal.SIGKILL)
    until(lambda: server.worker_pids not in ([], [old]) and server.call("GET", "/status")["ready"])
    (worker,) = server.worker_pids
    port = int(server.place.query_url.rpartition(":")[2])
    clients = [Client(port) for _ in range(300)]
    try:
        # All that a worker has room for, and those who are being told that it has not.
        until(lambda: len(list(Path(f"/proc/{worker}/fd").iterdir())) > most_connections(DESCRIPTORS) + 50)
        # What the supervisor asks of it needs descriptors, too.
        assert "clipper_connections{" in server.metrics
        ask = post("/app/predict", {"input": [1, 2]})
        clients[0].send(ask)
        assert clients[0].read().json["output"] == "one"
        for client in clients[most_connections(DESCRIPTORS) :]:
            answer = client.read()
            assert (answer.status, answer.json["error"]) == (503, "overloaded")
            client.close()
        clients[1].close()
        clients[2].close()
        until(lambda: answers(port, ask))
        assert server.worker_pids == [worker]
    finally:
        for client in clients:
            client.close()
    log = (server.home / "logs" / "worker-0.log").read_text()
    assert f"may open {DESCRIPTORS} files" in log and "no more are accepted until" in log


def answers(port: int, request: bytes) -> bool:
    client = Client(port)
    try:
        client.send(request)
        return client.read().status == 200
    finally:
        client.close()
