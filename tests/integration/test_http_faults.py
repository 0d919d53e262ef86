"""Requests to the query port as they should not be, on real sockets: each gets its answer, and the rest is unharmed."""

import random
import threading
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.example_counts import share_of
from tests.framings import DOUBTFUL
from tests.integration.http_system import ONE, ask_once, assert_error
from tests.serving import Client, Serving, memory_bytes, post
from tests.waiting import until


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


@pytest.mark.parametrize("framing", DOUBTFUL)
def test_nothing_is_smuggled_behind_an_end_that_is_in_doubt(client: Client, framing: str) -> None:
    client.send(ONE + b"POST /sum/predict HTTP/1.1\r\nHost: localhost\r\n" + DOUBTFUL[framing] + ONE)
    assert client.read().json["output"] == 6
    assert_error(client.read(), 400, "malformed_request")
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
    until(lambda: memory_bytes(system.worker.pid) < before + (32 << 20))


def test_8_mb_body_is_read(client: Client) -> None:
    body = b'{"input": [' + b"1," * ((4 << 20) - 10) + b"1]}"
    assert client.ask("/sum/predict", body).json["output"] == (4 << 20) - 9


def test_body_over_8_mb_is_refused_where_no_input_needs_it(client: Client) -> None:
    assert_error(client.ask("/sum/predict", b'{"input": [1' + b" " * (8 << 20) + b"]}"), 413, "too_large")


PIECES = st.sampled_from(
    [
        ONE,
        post("/sum/predict", {"input": "x"}),
        post("/sum/predict", {"input_batch": [[1], [2]]}),
        b"GET / HTTP/1.1\r\n\r\n",
    ]
) | st.binary(max_size=50)


@settings(max_examples=share_of(150), deadline=None)
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
