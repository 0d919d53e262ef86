"""The remains of applications that are gone, on a real registry and store."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Observation
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.keepers.cleaner import Forgetter
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import ForgetLater
from tests.waiting import until_async


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with closing(SqliteRegistry(tmp_path / "registry.sqlite3")) as registry:
        yield Catalog(registry)


def forgetting(catalog: Catalog, path: Path, test: Callable[[Forgetter, SqliteStore], Awaitable[None]]) -> None:
    """Run ``test`` beside a forgetter that waits for nothing, on a store that knows of three applications."""

    async def run() -> None:
        store = SqliteStore(path)
        known = [Observation(f"f-{id_}", id_, {EVERYONE: {"x": 1.0}}) for id_ in ("a#1", "b#1", "c#1")]
        await store.commit(known)
        forgetter = Forgetter(catalog, store, delay_s=0.0, retry_s=0.01)
        running = asyncio.create_task(forgetter.run())
        try:
            await test(forgetter, store)
        finally:
            running.cancel()
            await asyncio.wait([running])
            await store.close()

    asyncio.run(run())


async def known(store: SqliteStore) -> set[str]:
    return {id_ for id_ in ("a#1", "b#1", "c#1") if await store.load(id_, EVERYONE)}


def test_it_forgets_what_an_earlier_supervisor_left_and_what_comes(catalog: Catalog, tmp_path: Path) -> None:
    catalog.commit(ForgetLater("a#1"))

    async def test(forgetter: Forgetter, store: SqliteStore) -> None:
        await until_async(lambda: not catalog.to_forget)
        assert await known(store) == {"b#1", "c#1"}
        catalog.commit(ForgetLater("b#1"))
        forgetter.wake()
        await until_async(lambda: not catalog.to_forget)
        assert await known(store) == {"c#1"}

    forgetting(catalog, tmp_path / "selection.sqlite3", test)


def test_a_store_that_is_down_is_tried_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("clipper.learning.stores.sqlite_transactions.BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "selection.sqlite3"

    async def test(forgetter: Forgetter, store: SqliteStore) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            catalog.commit(ForgetLater("a#1"))
            forgetter.wake()
            await until_async(lambda: caplog.text.count("cannot be dropped now") >= 2)
            assert catalog.to_forget == {"a#1"}
            other.execute("ROLLBACK")
        await until_async(lambda: not catalog.to_forget)
        assert await known(store) == {"b#1", "c#1"}

    forgetting(catalog, path, test)
