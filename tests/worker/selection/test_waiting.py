"""For whom an answer of several models waits: for all, for those expected in time, or until it is decided."""

from pathlib import Path

import pytest

from clipper.settings.application import Selection
from clipper.worker.selection.application import Application
from tests.event_loops import turn_over
from tests.selection_desk import SLO_S, Asking, Desk, on_query, run
from tests.waiting import until_async

FIVE = {"a": b"1", "b": b"1", "c": b"1", "d": b"1", "e": b"2"}
SPLIT = {"a": b"1", "b": b"1", "c": b"2", "d": b"2", "e": b"2"}


def row(number: int) -> bytes:
    return number.to_bytes(8, "little")


async def until_the_deadline(desk: Desk, application: Application, number: int) -> Asking:
    """A query whose answer leaves at its deadline, without what is held."""
    asking, query = desk.ask(application, row(number))
    awaited = len(FIVE) - len(desk.models.held)
    await desk.serve_until(lambda: len(query.outputs) == awaited)
    assert not asking.answer
    desk.loop.advance(SLO_S)
    await until_async(lambda: asking.answer)
    return asking


@pytest.mark.parametrize("outputs", [FIVE, SPLIT])
def test_a_model_that_hangs_is_not_waited_for_once_that_is_known(tmp_path: Path, outputs: dict[str, bytes]) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("ensemble", {"weighting": "equal"}, half_life=None))
        desk.models.held.add("e")
        # A settled answer waits for fewer of its misses than one that it could turn.
        misses = 2 if outputs is FIVE else 10
        for number in range(misses):
            await until_the_deadline(desk, application, number)
        for number in range(misses, 30):
            asking, query = desk.ask(application, row(number))
            await desk.serve_until(lambda asking=asking: asking.answer)  # type: ignore[misc]
            assert set(query.outputs) == set("abcd")
        # Its own outputs come in time again, and the answer waits for them.
        desk.models.held.clear()
        for number in range(30, 60):
            asking, query = desk.ask(application, row(number))
            await desk.serve_until(lambda query=query: query.done and not query.missing)  # type: ignore[misc]
        assert query.in_time == 5 and application.outcomes.recent_share("e:1") > 0.5
        assert asking.answer[2] == pytest.approx(0.8 if outputs is FIVE else 0.6)

    run(tmp_path, outputs, scenario)


@pytest.mark.parametrize(("threshold", "awaited"), [(None, 3), (0.7, 4), (0.9, 5)])
def test_it_leaves_once_missing_outputs_change_neither_output_nor_verdict(
    tmp_path: Path, threshold: float | None, awaited: int
) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection("ensemble", wait="decided", confidence_threshold=threshold)
        application = await desk.application(selection)
        held = "abcde"
        desk.models.held.update(held)
        asking, query = desk.ask(application)
        await until_async(lambda: all(desk.models.containers[name].batches for name in FIVE))
        for count, name in enumerate(held, 1):
            assert not asking.answer, f"it left with {count - 1}"
            desk.models.held.discard(name)
            await desk.serve_until(lambda name=name: name in query.outputs)  # type: ignore[misc]
            if count == awaited:
                break
        await turn_over()
        assert asking.answer and asking.answer[0] == ("unsure" if awaited == 5 else "prediction")
        desk.models.held.clear()

    run(tmp_path, FIVE, scenario)


def test_all_waits_for_all(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("ensemble", wait="all"))
        desk.models.held.add("e")
        for number in range(15):
            await until_the_deadline(desk, application, number)

    run(tmp_path, FIVE, scenario)


def test_means_wait_for_who_is_expected(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        mean = Selection("ensemble", {"answer": "mean"}, wait="decided")
        application = await desk.application(mean)
        desk.models.held.add("e")
        for number in range(10):
            await until_the_deadline(desk, application, number)
        asking, _ = desk.ask(application, row(10))
        await desk.serve_until(lambda: asking.answer)
        assert asking.answer == ("prediction", b"1.0", pytest.approx(0.8))
        desk.models.held.clear()

    run(tmp_path, FIVE, scenario)


def test_whom_a_settled_answer_did_not_wait_for_has_not_missed_it(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(
            Selection("ensemble", {"weighting": "equal"}, half_life=None, wait="decided"), shadows="d"
        )
        desk.models.held.update("cd")
        asking, query = desk.ask(application)
        await until_async(lambda: all(desk.models.containers[name].batches for name in "cd"))
        desk.models.outputs["e"] = b"1"
        await desk.serve_until(lambda: asking.answer)
        assert asking.answer[0] == "prediction" and query.is_settled
        desk.models.held.discard("d")
        await desk.serve_until(lambda: query.shadow_outputs)
        desk.loop.advance(SLO_S)
        assert query.missed(desk.loop.time()) == (), "its work may have been dropped, since nobody waited"
        desk.models.held.clear()
        await desk.serve_until(lambda: "c" in query.outputs)
        # It was not dropped, and came too late; the shadow's output before it makes it no other.
        assert query.missed(desk.loop.time()) == ("c",)
        assert await desk.observe(application, on_query(asking.query_id, b"1"))
        assert application.contexts.prior().number("c", "loss") == 0.0

    run(tmp_path, dict(FIVE), scenario)


def test_models_that_fail_leave_the_others_to_decide(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("ensemble", wait="decided"))
        desk.models.held.update("abcde")
        asking, query = desk.ask(application)
        await until_async(lambda: all(desk.models.containers[name].batches for name in FIVE))
        for name in "cd":
            desk.models.containers[name].take().fail("ValueError: no")
        desk.models.held.difference_update("ab")
        await desk.serve_until(lambda: asking.answer)
        assert set(query.outputs) == {"a", "b"} and asking.answer == ("prediction", b"1", pytest.approx(0.4))
        desk.models.held.clear()

    run(tmp_path, FIVE, scenario)
