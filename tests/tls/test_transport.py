"""The transport without sockets: a client's bytes are given to it, and what it writes is read by that client."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_transport import FakeTransport

from certificates import Authority
from clipper.tls.handshakes import Handshakes
from clipper.tls.material import read_material, server_context
from clipper.tls.transport import PIECE_BYTES, VISIT_BYTES, TlsTransport
from clipper.turn_budget import TurnBudget


class Application(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.told: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost")


class Pair:
    """A transport, and a client that has shaken hands with it."""

    def __init__(self, authority: Authority) -> None:
        self.calls: list[Callable[[], None]] = []
        self.application, self.socket = Application(), FakeTransport()
        context = server_context(read_material(authority.issue("server").paths))
        self.tls = TlsTransport(self.application, Handshakes(context, TurnBudget(self.calls.append, time.monotonic)))
        self.tls.connection_made(self.socket)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        trust = ssl.create_default_context(cafile=authority.certificate)
        self.client = trust.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def shake_hands(self, behind: bytes = b"") -> None:
        """``behind``: what the client says with the end of its handshake."""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
                break
            self.tls.data_received(self._outgoing.read())
            assert self.socket.is_paused, "read on while it waits for its turn"
            self.turn()
            self.take()
        self.client.write(behind)
        self.tls.data_received(self._outgoing.read())
        self.turn()

    def turn(self) -> None:
        calls, self.calls[:] = self.calls[:], []
        for call in calls:
            call()

    def take(self) -> None:
        self._incoming.write(bytes(self.socket.written))
        self.socket.written.clear()

    def read(self) -> bytes:
        """All that the client can read now."""
        self.take()
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self.client.read(1 << 20):
                parts.append(part)
        return b"".join(parts)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_what_comes_along_with_the_handshake_is_read(authority: Authority) -> None:
    pair = Pair(authority)
    text = bytes(range(256)) * 1000
    pair.shake_hands(text)
    assert pair.application.received == text
    assert not pair.socket.is_paused
    assert pair.application.told == []


def test_what_is_written_before_the_handshake_waits_for_it(authority: Authority) -> None:
    pair = Pair(authority)
    pair.tls.write(b"too many")
    pair.tls.write_eof()
    assert (pair.tls.get_write_buffer_size(), bytes(pair.socket.written)) == (8, b"")
    pair.shake_hands(b"ignored")
    assert (pair.read(), pair.socket.has_ended) == (b"too many", True)
    assert pair.application.received == b""


def test_a_long_answer_is_encrypted_as_it_is_taken(authority: Authority) -> None:
    pair = Pair(authority)
    pair.shake_hands(b"x")
    answer = bytes(range(256)) * (3 * VISIT_BYTES // 256)
    pair.read()
    pair.tls.write(answer)
    # In one turn a part, if the socket takes it...
    assert VISIT_BYTES < len(pair.socket.written) < VISIT_BYTES + 2 * PIECE_BYTES
    assert pair.tls.get_write_buffer_size() == len(answer) - VISIT_BYTES
    assert pair.application.told == ["pause"]
    first = pair.read()
    # ...and nothing more while it does not, nor is more read of that client.
    pair.tls.pause_writing()
    pair.turn()
    assert bytes(pair.socket.written) == b""
    assert pair.socket.is_paused
    pair.tls.resume_writing()
    assert not pair.socket.is_paused
    pair.tls.close()
    while pair.calls:
        pair.turn()
    assert first + pair.read() == answer
    assert pair.application.told == ["pause", "resume"]
    assert pair.socket.is_closed


def test_a_connection_that_is_gone_lets_go_of_its_application(authority: Authority) -> None:
    pair = Pair(authority)
    pair.shake_hands(b"x")
    pair.tls.write(b"y" * (2 * VISIT_BYTES))
    pair.tls.connection_lost(None)
    assert pair.tls.get_write_buffer_size() == 0
    # Whatever it is still told or asked: nothing.
    pair.turn()
    pair.tls.write(b"late")
    pair.tls.data_received(b"late")
    pair.tls.write_eof()
    pair.tls.close()
    assert pair.application.told == ["pause", "lost"]
    assert pair.application.received == b"x"
