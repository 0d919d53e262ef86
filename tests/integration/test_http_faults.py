"""What clients do to the query port, on real sockets: each gets its answer, and the rest is unharmed."""

import json
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.control import Drain, Draining
from clipper.snapshot import Batching
from serving import (
    SUM,
    TIMEOUT_S,
    Client,
    Response,
    Serving,
    application,
    memory_bytes,
    model,
    post,
    serving,
    version,
    wait_for,
)

# Evaluates for as many seconds as the input says.
SLEEPY = "import time\ndef predict(inputs):\n    time.sleep(inputs[0][0])\n    return [float(x[0]) for x in inputs]\n"
LARGE = "def predict(inputs):\n    return ['x' * 100_000] * len(inputs)\n"

ONE = post("/sum/predict", {"input": [1, 2, 3]})


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as system:
        system.start_worker()
        total, sleepy = system.start_container(SUM), system.start_container(SLEEPY, "sleepy")
        large = system.start_container(LARGE, "large")
        applications = [application("sum"), application("sleepy", "sleepy"), application("large", "large")]
        models = [
            model(version(total)),
            model(version(sleepy, batching=Batching("none")), name="sleepy"),
            model(version(large, cache=True), name="large"),
        ]
        assert system.apply(applications, models).unlinked == {}
        yield system


@pytest.fixture
def client(system: Serving) -> Iterator[Client]:
    with system.worker.connect() as client:
        yield client
    assert ask_once(system).json["output"] == 6, "the worker no longer answers others"


def ask_once(system: Serving) -> Response:
    with system.worker.connect() as client:
        client.send(ONE)
        return client.read()


def assert_error(response: Response, status: int, code: str) -> None:
    assert (response.status, response.json["error"]) == (status, code)
    assert set(response.json) == {"error", "cause"}
    assert response.headers["content-type"] == "application/json"
    assert response.json["cause"]


# -- requests as they should be ------------------------------------------------------------------------------


def test_keep_alive(client: Client) -> None:
    answers = [client.ask("/sum/predict", {"input": [number, 1]}).json["output"] for number in range(200)]
    assert answers == [number + 1 for number in range(200)]


def test_pipelined_slow_and_fast_answers_come_in_order(client: Client) -> None:
    slow, fast = post("/sleepy/predict", {"input": [0.05]}), post("/sum/predict", {"input": [7]})
    missing = b"GET /nowhere HTTP/1.1\r\n\r\n"
    client.send((slow + fast + missing + fast + slow) * 2)
    outputs = [client.read().json.get("output") for _ in range(10)]
    assert outputs == [0.05, 7, None, 7, 0.05] * 2


def test_thousands_of_pipelined_requests(client: Client) -> None:
    count = 5000
    data = b"".join(post("/sum/predict", {"input": [number]}) for number in range(count))
    sender = threading.Thread(target=client.send, args=(data,))
    sender.start()
    assert [client.read().json["output"] for _ in range(count)] == list(range(count))
    sender.join()


def test_request_split_at_every_byte(client: Client) -> None:
    for middle in range(1, len(ONE)):
        client.send(ONE[:middle])
        client.send(ONE[middle:])
        assert client.read().json["output"] == 6


def test_chunked_body(client: Client) -> None:
    body = json.dumps({"input": [1, 2, 3]}).encode()
    head = b"POST /sum/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for size in range(1, len(body) + 1):
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        client.send(head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n")
        assert client.read().json["output"] == 6


def test_expect_continue(client: Client) -> None:
    request = post("/sum/predict", {"input": [1, 2]}, Expect="100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.read().status == 100
    client.send(body)
    assert client.read().json["output"] == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_in_the_readme(system: Serving, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{system.worker.port}/sum/predict"
    # Over 1 MB curl asks first, with Expect: 100-continue.
    for body in ('{"input": [1, 2]}', json.dumps({"input": [1] * 500_000})):
        (tmp_path / "body").write_text(body)
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "60", url, "-d", f"@{tmp_path / 'body'}"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=90)
        assert json.loads(done.stdout)["output"] == sum(json.loads(body)["input"])


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "image/png", "", "application/json"]
)
def test_content_type_is_not_looked_at(client: Client, kind: str) -> None:
    assert client.ask("/sum/predict", {"input": [1]}, Content_Type=kind).json["output"] == 1


def test_absolute_form_of_the_url(client: Client) -> None:
    assert client.ask("http://somewhere:1337/sum/predict", {"input": [1]}).json["output"] == 1


def test_http_1_0_closes_after_the_answer(client: Client) -> None:
    client.send(ONE.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host", b"Connection: keep-alive\r\nHost"))
    response = client.read()
    assert (response.json["output"], response.headers["connection"]) == (6, "close")
    assert client.read_to_end() == b""


def test_connection_close(client: Client) -> None:
    client.send(post("/sum/predict", {"input": [1]}, Connection="close"))
    response = client.read()
    assert (response.json["output"], response.headers["connection"]) == (1, "close")
    assert client.read_to_end() == b""


def test_offer_of_another_protocol_is_ignored(client: Client) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
    for number in range(3):
        assert client.ask("/sum/predict", {"input": [number, 1]}, **headers).json["output"] == number + 1
    client.send(b"GET /health/live HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + ONE)
    assert client.read().json == {"status": "live"}
    assert client.read().json["output"] == 6


def test_head_gets_no_body(client: Client) -> None:
    client.send(b"HEAD /health/live HTTP/1.1\r\n\r\nHEAD /sum/predict HTTP/1.1\r\n\r\nHEAD /x HTTP/1.1\r\n\r\n" + ONE)
    answers = [client.read("HEAD") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 405, 404]
    assert all(int(answer.headers["content-length"]) > 0 for answer in answers)
    assert client.read().json["output"] == 6


# -- requests as they should not be --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_wrong_method(client: Client, method: str) -> None:
    client.send(f"{method} /sum/predict HTTP/1.1\r\n\r\n".encode())
    response = client.read()
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert client.ask("/sum/predict", {"input": [1]}).status == 200


def test_posting_to_health_is_a_wrong_method_each_time(client: Client) -> None:
    for _ in range(3):
        response = client.ask("/health/live", {})
        assert_error(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/", "/sum", "/sum/", "/sum/predict/x", "//predict", "/%73um/predict", "/sum/PREDICT"]
)
def test_unknown_path(client: Client, path: str) -> None:
    assert_error(client.ask(path, {"input": [1]}), 404, "not_found")
    assert client.ask("/sum/predict", {"input": [1]}).status == 200


def test_unknown_application_is_named(client: Client) -> None:
    response = client.ask("/digits/predict", {"input": [1]})
    assert_error(response, 404, "not_found")
    assert "'digits'" in response.json["cause"]


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (post("/sum/predict", b"", Expect="a-miracle"), 417, "expectation_failed"),
        (b"POST /sum/predict HTTP/1.1\r\nContent-Length: 104857600\r\n\r\n", 413, "too_large"),
        (b"POST /sum/predict HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400, "malformed_request"),
        (b"POST /sum/predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "malformed_request"),
        (b"POST /sum/predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed_request"),
        (
            b"POST /sum/predict HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "malformed_request",
        ),
        (b"POST /sum/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "malformed_request"),
        (b"POST /sum/predict HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431, "head_too_large"),
        (b"POST /sum/predict HTTP/1.1\r\nX: " + b"y" * 300_000, 431, "head_too_large"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 431, "head_too_large"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2, 400, "malformed_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
        (b"CONNECT localhost:22 HTTP/1.1\r\n\r\nSSH-2.0-OpenSSH_9\r\n", 405, "method_not_allowed"),
        (b"\0" * 5000, 400, "malformed_request"),
        (b"hello\r\n", 400, "malformed_request"),
        (b'{"input": [1]}\r\n\r\n', 400, "malformed_request"),
        (random.Random(1).randbytes(100_000), 400, "malformed_request"),
    ],
)
def test_unreadable_request_is_refused_in_its_turn_and_closes(
    client: Client, data: bytes, status: int, code: str
) -> None:
    client.send(ONE + data)
    assert client.read().json["output"] == 6
    response = client.read()
    assert_error(response, status, code)
    assert response.headers["connection"] == "close"
    assert client.read_to_end() == b""


def test_100_mb_body_is_refused_unread(system: Serving, client: Client) -> None:
    before = memory_bytes(system.worker.pid)
    piece = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"

    def send() -> None:
        client.send(b"POST /sum/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        # It is told, and cut off if it goes on for long.
        with suppress(ConnectionError):
            for _ in range(100):
                client.send(piece)

    sending = threading.Thread(target=send)
    sending.start()
    assert_error(client.read(), 413, "too_large")
    sending.join()
    wait_for(lambda: memory_bytes(system.worker.pid) < before + (32 << 20), "the worker gives the memory back")


def test_60_mb_body_is_read(client: Client) -> None:
    body = b'{"input": [1, 2' + b" " * (60 << 20) + b"]}"
    assert client.ask("/sum/predict", body).json["output"] == 3


# -- clients that come and go --------------------------------------------------------------------------------


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
            wait_for(lambda: worker.application("app").queries == 2, "both are asked")
            leaving = [worker.connect() for _ in range(20)]
            for number, each in enumerate(leaving):
                each.send(post("/app/predict", {"input": [100 + number]}))
            wait_for(lambda: worker.application("app").queries == 22, "all are asked")
            for each in leaving:
                each.reset()
            wait_for(lambda: worker.statistics().connections == 1, "the worker has seen them go")
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
    wait_for(lambda: system.worker.statistics().connections == 0, "all are gone")
    assert ask_once(system).json["output"] == 6


# -- stopping ------------------------------------------------------------------------------------------------


class ClosedLoop(threading.Thread):
    """A client that always has one query out, over keep-alive, and dials again when it is told that it was the last."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.answers = 0
        self.last: Response | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with Client(self._port) as client:
                while self.last is None:
                    response = client.ask("/app/predict", {"input": [self.answers, 1]})
                    assert response.json["output"] == self.answers + 1
                    self.answers += 1
                    if response.headers.get("connection") == "close":
                        self.last = response
        except Exception as error:  # noqa: BLE001  whatever it was, the test shows it
            self.failure = error


@pytest.mark.parametrize("by", ["signal", "drain"])
def test_stopping_under_load_loses_no_query(by: str) -> None:
    with serving() as system:
        worker = system.start_worker()
        container = system.start_container(SUM)
        system.apply([application()], [model(version(container))])
        clients = [ClosedLoop(worker.port) for _ in range(16)]
        for client in clients:
            client.start()
        wait_for(lambda: all(client.answers > 20 for client in clients), "all clients are at work")
        if by == "signal":
            worker.send(signal.SIGTERM)
        else:
            assert worker.control.ask(Drain()) == Draining()
        for client in clients:
            client.join(60)
        assert [client.failure for client in clients] == [None] * 16
        assert all(client.last is not None for client in clients)
        assert worker.wait() == 0
        assert "0 requests were given up" in worker.log


# -- fuzzing -------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        ONE,
        post("/sum/predict", {"input": "x"}),
        post("/sum/predict", {"input_batch": [[1], [2]]}),
        b"GET / HTTP/1.1\r\n\r\n",
    ]
) | st.binary(max_size=50)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(PIECES, min_size=1, max_size=5), cut=st.integers(0, 200), resets=st.booleans())
def test_whatever_is_sent_the_worker_answers_the_next(
    system: Serving, pieces: list[bytes], cut: int, resets: bool
) -> None:
    data = b"".join(pieces)
    whole = next((number for number, piece in enumerate(pieces) if piece != ONE), len(pieces))
    with system.worker.connect() as client:
        client.send(data[: max(len(data) - cut, len(ONE) * whole)])
        assert [client.read().json["output"] for _ in range(whole)] == [6] * whole
        if resets:
            client.reset()
        else:
            client.end()
            client.read_to_end()
    assert ask_once(system).json["output"] == 6
    assert "internal_error" not in system.worker.statistics().requests_refused
