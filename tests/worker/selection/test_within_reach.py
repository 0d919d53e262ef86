"""Queries go to models that can answer in time, and to others if one fails or is full after all."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from clipper.control.snapshot import Snapshot
from clipper.settings.application import Selection
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.promises import FIRST_TRY
from clipper.worker.selection.query import Query
from tests.event_loops import turn_over
from tests.selection_desk import SLO_S, Desk, on_query, run
from tests.waiting import until_async

TWO = {"a": b"1", "b": b"2"}
SINGLE = Selection("single", half_life=None)
BANDIT = Selection("epsilon_greedy", {"epsilon": 0.0}, half_life=None)


def row(number: int) -> bytes:
    return number.to_bytes(8, "little")


async def serving(
    desk: Desk, selection: Selection = SINGLE, row_s: float = 0.3 * SLO_S, spread: float = 1.0, other_s: float = 0.001
) -> Application:
    """An application over ``a`` and ``b``, which take so long for each row."""
    application = await desk.application(selection)
    teach(application, "a", row_s, spread)
    teach(application, "b", other_s)
    return application


def teach(application: Application, name: str, row_s: float, spread: float = 1.0) -> None:
    target = application.terms.targets[name]
    assert target is not None
    (replica,) = target.in_time._scheduler.replicas.values()
    for repeat in range(8):
        for rows in (1, 2, 4):
            replica.times.record(rows, 0, rows * row_s * (spread if repeat % 2 else 1.0))


def asked(application: Application) -> dict[str, int]:
    selection = application.statistics().selection
    assert selection is not None
    return {name: each.selected for name, each in selection.models.items()}


@pytest.mark.parametrize("policy", ["single", "weighted", "adaptive", "thompson", "exp3", "ucb1", "best_arm"])
def test_a_query_whose_model_is_full_goes_to_the_next_best(tmp_path: Path, policy: str) -> None:
    async def scenario(desk: Desk) -> None:
        parameters = {"weights": {"a": 1.0, "b": 0.0}} if policy == "weighted" else {}
        application = await serving(desk, Selection(policy, parameters, half_life=None))
        if policy not in ("single", "weighted"):
            for number in range(30):
                asking = await desk.answer(application, row(100 + number))
                assert await desk.observe(application, on_query(asking.query_id, TWO["a"]))
                teach(application, "a", 0.3 * SLO_S)
        desk.models.held.add("a")
        queries = [desk.ask(application, row(number))[1] for number in range(12)]
        on_a = [query for query in queries if query.choice is not None and query.choice.models == ("a",)]
        # One in flight and two that wait take nine tenths of the SLO.
        assert len(on_a) <= 3
        await desk.serve_until(lambda: all(query.done for query in queries if query not in on_a))
        assert all(query.output == TWO["b"] for query in queries if query not in on_a)
        if policy in ("single", "weighted"):
            assert len(on_a) == 3
            target = application.terms.targets["a"]
            assert target is not None
            assert target.statistics().arrivals == 12, "what was led elsewhere is demand of the model that was wanted"
        desk.models.held.clear()
        await desk.serve_until(lambda: all(query.done for query in queries))

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("selection", [SINGLE, BANDIT])
def test_another_model_stands_in_for_one_that_fails(tmp_path: Path, selection: Selection) -> None:
    async def scenario(desk: Desk) -> None:
        application = await serving(desk, selection)
        desk.models.held.update("ab")
        asking, query = desk.ask(application)
        assert query.choice is not None
        first = query.choice.models[0]
        await until_async(lambda: desk.models.containers[first].batches)
        desk.models.containers[first].take().fail("ValueError: no")
        desk.models.held.clear()
        await desk.serve_until(lambda: asking.answer)
        other = "b" if first == "a" else "a"
        assert asking.answer == ("prediction", TWO[other], 1.0) and query.stage == 2
        assert asking.source.text == f"{other}:1"
        statistics = application.statistics()
        assert (statistics.defaults, statistics.errors) == ({}, {})

    run(tmp_path, TWO, scenario)


def test_if_all_fail_the_reason_is_the_last_ones(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await serving(desk)
        desk.models.held.update("ab")
        asking, _ = desk.ask(application)
        for name in "ab":
            await until_async(lambda name=name: desk.models.containers[name].batches)  # type: ignore[misc]
            desk.models.containers[name].take().fail(f"ValueError: of {name}")
        await until_async(lambda: asking.answer)
        assert asking.answer[:3] == ("default", b'"default"', "model_error") and "of b" in asking.answer[3]

    run(tmp_path, TWO, scenario)


def test_another_model_is_asked_beside_one_that_is_nearly_late(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        # It may take up to twice as long as it mostly does.
        application = await serving(desk, row_s=0.55 * SLO_S, spread=1.9, other_s=20.0)
        desk.models.held.add("a")
        asking, query = desk.ask(application)
        assert query.choice is not None and query.choice.models == ("a",) and 0.0 < query.chance < 1.0
        await turn_over()
        desk.loop.advance(SLO_S - 22.0)  # b takes 20 s, and is asked with a little more left
        await desk.serve_until(lambda: query.stage == 2 and "b" in query.outputs)
        assert not asking.answer, "the first may still come"
        desk.loop.advance(22.0)
        await until_async(lambda: asking.answer)
        assert asking.answer == ("prediction", TWO["b"], 1.0)
        desk.models.held.clear()
        await desk.serve_until(lambda: not query.missing)

    run(tmp_path, TWO, scenario)


def test_the_first_models_answer_counts_if_it_comes_after_all(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await serving(desk, row_s=0.55 * SLO_S, spread=1.9, other_s=20.0)
        desk.models.held.add("a")
        asking, query = desk.ask(application)
        await turn_over()
        desk.loop.advance(SLO_S - 22.0)  # b takes 20 s, and is asked with a little more left
        await desk.serve_until(lambda: "b" in query.outputs)
        desk.models.held.clear()
        await desk.serve_until(lambda: asking.answer)
        assert asking.answer == ("prediction", TWO["a"], 1.0)

    run(tmp_path, TWO, scenario)


def test_a_query_that_ends_while_another_asks_further_asks_no_more(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await serving(desk, row_s=0.1 * SLO_S, other_s=20.0)
        desk.models.held.add("a")
        (_, first), (_, other) = desk.ask(application, row(1)), desk.ask(application, row(2))
        await turn_over()
        stages = application.stages
        assert stages is not None
        ask = stages._ask

        def ask_and_end(query: Query, models: tuple[str, ...], now_s: float) -> None:
            application.answering.finish(other)  # as if a queue had shed it
            ask(query, models, now_s)

        stages._ask = ask_and_end  # type: ignore[method-assign]
        desk.loop.advance(SLO_S - 22.0)
        await desk.serve_until(lambda: first.stage == 2)
        assert other.done and other.choice is not None
        assert (other.stage, other.choice.models) == (1, ("a",))
        desk.models.held.clear()
        await desk.serve_until(lambda: not first.missing)

    run(tmp_path, TWO, scenario)


def test_being_late_teaches_nothing_of_quality(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(BANDIT)
        for name in "ab":
            teach(application, name, 0.001)
        desk.models.held.update("ab")
        asking, query = desk.ask(application)
        assert query.choice is not None
        (name,) = query.choice.models
        await until_async(lambda: desk.models.containers[name].batches)
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        assert await desk.observe(application, on_query(asking.query_id, b"7"))
        totals = application.contexts.prior()
        numbers = [totals.number(name, each) for each in ("pulls", "missed", "scored", "loss")]
        assert numbers == [1.0, 1.0, 0.0, 0.0]
        selection = application.statistics().selection
        assert selection is not None and selection.answer_loss_by_reason == {"timeout": 1.0}, "its user lost"
        desk.models.held.clear()
        await desk.serve_until(lambda: not query.missing)

    run(tmp_path, TWO, scenario)


def test_a_model_that_keeps_no_promise_is_left_and_found_again(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await serving(desk, row_s=0.001)
        desk.models.held.add("a")

        async def fail() -> None:
            asking, query = desk.ask(application, row(fail_numbers.pop()))
            if query.choice is not None and query.choice.models[0] == "a":
                await until_async(lambda: desk.models.containers["a"].batches)
                desk.models.containers["a"].take().fail("RuntimeError: broken")
            await desk.serve_until(lambda: asking.answer)

        fail_numbers = list(range(1000, 1100))
        for _ in range(100):
            await fail()
        assert application.outcomes.believed("a:1", 1.0) < 0.7
        desk.loop.advance(0.15 * SLO_S)
        _, query = desk.ask(application, row(1))
        assert query.choice is not None and query.choice.models == ("b",)
        # It is well again, and one query in some is sent to it as well, without waiting for it.
        desk.models.held.clear()
        before = len(desk.models.asked["a"])
        for number in range(2000, 2000 + 4 * FIRST_TRY):
            await desk.answer(application, row(number))
        assert len(desk.models.asked["a"]) > before
        await desk.serve_until(lambda: application.outcomes.believed("a:1", 1.0) == 1.0)
        desk.loop.advance(0.15 * SLO_S)
        _, query = desk.ask(application, row(2))
        assert query.choice is not None and query.choice.models == ("a",)
        await desk.serve_until(lambda: query.done)

    run(tmp_path, TWO, scenario)


def test_a_model_without_a_replica_is_passed_over(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE)
        target = application.terms.targets["a"]
        assert target is not None
        target.set_replicas(())
        asking = await desk.answer(application)
        assert asking.answer == ("prediction", TWO["b"], 1.0)

    run(tmp_path, TWO, scenario)


def test_what_the_cache_knows_needs_no_time(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE)
        assert (await desk.answer(application, row(0))).answer[1] == TWO["a"]
        teach(application, "a", 20 * SLO_S)
        desk.loop.advance(0.15 * SLO_S)
        desk.models.held.add("a")
        assert desk.ask(application, row(0))[0].answer == ("prediction", TWO["a"], 1.0)
        assert (await desk.answer(application, row(1))).answer[1] == TWO["b"]
        desk.models.held.clear()

    run(tmp_path, TWO, scenario, cache=True)


def test_one_model_alone_is_never_looked_at(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(SINGLE, linked=["a"])
        assert application._availability is None and application.stages is None
        assert application.answering.complete is None and application.answering.rescue is None

    run(tmp_path, TWO, scenario)


def test_a_sleeping_model_that_was_wanted_is_woken(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        snapshots = list(desk.models.snapshots())
        version = replace(snapshots[0].versions[0], replicas=(), wakes=True)
        snapshots[0] = replace(snapshots[0], versions=(version,))
        desk.predictor.apply(Snapshot(2, (), tuple(snapshots)))
        application = await desk.application(SINGLE)
        asking = await desk.answer(application)
        assert asking.answer == ("prediction", TWO["b"], 1.0)
        assert [each.name for each in desk.predictor.demanded()] == ["a"]

    run(tmp_path, TWO, scenario)
