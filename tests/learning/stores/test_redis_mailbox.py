"""Messages between workers of servers that share a Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import RedisError

from clipper.errors import Overloaded, StoreUnavailable, Unavailable
from clipper.learning.stores import redis_mailbox
from clipper.learning.stores.redis import PREFIX, RedisStore
from clipper.learning.stores.redis_mailbox import RedisMailbox
from tests.redis_server import RedisServer
from tests.waiting import TIMEOUT_S, until_async

Answer = Callable[[bytes], Awaitable[bytes]]


async def shouted(request: bytes) -> bytes:
    return request.upper()


@asynccontextmanager
async def member(server: RedisServer, instance: int, answer: Answer = shouted) -> AsyncIterator[RedisMailbox]:
    store = RedisStore(server.url)
    mailbox = store.mailbox(instance)
    running = asyncio.ensure_future(mailbox.run(answer))
    try:
        yield mailbox
    finally:
        running.cancel()
        await asyncio.wait([running])
        await store.close()


async def know_each_other(*mailboxes: RedisMailbox) -> None:
    for _ in mailboxes:
        for each in mailboxes:
            await each.meet()


class Broken:
    """A client whose connection breaks at each script."""

    def register_script(self, text: str) -> Callable[..., Awaitable[None]]:
        async def run(args: list[object]) -> None:
            raise ConnectionResetError("the connection has broken")

        return run


def test_a_connection_that_breaks_is_told_like_an_error_of_redis() -> None:
    mailbox = RedisMailbox(Broken(), PREFIX, 1)
    mailbox._tokens = {2: "token"}
    with pytest.raises(StoreUnavailable, match="has broken"):
        asyncio.run(mailbox.ask(2, b"a", TIMEOUT_S))


def test_each_asks_the_other_and_all_replies_are_to_their_requests(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with member(redis_server, 1) as one, member(redis_server, 2) as two:
            await know_each_other(one, two)
            assert 2 in one.members and 1 in two.members and 1 not in one.members
            asked = [one.ask(2, b"a%d" % number, TIMEOUT_S) for number in range(30)]
            asked += [two.ask(1, b"b%d" % number, TIMEOUT_S) for number in range(30)]
            expected = [b"%c%d" % (letter, number) for letter in b"AB" for number in range(30)]
            assert await asyncio.gather(*asked) == expected

    asyncio.run(scenario())


def test_one_that_has_ended_is_asked_no_more(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with member(redis_server, 3) as one:
            async with member(redis_server, 4) as two:
                await know_each_other(one, two)
                assert 4 in one.members
            await one.meet()
            assert 4 not in one.members
            with pytest.raises(Unavailable, match="it has ended"):
                await one.ask(4, b"a", TIMEOUT_S)
            # A later start of a worker with the same number is another one.
            async with member(redis_server, 4):
                await until_async(lambda: 4 in one.members)
                assert await one.ask(4, b"a", TIMEOUT_S) == b"A"

    asyncio.run(scenario())


def test_who_waits_for_one_that_ends_is_told_soon(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        taken = asyncio.Event()

        async def hang(request: bytes) -> bytes:
            taken.set()
            await asyncio.Event().wait()
            return request

        monkeypatch.setattr(redis_mailbox, "WAIT_S", 0.01)
        async with member(redis_server, 11) as one:
            async with member(redis_server, 12, hang) as two:
                await know_each_other(one, two)
                asked = asyncio.ensure_future(one.ask(12, b"a", 10 * TIMEOUT_S))
                await taken.wait()
            with pytest.raises(Unavailable, match="it has ended"):
                await asked

    asyncio.run(scenario())


def test_what_is_being_answered_at_the_end_is_answered(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        taken, may_answer = asyncio.Event(), asyncio.Event()

        async def answer(request: bytes) -> bytes:
            taken.set()
            await may_answer.wait()
            return request.upper()

        async with member(redis_server, 13) as one:
            async with member(redis_server, 14, answer) as two:
                await know_each_other(one, two)
                asked = asyncio.ensure_future(one.ask(14, b"a", TIMEOUT_S))
                await taken.wait()
                may_answer.set()
            assert await asked == b"A"

    asyncio.run(scenario())


def test_one_that_fails_or_hangs_costs_its_asker_a_bounded_time(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_mailbox, "MAX_WAITING", 2)
    monkeypatch.setattr(redis_mailbox, "MAX_ANSWERING", 1)

    async def scenario() -> None:
        taken, may_go_on = asyncio.Event(), asyncio.Event()

        async def hang(request: bytes) -> bytes:
            if request == b"fail":
                raise RuntimeError("it fails")
            taken.set()
            await may_go_on.wait()
            return request

        async with member(redis_server, 5) as one, member(redis_server, 6, hang) as two:
            await know_each_other(one, two)
            with pytest.raises(Unavailable, match="it failed"):
                await one.ask(6, b"fail", TIMEOUT_S)
            first = asyncio.ensure_future(one.ask(6, b"first", TIMEOUT_S))
            await taken.wait()
            waiting = [asyncio.ensure_future(one.ask(6, b"next", TIMEOUT_S)) for _ in range(2)]
            key = f"{PREFIX}mailbox:{two._token}"
            while await one._client.llen(key) < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(Overloaded, match="2 messages wait"):
                await one.ask(6, b"more", TIMEOUT_S)
            may_go_on.set()
            assert await asyncio.gather(first, *waiting) == [b"first", b"next", b"next"]
            may_go_on.clear()
            with pytest.raises(Unavailable, match=r"within 0\.01 s"):
                await one.ask(6, b"late", 0.01)
            may_go_on.set()

    asyncio.run(scenario())


def test_what_somebody_else_writes_there_is_passed_over(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        async with member(redis_server, 7) as one, member(redis_server, 8) as two:
            await know_each_other(one, two)
            # The last one has the form of a message, and a sender that is no text.
            nonsense = (b"\xff", b"", b"text", b"\x94\xa1\xff\x01\xc2\xc0")
            await one._client.rpush(f"{PREFIX}mailbox:{two._token}", *nonsense)
            await one._client.zadd(f"{PREFIX}workers", {"nonsense": 9e9, "x:y": 9e9, "12": 9e9})
            await one.meet()
            assert await one.ask(8, b"a", TIMEOUT_S) == b"A"
            await one._client.zrem(f"{PREFIX}workers", "nonsense", "x:y", "12")

    asyncio.run(scenario())


def test_while_redis_is_away_members_stay_and_cannot_be_asked(redis_server: RedisServer) -> None:
    """Their feedback is to be sent again, and not ``not_found``."""

    async def scenario() -> None:
        async with member(redis_server, 9) as one, member(redis_server, 10) as two:
            await know_each_other(one, two)

            async def away(**_: object) -> None:
                raise RedisError("away")

            one._meet = one._post = away
            with pytest.raises(StoreUnavailable, match="away"):
                await one.meet()
            assert 10 in one.members
            with pytest.raises(StoreUnavailable, match="away"):
                await one.ask(10, b"a", TIMEOUT_S)

    asyncio.run(scenario())
