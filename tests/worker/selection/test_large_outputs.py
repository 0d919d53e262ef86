"""Feedback on queries with outputs that are too large to be compared with a label."""

from pathlib import Path

import pytest

from clipper.errors import OutputTooLarge
from clipper.settings.application import Selection
from clipper.values.outputs.output import MAX_READ_BYTES
from clipper.worker.selection.lessons import TOO_LARGE_TO_COMPARE
from tests.selection_desk import SLO_S, Desk, on_input, on_query, run
from tests.waiting import until_async

LARGE = b'"%b"' % (b"x" * MAX_READ_BYTES)


def kept_bytes(desk: Desk) -> int:
    return desk.surroundings.joins.size_bytes


def test_a_reward_teaches_and_a_label_is_refused(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("exp3", half_life=None))
        for _ in range(20):
            asking = await desk.answer(application)
            assert asking.answer == ("prediction", LARGE, 1.0)
            with pytest.raises(OutputTooLarge, match="send a reward"):
                await desk.observe(application, on_query(asking.query_id, b"1"))
            (model,) = desk.surroundings.joins.find(asking.query_id, desk.loop.time()).answered  # type: ignore[union-attr]
            assert await desk.observe(application, on_query(asking.query_id, reward=float(model == "b")))
        assert application.contexts.prior().observations == 20
        statistics = application.statistics()
        assert statistics.selection is not None and statistics.selection.feedback == {"joined": 20}
        # Of what was kept for feedback, no output is.
        assert kept_bytes(desk) < 20 * 1000

    run(tmp_path, {"a": LARGE, "b": LARGE}, scenario)


@pytest.mark.parametrize("policy", ["single", "ensemble"])
def test_feedback_on_an_input_is_refused_and_teaches_nothing(tmp_path: Path, policy: str) -> None:
    """The model counted as one that had not answered."""

    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(policy), linked="a" if policy == "single" else "ab")
        for _ in range(2):  # the second time from the cache
            with pytest.raises(OutputTooLarge) as refused:
                await desk.observe(application, on_input(b"i" * 8, b"1"))
            assert str(refused.value) == TOO_LARGE_TO_COMPARE
        assert application.contexts.prior().observations == 0

    run(tmp_path, {"a": LARGE, "b": b"1"}, scenario, cache=True)


def test_an_answer_of_several_models_is_told_why_it_has_none(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("ensemble"))
        asking = await desk.answer(application)
        assert asking.answer[:3] == ("default", b'"default"', "output_too_large")
        # The reward is for the default.
        assert await desk.observe(application, on_query(asking.query_id, reward=1.0))
        with pytest.raises(OutputTooLarge):
            await desk.observe(application, on_query(asking.query_id, b"1"))

    run(tmp_path, {"a": LARGE, "b": b"1"}, scenario)


def test_a_shadows_large_output_keeps_no_feedback_from_the_answer(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection(), shadows=("b",))
        asking = await desk.answer(application)
        await desk.serve_until(lambda: desk.models.asked["b"])
        assert await desk.observe(application, on_query(asking.query_id, b"1"))
        assert kept_bytes(desk) < 1000

    run(tmp_path, {"a": b"1", "b": LARGE}, scenario)


def test_a_late_one_is_not_kept_either(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection())
        desk.models.held.add("a")
        asking, query = desk.ask(application)
        await until_async(lambda: desk.models.containers["a"].batches)
        desk.loop.advance(SLO_S)
        await desk.serve_until(lambda: asking.answer)
        desk.models.held.clear()
        await desk.serve_until(lambda: query.answered)
        assert kept_bytes(desk) < 1000
        assert await desk.observe(application, on_query(asking.query_id, reward=0.5))

    run(tmp_path, {"a": LARGE}, scenario)
