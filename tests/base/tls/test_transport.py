"""The transport without sockets: a client's bytes are given to it, and what it writes is read by that client."""

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipper.base.tls.handshakes import Handshakes
from clipper.base.tls.material import read_material, server_context
from clipper.base.tls.transport import MAX_RECORDS, PIECE_BYTES, VISIT_BYTES, TlsTransport
from clipper.base.turn_budget import TurnBudget
from tests.certificates import Authority
from tests.worker.frontend.fake_transport import FakeTransport


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

    def __init__(self, authority: Authority, clock: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[Callable[[], None]] = []
        self.application, self.socket = Application(), FakeTransport()
        context = server_context(read_material(authority.issue("server").paths))
        self.tls = TlsTransport(self.application, Handshakes(context, TurnBudget(self.calls.append, clock)))
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
        if behind:
            self.client.write(behind)
        self.tls.data_received(self._outgoing.read())
        self.turn()

    def turn(self) -> None:
        calls, self.calls[:] = self.calls[:], []
        for call in calls:
            call()

    def turns(self) -> None:
        while self.calls:
            self.turn()

    def records(self, *texts: bytes) -> bytes:
        """The bytes that the client sends for these, each in a record of its own."""
        for text in texts:
            self.client.write(text)
        return self._outgoing.read()

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
    pair.turns()
    assert pair.application.received == text
    assert not pair.socket.is_paused
    assert pair.application.told == []


def test_many_small_records_are_read_in_turns(authority: Authority) -> None:
    # Each look at the clock is a millisecond later than the one before.
    clock = itertools.count(0.0, 0.001)
    pair = Pair(authority, lambda: next(clock))
    pair.shake_hands()
    texts = [b"%d," % number for number in range(5000)]
    pair.tls.data_received(pair.records(*texts))
    # Nothing more is taken from the socket while some of it waits.
    assert pair.application.received == b"".join(texts[:MAX_RECORDS]) and pair.socket.is_paused
    turns = 0
    while pair.calls:
        before = len(pair.application.received)
        pair.turn()
        turns += 1
        assert pair.application.received[before:].count(b",") <= 3 * MAX_RECORDS
    assert turns > 5000 / (3 * MAX_RECORDS) - 2
    assert pair.application.received == b"".join(texts) and not pair.socket.is_paused


def test_who_pauses_reads_no_more_of_what_waits(authority: Authority) -> None:
    pair = Pair(authority)
    pair.shake_hands()
    texts = [bytes([number]) for number in range(100)]
    pair.tls.data_received(pair.records(*texts))
    pair.tls.pause_reading()
    pair.turns()
    assert pair.application.received == b"".join(texts[:MAX_RECORDS])
    pair.tls.resume_reading()
    assert pair.socket.is_paused, "what waits goes first"
    pair.turns()
    assert pair.application.received == b"".join(texts) and not pair.socket.is_paused


def test_a_connection_that_ends_while_it_waits_has_no_more_turns(authority: Authority) -> None:
    pair = Pair(authority)
    pair.shake_hands()
    pair.tls.data_received(pair.records(*[b"x"] * 100))
    pair.tls.connection_lost(None)
    pair.turns()
    assert pair.application.received == b"x" * MAX_RECORDS


@given(st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_however_a_stream_is_cut_the_same_is_read(authority: Authority, data: st.DataObject) -> None:
    pair = Pair(authority)
    pair.shake_hands()
    texts = data.draw(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=60))
    texts.append(bytes(data.draw(st.sampled_from([1, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES]))))
    stream = pair.records(*texts)
    while stream:
        size = data.draw(st.one_of(st.integers(1, 7), st.integers(1, len(stream))))
        pair.tls.data_received(stream[:size])
        pair.turns()
        stream = stream[size:]
    assert pair.application.received == b"".join(texts) and not pair.socket.is_paused


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
