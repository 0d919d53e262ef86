"""Clients of the query port that come and go, and a worker that goes: no query is lost, and nothing is left behind."""

import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from clipper.control.messages import Drain, Draining
from clipper.settings.version import Batching
from clipper.worker.frontend.limits import DRAIN_GRACE_S
from tests.integration.http_system import ONE, ask_once
from tests.serving import (
    SUM,
    Client,
    Response,
    Serving,
    application,
    memory_bytes,
    model,
    post,
    serving,
    version,
)
from tests.waiting import TIMEOUT_S, until


def test_half_closed_client_gets_its_answers(client: Client) -> None:
    client.send(post("/sleepy/predict", {"input": [0.05]}) + ONE)
    client.end()
    assert [client.read().json["output"] for _ in range(2)] == [0.05, 6]
    assert client.read_to_end() == b""


def test_half_closed_inside_a_request(client: Client) -> None:
    client.send(post("/sleepy/predict", {"input": [0.05]}) + ONE[:-3])
    client.end()
    assert client.read().json["output"] == 0.05
    assert client.read_to_end() == b""


def test_work_of_a_client_that_went_away_is_never_sent(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gated = f"""
import os, time
def predict(inputs):
    print("got", inputs[0][0], flush=True)
    while not os.path.exists({str(gate)!r}):
        time.sleep(0.002)
    return [0] * len(inputs)
"""
    with serving() as system:
        worker = system.start_worker()
        container = system.start_container(gated)
        system.apply([application(slo_ms=60_000.0)], [model(version(container, batching=Batching("none")))])
        with worker.connect() as patient:
            # Two batches may be with the replica; what comes then waits in the queue.
            patient.send(post("/app/predict", {"input": [1]}) + post("/app/predict", {"input": [2]}))
            until(lambda: worker.application("app").queries == 2)
            leaving = [worker.connect() for _ in range(20)]
            for number, each in enumerate(leaving):
                each.send(post("/app/predict", {"input": [100 + number]}))
            until(lambda: worker.application("app").queries == 22)
            for each in leaving:
                each.reset()
            until(lambda: worker.statistics().connections == 1)
            gate.touch()
            patient.send(post("/app/predict", {"input": [3]}))
            assert [patient.read().json["output"] for _ in range(3)] == [0, 0, 0]
        assert [line for line in container.log.splitlines() if "got" in line] == ["got 1.0", "got 2.0", "got 3.0"]


def test_client_that_does_not_read_is_not_read_from(system: Serving) -> None:
    worker = system.worker
    with worker.connect() as warm:
        assert len(warm.ask("/large/predict", {"input": [1]}).body) > 100_000
    before, asked = memory_bytes(worker.pid), worker.application("large").queries
    request = post("/large/predict", {"input": [1]})
    with Client(worker.port, receive_buffer_bytes=4096) as client:
        sent = send_until_blocked(client.socket, request * 200_000)
        # All answers to what was sent would be many gigabytes.
        assert sent > len(request) * 1000
        assert worker.application("large").queries - asked < 1000
        assert memory_bytes(worker.pid) - before < 100 << 20
        assert ask_once(system).json["output"] == 6
        for _ in range(50):
            assert len(client.read().body) > 100_000


def send_until_blocked(sock: socket.socket, data: bytes) -> int:
    """Send until nothing is taken for half a second; returns how much was."""
    sent = 0
    sock.settimeout(0.5)
    try:
        while sent < len(data):
            sent += sock.send(data[sent : sent + 65_536])
    except TimeoutError:
        pass
    sock.settimeout(TIMEOUT_S)
    return sent


def test_many_clients_that_vanish_leave_nothing_behind(system: Serving) -> None:
    for number in range(300):
        client = system.worker.connect()
        client.send(ONE[: number % len(ONE)] if number % 2 else ONE)
        if number % 3:
            client.reset()
        else:
            client.close()
    until(lambda: system.worker.statistics().connections == 0)
    assert ask_once(system).json["output"] == 6


class ClosedLoop(threading.Thread):
    """A client that always has one query out, over keep-alive, and dials again when it is told that it was the last."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.answers = 0
        self.last: Response | None = None
        self.failure: Exception | None = None
        self._sent_s = time.monotonic()
        self._silent_s = 0.0

    @property
    def has_an_end(self) -> bool:
        """Whether it was told, or was silent for so long, on a busy machine, that its connection was an idle one."""
        return self.last is not None or self._silent_s > DRAIN_GRACE_S

    def run(self) -> None:
        try:
            with Client(self._port) as client:
                while self.last is None:
                    response = self._ask(client)
                    assert response.json["output"] == self.answers + 1
                    self.answers += 1
                    if response.headers.get("connection") == "close":
                        self.last = response
        except Exception as error:  # noqa: BLE001  whatever it was, the test shows it
            self.failure = error

    def _ask(self, client: Client) -> Response:
        before_s = self._sent_s
        try:
            client.send(post("/app/predict", {"input": [self.answers, 1]}))
        finally:
            self._sent_s = time.monotonic()
            self._silent_s = self._sent_s - before_s
        return client.read()


@pytest.mark.parametrize("by", ["signal", "drain"])
def test_stopping_under_load_loses_no_query(by: str) -> None:
    with serving() as system:
        worker = system.start_worker()
        container = system.start_container(SUM)
        system.apply([application()], [model(version(container))])
        clients = [ClosedLoop(worker.port) for _ in range(16)]
        for client in clients:
            client.start()
        until(lambda: all(client.answers > 20 for client in clients))
        if by == "signal":
            worker.send(signal.SIGTERM)
        else:
            assert worker.control.ask(Drain()) == Draining()
        for client in clients:
            client.join(TIMEOUT_S)
        assert [client.failure for client in clients if not client.has_an_end] == []
        assert worker.wait() == 0
        assert "0 requests were given up" in worker.log
