"""Bounds on a client's share of the management port: connections, heads, bodies, answers that it does not read."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipper.api.server import server as bounds
from clipper.api.server.access import Access, Holder, Hosts
from clipper.api.server.gate import Gate
from clipper.api.server.server import MAX_HEAD_BYTES, MAX_PIPELINED, ManagementServer
from clipper.base.tls.material import read_material, server_context
from clipper.base.tls.transport import NOT_TLS
from tests.certificates import Authority
from tests.conftest import TOKEN
from tests.framings import DOUBTFUL
from tests.waiting import TIMEOUT_S, until

MAX_CONNECTIONS = 8
# Four connections' worth of what a socket and the server hold of an answer that nobody reads.
LARGE = b"x" * (16 << 20)
AUTHORIZED = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


class App:
    """Answers /large with much, holds /held until it is let go, and reads the bodies of all others.

    /blocking holds the whole server meanwhile.
    """

    def __init__(self) -> None:
        self.held = 0
        self.go = threading.Event()
        self.received_bytes = 0
        self.disconnected = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = LARGE if scope["path"] == "/large" else b"ok"
        message: dict[str, Any] = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            self.disconnected += message["type"] == "http.disconnect"
            self.received_bytes += len(message.get("body", b""))
        if scope["path"] == "/held":
            self.held += 1
            while not self.go.is_set():
                await asyncio.sleep(0.005)
        if scope["path"] == "/blocking":
            self.held += 1
            self.go.wait(TIMEOUT_S)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


class Running:
    def __init__(self, app: App, server: ManagementServer, port: int) -> None:
        self.app, self.server, self._port = app, server, port
        self.open: list[socket.socket] = []

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_S)
        self.open.append(connection)
        connection.sendall(sent)
        return connection

    def ask(self, path: str, headers: bytes = AUTHORIZED) -> bytes:
        return self.answer(
            self.connect(b"GET " + path.encode() + b" HTTP/1.1\r\nConnection: close\r\n" + headers + b"\r\n")
        )

    @staticmethod
    def answer(connection: socket.socket) -> bytes:
        """All that comes until the end, or a reset."""
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                parts.append(part)
        return b"".join(parts)

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


@pytest.fixture
def running() -> Iterator[Running]:
    with run() as running:
        yield running


@contextlib.contextmanager
def run(tls: ssl.SSLContext | None = None) -> Iterator[Running]:
    app = App()
    gate = Gate(app, Access(Hosts("127.0.0.1"), {TOKEN: Holder("operator", "admin")}.get, open_metrics=False))  # type: ignore[arg-type]
    server = ManagementServer(gate, MAX_CONNECTIONS * bounds.DESCRIPTORS_SHARE, tls)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    until(lambda: server.started)
    running = Running(app, server, listener.getsockname()[1])
    yield running
    app.go.set()
    for connection in running.open:
        connection.close()
    server.should_exit = True
    thread.join(TIMEOUT_S)
    listener.close()
    assert not thread.is_alive()


def test_idle_connections_give_way(running: Running) -> None:
    idle = [running.connect(sent) for sent in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n") for _ in range(20)]
    for _ in range(3):
        assert running.ask("/health/live").endswith(b"ok")
    assert running.connections <= MAX_CONNECTIONS
    # The oldest went first.
    assert running.answer(idle[0]) == b""


def test_connections_that_come_in_one_turn_give_way_to_each_other(running: Running) -> None:
    running.connect(b"GET /blocking HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    until(lambda: running.app.held == 1)
    for _ in range(5 * MAX_CONNECTIONS):
        running.connect()
    running.app.go.set()
    assert running.ask("/health/live").endswith(b"ok")
    assert running.connections <= MAX_CONNECTIONS


def test_requests_under_way_do_not_give_way(running: Running) -> None:
    held = [
        running.connect(b"GET /held HTTP/1.1\r\nConnection: close\r\n" + AUTHORIZED + b"\r\n")
        for _ in range(MAX_CONNECTIONS)
    ]
    until(lambda: running.app.held == MAX_CONNECTIONS)
    refused = running.answer(running.connect())
    assert refused.startswith(b"HTTP/1.1 503") and b'"overloaded"' in refused
    running.app.go.set()
    assert all(running.answer(connection).endswith(b"ok") for connection in held)
    assert running.ask("/x").endswith(b"ok")


def test_clients_that_do_not_read_give_way(running: Running) -> None:
    for _ in range(MAX_CONNECTIONS):
        running.connect(b"GET /large HTTP/1.1\r\n" + AUTHORIZED + b"\r\n")
    for _ in range(3):
        assert running.ask("/health/live").endswith(b"ok")


def test_a_client_that_does_not_read_is_closed_after_a_while(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in (b"", b"Connection: close\r\n"):
        running.connect(b"GET /large HTTP/1.1\r\n" + AUTHORIZED + end + b"\r\n")
    until(lambda: running.connections == 2)
    # Not before: the first would be closed before a busy machine has opened the second.
    monkeypatch.setattr(bounds, "WRITE_TIMEOUT_S", 0.0)
    until(lambda: running.connections == 0)


HEAD = b"GET / HTTP/1.1\r\n"
ENDLESS = [b"GET /" + b"x" * (1 << 20), HEAD + b"Host: " + b"x" * (1 << 20), HEAD + b"A: b\r\n" * (1 << 18)]


@pytest.mark.parametrize("endless", ENDLESS)
def test_a_head_without_end(running: Running, endless: bytes) -> None:
    connection = running.connect()
    with contextlib.suppress(ConnectionError):
        connection.sendall(endless)
    assert running.answer(connection)[:12] in (b"HTTP/1.1 413", b"")
    until(lambda: running.connections == 0)


def test_a_large_head_that_ends(running: Running) -> None:
    assert running.ask("/" + "x" * (MAX_HEAD_BYTES - 500)).endswith(b"ok")


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_head_that_does_not_come(running: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(bounds, "HEAD_TIMEOUT_S", 0.0)
    assert running.answer(running.connect(sent)).startswith(b"HTTP/1.1 408")


def test_a_body_that_stays_out(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "BODY_TIMEOUT_S", 0.0)
    head = b"PUT /artifacts/x HTTP/1.1\r\nContent-Type: application/x-tar\r\nContent-Length: 9\r\n" + AUTHORIZED
    assert running.answer(running.connect(head + b"\r\npart")) == b""
    until(lambda: running.app.disconnected == 1)


def test_what_comes_after_a_refusal_is_thrown_away_and_not_for_ever(running: Running) -> None:
    head = b"PUT /artifacts/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    connection = running.connect(head)
    assert connection.recv(12) == b"HTTP/1.1 401"
    with pytest.raises(ConnectionError):
        for _ in range(100):
            connection.sendall(b"x" * (1 << 20))
    assert running.app.received_bytes == 0
    # A small body that nobody wanted costs the client neither its answer nor its connection.
    connection = running.connect(b"POST /stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
    assert connection.recv(12) == b"HTTP/1.1 401"
    connection.sendall(b"GET /health/live HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n\r\n")
    assert running.answer(connection).endswith(b"ok")


def test_a_flood_of_pipelined_requests(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    one = b"GET /held HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    few = running.connect(one * (MAX_PIPELINED + 1))
    many = running.connect(one * 1000)
    until(lambda: running.connections == 1)
    running.app.go.set()
    assert running.answer(many) == b""
    answers = b""
    while answers.count(b"ok") < MAX_PIPELINED + 1:
        answers += few.recv(1 << 16)
    assert caplog.text == ""


def test_tls_and_who_says_nothing_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    trust = ssl.create_default_context(cafile=authority.certificate)
    with run(server_context(read_material(authority.issue("server").paths))) as running:

        def ask(name: str) -> bytes:
            request = b"GET /large HTTP/1.1\r\nConnection: close\r\n" + AUTHORIZED + b"\r\n"
            with trust.wrap_socket(running.connect(), server_hostname="localhost") as client:
                found = client.getpeercert()
                assert found is not None and found["subject"] == ((("commonName", name),),)
                client.sendall(request)
                return running.answer(client)

        idle = [running.connect(sent) for sent in (b"", b"\x16\x03\x01") for _ in range(20)]
        for _ in range(3):
            assert ask("server").endswith(LARGE)
        assert running.connections <= MAX_CONNECTIONS
        assert running.answer(idle[0]) == b""
        assert running.ask("/x") == NOT_TLS
        monkeypatch.setattr(bounds, "HEAD_TIMEOUT_S", 0.0)
        assert running.answer(running.connect(b"\x16\x03\x01")) == b""
        until(lambda: running.connections == 0)
        monkeypatch.undo()
        running.server.secure(server_context(read_material(authority.issue("other").paths)))
        assert ask("other").endswith(LARGE)


GARBAGE = [b"\x16\x03\x01\x02\x00", b"\0" * 1000, b"GET\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n", b"\r\n" * 1000]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage(running: Running, garbage: bytes) -> None:
    connection = running.connect(garbage)
    connection.shutdown(socket.SHUT_WR)
    answer = running.answer(connection)
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 400") and b'"malformed_request"' in answer)
    assert running.ask("/health/live").endswith(b"ok")


@pytest.mark.parametrize("framing", DOUBTFUL)
def test_nothing_is_smuggled_behind_an_end_that_is_in_doubt(running: Running, framing: str) -> None:
    behind = b"GET /health/live HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    head = b"POST /keys HTTP/1.1\r\nContent-Type: application/json\r\n" + AUTHORIZED
    answer = running.answer(running.connect(head + DOUBTFUL[framing] + behind))
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1 ") == 1)


@pytest.mark.parametrize("at_once_bytes", [0, 50, 1000])
def test_an_offer_of_another_protocol_is_ignored(running: Running, at_once_bytes: int) -> None:
    """As Java's client makes one with each request; what looks like a request in its body is none."""
    body = b"GET /large HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
    head = b"POST /keys HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    head += AUTHORIZED + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n"
    connection = running.connect(head + body[:at_once_bytes])
    until(lambda: running.app.received_bytes >= len(body[:at_once_bytes]))
    connection.sendall(body[at_once_bytes:] + head + body)
    connection.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n" + AUTHORIZED + b"\r\n")
    answer = running.answer(connection)
    assert answer.count(b"HTTP/1.1 200") == 3 and answer.endswith(b"ok") and len(answer) < 10_000
    assert running.app.received_bytes == 2 * len(body)


@pytest.mark.parametrize("method", [b"CONNECT", b"GET"])
def test_a_tunnel_is_refused(running: Running, method: bytes) -> None:
    answer = running.answer(running.connect(method + b" localhost:22 HTTP/1.1\r\n" + AUTHORIZED + b"\r\nSSH-2.0"))
    assert answer.startswith(b"HTTP/1.1 400")


def test_who_has_just_connected_is_answered_when_the_server_stops(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "FIRST_REQUEST_S", 60.0)
    quick = running.connect()
    until(lambda: running.connections == 1)
    running.server.should_exit = True
    until(lambda: not any(each.is_serving() for each in running.server.servers))
    quick.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n" + AUTHORIZED + b"\r\n")
    assert running.answer(quick).startswith(b"HTTP/1.1 200")


def test_who_has_connected_and_says_nothing_does_not_hold_up_a_stop(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "FIRST_REQUEST_S", 0.05)
    silent = running.connect()
    until(lambda: running.connections == 1)
    running.server.should_exit = True
    assert running.answer(silent) == b""
    until(lambda: running.connections == 0)
