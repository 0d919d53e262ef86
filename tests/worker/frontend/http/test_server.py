"""The query port on real sockets: its time-outs with a quick sweep, its bound on connections, and draining."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from clipper.worker.frontend import feedback_line, limits
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.http import responses
from clipper.worker.frontend.http.connection import Connection
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.http.server import QueryServer
from clipper.worker.frontend.long_work import FeedbackLines
from tests.serving import post
from tests.waiting import TIMEOUT_S, until_async
from tests.worker.frontend.fake_transport import Echo, Later

ECHO = post("/echo/predict", b"hi")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Coroutine[Any, Any, Streams]]


def serve(
    test: Callable[[QueryServer, Connect], Coroutine[Any, Any, None]],
    max_connections: int = 100,
    sweep_s: float = 1000.0,
) -> Later:
    """Run ``test`` beside a listening server; returns its endpoint that does not answer by itself."""
    later = Later()

    async def main() -> None:
        server = QueryServer(Port(max_connections), sweep_s)
        server.port.serve({b"/echo/predict": Echo(), b"/later/predict": later})
        listener = socket.create_server(("127.0.0.1", 0))
        await server.listen(listener)
        port = listener.getsockname()[1]

        writers: list[asyncio.StreamWriter] = []

        async def connect() -> Streams:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            return reader, writer

        async with asyncio.timeout(TIMEOUT_S):
            await test(server, connect)
            await server.drain(0.0)
            for writer in writers:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    uvloop.run(main())
    return later


def test_idle_connection_is_closed_without_a_word() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        reader, _writer = await connect()
        assert await reader.read() == b""
        assert server.port.sweeps > limits.IDLE_TIMEOUT_SWEEPS

    serve(test, sweep_s=0.005)


@pytest.mark.parametrize("start", [ECHO[:20], ECHO[:-1]])
def test_request_that_does_not_end_is_answered_and_closed(start: bytes) -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(start)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert server.port.sweeps > limits.REQUEST_TIMEOUT_SWEEPS

    serve(test, sweep_s=0.005)


class Unread:
    """Waits in the line of an application whose feedback is never learned."""

    methods, slo_s, max_body_bytes = ("POST",), float("inf"), 1000
    error_json = staticmethod(responses.error_json)

    def __init__(self, port: Port) -> None:
        self._work, self._line = port.work, FeedbackLines().of(1)
        self._line.take(limits.MAX_UNLEARNED, 0.0)

    def handle(self, exchange: Exchange, body: bytes | bytearray, arrived_s: float, is_late: bool) -> None:
        self._work.begin(exchange, len(body), (step for step in ()), self._line, 1)


def test_feedback_that_waits_unread_is_refused_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_line, "MAX_WAIT_S", 0.02)

    async def test(server: QueryServer, connect: Connect) -> None:
        server.port.serve({b"/unread/observe": Unread(server.port)})
        reader, writer = await connect()
        writer.write(post("/unread/observe", b"hi"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        assert server.port.refused["overloaded"] == 1

    serve(test, sweep_s=0.005)


def test_client_that_lingers_after_its_last_answer_is_closed() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        reader, _writer = await connect()
        _writer.write(b"garbage\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        await until_async(lambda: len(server.port.members) == 0)

    serve(test, sweep_s=0.005)


def test_connections_over_the_bound_are_refused_while_none_is_idle() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        kept = [await connect() for _ in range(3)]
        for reader, writer in kept:
            writer.write(ECHO)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.write(post("/later/predict", b"x"))
        await until_async(lambda: all(connection.is_busy for connection in server.port.members))
        for _ in range(5):
            reader, writer = await connect()
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
        await until_async(lambda: len(server.port.members) == 3)
        gone = kept[0][1]
        gone.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        gone.transport.abort()  # so that a reset is sent
        await until_async(lambda: len(server.port.members) == 2)
        reader, writer = await connect()
        writer.write(ECHO)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert server.port.refused == {"overloaded": 5}

    serve(test, max_connections=3)


def test_idle_connections_give_way_longest_idle_first_and_busy_ones_never() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        later = post("/later/predict", b"x")
        busy = [await connect() for _ in range(2)]
        for _, writer in busy:
            writer.write(later)
        await until_async(lambda: sum(connection.is_busy for connection in server.port.members) == 2)
        idle = [await connect() for _ in range(3)]
        await until_async(lambda: len(server.port.members) == 5)
        for others in range(3):
            busy.append(await connect())
            busy[-1][1].write(later)
            assert await idle[others][0].read() == b""
            await until_async(lambda: len(server.port.members) == 5)
        # Nobody is idle any more.
        await until_async(lambda: all(connection.is_busy for connection in server.port.members))
        reader, _ = await connect()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        assert server.port.refused == {"overloaded": 1}

    assert serve(test, max_connections=5).cancelled == [b"x"] * 5


def test_half_sent_requests_keep_nobody_out_from_the_first_moment_on() -> None:
    """They were refused for a second and a half, in which none of the requests counted as slow."""

    async def test(server: QueryServer, connect: Connect) -> None:
        half = [await connect() for _ in range(3)]
        for _, writer in half:
            writer.write(ECHO[:-1])
        await until_async(lambda: sum(connection.is_busy for connection in server.port.members) == 3)
        for _ in range(5):
            reader, writer = await connect()
            writer.write(ECHO)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    serve(test, max_connections=3)


def test_requests_that_arrive_slowly_give_way_the_first_begun_first() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        port, now_s = server.port, 1000.0
        port.now_s = lambda: now_s
        long = post("/echo/predict", b"x" * 200_000)
        half: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for start in (long[:150_000], ECHO[:-1], ECHO[:10]):
            half.append(await connect())
            half[-1][1].write(start)
            await until_async(lambda: sum(connection.is_busy for connection in port.members) == len(half))
            await until_async(lambda: port.budget.held_bytes > 140_000)
            now_s += 0.1
        # None of them is slow yet, but will be soon.
        reader, writer = await connect()
        writer.write(ECHO)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert len(port.members) == 4
        writer.close()
        await until_async(lambda: len(port.members) == 3)
        now_s = 1003.0
        port.sweeps += 1
        for reader, _ in half[1:]:
            _, writer = newest = await connect()
            writer.write(ECHO)
            assert (await newest[0].readline()).startswith(b"HTTP/1.1 200 ")
            refusal = await reader.read()
            assert refusal.startswith(b"HTTP/1.1 503 ") and b"arrives too slowly" in refusal
        # One that has sent much has more time.
        half[0][1].write(long[150_000:])
        assert (await half[0][0].readline()).startswith(b"HTTP/1.1 200 ")

    serve(test, max_connections=3)


def test_many_more_idle_connections_than_the_bound_hold_up_nobody() -> None:
    """No sweep runs, so nothing waits for a time-out."""

    async def test(server: QueryServer, connect: Connect) -> None:
        idle = [await connect() for _ in range(300)]
        reader, writer = await connect()
        writer.write(ECHO)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert not server.port.refused
        assert await idle[0][0].read() == b""
        await until_async(lambda: len(server.port.members) == 5)

    serve(test, max_connections=5)


def test_a_request_that_was_not_read_yet_keeps_its_connection() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        (reader, writer), (other, _) = await connect(), await connect()
        await until_async(lambda: len(server.port.members) == 2)
        writer.write(ECHO)
        # The request is in the kernel, and the loop has no turn to read it before.
        assert server.port.make_room(2) == 1
        assert await other.read() == b""
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    serve(test)


@pytest.mark.parametrize("count, is_half_closed", [(limits.MAX_PIPELINED + 6, False), (3, True)])
def test_work_ends_with_its_client_also_while_nothing_is_read(count: int, is_half_closed: bool) -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        _, writer = await connect()
        writer.write(post("/later/predict", b"x") * count)
        if is_half_closed:
            writer.write_eof()
        await until_async(lambda: len(server.port.members) == 1)
        [member] = server.port.members
        assert isinstance(member, Connection)
        await until_async(lambda: member._is_refused if is_half_closed else member._reading_paused)
        sweeps = server.port.sweeps
        await until_async(lambda: server.port.sweeps > sweeps + 2)
        assert not member.transport.is_closing(), "it may still read its answers"
        # Closing resets it, as the kernel does for a process that ends with unread answers.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until_async(lambda: not server.port.members)
        assert server.port.budget.held_bytes == 0

    endpoint = serve(test, sweep_s=0.005)
    assert endpoint.cancelled == [b"x"] * min(count, limits.MAX_PIPELINED + 1)


def test_drain_answers_what_is_under_way_and_closes_the_rest() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        idle, _ = await connect()
        busy, busy_writer = await connect()
        late, late_writer = await connect()
        busy_writer.write(ECHO[:-1])
        await until_async(lambda: len(server.port.members) == 3 and server.port.budget.held_bytes)
        draining = asyncio.ensure_future(server.drain(10.0))
        await asyncio.sleep(0)
        late_writer.write(ECHO)
        assert b"connection: close" in await late.read()
        busy_writer.write(ECHO[-1:])
        assert b"connection: close" in await busy.read()
        assert await idle.read() == b""
        assert await draining == 0
        with pytest.raises(OSError):
            await connect()

    serve(test)


def test_drain_gives_up_after_its_time_and_says_how_many() -> None:
    async def test(server: QueryServer, connect: Connect) -> None:
        writers = [(await connect())[1] for _ in range(3)]
        for writer in writers[:2]:
            writer.write(post("/later/predict", b"x"))
        await until_async(lambda: len(server.port.members) == 3 and server.port.known_heads)
        assert await server.drain(0.05) == 2
        await until_async(lambda: len(server.port.members) == 0)

    assert serve(test).cancelled == [b"x", b"x"]
