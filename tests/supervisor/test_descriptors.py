"""A server that may open few files, and more clients than that."""

import resource
from pathlib import Path

import pytest

from clipper.worker.frontend.limits import most_connections
from tests.serving import Client, post
from tests.supervisor.live_server import APP, Server, with_application
from tests.waiting import until

DESCRIPTORS = 256


def with_few_descriptors(server: Server) -> tuple[int, int]:
    """A server whose worker may open few files; the worker's process and its port."""
    with_application(server)
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    (worker,) = server.kill_workers()
    return worker, int(server.place.query_url.rpartition(":")[2])


@pytest.mark.long
def test_more_busy_connections_than_descriptors_do_not_cost_the_worker(server: Server) -> None:
    worker, port = with_few_descriptors(server)
    ask = post("/app/predict", {"input": [1, 2]})
    released = server.home / "released"
    slow = (
        f"import pathlib, time\ndef predict(inputs):\n    while not pathlib.Path({str(released)!r}).exists():\n"
        "        time.sleep(0.05)\n    return ['slow' for _ in inputs]\n"
    )
    released.touch()
    assert server.deploy("slow", slow, input_type="float64[2]")["state"] == "ready"
    server.call("POST", "/applications", APP | {"name": "slow", "links": [{"model": "slow"}], "slo_ms": 60_000})
    until(lambda: answers(port, post("/slow/predict", {"input": [0, 0]})))
    released.unlink()
    clients = []
    try:
        for _ in range(300):
            clients.append(Client(port))
            clients[-1].send(post("/slow/predict", {"input": [1, 2]}))
        # The worker has all the connections that it has room for, and 50 more that it is refusing.
        until(lambda: len(list(Path(f"/proc/{worker}/fd").iterdir())) > most_connections(DESCRIPTORS) + 50)
        # The supervisor's question to the worker needs descriptors, too.
        assert "clipper_connections{" in server.metrics
        for client in clients[most_connections(DESCRIPTORS) :]:
            answer = client.read()
            assert (answer.status, answer.json["error"]) == (503, "overloaded")
            client.close()
        released.touch()
        assert clients[0].read().json["output"] == "slow"
        clients[1].close()
        clients[2].close()
        until(lambda: answers(port, ask))
        assert server.worker_pids == [worker]
    finally:
        for client in clients:
            client.close()
    log = (server.home / "logs" / "worker-0.log").read_text()
    assert f"may open {DESCRIPTORS} files" in log and "no more are accepted until" in log


@pytest.mark.long
def test_idle_connections_give_way_to_new_ones_and_a_running_query_stays(server: Server) -> None:
    worker, port = with_few_descriptors(server)
    slow = "import time\ndef predict(inputs):\n    time.sleep(3)\n    return ['slow' for _ in inputs]\n"
    assert server.deploy("slow", slow, input_type="float64[2]")["state"] == "ready"
    server.call("POST", "/applications", APP | {"name": "slow", "links": [{"model": "slow"}]})
    asking, idle = Client(port), []
    try:
        until(lambda: answers(port, post("/slow/predict", {"input": [0, 0]})))
        asking.send(post("/slow/predict", {"input": [1, 2]}))
        idle = [Client(port) for _ in range(4 * DESCRIPTORS)]
        # While the others are still being accepted, none of them has to end first.
        assert answers(port, post("/app/predict", {"input": [1, 2]}))
        assert asking.read().json["output"] == "slow"
        assert server.worker_pids == [worker] and "clipper_connections{" in server.metrics
        assert "no more are accepted until" not in (server.home / "logs" / "worker-0.log").read_text()
    finally:
        for client in (asking, *idle):
            client.close()


def answers(port: int, request: bytes) -> bool:
    client = Client(port)
    try:
        client.send(request)
        return client.read().status == 200
    finally:
        client.close()
