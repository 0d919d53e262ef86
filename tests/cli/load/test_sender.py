"""The sender against real servers: quick ones, and those that hang, hang up, talk nonsense or go away."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvloop

from clipper.base.http1 import Answer
from clipper.cli.load import sender as senders
from clipper.cli.load.inputs import Head, Ring
from clipper.cli.load.sender import Connection, Sender, Target
from tests.ports import keep_port
from tests.waiting import TIMEOUT_S, until_async

ANSWER = b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"output":1}'
BODY = b'{"input":[1]}'
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Log:
    """All that a sender tells, by the query's number."""

    seen: list[int] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    ends: dict[int, str] = field(default_factory=dict)
    latencies_s: dict[int, float] = field(default_factory=dict)
    waits_s: dict[int, float] = field(default_factory=dict)

    def due(self, number: int, due_s: float, seen_s: float) -> None:
        self.seen.append(number)
        self.lags_s.append(seen_s - due_s)

    def waited(self, number: int, due_s: float, sent_s: float) -> None:
        self.waits_s[number] = sent_s - due_s

    def answered(self, number: int, due_s: float, sent_s: float, answered_s: float, answer: Answer) -> None:
        assert due_s <= sent_s <= answered_s
        self._end(number, str(answer.status))
        self.latencies_s[number] = answered_s - due_s

    def failed(self, number: int, due_s: float, why: str) -> None:
        self._end(number, why)

    def not_sent(self, number: int, due_s: float) -> None:
        self._end(number, "not sent")

    def _end(self, number: int, how: str) -> None:
        assert number not in self.ends, f"query {number} ended twice: {self.ends[number]}, {how}"
        self.ends[number] = how

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.ends.values())


async def ask(reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(len(BODY))


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        assert await ask(reader) == BODY
        writer.write(ANSWER)


async def answer_none(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await ask(reader)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await ask(reader)
    writer.write(ANSWER[:10])


async def close_after_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await ask(reader)
    writer.write(ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))


async def talk_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example\r\n")
    await ask(reader)


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await ask(reader)
    writer.write(b"nonsense\r\n\r\n")
    await reader.read()


@asynccontextmanager
async def serving(serve: Serve, port: int = 0) -> AsyncIterator[Target]:
    writers = []

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", port)
    try:
        yield Target("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a sender may not run for longer than it may be behind."""
    monkeypatch.setattr(senders, "MAX_BEHIND_S", TIMEOUT_S)


def sender_of(target: Target, log: Log, due_s: list[float], connections: int = 50, within_s: float = 20.0) -> Sender:
    requests = Ring([Head("localhost", "/app/predict").of(len(BODY)) + BODY], "")
    return Sender(target, requests, iter(due_s), log, max_connections=connections, answer_within_s=within_s)


def load(serve: Serve, due_s: list[float], **settings: float) -> tuple[Sender, Log]:
    """Run a whole load; it has to end by itself."""

    async def run() -> tuple[Sender, Log]:
        async with asyncio.timeout(TIMEOUT_S), serving(serve) as target:
            log = Log()
            sender = sender_of(target, log, due_s, **settings)  # type: ignore[arg-type]
            await sender.connect()
            await sender.run(time.monotonic())
            return sender, log

    return uvloop.run(run())


def evenly(count: int, seconds: float) -> list[float]:
    return [seconds * number / count for number in range(count)]


def test_every_query_is_answered_once() -> None:
    sender, log = load(answer_all, evenly(400, 0.2))
    assert log.seen == list(range(400))
    assert log.counts == {"200": 400}
    assert min(log.lags_s) >= 0
    assert (sender.outstanding, sender.cut_off) == (0, 0)
    assert 1 <= sender.peak_connections <= 50


def test_connections_take_turns() -> None:
    """Each query finds all free, and yet not one of them is asked alone: behind them may be several workers."""
    asked: Counter[int] = Counter()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await ask(reader)
            asked[id(writer)] += 1
            writer.write(ANSWER)

    sender, _ = load(count, evenly(200, 0.4), connections=4)
    assert sender.peak_connections == len(asked) == 4
    assert min(asked.values()) >= 20


def test_all_at_once_take_turns_on_the_connections() -> None:
    sender, log = load(answer_all, [0.0] * 300, connections=3)
    assert log.counts == {"200": 300}
    assert sender.peak_connections == 3
    assert len(log.waits_s) == 297
    # Its time in the line counts.
    assert all(log.latencies_s[number] >= wait_s for number, wait_s in log.waits_s.items())


def test_queries_go_out_though_none_is_answered() -> None:
    async def run() -> Log:
        async with asyncio.timeout(TIMEOUT_S), serving(answer_none) as target:
            log = Log()
            sender = sender_of(target, log, evenly(40, 0.1), within_s=TIMEOUT_S)
            await sender.connect()
            running = asyncio.create_task(sender.run(time.monotonic()))
            await until_async(lambda: sender.peak_connections == sender.outstanding == 40)
            sender._answer_within_s = 0.0
            await running
            return log

    assert uvloop.run(run()).counts == {"no answer": 40}


def test_who_finds_no_connection_in_time_is_not_sent() -> None:
    _, log = load(answer_none, [0.0] * 40, connections=5, within_s=0.3)
    assert log.counts == {"no answer": 5, "not sent": 35}


def test_no_more_wait_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "MAX_WAITING", 10)
    _, log = load(answer_none, [0.0] * 40, connections=5, within_s=0.3)
    # Queries over the bound count at once, and the ten that wait count later.
    assert log.counts["not sent"] >= 25 and sum(log.counts.values()) == 40


@pytest.mark.parametrize(
    ("serve", "end"),
    [
        (hang_up, "connection lost"),
        (close_after_each, "200"),
        # The greeting comes before the query is sent, or as its answer.
        (talk_first, ("connection lost", "bad answer")),
        (talk_nonsense, "bad answer"),
    ],
)
def test_connections_that_end_are_opened_again(serve: Serve, end: str | tuple[str, ...]) -> None:
    _, log = load(serve, evenly(60, 0.2), connections=4)
    assert sum(log.counts.values()) == 60
    assert sum(count for how, count in log.counts.items() if how.startswith(end)) > 30, log.counts


def test_a_server_that_goes_away_and_comes_back() -> None:
    async def run() -> Log:
        log = Log()
        with keep_port() as kept:
            port = kept.getsockname()[1]
            async with asyncio.timeout(TIMEOUT_S), serving(answer_all, port) as target:
                # Five a second at the end, for as long as it takes to see that it is back.
                after_s = (1 + number / 5 for number in range(5 * round(TIMEOUT_S)))
                sender = sender_of(target, log, [*evenly(200, 1.0), *after_s])
                await sender.connect()
                running = asyncio.create_task(sender.run(time.monotonic()))
                await until_async(lambda: log.counts["200"] >= 20)
            await until_async(lambda: any("cannot connect" in end for end in log.counts))
            seen = log.counts["200"]
            async with serving(answer_all, port):
                await until_async(lambda: log.counts["200"] > seen + 5)
                sender.stop()
                await running
        return log

    log = uvloop.run(run())
    assert any("cannot connect: Connection refused" in end for end in log.counts)


def test_a_server_that_is_not_there() -> None:
    async def run() -> None:
        with keep_port() as kept, pytest.raises(OSError, match="refused"):
            await sender_of(Target(*kept.getsockname()), Log(), [0.0]).connect()

    uvloop.run(run())


def test_a_rate_that_cannot_be_kept_ends_in_time() -> None:
    """Queries that were due some minutes ago: what is too old is not sent, and none is forgotten."""

    async def run() -> Log:
        async with asyncio.timeout(TIMEOUT_S), serving(answer_all) as target:
            log = Log()
            began_s = time.monotonic() - 2 * TIMEOUT_S
            sender = sender_of(target, log, [*evenly(20_000, 1.0), *(2 * TIMEOUT_S + at_s for at_s in evenly(5, 0.3))])
            await sender.connect()
            await sender.run(began_s)
            return log

    log = uvloop.run(run())
    assert log.counts == {"not sent": 20_000, "200": 5}


def test_it_can_be_stopped_at_any_time() -> None:
    async def run() -> tuple[Sender, Log]:
        async with asyncio.timeout(TIMEOUT_S), serving(answer_none) as target:
            log = Log()
            sender = sender_of(target, log, evenly(10_000, 100), connections=3)
            await sender.connect()
            running = asyncio.create_task(sender.run(time.monotonic()))
            await until_async(lambda: len(log.seen) >= 8)
            sender.stop()
            await running
            return sender, log

    sender, log = uvloop.run(run())
    assert log.ends == {}
    assert sender.cut_off == len(log.seen) >= 8


def test_a_load_without_queries_ends() -> None:
    _, log = load(answer_all, [])
    assert log.seen == []


class Closing(asyncio.Transport):
    """Has closed, and its protocol was not told yet. uvloop's refuses what is written then as this one does."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: object) -> None:
        raise RuntimeError("unable to perform operation: the handler is closed")

    def abort(self) -> None:
        """It has."""


def test_a_connection_that_has_just_closed_is_not_used() -> None:
    async def run() -> Log:
        log = Log()
        async with serving(answer_all) as target:
            sender = sender_of(target, log, evenly(20, 0.1))
            Connection(sender).connection_made(Closing())
            await asyncio.wait_for(sender.run(time.monotonic()), TIMEOUT_S)
        return log

    assert asyncio.run(run()).counts == {"200": 20}
