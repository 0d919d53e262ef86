import asyncio
import subprocess
from pathlib import Path

import pytest
from kept_states import observation, opened, run

from clipper.errors import StoreUnavailable
from clipper.selection.stores.redis import RedisStore
from clipper.selection.stores.store import EVERYONE, Amount
from redis_server import RedisServer


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
    with RedisServer(tmp_path) as server, pytest.raises(StoreUnavailable, match="appendonly"):
        server.start("--appendonly", "no")
        run(lambda: RedisStore(server.url), [observation("a", x=1.0)])


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
