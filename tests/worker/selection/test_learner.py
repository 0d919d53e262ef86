"""Feedback on an application with models of its own: what is learned, from what, and what is not."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clipper.control.feedback import Feedback
from clipper.errors import ClipperError, InvalidArgument, NotFound, Overloaded, PolicyFailed, StoreUnavailable
from clipper.learning.policies.policy import QueryView
from clipper.learning.stores.sqlite import SqliteStore
from clipper.learning.stores.store import EVERYONE, MIN_KEEP_S
from clipper.settings.application import Selection
from clipper.worker.selection.application import Application
from clipper.worker.selection.learner import ASK_TIMEOUT_S
from tests import selection_desk
from tests.event_loops import turn_over
from tests.selection_desk import ROW, SLO_S, Desk, learn, on_input, on_query, own_policy, run
from tests.waiting import until_async

FOUR = {"a": b"1", "b": b"1", "c": b"2", "d": b"2"}
ALL = Selection("ensemble", {"weighting": "equal"}, half_life=None)
SINGLE = Selection("single", half_life=None)


def learned(application: Application, context: str | None = None) -> dict[str, tuple[float, float]]:
    """Of each scored model: how often, and its summed loss, as the state says."""
    totals = application.contexts.totals(context)
    assert totals is not None
    return {
        model: (totals.number(model, "scored"), totals.number(model, "loss"))
        for model in FOUR
        if totals.number(model, "scored")
    }


def feedback_counts(application: Application) -> dict[str, int]:
    selection = application.statistics().selection
    assert selection is not None
    return selection.feedback


def test_feedback_on_a_query_scores_what_it_selected(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE)
        asking = await desk.answer(application)
        assert await desk.observe(application, on_query(asking.query_id, b"2"))
        assert learned(application) == {"a": (1.0, 1.0)}
        selection = application.statistics().selection
        assert selection is not None and (selection.answers_scored, selection.answer_loss) == (1, 1.0)
        assert [name for name, rows in desk.models.asked.items() if rows] == ["a"]

    run(tmp_path, FOUR, scenario)


def test_models_that_were_not_asked_are_asked_if_all_are_needed(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ALL)
        asking, query = desk.ask(application)
        del asking
        await desk.serve_until(lambda: query.done)
        asked = {name: len(rows) for name, rows in desk.models.asked.items()}
        assert await desk.observe(application, on_input(b"n" * 8, b"1"))
        assert {name: len(rows) for name, rows in desk.models.asked.items()} == {name: 1 + asked[name] for name in FOUR}
        assert learned(application) == {"a": (1.0, 0.0), "b": (1.0, 0.0), "c": (1.0, 1.0), "d": (1.0, 1.0)}

    run(tmp_path, FOUR, scenario)


def test_by_input_through_the_cache_no_model_is_asked_again(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ALL)
        await desk.answer(application)
        hits = [queue.statistics().cache_hits for queue in desk.predictor.queues()]
        assert await desk.observe(application, on_input(ROW, b"1"))
        assert all(len(rows) == 1 for rows in desk.models.asked.values())
        assert [queue.statistics().cache_hits for queue in desk.predictor.queues()] == hits
        assert set(learned(application)) == set(FOUR)

    run(tmp_path, FOUR, scenario, cache=True)


def test_late_outputs_count_for_feedback(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ALL)
        desk.models.held.add("d")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: len(query.outputs) == 3)
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        desk.models.held.clear()
        await desk.serve_until(lambda: len(query.outputs) == 4)
        assert await desk.observe(application, on_query(asking.query_id, b"2"))
        assert set(learned(application)) == set(FOUR) and len(desk.models.asked["d"]) == 1

    run(tmp_path, FOUR, scenario)


def test_model_that_hangs_counts_as_wrong_in_bounded_time(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ALL)
        desk.models.held.add("d")
        task = learn(application, on_input(ROW, b"1"))
        await desk.serve_until(lambda: all(desk.models.asked[name] for name in "abc"))
        await turn_over(20)
        assert not task.done()
        desk.loop.advance(ASK_TIMEOUT_S)
        await until_async(task.done)
        assert task.result() and learned(application)["d"] == (1.0, 1.0)

    run(tmp_path, FOUR, scenario)


def test_predictions_go_before_feedback(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE, slo_ms=ASK_TIMEOUT_S * 800)
        desk.models.held.add("a")
        first = [desk.ask(application, bytes([number]) * 8)[1] for number in range(2)]
        # Two batches are in flight; what comes now waits in the queue.
        await until_async(lambda: desk.models.containers["a"].batches)
        tasks = [learn(application, on_input(b"f" * 7 + bytes([number]), b"1")) for number in range(5)]
        await turn_over(20)
        _, last = desk.ask(application, b"last" * 2)
        await turn_over(20)
        desk.models.held.clear()
        await desk.serve_until(lambda: all(task.done() for task in tasks) and last.done)
        order = desk.models.asked["a"]
        waited = [row for row in order if row.startswith(b"f") or row == b"last" * 2]
        assert len(waited) == 6 and len(first) == 2
        queued = waited[waited.index(b"last" * 2) :]
        assert len(queued) >= 4, "the prediction came before all feedback but what was already in flight"

    run(tmp_path, FOUR, scenario)


def test_models_are_asked_for_a_bounded_number_of_feedbacks_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So few that the first is still waiting when the last comes, however slow the machine is.
    most = 20
    monkeypatch.setattr(selection_desk, "MAX_ASKING", most)

    async def scenario(desk: Desk) -> None:
        application = await desk.application(ALL)
        desk.models.held.update(FOUR)
        begun = [learn(application, on_input(number.to_bytes(8, "big"), b"1")) for number in range(most + 5)]
        await until_async(desk.surroundings.asking.locked)
        await turn_over(50)
        desk.loop.advance(ASK_TIMEOUT_S)
        await until_async(lambda: all(task.done() for task in begun))
        errors = [task.exception() for task in begun]
        assert sum(isinstance(error, Overloaded) for error in errors) == 5
        desk.models.held.clear()
        assert await desk.observe(application, on_input(b"n" * 8, b"1"))

    run(tmp_path, FOUR, scenario)


def test_shadows_are_scored(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE, shadows="d")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: query.done and query.shadow_outputs)
        assert await desk.observe(application, on_query(asking.query_id, b"2"))
        assert learned(application) == {"a": (1.0, 1.0), "d": (1.0, 0.0)}

    run(tmp_path, FOUR, scenario)


def test_reward_is_for_what_was_selected(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE)
        asking = await desk.answer(application)
        with pytest.raises(InvalidArgument, match="reward"):
            await desk.observe(application, on_query(asking.query_id, reward=1.5))
        assert await desk.observe(application, on_query(asking.query_id, reward=0.25))
        assert learned(application) == {"a": (1.0, 0.75)}

    run(tmp_path, FOUR, scenario)


def test_a_reward_of_several_models_is_for_those_that_gave_the_answer(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp4", half_life=None))
        asking = await desk.answer(application)
        assert await desk.observe(application, on_query(asking.query_id, reward=1.0))
        assert learned(application) == {"a": (1.0, 0.0), "b": (1.0, 0.0)}
        # On an input: what would be answered now.
        assert await desk.observe(application, Feedback("again", row=ROW, reward=0.0))
        assert learned(application) == {"a": (2.0, 1.0), "b": (2.0, 1.0)}
        for number in range(30):
            assert await desk.observe(application, Feedback(f"more-{number}", row=ROW, reward=1.0))
        weights = application.select(application.contexts.prior(), QueryView()).shares
        assert weights[0] == weights[1] > 3 * weights[2]

    run(tmp_path, FOUR, scenario)


def test_the_same_feedback_counts_once_also_at_once(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE)
        asking = await desk.answer(application)
        feedback = on_query(asking.query_id, b"2")
        begun = [learn(application, feedback) for _ in range(10)]
        assert sorted(await asyncio.gather(*begun)) == [False] * 9 + [True]
        assert await desk.observe(application, feedback) is False
        assert learned(application) == {"a": (1.0, 1.0)}
        assert feedback_counts(application) == {"joined": 1, "duplicate": 10}

    run(tmp_path, FOUR, scenario)


@pytest.mark.parametrize(("ttl_s", "kept_s"), [(5000.0, 5000.0), (1.0, MIN_KEEP_S)])
def test_its_id_is_kept_for_as_long_as_it_may_come_again(tmp_path: Path, ttl_s: float, kept_s: float) -> None:
    clock = [1000.0]

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single", half_life=None, feedback_ttl_s=ttl_s))
        asking = await desk.answer(application)
        assert await desk.observe(application, on_query(asking.query_id, b"2"))
        for passed_s, is_new in [(kept_s - 1, False), (2.0, True)]:
            clock[0] += passed_s
            await desk.store.expire()
            assert await desk.observe(application, on_query(asking.query_id, b"2")) == is_new

    run(tmp_path, FOUR, scenario, store=SqliteStore(tmp_path / "timed.sqlite3", lambda: clock[0]))


def test_unknown_and_late_queries_are_not_found(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single", feedback_ttl_s=60.0))
        asking = await desk.answer(application)
        for query_id in (0, -1, 1 << 80, asking.query_id + 1):
            with pytest.raises(NotFound, match=str(query_id)):
                await desk.observe(application, on_query(query_id, b"1"))
        desk.loop.advance(60.0)
        with pytest.raises(NotFound, match="60 s"):
            await desk.observe(application, on_query(asking.query_id, b"1"))
        assert feedback_counts(application) == {"unknown": 4, "late": 1}

    run(tmp_path, FOUR, scenario)


def test_query_of_another_application_is_not_found(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        one, other = await desk.application(SINGLE), await desk.application(SINGLE)
        asking = await desk.answer(one)
        with pytest.raises(NotFound):
            await desk.observe(other, on_query(asking.query_id, b"1"))

    run(tmp_path, FOUR, scenario)


def test_context_is_the_querys_and_another_is_refused(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        asking = await desk.answer(application, context="ada")
        with pytest.raises(InvalidArgument, match=r"'ada'.*'bob'"):
            await desk.observe(application, on_query(asking.query_id, b"1", context="bob"))
        assert await desk.observe(application, on_query(asking.query_id, b"1", context="ada"))
        sums = await desk.store.load("app-id", "ada")
        assert sums["observations"] == 1.0 == (await desk.store.load("app-id", EVERYONE))["observations"]

    run(tmp_path, FOUR, scenario)


@pytest.mark.parametrize("label", [b'"three"', b"null", b"[1, [2]]"])
def test_label_that_the_loss_cannot_take_teaches_nothing(tmp_path: Path, label: bytes) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single", half_life=None, loss="absolute"))
        asking = await desk.answer(application)
        with pytest.raises(InvalidArgument, match="label"):
            await desk.observe(application, on_query(asking.query_id, label))
        assert learned(application) == {}
        assert await desk.observe(application, on_query(asking.query_id, b"1"))

    run(tmp_path, FOUR, scenario)


def test_a_large_batch_counts_as_if_it_had_come_one_by_one(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("single", half_life=10))
        await desk.answer(application)
        begun = []
        for number in range(500):
            begun.append(learn(application, Feedback(f"f-{number}", row=ROW, label=b"1")))
        assert all(await asyncio.gather(*begun))
        totals = application.contexts.totals(None)
        assert totals is not None
        # A state remembers this much of an endless past: 1 / (1 - 2 ** (-1 / 10)).
        assert totals.number("a", "scored") == pytest.approx(13.9, abs=1.5)

    run(tmp_path, FOUR, scenario, cache=True)


@pytest.mark.parametrize("amount", ["float('nan')", "float('inf')", "1e300", "'much'"])
def test_observe_of_a_users_policy_that_fails_spoils_nothing(tmp_path: Path, amount: str) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(own_policy(tmp_path, observe=f"return {{('a', 'x'): {amount}}}"))
        asking = await desk.answer(application)
        with pytest.raises(PolicyFailed, match="observe"):
            await desk.observe(application, on_query(asking.query_id, b"1"))
        selection = application.statistics().selection
        assert selection is not None and "observe" in str(selection.last_policy_error)
        application.follow(desk.snapshot(ALL))
        assert await desk.observe(application, on_query(asking.query_id, b"1"))

    run(tmp_path, FOUR, scenario)


def test_a_users_loss_that_fails_is_a_policy_error(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        (tmp_path / "own_loss.py").write_text("def loss(output, label):\n    return output / label\n")
        application = await desk.application(
            Selection("single", half_life=None, loss="own_loss:loss", code=str(tmp_path))
        )
        asking = await desk.answer(application)
        with pytest.raises(PolicyFailed, match="ZeroDivisionError"):
            await desk.observe(application, on_query(asking.query_id, b"0"))
        selection = application.statistics().selection
        assert selection is not None and "ZeroDivisionError" in str(selection.last_policy_error)
        assert await desk.observe(application, on_query(asking.query_id, b"4"))
        assert learned(application) == {"a": (1.0, 0.25)}

    run(tmp_path, FOUR, scenario)


class Failing:
    """A store that does what the real one behind it does, except while it is ``down``."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.down = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name in ("close", "commit_at_once"):
            return method

        async def attempt(*arguments: Any) -> Any:
            if self.down:
                raise StoreUnavailable("the store is down")
            return await method(*arguments)

        return attempt


def test_a_store_that_is_down_is_told_and_nothing_is_learned_meanwhile(tmp_path: Path) -> None:
    store: Any = Failing(SqliteStore(tmp_path / "selection.sqlite3"))

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        asking = await desk.answer(application, context="ada")
        store.down = True
        assert (await desk.answer(application, context="new")).answer[0] == "prediction"
        for feedback in (on_query(asking.query_id, b"1"), on_input(ROW, b"1", "newer")):
            with pytest.raises(StoreUnavailable):
                await desk.observe(application, feedback)
        assert learned(application) == {}
        store.down = False
        assert await desk.observe(application, on_query(asking.query_id, b"1"))
        assert await desk.observe(application, on_input(ROW, b"1", "newer"))
        assert feedback_counts(application) == {"failed": 2, "joined": 2}

    run(tmp_path, FOUR, scenario, store=store, cache=True)


def test_what_the_store_may_have_lost_is_read_again(tmp_path: Path) -> None:
    class Losing(SqliteStore):
        """It forgets a context before it is on disk."""

        async def sync(self) -> None:
            await self.forget_context("app-id", "ada")
            raise StoreUnavailable("the store was started again")

    store = Losing(tmp_path / "selection.sqlite3")

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3"))
        asking = await desk.answer(application, context="ada")
        with pytest.raises(StoreUnavailable):
            await desk.observe(application, on_query(asking.query_id, b"1"))
        contexts = application.contexts
        assert set(contexts.to_reload()) == {EVERYONE, "ada"}
        await contexts.reload(contexts.to_reload())
        totals = contexts.totals("ada")
        assert totals is not None and totals.own is None and not contexts.has_to_reload

    run(tmp_path, FOUR, scenario, store=store, cache=True)


def test_state_unreadable_at_the_start_is_not_added_to_before_it_is_read(tmp_path: Path) -> None:
    store: Any = Failing(SqliteStore(tmp_path / "selection.sqlite3"))

    async def scenario(desk: Desk) -> None:
        before = await desk.application(Selection("single", half_life=1))
        await desk.answer(before)
        for number in range(100):
            await desk.observe(before, Feedback(f"f-{number}", row=ROW, label=b"1"))
        store.down = True
        application = await desk.application(Selection("single", half_life=1))
        with pytest.raises(StoreUnavailable):
            await desk.observe(application, on_input(ROW, b"2"))
        store.down = False
        assert await desk.observe(application, on_input(ROW, b"2"))
        # It counts as the newest of 101, and not as one of long ago.
        totals = application.contexts.totals(None)
        assert totals is not None and totals.mean_loss == pytest.approx(0.5, abs=0.01)

    run(tmp_path, FOUR, scenario, store=store, cache=True)


def test_application_without_models(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE, linked="")
        with pytest.raises(ClipperError, match="no linked model"):
            await desk.observe(application, on_input(ROW, b"1"))

    run(tmp_path, FOUR, scenario)
