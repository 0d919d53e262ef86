"""Budgets and scarce models at work in an application: what is asked, charged and noted."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from clipper.settings.application import Link, Selection
from clipper.worker.selection.application import Application
from tests.selection_desk import SLO_S, Desk, on_query, run
from tests.worker.selection.test_within_reach import BANDIT, asked, row, serving, teach

TWO = {"a": b"1", "b": b"2"}
COSTS = {"a": 1.0, "b": 0.1}


async def priced(desk: Desk, selection: Selection, costs: dict[str, float] = COSTS) -> Application:
    links = tuple(Link(name, cost=cost) for name, cost in costs.items())
    application = Application(replace(desk.snapshot(selection), links=links), desk.surroundings)
    await application.load()
    return application


def spent(application: Application) -> float:
    selection = application.statistics().selection
    assert selection is not None
    return selection.spent


@pytest.mark.long
def test_a_budget_is_held_without_feedback_by_the_order_of_the_links(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await priced(desk, Selection("single", half_life=None, max_cost_per_query=0.4))
        for number in range(300):
            await desk.answer(application, row(number))
        assert spent(application) / 300 == pytest.approx(0.4, rel=0.02)
        times = asked(application)
        assert times["a"] + 0.1 * times["b"] == pytest.approx(spent(application))
        # The models become dearer: what was charged stays charged, and the mean is held.
        dearer = tuple(Link(name, cost=2 * cost) for name, cost in COSTS.items())
        application.follow(replace(application.snapshot, links=dearer))
        for number in range(700):
            await desk.answer(application, row(1000 + number))
        assert spent(application) / 1000 == pytest.approx(0.4, rel=0.02)
        # Without the budget the first model answers again.
        application.follow(replace(application.snapshot, selection=Selection("single", half_life=None)))
        before = asked(application)["a"]
        for number in range(20):
            await desk.answer(application, row(2000 + number))
        assert asked(application)["a"] == before + 20

    run(tmp_path, TWO, scenario)


@pytest.mark.long
def test_a_quality_is_kept_by_feedback_at_less_than_the_best_models_cost(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await priced(desk, Selection("epsilon_greedy", half_life=None, min_quality=0.6))
        right = 0
        for number in range(400):
            asking = await desk.answer(application, row(number))
            right += asking.answer[1] == TWO["a"]
            assert await desk.observe(application, on_query(asking.query_id, TWO["a"]))
        assert right / 400 >= 0.58
        assert spent(application) / 400 <= 0.85, "the good model alone costs 1"

    run(tmp_path, TWO, scenario)


def test_a_model_that_is_asked_in_place_of_another_is_paid_for_too(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await priced(desk, Selection("single", half_life=None, max_cost_per_query=2.0))
        desk.models.held.add("a")
        asking, query = desk.ask(application)
        query.on_failure("a", "model_error", "no")
        await desk.serve_until(lambda: query.done)
        assert asking.answer[1] == TWO["b"]
        assert asked(application) == {"a": 1, "b": 1} and spent(application) == pytest.approx(1.1)

    run(tmp_path, TWO, scenario)


def test_the_models_that_a_query_could_pay_for_are_noted(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await priced(desk, Selection("single", half_life=None, max_cost_per_query=0.1))
        queries = []
        for number in range(50):
            _, query = desk.ask(application, row(number))
            queries.append(query)
        await desk.serve_until(lambda: all(query.done for query in queries))
        last = queries[-1]
        assert last.choice is not None and last.choice.models == last.candidates == ("b",)

    run(tmp_path, TWO, scenario)


def test_an_application_without_costs_or_with_one_model_is_not_limited(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        budget = Selection("single", half_life=None, max_cost_per_query=0.1)
        free, one = await desk.application(budget), await priced(desk, budget, {"a": 1.0})
        for number in range(30):
            await desk.answer(free, row(number))
            await desk.answer(one, row(number))
        assert asked(free) == {"a": 30} and asked(one) == {"a": 30}
        assert not (await desk.application(Selection("adaptive"))).prices.is_active

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("context", [None, "user"])
def test_a_full_model_has_a_price_where_queries_differ(tmp_path: Path, context: str | None) -> None:
    async def scenario(desk: Desk) -> None:
        application = await serving(desk, BANDIT)
        await application.load(context)
        for number in range(5):
            asking = await desk.answer(application, row(number), context)
            assert await desk.observe(application, on_query(asking.query_id, TWO["a"]))
            teach(application, "a", 0.3 * SLO_S)
        desk.models.held.add("a")
        queries = [desk.ask(application, row(100 + number), context)[1] for number in range(10)]
        assert ("a" in application.prices.scarcity) == (context is not None)
        desk.models.held.clear()
        await desk.serve_until(lambda: all(query.done for query in queries))

    run(tmp_path, TWO, scenario)
