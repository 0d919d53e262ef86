import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from clipper.errors import StoreUnavailable
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.totals import Totals
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, Observation
from clipper.settings.application import Selection
from clipper.worker.selection import contexts as contexts_module
from clipper.worker.selection.context_reads import MAX_READS, ContextReads
from clipper.worker.selection.contexts import Contexts
from tests.event_loops import run_clean, turn_over
from tests.selection_desk import ROW, SLO_S, Desk, run
from tests.waiting import until_async

LOSS = {("a", "loss"): 1.0, ("a", "scored"): 1.0}
TWO = {"a": b"1", "b": b"2"}


class Store(SqliteStore):
    """The real one, that counts what it is asked for, waits while it is ``held`` and fails while it is ``down``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.loaded: list[str] = []
        self.held = asyncio.Event()
        self.held.set()
        self.down = False

    async def load(self, application: str, context: str) -> dict[str, float]:
        self.loaded.append(context)
        await self.held.wait()
        if self.down:
            raise StoreUnavailable("the store is down")
        return await super().load(application, context)


async def commit(store: SqliteStore, contexts: Contexts, context: str | None, name: str) -> None:
    entries = contexts.begin(context, LOSS)
    await store.commit([Observation(name, "app-id", {EVERYONE if context is None else context: entries})])
    contexts.end(context, entries, was_added=True)


def test_a_context_starts_from_what_all_have_taught_and_goes_its_own_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, None, 0.5)
        await contexts.load(None)
        for number in range(10):
            await commit(store, contexts, None, f"all-{number}")
        assert contexts.totals("ada") is None
        await contexts.load("ada")
        totals = contexts.totals("ada")
        assert totals is not None and totals.number("a", "loss") == pytest.approx(10.0)
        assert contexts.totals("ada") is totals
        await commit(store, contexts, "ada", "own")
        changed = contexts.totals("ada")
        assert changed is not None and changed.number("a", "loss") == pytest.approx(5.5)
        await store.close()

    run_clean(scenario())


def test_what_others_teach_meanwhile_reaches_a_context_that_is_in_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, None, 0.5)
        await contexts.load(None)
        await contexts.load("ada")
        await commit(store, contexts, "ada", "own")
        seen = []
        for number in range(3):
            totals = contexts.totals("ada")
            assert totals is not None
            seen.append(totals.number("a", "loss"))
            await commit(store, contexts, None, f"all-{number}")
        assert seen == sorted(set(seen)) and len(seen) == 3
        await store.close()

    run_clean(scenario())


def test_earlier_totals_of_the_application_are_not_kept(tmp_path: Path) -> None:
    """Each context kept those that it was last asked with: 10,000 contexts took 30 MB more than they do."""

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, None, 0.5)
        await contexts.load(None)
        priors = []
        for context in ("ada", "bob", "eve"):
            await contexts.load(context)
            await contexts.load(f"new-{context}")
            await commit(store, contexts, context, context)
            await commit(store, contexts, None, f"all-{context}")
            priors.append(contexts.prior())
            assert contexts.totals(context) is not priors[-1] and contexts.totals(f"new-{context}") is priors[-1]
        await commit(store, contexts, None, "all")
        assert contexts.totals("ada") is not None
        *held, alone = [sys.getrefcount(each) for each in (*priors, Totals())]
        assert held == [alone + 1] * len(priors)
        await store.close()

    run_clean(scenario())


def test_names_of_versions_that_were_removed_are_not_kept(tmp_path: Path) -> None:
    """A server that got 1,000 versions kept 5 MB more: each number's key of each version, as text and in its parts."""
    contexts = Contexts("app-id", SqliteStore(tmp_path / "s.sqlite3"), None, 0.5)

    def deploy(number: int) -> None:
        version = f"m:@{number:012x}"
        contexts.follow_arms(Arms({"m": [(f"m:{number}", 1.0)]}, state_keys={f"m:{number}": version}))
        contexts.end(None, contexts.begin(None, {(version, "loss"): 1.0, (version, "scored"): 1.0}), was_added=False)

    for number in range(20):
        deploy(number)
    before = sys.getallocatedblocks()
    for number in range(20, 220):
        deploy(number)
    assert sys.getallocatedblocks() - before < 200


def test_the_least_recently_asked_goes_and_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts_module, "MAX_CONTEXTS", 3)

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, None, 0.0)
        for context in "abc":
            await contexts.load(context)
            await commit(store, contexts, context, context)
        assert contexts.totals("a") is not None
        await contexts.load("d")
        assert [context for context in "abcd" if contexts.totals(context) is None] == ["b"]
        await contexts.load("b")
        totals = contexts.totals("b")
        assert totals is not None and totals.number("a", "loss") == 1.0 and len(contexts) == 3
        await store.close()

    run_clean(scenario())


def test_states_that_hold_much_make_room_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts_module, "MAX_NUMBERS", 20)

    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, None, 0.0)
        for context in "abcdefghij":  # each state comes to have three numbers: two of a's, and how many observations
            await contexts.load(context)
            await commit(store, contexts, context, context)
        assert [context for context in "abcdefghij" if contexts.totals(context) is not None] == list("efghij")
        # One by itself stays, however large it is; and what is read again counts once.
        monkeypatch.setattr(contexts_module, "MAX_NUMBERS", 1)
        for _ in range(3):
            await contexts.reload(["j"])
            assert len(contexts) == 1 and contexts.totals("j") is not None
        monkeypatch.setattr(contexts_module, "MAX_NUMBERS", 6)
        await contexts.load("a")
        assert len(contexts) == 2
        await store.close()

    run_clean(scenario())


def test_a_reading_that_overlaps_a_commit_is_read_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, None, 0.0)
        await contexts.load(None)
        entries = contexts.begin("ada", LOSS)
        await store.commit([Observation("one", "app-id", {"ada": entries})])
        # Its state is read with the commit in it, before the commit's answer is taken in.
        await contexts.load("ada")
        contexts.end("ada", entries, was_added=True)
        assert contexts.to_reload() == ["ada"]
        await contexts.reload(["ada"])
        totals = contexts.totals("ada")
        assert totals is not None and totals.number("a", "loss") == 1.0 and contexts.to_reload() == []
        await store.close()

    run_clean(scenario())


def test_settings_change_and_what_was_learned_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, None, 0.0)
        await contexts.load(None)
        await commit(store, contexts, None, "one")
        before = contexts.totals(None)
        assert before is not None
        before.memo["worked out"] = True
        contexts.follow(100, 5.0)
        after = contexts.totals(None)
        assert after is not None and after.number("a", "loss") == 1.0 and after.memo == {}
        await store.close()

    run_clean(scenario())


def test_sums_that_count_for_nothing_are_deleted_in_the_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = Store(tmp_path / "s.sqlite3")
        contexts = Contexts("app-id", store, 1, 0.0)
        await contexts.load(None)
        for number in range(300):
            await commit(store, contexts, None, str(number))
            if number % 50 == 0:
                await contexts.reload([EVERYONE])
        await contexts.reload([EVERYONE])
        left = await SqliteStore.load(store, "app-id", EVERYONE)
        assert len({key.partition("/")[0] for key in left} - {"observations"}) <= 3
        assert left["observations"] == 300.0
        await store.close()

    run_clean(scenario())


# -- through an application --------------------------------------------------------------------------------


def test_queries_of_a_new_context_wait_for_one_reading(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path / "s.sqlite3")
        desk = Desk(tmp_path, TWO, store=store)
        await desk.start()
        application = await desk.application(Selection("exp3"))
        store.loaded.clear()
        store.held.clear()
        asked = [desk.ask(application, bytes([number]) * 8, "ada") for number in range(5)]
        await turn_over(20)
        assert store.loaded == ["ada"] and not any(asking.answer for asking, _ in asked)
        store.held.set()
        await desk.serve_until(lambda: all(asking.answer for asking, _ in asked))
        await desk.answer(application, b"l" * 8, "ada")
        assert store.loaded == ["ada"]
        await desk.close()

    run_clean(whole())


def test_store_that_does_not_answer_costs_a_part_of_the_slo_once(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path / "s.sqlite3")
        desk = Desk(tmp_path, TWO, store=store)
        await desk.start()
        application = await desk.application(Selection("exp3"))
        store.loaded.clear()
        store.held.clear()
        asking, _ = desk.ask(application, context="ada")
        await turn_over(20)
        desk.loop.advance(SLO_S / 3)
        await desk.serve_until(lambda: asking.answer)
        # A query that comes while the store is still silent uses the application's state at once.
        assert (await desk.answer(application, context="ada")).answer[0] == "prediction"
        assert store.loaded == ["ada"]
        store.held.set()
        await until_async(lambda: application.contexts.totals("ada"))
        await desk.close()

    run_clean(whole())


def test_policy_that_does_not_learn_reads_no_context(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path / "s.sqlite3")
        desk = Desk(tmp_path, TWO, store=store)
        await desk.start()
        application = await desk.application(Selection("weighted"))
        assert (await desk.answer(application, context="ada")).answer[0] == "prediction"
        assert "ada" not in store.loaded
        await desk.close()

    run_clean(whole())


def test_store_that_is_down_is_logged_once_and_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> None:
        store = Store(tmp_path / "s.sqlite3")
        desk = Desk(tmp_path, TWO, store=store)
        await desk.start()
        application = await desk.application(Selection("exp3"))
        store.down = True
        for context in "abc":
            assert (await desk.answer(application, context=context)).answer[0] == "prediction"
        warnings = [each for each in caplog.records if each.name.startswith("clipper")]
        assert len(warnings) == 1 and "the store is down" in warnings[0].getMessage()
        store.down = False
        await desk.answer(application, context="a")
        assert application.contexts.totals("a") is not None
        await desk.close()

    run_clean(whole())


def test_a_bounded_number_of_contexts_is_read_at_once() -> None:
    async def scenario() -> None:
        held = asyncio.Event()
        begun: list[str] = []
        heard: list[str] = []

        async def load(context: str) -> None:
            begun.append(context)
            await held.wait()

        loads = ContextReads()
        for number in range(MAX_READS + 3):
            loads.wait(load, str(number), 1000.0, lambda number=number: heard.append(str(number)))  # type: ignore[misc]
        await turn_over()
        assert len(begun) == MAX_READS
        assert heard == [str(MAX_READS + extra) for extra in range(3)]
        held.set()
        await until_async(lambda: len(heard) == MAX_READS + 3)
        loads.wait(load, "again", 1000.0, lambda: heard.append("again"))
        await until_async(lambda: heard[-1] == "again")

    run_clean(scenario())


def test_queries_after_a_restart_go_by_what_was_learned(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        first = await desk.application(Selection("exp3", half_life=None))
        entries: dict[str, Any] = {EVERYONE: first.contexts.begin(None, {("a", "excess_loss"): 1000.0})}
        await desk.store.commit([Observation("one", "app-id", entries)])
        second = await desk.application(Selection("exp3", half_life=None))
        answers = [(await desk.answer(second, ROW)).answer[1] for _ in range(40)]
        assert answers.count(b"2") > 30

    run(tmp_path, TWO, scenario)


def test_what_was_learned_by_name_goes_to_one_content(tmp_path: Path) -> None:
    async def scenario() -> None:
        def open_contexts(state_key: str) -> Contexts:
            store = SqliteStore(tmp_path / "s.sqlite3")
            stores.append(store)
            contexts = Contexts("app-id", store, None, 0.0)
            keys = {"a:1": state_key} if state_key else None
            contexts.follow_arms(Arms({"a": (("a:1", 1.0),)}, state_keys=keys))
            return contexts

        async def learn(contexts: Contexts, name: str, *, is_stored: bool = True) -> None:
            entries = {each: contexts.begin(each, contexts.arms.keyed(LOSS)) for each in (None, "ada")}
            if is_stored:
                state = {EVERYONE if each is None else each: amounts for each, amounts in entries.items()}
                await contexts._store.commit([Observation(name, "app-id", state)])
            for each, amounts in entries.items():
                contexts.end(each, amounts, was_added=is_stored)

        def losses(contexts: Contexts) -> list[float]:
            return [totals.number("a", "loss") for each in (None, "ada") if (totals := contexts.totals(each))]

        stores: list[SqliteStore] = []
        earlier, owner, other = map(open_contexts, ("", "a:@owner", "a:@other"))
        both = [EVERYONE, "ada"]
        for each in (earlier, owner, other):
            await each.load(None)
            await each.load("ada")
        await learn(earlier, "1")
        for each in (owner, other):
            await each.reload(both)
            assert losses(each) == [1.0, 1.0]
        # The store fails: the mark comes with what is learned next.
        await learn(owner, "2", is_stored=False)
        await learn(owner, "3")
        await learn(earlier, "4")
        for each in (earlier, owner, other):
            await each.reload(both)
        assert (losses(owner), losses(other), losses(earlier)) == ([3.0, 3.0], [0.0, 0.0], [2.0, 2.0])
        await learn(other, "5")
        fresh = open_contexts("a:@other")
        await fresh.load(None)
        await fresh.load("ada")
        assert losses(fresh) == losses(other) == [1.0, 1.0]
        for store in stores:
            await store.close()

    run_clean(scenario())
