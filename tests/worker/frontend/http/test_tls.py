"""The query port under TLS, on real sockets: its bounds are those that it has without."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from clipper.base.tls import handshakes
from clipper.base.tls.material import TlsPaths, read_material, server_context
from clipper.base.tls.transport import NOT_TLS, PIECE_BYTES
from clipper.worker.frontend import limits
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http.port import Port as QueryPort
from clipper.worker.frontend.http.server import QueryServer
from tests.certificates import Authority, Pair
from tests.serving import post
from tests.waiting import TIMEOUT_S, until_async
from tests.worker.frontend.fake_transport import Echo, Later

ECHO = post("/echo/predict", b"hi")
LARGE = 8 << 20
Test = Callable[["Port"], Coroutine[Any, Any, None]]


class Large:
    """Answers with much."""

    methods = ("POST",)
    max_body_bytes = limits.MAX_BODY_BYTES
    slo_s = 1.0

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        exchange.answer(200, b'"%b"' % (b"x" * LARGE))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


class Port:
    """A server that listens, and clients of it."""

    def __init__(self, server: QueryServer, number: int, authority: Authority, later: Later) -> None:
        self.server, self.number, self.later = server, number, later
        self.trust = ssl.create_default_context(cafile=authority.certificate)
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = await asyncio.open_connection("127.0.0.1", self.number, ssl=context or self.trust)
        self.writers.append(found[1])
        return found

    async def plain(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = await asyncio.open_connection("127.0.0.1", self.number)
        self.writers.append(found[1])
        found[1].write(sent)
        return found

    async def still_answers(self) -> None:
        reader, writer = await self.connect()
        writer.write(ECHO)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")


def serve(
    test: Test, authority: Authority, paths: TlsPaths, max_connections: int = 100, sweep_s: float = 1000.0
) -> None:
    async def main() -> None:
        server = QueryServer(QueryPort(max_connections), sweep_s)
        later = Later()
        server.port.serve({b"/echo/predict": Echo(), b"/later/predict": later, b"/large/predict": Large()})
        server.secure(server_context(read_material(paths)))
        listener = socket.create_server(("127.0.0.1", 0))
        await server.listen(listener)
        port = Port(server, listener.getsockname()[1], authority, later)
        async with asyncio.timeout(TIMEOUT_S):
            try:
                await test(port)
            finally:  # uvloop would wait for ever for connections that a failed test leaves
                await server.drain(0.0)
                for writer in port.writers:
                    writer.transport.abort()
                await until_async(lambda: len(server.port.members) == 0)

    uvloop.run(main())


def test_answers_over_tls_in_any_pieces(authority: Authority, pair: Pair) -> None:
    async def test(port: Port) -> None:
        reader, writer = await port.connect()
        found = writer.get_extra_info("ssl_object")
        assert found.version() == "TLSv1.3"
        for size in (1, 16 * 1024, PIECE_BYTES + 1, 1 << 20):
            writer.write(post("/echo/predict", b"x" * size))
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(2 * size + 2) == b'"' + b"78" * size + b'"'
        # Many at once, and one byte at a time, each in a record of its own.
        writer.write(ECHO * 500)
        for byte in ECHO:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(501):
            await reader.readuntil(b'"6869"')
        writer.write(post("/large/predict", b"x"))
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(LARGE + 2)) == LARGE + 2
        assert port.server.port.refused == {}

    serve(test, authority, pair.paths)


def test_what_is_chosen_in_the_handshake(authority: Authority, pair: Pair) -> None:
    async def test(port: Port) -> None:
        port.trust.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await port.connect()
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        port.trust.maximum_version = ssl.TLSVersion.TLSv1_2
        reader, writer = await port.connect()
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
        writer.write(ECHO)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        old = ssl.create_default_context(cafile=authority.certificate)
        # So that this client would.
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)) as refused:
            await port.connect(old)
        assert "PROTOCOL_VERSION" in str(refused.value)

    serve(test, authority, pair.paths)


GARBAGE = [b"\0" * 1000, b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000, b"\x15\x03\x01\x00\x02\x02\x28", b"SSH-2.0-x\r\n"]


def test_what_is_not_tls_is_closed(authority: Authority, pair: Pair) -> None:
    async def test(port: Port) -> None:
        for sent in (ECHO, b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000):
            reader, _ = await port.plain(sent)
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = await reader.read()
            # The last of them has not sent all of it when it is answered, and may see a reset.
            assert answer == NOT_TLS or len(sent) > 100_000
        for sent in GARBAGE:
            reader, _ = await port.plain(sent)
            with contextlib.suppress(ConnectionError):
                assert not (await reader.read()).startswith(b"HTTP")
        await until_async(lambda: len(port.server.port.members) == 0)
        await port.still_answers()

    serve(test, authority, pair.paths)


def test_garbage_after_the_handshake_costs_one_connection(authority: Authority, pair: Pair) -> None:
    async def test(port: Port) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = port.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await port.plain()
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
            writer.write(outgoing.read())
            incoming.write(await reader.read(1 << 16))
        client.write(post("/later/predict", b"x"))
        writer.write(outgoing.read())
        await until_async(lambda: bool(port.later.bodies))
        writer.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        await until_async(lambda: len(port.server.port.members) == 0)
        assert port.later.cancelled == [b"x"]
        await port.still_answers()

    serve(test, authority, pair.paths)


def test_half_open_handshakes_count_and_give_way(authority: Authority, pair: Pair) -> None:
    """Each has said something, so that it takes what it can."""
    hello = client_hello()

    async def test(port: Port) -> None:
        # Of 200 connections a quarter.
        for _ in range(300):
            await port.plain(hello)
        await port.still_answers()
        assert 50 <= len(port.server.port.members) <= 52
        for writer in port.writers:
            writer.transport.abort()

    serve(test, authority, pair.paths, max_connections=200)


def test_a_slow_handshake_is_given_up(authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = client_hello()

    async def test(port: Port) -> None:
        kept = await port.connect()
        # The handshake's last message is the client's: an answer shows that the server has it.
        kept[1].write(ECHO)
        await kept[0].readuntil(b'"6869"')
        # Not before: on a busy machine a handshake takes longer.
        monkeypatch.setattr(handshakes, "HANDSHAKE_TIMEOUT_S", 0.2)
        silent, _ = await port.plain()
        slow, slow_writer = await port.plain()
        half, _ = await port.plain(hello[:-1])

        async def drip() -> None:
            for byte in hello * 100:
                slow_writer.write(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        for reader in (silent, slow, half):
            with contextlib.suppress(ConnectionError):
                assert not (await reader.read()).startswith(b"HTTP")
        dripping.cancel()
        # A connection that has shaken hands is not given up.
        kept[1].write(ECHO)
        assert (await kept[0].readline()).startswith(b"HTTP/1.1 200 ")
        assert len(port.server.port.members) == 1

    serve(test, authority, pair.paths, sweep_s=0.01)


def test_connections_over_the_bound_are_told_so(authority: Authority, pair: Pair) -> None:
    async def test(port: Port) -> None:
        kept = [await port.connect() for _ in range(4)]
        for _, writer in kept:
            writer.write(post("/later/predict", b"x"))
        await until_async(lambda: len(port.later.bodies) == 4)
        reader, _ = await port.connect()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        for number in range(4):  # any of them may have come first
            port.later.answer(number)
        assert (await kept[0][0].readline()).startswith(b"HTTP/1.1 200 ")

    serve(test, authority, pair.paths, max_connections=4)


def test_a_client_that_never_reads_is_bounded(authority: Authority, pair: Pair) -> None:
    """As much of an answer is encrypted as the socket takes; the rest is counted as plain bytes."""

    async def test(port: Port) -> None:
        budget = port.server.port.budget
        budget.bound_bytes = 4 * LARGE
        first, other = await port.connect(), await port.connect()
        # One of them, beside what the sockets take, which is not ours to bound.
        first[1].write(post("/large/predict", b"x"))
        # Before, it holds the request.
        await until_async(lambda: budget.held_bytes > LARGE // 4)
        assert budget.held_bytes <= LARGE + 4 * PIECE_BYTES
        for _ in range(10):
            _, writer = await port.connect()
            writer.write(post("/large/predict", b"x") * 20)
        await until_async(lambda: port.server.port.refused["overloaded"] > 0)
        assert budget.held_bytes <= budget.bound_bytes + LARGE
        # Those that do read get theirs.
        other[1].write(ECHO)
        assert (await other[0].readline()).startswith(b"HTTP/1.1 200 ")
        for writer in port.writers:
            writer.transport.abort()
        await until_async(lambda: len(port.server.port.members) == 0)
        assert budget.held_bytes == 0

    serve(test, authority, pair.paths)


def test_an_answer_that_closes_ends_as_tls_does(authority: Authority, pair: Pair) -> None:
    """A client that reads to the end would take a bare end of the socket for an answer that was cut off."""
    last = ECHO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    large = post("/large/predict", b"x").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def test(port: Port) -> None:
        def ask(request: bytes) -> bytes:
            with (
                socket.create_connection(("127.0.0.1", port.number), timeout=TIMEOUT_S) as connection,
                port.trust.wrap_socket(connection, server_hostname="localhost", suppress_ragged_eofs=False) as client,
            ):
                client.sendall(request)
                found = b""
                while part := client.recv(1 << 20):
                    found += part
                return found

        assert (await asyncio.to_thread(ask, last)).endswith(b'"6869"')
        assert len(await asyncio.to_thread(ask, large)) > LARGE
        assert (await asyncio.to_thread(ask, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")

    serve(test, authority, pair.paths)


def test_a_client_that_says_goodbye_still_gets_its_answer(authority: Authority, pair: Pair) -> None:
    async def test(port: Port) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = port.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
        reader, writer = await port.plain()
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
            writer.write(outgoing.read())
            incoming.write(await reader.read(1 << 16))
        client.write(post("/later/predict", b"x"))
        with contextlib.suppress(ssl.SSLWantReadError):
            client.unwrap()
        writer.write(outgoing.read())
        writer.write_eof()
        await until_async(lambda: bool(port.later.bodies))
        await asyncio.sleep(0.05)
        port.later.answer(0)
        incoming.write(await reader.read())
        assert client.read(1 << 16).startswith(b"HTTP/1.1 200 ")

    serve(test, authority, pair.paths)


def test_new_connections_get_the_new_certificate(authority: Authority, pair: Pair) -> None:
    other = authority.issue("other")

    async def test(port: Port) -> None:
        before = await port.connect()
        port.server.secure(server_context(read_material(other.paths)))
        after = await port.connect()
        names = [each.get_extra_info("ssl_object").getpeercert()["subject"] for each in (before[1], after[1])]
        assert [name[0][0][1] for name in names] == ["server", "other"]
        for reader, writer in (before, after):
            writer.write(ECHO)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    serve(test, authority, pair.paths)


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("shown", ["right", "wrong", "none"])
def test_clients_prove_themselves(authority: Authority, pair: Pair, tmp_path: Path, shown: str) -> None:
    stranger = Authority(tmp_path, "stranger")
    right, wrong = authority.issue("client"), stranger.issue("client")

    async def test(port: Port) -> None:
        if shown != "none":
            mine = right if shown == "right" else wrong
            port.trust.load_cert_chain(mine.certificate, mine.key)
        if shown == "right":
            await port.still_answers()
            return
        # A client learns that it is refused when it reads.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            reader, writer = await port.connect()
            writer.write(ECHO)
            assert await reader.readline() == b""
            raise ConnectionError
        assert port.later.bodies == []
        await until_async(lambda: len(port.server.port.members) == 0)

    serve(test, authority, TlsPaths(pair.certificate, pair.key, authority.certificate))
