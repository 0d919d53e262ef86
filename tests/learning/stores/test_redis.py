import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from clipper.base.known_ids import Known
from clipper.errors import StoreUnavailable
from clipper.learning.stores.redis import PREFIX, STORE_ID_NAME, RedisStore
from clipper.learning.stores.store import EVERYONE, Amount, Observation
from tests.learning.stores.kept_states import observation, opened, run
from tests.redis_server import RedisServer


def test_a_store_that_is_down_says_so_and_recovers_by_itself(tmp_path: Path) -> None:
    async def use(server: RedisServer) -> dict[str, float]:
        async with opened(lambda: RedisStore(server.url)) as store:
            with pytest.raises(StoreUnavailable):
                await store.commit([observation("a", x=1.0)])
            server.start()
            await store.commit([observation("a", x=1.0)])
            return await store.load("app-1", EVERYONE)

    with RedisServer(tmp_path) as server:
        assert asyncio.run(use(server)) == {"x": 1.0}


def test_a_redis_that_keeps_nothing_on_disk_is_refused(tmp_path: Path) -> None:
    async def scenario(server: RedisServer) -> None:
        async with opened(lambda: RedisStore(server.url)) as store:
            await store.commit([observation("a", x=1.0)])
            await store.sync()

    with RedisServer(tmp_path) as server, pytest.raises(StoreUnavailable, match="appendonly"):
        server.start("--appendonly", "no")
        asyncio.run(scenario(server))


def test_what_redis_has_lost_before_it_was_on_disk_is_not_acknowledged(redis_server: RedisServer) -> None:
    client = Redis.from_url(redis_server.url)

    async def scenario() -> None:
        async with opened(lambda: RedisStore(redis_server.url)) as store:
            await store.commit([observation("a", x=1.0)])
            await store.sync()
            await store.commit([observation("b", x=1.0)])
            # As one that was started again from a file that lacks its last second.
            id_ = client.get(PREFIX + "id")
            client.flushall()
            client.set(PREFIX + "id", id_)
            await store.commit([observation("c", x=1.0)])
            with pytest.raises(StoreUnavailable, match="has lost"):
                await store.sync()
            await store.sync()  # nothing is left to wait for
            assert await store.commit([observation("c", x=1.0)]) == [False]

    with client:
        asyncio.run(scenario())


def test_a_key_of_another_kind_costs_its_own_state_alone(redis_server: RedisServer) -> None:
    async def scenario() -> list[dict[str, Amount] | BaseException]:
        store = RedisStore(redis_server.url)
        await store.commit([observation("kind", "well", x=1.0)])
        found = await asyncio.gather(*(store.load("app-1", name) for name in ("well", "ill")), return_exceptions=True)
        await store.close()
        return found

    set_text = ["redis-cli", "-p", str(redis_server.port), "set", "clipper:selection:sums:app-1/ill", "text"]
    subprocess.run(set_text, check=True, stdout=subprocess.DEVNULL)
    well, ill = asyncio.run(scenario())
    assert well == {"x": 1.0}
    assert isinstance(ill, StoreUnavailable)


@pytest.mark.parametrize("garbage", [("x", "text"), ("\\xff", "1")])
def test_garbage_in_a_state_costs_that_state_alone(redis_server: RedisServer, garbage: tuple[str, str]) -> None:
    async def scenario() -> list[dict[str, Amount] | StoreUnavailable]:
        store = RedisStore(redis_server.url)
        await store.commit([observation("garbage", "well", x=1.0), observation("ill", "ill", x=1.0)])
        key = ["redis-cli", "-p", str(redis_server.port), "hset", "clipper:selection:sums:app-1/ill"]
        name = b"\xff" if garbage[0] == "\\xff" else garbage[0].encode()
        subprocess.run([*key, name, garbage[1]], check=True, stdout=subprocess.DEVNULL)
        found = await store.load_many("app-1", ["well", "ill", "none"])
        await store.close()
        return found

    subprocess.run(["redis-cli", "-p", str(redis_server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
    well, ill, none = asyncio.run(scenario())
    assert (well, none) == ({"x": 1.0}, {})
    assert isinstance(ill, StoreUnavailable)


def test_arrays_of_another_size_cost_their_own_state_alone(redis_server: RedisServer) -> None:
    async def scenario() -> list[dict[str, Amount] | StoreUnavailable]:
        store = RedisStore(redis_server.url)
        await store.commit([observation("sizes", "well", x=1.0)])
        key = ["redis-cli", "-p", str(redis_server.port), "hset", "clipper:selection:arrays:app-1/ill", "s", "12345"]
        subprocess.run(key, check=True, stdout=subprocess.DEVNULL)
        found = await store.load_many("app-1", ["well", "ill"])
        await store.close()
        return found

    subprocess.run(["redis-cli", "-p", str(redis_server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
    well, ill = asyncio.run(scenario())
    assert well == {"x": 1.0} and isinstance(ill, StoreUnavailable)


def set_(server: RedisServer, name: str, value: str) -> None:
    subprocess.run(
        ["redis-cli", "-p", str(server.port), "config", "set", name, value], check=True, stdout=subprocess.DEVNULL
    )


def test_a_redis_without_room_refuses_feedback_whole_and_is_read(tmp_path: Path) -> None:
    async def scenario(server: RedisServer) -> None:
        async with opened(lambda: RedisStore(server.url)) as store:
            await store.commit([observation("a", "ada", x=1.0)])
            set_(server, "maxmemory", "1mb")
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                await store.commit([observation("b", "ada", x=1.0)])
            assert await store.load("app-1", "ada") == {"x": 1.0}
            cursor, _ = await store.changes(-1)
            set_(server, "maxmemory", "0")
            assert await store.commit([observation("b", "ada", x=1.0)]) == [True]
            assert await store.load("app-1", "ada") == {"x": 2.0}
            assert (await store.changes(cursor))[0] == cursor + 1

    with RedisServer(tmp_path) as server:
        server.start()
        asyncio.run(scenario(server))


def test_a_redis_that_removes_keys_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(tmp_path) as server:
        server.start("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
        run(lambda: RedisStore(server.url), [observation("a", x=1.0)], [observation("b", x=1.0)])
    assert caplog.text.count("forgets learned state") == 1 and "allkeys-lru" in caplog.text


def test_what_somebody_else_has_put_in_place_of_a_sum_costs_no_other(redis_server: RedisServer) -> None:
    """A script that fails midway is not undone: what it has added would be added again with the next attempt."""

    async def scenario() -> None:
        async with opened(lambda: RedisStore(redis_server.url)) as store:
            for number, key in (("0", "clipper:selection:sums:app-1/ada"), ("1", "clipper:selection:sums:app-1/bob")):
                value = ["hset", key, "x", "nonsense"] if number == "0" else ["set", key, "text"]
                command = ["redis-cli", "-p", str(redis_server.port), *value]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            told = [observation(name, name, x=1.0, y=2.0) for name in ("ada", "bob", "cyd")]
            assert await store.commit(told) == [True] * 3
            assert await store.commit([observation("much", "cyd", x=1.7e308), observation("more", "cyd", x=1.7e308)])
            found = await store.load_many("app-1", ["ada", "bob", "cyd"])
            assert found[0] == {"x": 1.0, "y": 2.0} and isinstance(found[1], StoreUnavailable)
            assert found[2] == {"x": 1.0, "y": 2.0}
            assert (await store.load("app-1", EVERYONE))["y"] == 6.0

    subprocess.run(["redis-cli", "-p", str(redis_server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
    asyncio.run(scenario())


def test_a_commit_whose_answer_was_lost_is_answered_as_it_was(redis_server: RedisServer) -> None:
    """The client sends it again, and Redis has made it."""

    async def scenario() -> None:
        async with opened(lambda: RedisStore(redis_server.url)) as store:
            assert isinstance(store, RedisStore)
            anonymous = Observation(None, "app-1", {"ada": {"x": 1.0}})
            commit, answers = store._scripts["commit"], []

            async def twice(**arguments: Any) -> Any:
                answers.extend([await commit(**arguments), await commit(**arguments)])
                return answers[-1]

            store._scripts["commit"] = twice
            assert await store.commit([observation("a", x=1.0), anonymous]) == [True, True]
            assert answers[0] == answers[1]
            assert (await store.load("app-1", "ada"), await store.load("app-1", EVERYONE)) == ({"x": 1.0}, {"x": 1.0})

    subprocess.run(["redis-cli", "-p", str(redis_server.port), "flushall"], check=True, stdout=subprocess.DEVNULL)
    asyncio.run(scenario())


def test_a_store_that_was_emptied_is_refused_until_it_is_back(redis_server: RedisServer, tmp_path: Path) -> None:
    """Feedback was acknowledged into it, and gone once somebody had given Redis its file back."""
    path, client = tmp_path / STORE_ID_NAME, Redis.from_url(redis_server.url)

    def open_store() -> RedisStore:
        return RedisStore(redis_server.url, known=Known(path))

    async def scenario() -> None:
        async with opened(open_store) as store, opened(open_store) as beside:
            await store.commit([observation("a", x=1.0)])
            _, id_ = path.read_text().split()
            client.flushall()
            async with opened(open_store) as later:
                for each in (store, beside, later):
                    with pytest.raises(StoreUnavailable, match=r"was emptied.*remove the file store\.id"):
                        await each.commit([observation("b", x=1.0)])
                    with pytest.raises(StoreUnavailable, match="was emptied"):
                        await each.changes(0)
                    with pytest.raises(StoreUnavailable, match="was emptied"):
                        await each.load("app", EVERYONE)
            assert not client.keys("*sums*")
            client.set(PREFIX + "id", id_)
            assert await store.commit([observation("b", x=1.0)]) == [True]
            # An operator begins anew.
            client.flushall()
            path.unlink()
            await store.changes(0)
            assert await store.commit([observation("b", x=1.0)]) == [True]
            assert await beside.commit([observation("c", x=1.0)]) == [True]

    with client:
        asyncio.run(scenario())
