"""Feedback that is sent twice counts once, in both stores."""

import asyncio
import subprocess
from functools import partial
from pathlib import Path

import pytest

from clipper.learning import stores
from clipper.learning.stores.redis import RedisStore
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Observation, Store
from tests.learning.stores.kept_states import MakeStore, load, observation, opened, run
from tests.redis_server import RedisServer


def test_the_same_feedback_counts_once_within_a_batch_and_over_batches(make_store: MakeStore) -> None:
    answers = run(make_store, [observation("a", x=1.0), observation("a", x=1.0)], [observation("a", x=1.0)])

    assert answers == [[True, False], [False]]
    assert load(make_store) == {"x": 1.0}


def test_the_same_id_in_another_application_is_other_feedback(make_store: MakeStore) -> None:
    run(make_store, [observation("a", x=1.0), observation("a", application="app-2", x=5.0)])

    assert load(make_store, "app-2") == {"x": 5.0}


def test_each_id_is_kept_for_as_long_as_its_sender_said(tmp_path: Path, redis_server: RedisServer) -> None:
    """Whoever clears up: of two Clippers on one store, neither knows how long the other's feedback may come."""

    async def scenario(here: Store, there: Store, clock: list[float]) -> list[list[bool]]:
        short, long = observation("a", x=1.0), Observation("a", "app-2", {EVERYONE: {"x": 1.0}}, keep_s=5000.0)
        await there.commit([short, long])
        are_new = []
        for passed_s in (500.0, 200.0, 4000.0, 1000.0):
            clock[0] += passed_s
            await here.expire()
            are_new.append(await there.commit([short, long]))
        await here.close()
        await there.close()
        return are_new

    for make in (partial(SqliteStore, tmp_path / "timed.sqlite3"), partial(RedisStore, redis_server.url)):
        subprocess.run(["redis-cli", "-p", str(redis_server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
        clock = [1000.0]
        here, there = (make(wall_clock_s=lambda: clock[0]) for _ in range(2))  # noqa: B023  # used up in this round
        expected = [[False, False], [True, False], [True, False], [True, True]]
        assert asyncio.run(scenario(here, there, clock)) == expected


def test_expired_ids_go_in_pieces(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (stores.sqlite, stores.redis):
        monkeypatch.setattr(kind, "EVICT_CHUNK", 3)

    async def scenario(store: Store, clock: list[float]) -> list[bool]:
        told = [Observation(f"{number}", "expired", {}, keep_s=10.0) for number in range(7)]
        told.append(Observation("young", "expired", {}, keep_s=30.0))
        await store.commit(told)
        clock[0] += 20.0
        await store.expire()
        found = await store.commit(told)
        await store.close()
        return found

    for make in (partial(SqliteStore, tmp_path / "expired.sqlite3"), partial(RedisStore, redis_server.url)):
        clock = [1000.0]
        found = asyncio.run(scenario(make(wall_clock_s=lambda: clock[0]), clock))  # noqa: B023  # it is over then
        assert found == [True] * 7 + [False]


def test_ids_beyond_the_bound_go_in_the_order_of_their_time(make_store: MakeStore) -> None:
    async def scenario() -> tuple[list[int], list[bool]]:
        async with opened(make_store) as store:
            ids = [
                Observation(str(number), "app-1", {EVERYONE: {"x": 1.0}}, keep_s=900.0 - number) for number in range(5)
            ]
            other = observation("0", application="app-10", x=1.0)
            await store.commit([*ids, other])
            went = [await store.evict_ids("app-1", keep) for keep in (5, 3, 3)]
            return went, await store.commit([*ids, other])

    assert asyncio.run(scenario()) == ([0, 2, 0], [False, False, False, True, True, False])


def test_feedback_without_an_id_counts_each_time_and_leaves_none(make_store: MakeStore) -> None:
    anonymous = Observation(None, "app-1", {EVERYONE: {"x": 1.0}})
    assert run(make_store, [anonymous, anonymous], [anonymous]) == [[True, True], [True]]

    async def kept() -> int:
        async with opened(make_store) as store:
            return await store.evict_ids("app-1", 0)

    assert load(make_store) == {"x": 3.0}
    assert asyncio.run(kept()) == 0
