import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import ref

import numpy as np
import pytest

from clipper.base.turn_budget import LONGEST_TURN_S
from clipper.errors import ClipperError, Overloaded, StoreUnavailable
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Observation
from clipper.worker.selection import committer as committer_module
from clipper.worker.selection.committer import MAX_SYNCS, MAX_WAIT_S, Committer
from tests.event_loops import ShiftedLoop, run_clean, turn_over
from tests.selection_desk import make_turn
from tests.waiting import until_async


class Store(SqliteStore):
    """The real one; keeps each batch, waits while it or its disk is ``held``, and raises ``error`` if there is one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.batches: list[list[str]] = []
        self.error: Exception | None = None
        self.syncs = 0
        self.sync_error: Exception | None = None
        self.held, self.sync_held = asyncio.Event(), asyncio.Event()
        self.held.set()
        self.sync_held.set()

    async def commit(self, observations: Sequence[Observation]) -> list[bool]:
        self.batches.append([each.id for each in observations])
        await self.held.wait()
        if self.error is not None:
            raise self.error
        return await super().commit(observations)

    async def sync(self) -> None:
        self.syncs += 1
        await self.sync_held.wait()
        if self.sync_error is not None:
            raise self.sync_error


class Waiting:
    """A commit: what memory is told, and the future of what its sender is told."""

    def __init__(self, applied: Callable[[bool], None]) -> None:
        self.remember = applied
        self.told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def acknowledge(self, result: bool | ClipperError) -> None:
        if isinstance(result, ClipperError):
            self.told.set_exception(result)
        else:
            self.told.set_result(result)


def submit(committer: Committer, one: Observation, applied: Callable[[bool], None] = bool) -> "asyncio.Future[bool]":
    commit = Waiting(applied)
    committer.submit(one, commit)
    return commit.told


def observation(name: object) -> Observation:
    return Observation(str(name), "app", {EVERYONE: {"observations": 1.0}})


def test_what_comes_while_the_store_is_busy_goes_together_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        store.held.clear()
        first = submit(committer, observation("first"))
        await turn_over()
        others = [submit(committer, observation(number)) for number in range(Store.commit_at_once + 1)]
        store.held.set()
        assert await asyncio.gather(first, *others) == [True] * (Store.commit_at_once + 2)
        names = [str(number) for number in range(Store.commit_at_once + 1)]
        assert store.batches == [["first"], names[: Store.commit_at_once], names[Store.commit_at_once :]]
        await store.close()

    run_clean(scenario())


def test_what_is_acknowledged_is_in_the_store_and_counts_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        are_new = await asyncio.gather(*(submit(committer, observation(number % 3)) for number in range(9)))
        assert are_new == [True] * 3 + [False] * 6
        assert (await SqliteStore(tmp_path / "s.sqlite3").load("app", EVERYONE))["observations"] == 3.0
        await store.close()

    run_clean(scenario())


def test_too_many_are_refused_and_the_others_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "MAX_WAITING", 5)

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        taken = [submit(committer, observation(number)) for number in range(5)]
        with pytest.raises(Overloaded):
            submit(committer, observation("more"))
        assert all(await asyncio.gather(*taken))
        assert await submit(committer, observation("more"))
        await store.close()

    run_clean(scenario())


@pytest.mark.parametrize("error", [StoreUnavailable("disk full"), ValueError("cannot encode")])
def test_a_batch_that_fails_is_told_to_all_and_the_next_is_written(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        assert committer.problem is None
        store.error = error
        failed = await asyncio.gather(
            *(submit(committer, observation(number)) for number in range(3)), return_exceptions=True
        )
        assert [type(each) for each in failed] == [StoreUnavailable] * 3
        assert str(error) in str(committer.problem)
        with monkeypatch.context() as patch:  # nobody has tried again for long
            patch.setattr(committer_module, "PROBLEM_S", -1.0)
            assert committer.problem is None
        store.error = None
        assert await asyncio.gather(*(submit(committer, observation(number)) for number in range(3))) == [True] * 3
        assert committer.problem is None
        await store.close()

    run_clean(scenario())


def test_what_has_waited_for_too_long_is_refused_and_not_written(tmp_path: Path) -> None:
    """Fifty batches that each waited 2.5 s for a Redis that had gone left the last senders without an answer for two
    minutes."""

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer, loop = Committer(store, make_turn()), asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        store.held.clear()
        applied: list[bool] = []
        first = submit(committer, observation("first"), applied.append)
        await turn_over()
        late = [submit(committer, observation(f"late {number}"), applied.append) for number in range(3)]
        loop.advance(MAX_WAIT_S + 0.1)
        last = submit(committer, observation("last"), applied.append)
        store.held.set()
        assert await asyncio.gather(first, last) == [True, True]
        refused = await asyncio.gather(*late, return_exceptions=True)
        assert [type(each) for each in refused] == [StoreUnavailable] * 3 and "waited for 10 s" in str(refused[0])
        assert applied == [True, False, False, False, True] and store.batches == [["first"], ["last"]]
        # Their room is free again, and sent again they are new.
        assert await submit(committer, observation("late 1")) is True
        await store.close()

    run_clean(scenario())


def test_who_holds_the_store_still_keeps_batches_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        async with committer.between_batches:
            future = submit(committer, observation("one"))
            await turn_over(20)
            assert store.batches == [] and not future.done()
        assert await future
        await store.close()

    run_clean(scenario())


def test_arrays_that_wait_have_a_bound_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many observations, of 17 KB a model each, would take a hundred times what others do."""

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        monkeypatch.setattr(committer_module, "MAX_WAITING_ARRAYS_BYTES", 3 * 800)
        store.held.clear()
        large = {EVERYONE: {"observations": 1.0, "1@0/m/s/100": np.ones(100)}}
        writing = submit(committer, Observation("0", "app", large))
        await turn_over()
        waiting = [submit(committer, Observation(str(number), "app", large)) for number in range(1, 4)]
        with pytest.raises(Overloaded, match="3 observations wait"):
            submit(committer, observation("small"))
        store.held.set()
        assert await asyncio.gather(writing, *waiting) == [True] * 4
        assert await submit(committer, observation("small"))
        assert np.array_equal((await store.load("app", EVERYONE))["1@0/m/s/100"], [4.0] * 100)
        await store.close()

    run_clean(scenario())


def test_batches_are_applied_while_the_disk_is_awaited_and_told_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        store.sync_held.clear()
        applied: list[bool] = []
        futures = []
        for name in ("one", "two", "one", "three"):
            futures.append(submit(committer, observation(name), applied.append))
            await until_async(lambda: len(applied) == len(futures))
        # Applied observations can be read; none of them is acknowledged.
        assert applied == [True, True, False, True]
        assert (await store.load("app", EVERYONE))["observations"] == 3.0
        assert not any(future.done() for future in futures)
        store.sync_held.set()
        assert await asyncio.gather(*futures) == [True, True, False, True]
        await store.close()

    run_clean(scenario())


def test_what_may_not_be_on_disk_is_not_acknowledged_and_stays_in_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        store.sync_error = StoreUnavailable("the disk is slow")
        applied: list[bool] = []
        with pytest.raises(StoreUnavailable, match="the disk is slow"):
            await submit(committer, observation("one"), applied.append)
        assert applied == [True] and "the disk is slow" in str(committer.problem)
        store.sync_error = None
        # Sent again, it is there already.
        assert await submit(committer, observation("one"), applied.append) is False
        assert applied == [True, False]
        await store.close()

    run_clean(scenario())


def test_what_waits_for_the_disk_takes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "MAX_WAITING", 4)

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        store.sync_held.clear()
        taken, applied = [], []
        for number in range(4):
            taken.append(submit(committer, observation(number), applied.append))
            await until_async(lambda: len(applied) == len(taken))
        with pytest.raises(Overloaded, match="4 observations wait"):
            submit(committer, observation("more"))
        store.sync_held.set()
        assert await asyncio.gather(*taken) == [True] * 4
        await store.close()

    run_clean(scenario())


def test_a_piece_that_memory_does_not_take_costs_no_other(tmp_path: Path) -> None:
    def fails(was_added: bool) -> None:
        raise KeyError(was_added)

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        applied: list[bool] = []
        pieces = submit(committer, observation("one"), fails), submit(committer, observation("two"), applied.append)
        assert await asyncio.gather(*pieces) == [True, True] and applied == [True]
        await store.close()

    run_clean(scenario())


def test_waits_for_the_disk_begin_while_others_last_and_are_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        store.sync_held.clear()
        taken, applied = [], []
        for number in range(MAX_SYNCS + 2):
            taken.append(submit(committer, observation(number), applied.append))
            await until_async(lambda: len(applied) == len(taken))
            await until_async(lambda: store.syncs == min(len(taken), MAX_SYNCS))
        store.sync_held.set()
        assert await asyncio.gather(*taken) == [True] * (MAX_SYNCS + 2)
        # Observations that came after the last of these waits began shared one more.
        assert store.syncs == MAX_SYNCS + 1
        await store.close()

    run_clean(scenario())


def test_what_is_acknowledged_was_waited_for_whenever_a_wait_begins(tmp_path: Path) -> None:
    """Also where memory is still told of the rest of a batch."""

    class Later(Store):
        """As Redis: a wait for the disk is for what no earlier one is for."""

        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.unsynced: list[str] = []
            self.on_disk: set[str] = set()

        async def commit(self, observations: Sequence[Observation]) -> list[bool]:
            self.unsynced += [str(each.id) for each in observations]
            return [True] * len(observations)

        async def sync(self) -> None:
            names, self.unsynced = self.unsynced, []
            if names:
                await turn_over(40)
                self.on_disk.update(names)

    async def scenario() -> None:
        store, told, early = Later(tmp_path / "s.sqlite3"), set(), []
        committer = Committer(store, make_turn())

        def send(name: str) -> "asyncio.Future[bool]":
            future = submit(committer, observation(name), lambda _: told.add(name))
            future.add_done_callback(lambda _: None if name in store.on_disk & told else early.append(name))
            return future

        futures = []
        for turn in range(24):
            futures += [send(f"{turn}-{number}") for number in range(3 if turn % 3 else 450)]
            await turn_over(turn % 7)
        assert all(await asyncio.gather(*futures)) and not early
        await store.close()

    run_clean(scenario())


def test_what_is_applied_keeps_no_arrays_while_the_disk_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        committer = Committer(store, make_turn())
        store.sync_held.clear()
        array = np.ones(1000)
        known = ref(array)
        told: list[bool] = []
        durable = submit(committer, Observation("one", "app", {EVERYONE: {"never@0/a/x/1000": array}}), told.append)
        del array
        await until_async(lambda: told and known() is None)
        assert not durable.done()
        store.sync_held.set()
        assert await durable
        await store.close()

    run_clean(scenario())


def test_answers_take_their_share_of_each_turn(tmp_path: Path) -> None:
    """A hundred were told in a turn by each of ten waits for the disk, which held the loop for up to 40 ms."""
    answer_s, told_in_turn, most, told = 0.000_5, 0, 0, 0

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        committer, advance = Committer(store, make_turn()), loop.advance

        def begin_turn() -> None:
            nonlocal told_in_turn
            told_in_turn = 0
            if told < 2 * 3 * Store.commit_at_once:
                loop.call_soon(begin_turn)

        class Slow(Waiting):
            def __init__(self) -> None:
                super().__init__(lambda _: self.count())

            def count(self) -> None:
                nonlocal told_in_turn, most, told
                advance(answer_s)
                told, told_in_turn = told + 1, told_in_turn + 1
                most = max(most, told_in_turn)

            def acknowledge(self, result: bool | ClipperError) -> None:
                self.count()
                super().acknowledge(result)

        commits = [Slow() for _ in range(3 * Store.commit_at_once)]
        loop.call_soon(begin_turn)
        for number, commit in enumerate(commits):
            committer.submit(observation(number), commit)
        assert all(await asyncio.gather(*(commit.told for commit in commits)))
        assert most <= LONGEST_TURN_S / answer_s + 1
        await store.close()

    run_clean(scenario())
