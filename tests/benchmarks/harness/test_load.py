"""The load client against real servers that answer, hang up, or are not there."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.harness import load
from benchmarks.harness.load import Answer, LoadClient, post

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"output":1}'
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return await reader.readexactly(size)


async def answer_in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await read_request(reader):
            for piece in (ANSWER[:5], ANSWER[5:30], ANSWER[30:-2], ANSWER[-2:]):
                writer.write(piece)
                await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def answer_once_then_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(ANSWER)
    await read_request(reader)
    writer.close()


async def drive(serve: Serve, count: int, connections: int = 3) -> tuple[LoadClient[int], list[Answer[int]]]:
    """Run the client until it has had so many answers."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    answers: list[Answer[int]] = []

    def next_request() -> tuple[int, bytes]:
        return client.sent, post("/a", b"{}")

    def on_answer(answer: Answer[int]) -> None:
        answers.append(answer)
        if len(answers) == count:
            client.stop()

    client = LoadClient[int]("127.0.0.1", server.sockets[0].getsockname()[1], connections, next_request, on_answer)
    async with server:
        await client.run()
    return client, answers


def test_every_request_is_answered_once() -> None:
    client, answers = asyncio.run(drive(answer_in_pieces, count=200))
    assert client.sent == client.answered == len(answers) >= 200
    assert client.lost == 0
    assert sorted(answer.tag for answer in answers) == list(range(client.sent))
    assert {(answer.status, answer.body) for answer in answers} == {(200, b'{"output":1}')}
    assert all(answer.latency_s > 0 for answer in answers)


def test_requests_on_a_broken_connection_are_counted_as_lost() -> None:
    client, answers = asyncio.run(drive(answer_once_then_hang_up, count=20))
    assert client.lost > 0
    assert client.sent == len(answers) + client.lost


def test_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RECONNECT_WITHIN_S", 0.1)
    client = LoadClient[None]("127.0.0.1", 1, 2, lambda: (None, b""), lambda _: None)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(client.run())
    assert caught.group_contains(OSError)
