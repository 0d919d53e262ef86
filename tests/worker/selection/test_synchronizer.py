import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from clipper.control.feedback import Feedback
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Observation
from clipper.settings.application import Selection
from clipper.settings.server import MAX_CONTEXTS
from clipper.worker.selection.application import Application
from clipper.worker.selection.synchronizer import EXPIRE_S, Synchronizer
from tests.selection_desk import ROW, Desk, make_surroundings, run
from tests.waiting import until_async

TWO = {"a": b"1", "b": b"2"}
CONTEXTS = [None, "ada", "bob"]


def follower(desk: Desk, application: Application, **arguments: Any) -> Synchronizer:
    return Synchronizer(
        desk.store, application.surroundings.committer, lambda: [application], MAX_CONTEXTS, **arguments
    )


def numbers(application: Application, context: str | None) -> dict[tuple[str, str], float]:
    totals = application.contexts.totals(context)
    assert totals is not None
    return dict(totals.numbers)


@pytest.mark.parametrize("policy", ["ensemble", "exp4", "ucb1"])
def test_two_workers_learn_what_one_would_have(tmp_path: Path, policy: str) -> None:
    """Each gets half of the feedback; a third, that gets all of it after, has the state that they must reach."""

    async def scenario(desk: Desk) -> None:
        selection = Selection(policy, half_life=None)
        here = await desk.application(selection)
        there = Application(
            here.snapshot, make_surroundings(desk.predictor, SqliteStore(tmp_path / "selection.sqlite3"), 4)
        )
        await there.load()
        await desk.answer(here)
        workers = [here, there]
        followers = [follower(desk, each) for each in workers]
        for each in followers:
            await each.follow()
        random = Random(1)
        for number in range(60):
            feedback = Feedback(
                f"f-{number}", row=ROW, context=random.choice(CONTEXTS), label=b"%d" % random.choice([1, 2])
            )
            assert await desk.observe(random.choice(workers), feedback)
            if number % 7 == 0:
                for each in followers:
                    await each.follow()
        for each in followers:
            await each.follow()
        restarted = await desk.application(selection)
        for context in CONTEXTS:
            for application in (*workers, restarted):
                if application.contexts.totals(context) is None:
                    await application.contexts.load(context)
            expected = pytest.approx(numbers(restarted, context), abs=1e-9)
            assert numbers(here, context) == expected and numbers(there, context) == expected
        assert numbers(here, None)["", "observations"] == 60
        await there.surroundings.store.close()

    run(tmp_path, TWO, scenario, cache=True)


def test_a_change_elsewhere_reaches_what_is_in_memory(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        await desk.answer(application, context="ada")
        synchronizer = follower(desk, application)
        await synchronizer.follow()
        increments = {"observations": 1.0, "1000@0/a/loss": 1.0}
        changes = {EVERYONE: increments, "ada": increments, "not in memory": increments}
        elsewhere = SqliteStore(tmp_path / "selection.sqlite3")
        await elsewhere.commit([Observation("one", "app-id", changes), Observation("other", "other-id", changes)])
        await elsewhere.close()
        await synchronizer.follow()
        assert numbers(application, None)["a", "loss"] == pytest.approx(1.0, abs=0.01)
        assert application.contexts.totals("not in memory") is None

    run(tmp_path, TWO, scenario)


def test_a_state_is_read_again_between_commits_only(tmp_path: Path) -> None:
    """Read while a batch is written, it might hold the batch, which is then added to it in memory once more."""

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        synchronizer = follower(desk, application)
        await synchronizer.follow()
        elsewhere = SqliteStore(tmp_path / "selection.sqlite3")
        await elsewhere.commit([Observation("one", "app-id", {EVERYONE: {"observations": 1.0, "1000@0/a/loss": 1.0}})])
        await elsewhere.close()
        async with desk.surroundings.committer.between_batches:
            following = asyncio.ensure_future(synchronizer.follow())
            await asyncio.sleep(0.1)  # a reading takes a millisecond; one that waits takes for ever
            assert application.contexts.prior().number("a", "loss") == 0.0
        await following
        assert application.contexts.prior().number("a", "loss") > 0.0

    run(tmp_path, TWO, scenario)


def test_it_goes_on_after_the_store_was_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        path = tmp_path / "selection.sqlite3"
        store = SqliteStore(path)
        await store.commit([Observation("zero", "app-id", {EVERYONE: {"observations": 1.0, "1000@0/a/loss": 1.0}})])
        task = asyncio.ensure_future(
            Synchronizer(store, desk.surroundings.committer, lambda: [application], MAX_CONTEXTS).run()
        )
        await until_async(lambda: numbers(application, None))

        def is_told() -> bool:
            desk.loop.advance(0.3)
            return "cannot be used" in caplog.text

        with closing(sqlite3.connect(path)) as database, database:
            database.execute("ALTER TABLE revision RENAME TO elsewhere")
        await until_async(is_told)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DROP TABLE IF EXISTS revision")
            database.execute("ALTER TABLE elsewhere RENAME TO revision")
        other = SqliteStore(path)
        await other.commit([Observation("one", "app-id", {EVERYONE: {"observations": 1.0, "1000@0/a/loss": 5.0}})])

        def is_followed() -> bool:
            desk.loop.advance(0.3)
            return numbers(application, None).get(("a", "loss"), 0.0) > 4.0

        await until_async(is_followed)
        assert caplog.text.count("cannot be used") == 1
        task.cancel()
        await asyncio.wait([task])
        await other.close()
        await store.close()

    run(tmp_path, TWO, scenario)


def test_it_goes_on_after_a_fault_of_clippers_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        looks: list[int] = []

        def applications() -> list[Application]:
            looks.append(1)
            if len(looks) == 1:
                raise RuntimeError("a fault")
            return [application]

        synchronizer = Synchronizer(desk.store, desk.surroundings.committer, applications, MAX_CONTEXTS)
        task = asyncio.ensure_future(synchronizer.run())

        def has_gone_on() -> bool:
            desk.loop.advance(0.3)
            return len(looks) > 1

        await until_async(has_gone_on)
        assert "a fault" in caplog.text
        task.cancel()
        await asyncio.wait([task])

    run(tmp_path, TWO, scenario)


def test_a_clock_that_is_set_back_holds_up_no_expiry(tmp_path: Path) -> None:
    times: list[float] = []

    class Store(SqliteStore):
        async def expire(self) -> None:
            times.append(clock_s)
            await super().expire()

    clock_s = 1e9

    async def scenario(desk: Desk) -> None:
        nonlocal clock_s
        application = await desk.application(Selection("exp3"))
        store = Store(tmp_path / "selection.sqlite3")
        committer = application.surroundings.committer
        synchronizer = Synchronizer(store, committer, lambda: [application], MAX_CONTEXTS, lambda: clock_s)
        for at_s in (1e9 + EXPIRE_S, 1e9 + EXPIRE_S + 1, 5e8, 5e8 + 1):
            clock_s = at_s
            await synchronizer.expire()
        assert times == [1e9 + EXPIRE_S, 5e8]
        await store.close()

    run(tmp_path, TWO, scenario)


def test_ids_are_kept_while_their_feedback_may_come_again(tmp_path: Path) -> None:
    clock = [1000.0]

    async def scenario(desk: Desk) -> None:
        store = SqliteStore(tmp_path / "timed.sqlite3", lambda: clock[0])
        one = Observation("one", "app-id", {EVERYONE: {"observations": 1.0}}, keep_s=1000.0)
        assert await store.commit([one]) == [True]
        # Also one that has no application, and so knows of none for how long its feedback may come.
        synchronizer = Synchronizer(store, desk.surroundings.committer, list, MAX_CONTEXTS, lambda: clock[0])
        for pause_s, is_new in [(EXPIRE_S, False), (600.0, False), (400.0, True)]:
            clock[0] += pause_s
            await synchronizer.expire()
            assert await store.commit([one]) == [is_new], pause_s
        await store.close()

    run(tmp_path, TWO, scenario)


def test_contexts_beyond_the_bound_go_also_from_the_memory_of_others(tmp_path: Path) -> None:
    clock = [1000.0]

    async def scenario(desk: Desk) -> None:
        here = await desk.application(Selection("ucb1", half_life=None))
        there = Application(
            here.snapshot, make_surroundings(desk.predictor, SqliteStore(tmp_path / "selection.sqlite3"), 4)
        )
        evicting = Synchronizer(
            desk.store, here.surroundings.committer, lambda: [here], max_contexts=2, wall_clock_s=lambda: clock[0]
        )
        following = Synchronizer(there.surroundings.store, there.surroundings.committer, lambda: [there], MAX_CONTEXTS)
        await there.load()
        await desk.answer(here)
        for number, context in enumerate(["ada", "bob", "cyd", "ada"]):
            assert await desk.observe(here, Feedback(f"f-{number}", row=ROW, context=context, label=b"1"))
        await following.follow()
        for context in ("ada", "bob"):
            await there.contexts.load(context)
        before = numbers(there, "ada")
        clock[0] += EXPIRE_S
        await evicting.expire()
        await following.follow()
        assert await desk.store.load(here.snapshot.id, "bob") == {}
        assert numbers(there, "ada") == before
        assert numbers(there, "bob") == dict(there.contexts.prior().with_prior(there.contexts.prior(), 0).numbers)
        await there.surroundings.store.close()

    run(tmp_path, TWO, scenario, cache=True)


def test_what_no_longer_counts_is_removed_also_where_nobody_else_writes(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3", half_life=1))
        synchronizer = follower(desk, application)
        await synchronizer.follow()
        await desk.answer(application)
        for number in range(150):
            assert await desk.observe(application, Feedback(f"f-{number}", row=ROW, label=b"1"))
            if number % 50 == 49:
                await synchronizer.follow()
        epochs = {key.partition("/")[0] for key in await desk.store.load("app-id", EVERYONE)}
        assert "1@0" not in epochs and {"1@96", "1@128"} <= epochs

    run(tmp_path, TWO, scenario, cache=True)


def test_one_that_is_garbage_does_not_stop_the_others(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        for context in ("ada", "bob"):
            await desk.answer(application, context=context)
        synchronizer = follower(desk, application)
        await synchronizer.follow()
        elsewhere = SqliteStore(tmp_path / "selection.sqlite3")
        right, wrong = {"observations": 1.0, "1000@0/a/loss": 1.0}, {"nonsense": 1.0}
        await elsewhere.commit([Observation("one", "app-id", {"ada": wrong, "bob": right})])
        await elsewhere.close()
        for _ in range(2):
            await synchronizer.follow()
        assert numbers(application, "bob")["a", "loss"] > 0
        assert numbers(application, "ada").get(("a", "loss"), 0.0) == 0
        assert application.contexts.to_reload() == ["ada"]

    run(tmp_path, TWO, scenario)


def test_a_store_that_lost_what_it_held_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Workers and machines agree again then, also with those that start anew."""

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        synchronizer = follower(desk, application)
        await synchronizer.follow()
        await desk.answer(application, context="ada")
        for number in range(3):
            assert await desk.observe(application, Feedback(f"f-{number}", row=ROW, context="ada", label=b"1"))
        await synchronizer.follow()
        with closing(sqlite3.connect(tmp_path / "selection.sqlite3")) as database, database:
            for table in ("sums", "changes", "seen_until"):
                database.execute(f"DELETE FROM {table}")
            database.execute("UPDATE revision SET last = 1")
        await synchronizer.follow()
        assert application.contexts.prior().number("", "observations") == 0
        assert application.contexts.totals("ada") is not None and numbers(application, "ada") == numbers(
            application, None
        )
        assert caplog.text.count("it is at change 1, and was at 3") == 1

    run(tmp_path, TWO, scenario, cache=True)
