"""The loss is of the answer that the user got: what is late, fails or is not believed, and what that teaches."""

from dataclasses import replace
from pathlib import Path

import pytest

from clipper.errors import NotFound
from clipper.settings.application import Selection
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.join_table import OUTPUT_OVERHEAD_BYTES, JoinTable
from clipper.worker.selection.learner import Learner
from tests.selection_desk import ROW, SLO_S, Asking, Desk, on_input, on_query, own_policy, run
from tests.waiting import until_async

TWO = {"a": b"1", "b": b"2"}
BANDIT = Selection("exp3", half_life=None)
ALL = Selection("ensemble", {"weighting": "equal"}, half_life=None)


def numbers(application: Application, model: str) -> dict[str, float]:
    totals = application.contexts.prior()
    return {name: totals.number(model, name) for name in ("pulls", "scored", "loss", "missed")}


async def missed(desk: Desk, application: Application) -> tuple[Asking, str]:
    """A query whose model was late, and that model, whose output came in the end."""
    desk.models.held.update("ab")
    asking, query = desk.ask(application)
    assert query.choice is not None
    name = query.choice.models[0]
    await until_async(lambda: desk.models.containers[name].batches)
    desk.loop.advance(SLO_S)
    await until_async(lambda: asking.answer)
    desk.models.held.clear()
    await desk.serve_until(lambda: name in query.outputs)
    return asking, name


@pytest.mark.parametrize(("default", "label", "loss"), [('"no"', b'"no"', 0.0), ('"no"', None, 1.0), (None, None, 1.0)])
def test_a_late_model_loses_nothing_and_its_user_what_the_default_does(
    tmp_path: Path, default: str | None, label: bytes | None, loss: float
) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(BANDIT, default_output=default)
        asking, name = await missed(desk, application)
        # Its late output is the label, where no other is given: it would have been right.
        assert await desk.observe(application, on_query(asking.query_id, label or TWO[name]))
        assert numbers(application, name) == {"pulls": 1.0, "scored": 0.0, "loss": 0.0, "missed": 1.0}
        selection = application.statistics().selection
        assert selection is not None
        assert (selection.answers_scored, selection.answer_loss) == (1, loss)
        assert selection.answer_loss_by_reason == {"timeout": loss} and selection.models[name].missing == 1
        assert len(desk.models.asked[name]) == 1, "it is not asked again"

    run(tmp_path, TWO, scenario)


def first_of(folder: Path) -> Selection:
    """A policy of a user's own, which uses losses alone."""
    own = own_policy(folder, select="return Choice(models[:1], (1.0,))", combine="return Combined(b'1', 1.0)")
    return Selection(own.policy, code=own.code, half_life=None)


@pytest.mark.parametrize("label", [b"1", None])
def test_with_a_policy_of_ones_own_a_late_model_loses_what_the_user_got(tmp_path: Path, label: bytes | None) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(first_of(tmp_path), default_output="1")
        asking, name = await missed(desk, application)
        reward = None if label else 0.75
        assert await desk.observe(application, on_query(asking.query_id, label, reward=reward))
        loss = 0.0 if label else 0.25
        assert numbers(application, name) == {"pulls": 1.0, "scored": 1.0, "loss": loss, "missed": 1.0}

    run(tmp_path, TWO, scenario)


def test_a_reward_for_a_default_says_nothing_of_who_missed(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(BANDIT)
        asking, name = await missed(desk, application)
        assert await desk.observe(application, on_query(asking.query_id, reward=0.75))
        assert numbers(application, name) == {"pulls": 1.0, "scored": 0.0, "loss": 0.0, "missed": 1.0}

    run(tmp_path, TWO, scenario)


def test_a_model_that_fails_loses_what_the_default_does(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(BANDIT)
        desk.models.held.update("ab")
        asking, query = desk.ask(application)
        assert query.choice is not None
        name = query.choice.models[0]
        await until_async(lambda: desk.models.containers[name].batches)
        desk.models.containers[name].take().fail("ValueError: no")
        (other,) = TWO.keys() - {name}
        await until_async(lambda: desk.models.containers[other].batches)
        desk.models.containers[other].take().fail("ValueError: no")
        await until_async(lambda: asking.answer)
        assert await desk.observe(application, on_query(asking.query_id, TWO[name]))
        assert numbers(application, name) == {"pulls": 1.0, "scored": 1.0, "loss": 1.0, "missed": 1.0}
        selection = application.statistics().selection
        assert selection is not None and selection.answer_loss_by_reason == {"model_error": 1.0}

    run(tmp_path, TWO, scenario)


def test_models_of_a_disbelieved_answer_lose_what_the_default_does(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        unsure = own_policy(tmp_path, combine="return Combined(b'1', 0.2)")
        threshold = Selection(unsure.policy, code=unsure.code, half_life=None, confidence_threshold=0.5)
        application = await desk.application(threshold, default_output="2")
        asking = await desk.answer(application)
        assert asking.answer[0] == "unsure"
        assert await desk.observe(application, on_query(asking.query_id, b"2"))
        # Both were in time, and the default, which the user got, was right.
        assert numbers(application, "a") == {"pulls": 1.0, "scored": 1.0, "loss": 0.0, "missed": 0.0}
        selection = application.statistics().selection
        assert selection is not None and selection.answer_loss_by_reason == {"low_confidence": 0.0}

    run(tmp_path, TWO, scenario)


def test_a_policy_of_all_outputs_learns_of_a_late_one_and_its_lateness(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(ALL)
        desk.models.held.add("b")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: len(query.outputs) == 1 and desk.models.containers["b"].batches)
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        desk.models.held.clear()
        await desk.serve_until(lambda: len(query.outputs) == 2)
        assert await desk.observe(application, on_query(asking.query_id, b"2"))
        assert numbers(application, "a") == {"pulls": 1.0, "scored": 1.0, "loss": 1.0, "missed": 0.0}
        assert numbers(application, "b") == {"pulls": 1.0, "scored": 1.0, "loss": 0.0, "missed": 1.0}

    run(tmp_path, TWO, scenario)


def test_feedback_on_inputs_counts_how_often_a_model_is_in_time(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(first_of(tmp_path), linked=["a", "b"])
        desk.models.held.update("ab")
        for number in range(20):
            desk.ask(application, bytes([number]) * 8)
        desk.loop.advance(SLO_S)
        await until_async(lambda: application.in_flight == 0)
        desk.models.held.clear()
        assert await desk.observe(application, on_input(ROW, b"1"))
        lost = {name: numbers(application, name)["loss"] for name in "ab"}
        assert lost == {"a": 1.0, "b": 0.0}, "it was right here, and is never in time where somebody waits"

    run(tmp_path, TWO, scenario)


def test_misses_without_any_feedback_are_learned_from_in_the_background(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(first_of(tmp_path))
        desk.models.held.update("ab")
        for number in range(40):
            desk.ask(application, bytes([number]) * 8)
        desk.loop.advance(SLO_S)
        await until_async(lambda: application.in_flight == 0)
        Learner(application).make_up()
        await until_async(lambda: application.contexts.prior().observations)
        made_up = numbers(application, "a")["scored"] + numbers(application, "b")["scored"]
        assert 30 <= made_up <= 40
        desk.models.held.clear()

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize(("selection", "is_kept"), [(BANDIT, False), (ALL, True)])
def test_an_input_is_kept_for_feedback_only_where_it_may_be_asked_again(
    tmp_path: Path, selection: Selection, is_kept: bool
) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(selection)
        desk.models.held.update("ab")
        _, query = desk.ask(application)
        choice = query.choice
        assert choice is not None
        await until_async(lambda: all(desk.models.containers[name].batches for name in choice.models))
        desk.loop.advance(SLO_S)
        await until_async(lambda: query.done)
        assert (query.row is not None) == is_kept
        before = desk.surroundings.joins.size_bytes
        desk.models.held.clear()
        await desk.serve_until(lambda: not query.missing)
        # The outputs that were missing came in the end, so that nothing will be asked again.
        assert query.row is None
        grown = sum(map(len, query.outputs.values()))
        if is_kept:
            grown += OUTPUT_OVERHEAD_BYTES - len(ROW)
        assert desk.surroundings.joins.size_bytes == before + grown

    run(tmp_path, TWO, scenario)


def test_a_query_that_is_not_there_is_told_why(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.surroundings = replace(desk.surroundings, joins=JoinTable(3))
        application = await desk.application(BANDIT)
        ids = [(await desk.answer(application, bytes([number]) * 8)).query_id for number in range(5)]
        held = desk.surroundings.ids.take()

        async def why(query_id: int) -> str:
            with pytest.raises(NotFound) as error:
                await desk.observe(application, on_query(query_id, b"1"))
            return str(error.value)

        assert "--feedback-queries" in await why(ids[0])
        assert "never asked" in await why(7)
        assert "has not been answered" in await why(held)
        desk.loop.advance(application.terms.feedback_ttl_s + 1)
        assert "longer ago than the application waits for feedback" in await why(ids[-1])
        selection = application.statistics().selection
        assert selection is not None and selection.feedback == {"evicted": 1, "unknown": 2, "late": 1}

    run(tmp_path, TWO, scenario)
