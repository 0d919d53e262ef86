import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clipper.errors import Overloaded, StoreUnavailable
from clipper.selection import committer as committer_module
from clipper.selection.committer import MAX_BATCH, Committer
from clipper.selection.stores.sqlite import SqliteStore
from clipper.selection.stores.store import EVERYONE, Observation
from event_loops import run_clean, turn_over


class Store(SqliteStore):
    """The real one; keeps each batch, waits while it is ``held``, and raises ``error`` if there is one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.batches: list[list[str]] = []
        self.error: Exception | None = None
        self.held = asyncio.Event()
        self.held.set()

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        self.batches.append([each.id for each in observations])
        await self.held.wait()
        if self.error is not None:
            raise self.error
        return await super().commit(observations)


def observation(name: object) -> Observation:
    return Observation(str(name), "app", {EVERYONE: {"observations": 1.0}})


def test_what_comes_while_the_store_is_busy_goes_together_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store)
        store.held.clear()
        first = committer.submit(observation("first"))
        await turn_over()
        others = [committer.submit(observation(number)) for number in range(MAX_BATCH + 1)]
        store.held.set()
        assert await asyncio.gather(first, *others) == [True] * (MAX_BATCH + 2)
        names = [str(number) for number in range(MAX_BATCH + 1)]
        assert store.batches == [["first"], names[:MAX_BATCH], names[MAX_BATCH:]]
        await store.close()

    run_clean(scenario())


def test_what_is_acknowledged_is_in_the_store_and_counts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store)
        are_new = await asyncio.gather(*(committer.submit(observation(number % 3)) for number in range(9)))
        assert are_new == [True] * 3 + [False] * 6
        assert (await SqliteStore(tmp_path / "s.sqlite3").load("app", EVERYONE))["observations"] == 3.0
        await store.close()

    run_clean(scenario())


def test_too_many_are_refused_and_the_others_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "MAX_WAITING", 5)

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store)
        taken = [committer.submit(observation(number)) for number in range(5)]
        with pytest.raises(Overloaded):
            committer.submit(observation("more"))
        assert all(await asyncio.gather(*taken))
        assert await committer.submit(observation("more"))
        await store.close()

    run_clean(scenario())


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), ValueError("cannot encode")])
def test_a_batch_that_fails_is_told_to_all_and_the_next_is_written(tmp_path: Path, error: Exception) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store)
        store.error = error
        failed = await asyncio.gather(
            *(committer.submit(observation(number)) for number in range(3)), return_exceptions=True
        )
        assert [type(each) for each in failed] == [StoreUnavailable] * 3
        store.error = None
        assert await asyncio.gather(*(committer.submit(observation(number)) for number in range(3))) == [True] * 3
        await store.close()

    run_clean(scenario())


def test_who_holds_the_store_still_keeps_batches_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store)
        async with committer.between_batches:
            future = committer.submit(observation("one"))
            await turn_over(20)
            assert store.batches == [] and not future.done()
        assert await future
        await store.close()

    run_clean(scenario())


def test_arrays_that_wait_have_a_bound_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many observations, of 17 KB a model each, would take a hundred times what others do."""

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store)
        monkeypatch.setattr(committer_module, "MAX_WAITING_ARRAYS_BYTES", 3 * 800)
        store.held.clear()
        large = {EVERYONE: {"observations": 1.0, "1@0/m/s/100": np.ones(100)}}
        writing = committer.submit(Observation("0", "app", large))
        await turn_over()
        waiting = [committer.submit(Observation(str(number), "app", large)) for number in range(1, 4)]
        with pytest.raises(Overloaded, match="3 observations wait"):
            committer.submit(observation("small"))
        store.held.set()
        assert await asyncio.gather(writing, *waiting) == [True] * 4
        assert await committer.submit(observation("small"))
        assert np.array_equal((await store.load("app", EVERYONE))["1@0/m/s/100"], [4.0] * 100)
        await store.close()

    run_clean(scenario())
