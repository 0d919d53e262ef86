"""The driver's HTTP client against real servers."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
import uvloop

from benchmarks.paper import arrivals
from benchmarks.paper.arrivals import Reply, poisson_s
from benchmarks.paper.client import AnswerFailed, Connection, connect, run_for_each

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))


async def echo_in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while body := await read_body(reader):
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            for piece in (answer[:9], answer[9:40], answer[40:]):
                writer.write(piece)
                await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_body(reader)
    writer.write(b'HTTP/1.1 404 Not Found\r\nContent-Length: 21\r\n\r\n{"error":"not_found"}')
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_body(reader)
    writer.close()


def serving(serve: Serve, drive: Callable[[tuple[str, int]], Awaitable[None]]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            await drive(server.sockets[0].getsockname())

    uvloop.run(run())


def test_answers_come_in_order_on_one_connection() -> None:
    async def drive(address: tuple[str, int]) -> None:
        connection = await connect(address)
        for number in range(20):
            assert await connection.post("/a/predict", b'{"n":%d}' % number) == {"n": number}
        connection.close()

    serving(echo_in_pieces, drive)


@pytest.mark.parametrize(("serve", "cause"), [(refuse, "404"), (hang_up, "ended before the answer")])
def test_failures_say_what_came(serve: Serve, cause: str) -> None:
    async def drive(address: tuple[str, int]) -> None:
        connection = await connect(address)
        with pytest.raises(AnswerFailed, match=cause):
            await connection.post("/a/predict", b"{}")

    serving(serve, drive)


def test_open_loop_replies_in_the_order_of_its_requests() -> None:
    async def drive(address: tuple[str, int]) -> None:
        sender = arrivals.Sender(address, "/a/predict")
        replies = await sender.send([b"%d" % number for number in range(50)], [number / 1000 for number in range(50)])
        assert [reply.answer for reply in replies] == list(range(50))
        assert all(isinstance(reply, Reply) and reply.latency_s > 0 for reply in replies)

    serving(echo_in_pieces, drive)


def test_open_loop_ends_where_no_connection_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MAX_CONNECTIONS", 3)

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def drive(address: tuple[str, int]) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await arrivals.Sender(address, "/a/predict").send([b"{}"] * 10, [0.0] * 10)
        assert caught.group_contains(arrivals.TooManyWaiting)

    serving(never, drive)


def test_items_are_done_in_order_by_a_number_at_a_time() -> None:
    begun: list[int] = []
    busy: list[int] = []
    under_way = 0

    async def work(connection: Connection, item: int) -> None:
        nonlocal under_way
        begun.append(item)
        under_way += 1
        busy.append(under_way)
        assert await connection.post("/a/predict", b"%d" % item) == item
        under_way -= 1

    async def drive(address: tuple[str, int]) -> None:
        await run_for_each(address, 4, range(100), work)

    serving(echo_in_pieces, drive)
    assert begun == list(range(100))
    assert max(busy) == 4


def test_poisson_arrivals_have_their_rate() -> None:
    due_s = poisson_s(20_000, 100, np.random.default_rng(0))
    gaps_s = np.diff(due_s)
    assert gaps_s.min() >= 0
    assert gaps_s.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps_s.std() == pytest.approx(0.01, rel=0.03)
