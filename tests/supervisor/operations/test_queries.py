"""An operator's queries, passed on to a query port that may answer anything."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from clipper.errors import MalformedRequest, Overloaded, TooLarge, Unavailable
from clipper.supervisor.operations import queries
from clipper.supervisor.operations.queries import Queries

NO_TLS = Path("/nothing")
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Answer = Callable[[bytes], bytes | None]


async def with_port(answer: Answer, use: Callable[[Queries], Awaitable[object]]) -> object:
    """Use a port that answers a request by ``answer``; None keeps it waiting for as long as the client does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        sent = answer(request)
        if sent is None:
            await reader.read()
        else:
            writer.write(sent)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await use(Queries(f"http://127.0.0.1:{port}", NO_TLS))


def ask(answer: Answer, application: str = "app", key: str | None = None) -> object:
    return asyncio.run(with_port(answer, lambda port: port.ask(application, "predict", b'{"input":1}', key)))


def test_status_and_body_come_back_as_they_are() -> None:
    seen = []

    def answer(request: bytes) -> bytes:
        seen.append(request)
        return b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n0\r\n\r\n"

    assert ask(answer, key="k" * 40) == (404, b"{ }")
    assert seen[0].startswith(b"POST /app/predict HTTP/1.1\r\n")
    assert b"authorization: Bearer " + b"k" * 40 in seen[0] and b"content-length: 11" in seen[0]


def test_a_name_is_one_part_of_the_path() -> None:
    seen = []
    ask(lambda request: seen.append(request) or GOOD, "../a b/ä\r\nX: y")
    assert seen[0].startswith(b"POST /..%2Fa%20b%2F%C3%A4%0D%0AX%3A%20y/predict HTTP/1.1\r\n")


@pytest.mark.parametrize("key", ["k\r\nX: y", "ä" * 40, "k\x00"])
def test_a_key_cannot_add_a_header(key: str) -> None:
    with pytest.raises(MalformedRequest, match="clipper-api-key"):
        ask(lambda _: GOOD, key=key)


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", b"220 smtp\r\n", b"HTTP/1.1 200 OK\r\n"]
)
def test_what_is_no_answer(sent: bytes) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        ask(lambda _: sent)


def test_nobody_listens() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        asyncio.run(Queries("http://127.0.0.1:1", NO_TLS).ask("app", "predict", b"{}", None))


def test_an_answer_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_ANSWER_BYTES", 1000)
    with pytest.raises(TooLarge, match="1000 bytes"):
        ask(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b" " * 2000)


def test_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "TIMEOUT_S", 0.05)
    with pytest.raises(Unavailable, match="did not answer within"):
        ask(lambda _: None)


def test_so_many_at_once_and_no_more() -> None:
    async def use(port: Queries) -> None:
        calls = [asyncio.create_task(port.ask("app", "predict", b"{}", None)) for _ in range(queries.MAX_AT_ONCE)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="try again"):
            await port.ask("app", "predict", b"{}", None)
        for call in calls:
            call.cancel()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        # Their places are free again.
        again = asyncio.create_task(port.ask("app", "predict", b"{}", None))
        await asyncio.sleep(0)
        assert not again.done()
        again.cancel()

    asyncio.run(with_port(lambda _: None, use))
