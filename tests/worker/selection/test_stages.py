"""Queries that ask one model after another: by their policy's ``next``, within their deadline, without defaults."""

import asyncio
from pathlib import Path
from textwrap import dedent

import pytest

from clipper.control.snapshot import ApplicationSnapshot
from clipper.learning.policies.policy import Step
from clipper.settings.application import Link, Selection
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.latencies import FIRST_TRY
from clipper.worker.selection.query import Query
from tests.event_loops import turn_over
from tests.selection_desk import SLO_S, Asking, Desk, on_query, run
from tests.waiting import until_async

UNSURE = b'{"label": 1, "confidence": 0.6}'
SURE = b'{"label": 1, "confidence": 0.9}'
DEAR = b'{"label": 2, "confidence": 0.8}'
# In the order of linking; "a" is the cheap one.
OF_UNSURE = {"a": UNSURE, "b": DEAR}
OF_SURE = {"a": SURE, "b": DEAR}
FIXED = Selection("cascade", {"threshold": 0.75}, half_life=None)


def row(number: int) -> bytes:
    return number.to_bytes(8, "little")


async def answered(desk: Desk, application: Application, number: int = 0) -> tuple[Asking, Query]:
    asking, query = desk.ask(application, row(number))
    await desk.serve_until(lambda: asking.answer)
    return asking, query


@pytest.mark.parametrize(("outputs", "asked", "answer"), [(OF_SURE, 1, SURE), (OF_UNSURE, 2, DEAR)])
def test_the_dear_model_is_asked_where_the_cheap_one_is_unsure(
    tmp_path: Path, outputs: dict[str, bytes], asked: int, answer: bytes
) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        asking, query = await answered(desk, application)
        confidence = 0.9 if outputs is OF_SURE else 0.8
        assert asking.answer == ("prediction", answer, confidence)
        assert (query.stage, len(desk.models.asked["b"])) == (asked, asked - 1)
        selection = application.statistics().selection
        assert selection is not None and selection.stages == ({"2": 1} if asked == 2 else {})
        assert {name: each.selected for name, each in selection.models.items()} == dict.fromkeys("ab"[:asked], 1)

    run(tmp_path, outputs, scenario)


def test_outputs_that_the_cache_has_lead_on_at_once(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        await answered(desk, application)
        asking, query = desk.ask(application, row(0))
        assert asking.answer == ("prediction", DEAR, 0.8) and query.stage == 2
        assert application.stages is not None and application.stages.latencies.expected_s("b:1") < 1.0

    run(tmp_path, OF_UNSURE, scenario, cache=True)


def test_if_the_dear_model_is_late_the_cheap_ones_answer_is_given(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        desk.models.held.add("b")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: query.stage == 2)
        assert not asking.answer
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        assert asking.answer == ("prediction", UNSURE, 0.6)
        statistics = application.statistics()
        assert (statistics.defaults, statistics.errors, statistics.slo_misses) == ({}, {}, 1)  # the clock jumped

    run(tmp_path, OF_UNSURE, scenario)


def test_where_time_never_allows_the_cheap_answer_leaves_at_once(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        assert application.stages is not None
        application.stages.latencies.answered("b:1", 2 * SLO_S)
        for number in range(FIRST_TRY - 1):
            asking, query = await answered(desk, application, number)
            assert asking.answer == ("prediction", UNSURE, 0.6)
            assert query.choice is not None and query.choice.steps == (Step(1, 0.6, 0.0),)
        assert desk.models.asked["b"] == []
        # One tries it all the same, or it would never be known that it has become fast.
        asking, query = await answered(desk, application, 100)
        assert asking.answer == ("prediction", DEAR, 0.8)
        asking, query = await answered(desk, application, 101)
        assert asking.answer == ("prediction", DEAR, 0.8)

    run(tmp_path, OF_UNSURE, scenario)


def test_a_dear_model_that_drops_queries_or_never_answers_is_asked_less(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        assert application.stages is not None
        desk.models.held.add("b")
        asking, _ = desk.ask(application, row(0))
        await desk.serve_until(lambda: "b" in desk.models.containers and desk.models.containers["b"].batches)
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        # The next query learns that b did not answer the first one; otherwise b would hold up each query.
        second, query = desk.ask(application, row(1))
        await desk.serve_until(lambda: query.stage == 2)
        assert application.stages.latencies.expected_s("b:1") > SLO_S
        third, _ = await answered(desk, application, 2)
        assert third.answer[1] == UNSURE
        desk.loop.advance(SLO_S)
        await until_async(lambda: second.answer)

    run(tmp_path, OF_UNSURE, scenario)


def test_a_cheap_model_that_hangs_is_passed_over_while_there_is_time(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        desk.models.held.add("a")
        asking, query = desk.ask(application)
        await turn_over()
        assert query.stage == 1
        # Where it is not known how long the dear one takes, half of the SLO is left to it.
        desk.loop.advance(SLO_S / 2)
        await desk.serve_until(lambda: query.stage == 2)
        assert not asking.answer or asking.answer[1] == DEAR
        await desk.serve_until(lambda: "b" in query.outputs)
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        assert asking.answer[:2] == ("prediction", DEAR)
        assert query.choice is not None and query.choice.steps == ()

    run(tmp_path, OF_UNSURE, scenario)


def test_a_model_that_fails_leads_on_to_the_next(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        desk.models.held.update("ab")
        asking, _ = desk.ask(application)
        await until_async(lambda: desk.models.containers["a"].batches)
        desk.models.containers["a"].take().fail("boom")
        await until_async(lambda: desk.models.containers["b"].batches)
        desk.models.containers["b"].take().answer([DEAR])
        await until_async(lambda: asking.answer)
        assert asking.answer == ("prediction", DEAR, 0.8)
        # Both: then there is nothing to answer with.
        asking, _query = desk.ask(application, row(1))
        for name in "ab":
            await until_async(lambda name=name: desk.models.containers[name].batches)  # type: ignore[misc]
            desk.models.containers[name].take().fail("boom")
        await until_async(lambda: asking.answer)
        assert asking.answer[:3] == ("default", b'"default"', "model_error")

    run(tmp_path, OF_UNSURE, scenario)


def test_a_model_without_a_version_that_runs_is_passed_over(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED, linked=("a", "ghost", "b"))
        asking, query = await answered(desk, application)
        assert asking.answer[:2] == ("prediction", DEAR) and query.stage == 2

    run(tmp_path, OF_UNSURE, scenario)


def test_a_version_that_a_query_names_is_asked_alone(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        asking = Asking()
        application.predict(row(0), asking, desk.loop.time(), version="1")
        await desk.serve_until(lambda: asking.answer)
        assert asking.answer[1] == UNSURE and desk.models.asked["b"] == []

    run(tmp_path, OF_UNSURE, scenario)


def test_feedback_teaches_the_threshold_and_costs_stay_out_of_the_loss(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection("cascade", half_life=None, cost_weight=0.1)
        snapshot = desk.snapshot(selection)
        links = (Link("b", cost=5.0), Link("a", cost=1.0))
        application = Application(
            ApplicationSnapshot("app", "doubles", SLO_S * 1000, '"default"', selection, links, "app-id"),
            desk.surroundings,
        )
        await application.load()
        asking, query = await answered(desk, application)
        assert query.choice is not None and query.choice.models == ("a", "b"), "by cost, not by linking"
        assert asking.answer[1] == DEAR
        assert await desk.observe(application, on_query(asking.query_id, b"2"))
        totals = application.contexts.prior()
        # (loss + 0.1 * cost) / (1 + 0.1 * 5), and the plain one beside it.
        assert totals.number("a", "loss") == pytest.approx(1.1 / 1.5)
        assert totals.number("b", "loss") == pytest.approx(0.5 / 1.5)
        assert (totals.number("a", "plain_loss"), totals.number("b", "plain_loss")) == (1.0, 0.0)
        # Going on cost 0.5 and saved an error.
        assert totals.number("a", "excess_5") == pytest.approx((0.5 - 1.0) / 1.5)
        selection_statistics = application.statistics().selection
        assert selection_statistics is not None
        assert {name: (each.loss, each.cost) for name, each in selection_statistics.models.items()} == {
            "a": (1.0, 1.0),
            "b": (0.0, 5.0),
        }
        # Another weight takes effect at once, without another state.
        application.follow(desk.snapshot(Selection("cascade", half_life=None, cost_weight=0.2)))
        assert application.contexts.prior().costs.weight == 0.2
        assert snapshot.links != links

    run(tmp_path, OF_UNSURE, scenario)


def test_what_was_learned_outlives_the_worker(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection("cascade", {"explore": 0.0}, half_life=None, cost_weight=0.1)
        links = (Link("a", cost=1.0), Link("b", cost=5.0))
        snapshot = ApplicationSnapshot("app", "doubles", SLO_S * 1000, None, selection, links, "app-id")
        application = Application(snapshot, desk.surroundings)
        await application.load()
        # Both are wrong each time: to go on costs, and saves nothing.
        while (asked := await answered(desk, application))[1].stage == 2:
            assert await desk.observe(application, on_query(asked[0].query_id, b"7"))
        restarted = Application(snapshot, desk.surroundings)
        await restarted.load()
        _, query = await answered(desk, restarted)
        assert query.stage == 1 and restarted.contexts.prior().number("a", "went_on_5") >= 1.0

    run(tmp_path, OF_UNSURE, scenario)


def test_a_dear_model_that_was_late_teaches_no_threshold(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(Selection("cascade", half_life=None))
        desk.models.held.add("b")
        asking, query = desk.ask(application)
        await desk.serve_until(lambda: query.stage == 2)
        desk.loop.advance(SLO_S)
        await until_async(lambda: asking.answer)
        assert await desk.observe(application, on_query(asking.query_id, b"1"))
        totals = application.contexts.prior()
        assert (totals.number("b", "loss"), totals.number("b", "missed")) == (0.0, 1.0)
        assert (totals.number("a", "went_on_5"), totals.number("a", "excess_5")) == (0.0, 0.0)
        # The miss had its feedback, so that none is made up for it.
        assert application.outcomes.make_up() == []

    run(tmp_path, OF_UNSURE, scenario)


def test_an_application_may_change_or_go_with_queries_on_their_way(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        desk.models.held.add("a")
        first, _ = desk.ask(application, row(0))
        application.follow(desk.snapshot(Selection("ensemble", {"weighting": "equal"})))
        assert application.stages is None
        desk.models.held.clear()
        await desk.serve_until(lambda: first.answer)
        assert first.answer[1] == UNSURE, "it is answered by the policy of now, which does not go on"
        application.follow(desk.snapshot(FIXED))
        asking, _ = await answered(desk, application, 1)
        assert asking.answer[1] == DEAR
        desk.models.held.update("ab")
        last, query = desk.ask(application, row(2))
        application.close()
        assert last.answer[:3] == ("default", b'"default"', "unavailable") and query.done

    run(tmp_path, OF_UNSURE, scenario)


def test_a_client_that_went_away_asks_no_more(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        _, query = desk.ask(application)
        await until_async(lambda: desk.models.containers["a"].batches)
        query.cancel()
        await desk.serve_until(lambda: "a" in query.outputs)
        await turn_over()
        assert not desk.models.containers["b"].batches and query.stage == 1

    run(tmp_path, OF_UNSURE, scenario)


def test_many_queries_leave_no_task_and_one_timer(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(FIXED)
        before = len(asyncio.all_tasks())
        asked = [desk.ask(application, row(number))[0] for number in range(300)]
        assert len(asyncio.all_tasks()) == before
        await desk.serve_until(lambda: all(asking.answer for asking in asked))
        assert {asking.answer[1] for asking in asked} == {DEAR}
        # Entries for moving late queries on go when their time comes.
        desk.loop.advance(SLO_S)
        await turn_over(20)

    run(tmp_path, OF_UNSURE, scenario)


OWN = """
    from clipper.learning.policies.policy import Choice, Policy, Step

    class Own(Policy):
        def select(self, *_):
            return Choice(("a",), (1.0,))

        def next(self, choice, outputs, *_):
            {next}
"""


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise RuntimeError('no idea')", "no idea"),
        ("return Choice(('b',), (1.0,))", "went on to"),
        ("return Choice(('a', 'c'), (0.0, 1.0))", "went on to"),
        ("return Choice(('a', 'b', 'b'), (0.0, 0.5, 0.5))", "went on to"),
        ("return Choice(('a', 'b'), (0.5, 0.9))", "add up to 1"),
        ("return Choice(('a', 'b'), (0.5,))", "a share for each"),
        ("return 7", "expected None"),
        ("return Choice(('a',), (1.0,), steps=(Step(1, 2.0, 1.0),))", "from 0 to 1"),
        ("return Choice(('a',), (1.0,), steps=('x',))", "expected a Step"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_what_a_users_next_does_wrong_costs_no_query_its_answer(tmp_path: Path, body: str, problem: str) -> None:
    async def scenario(desk: Desk) -> None:
        application = await desk.application(own(tmp_path, body))
        asking, _ = await answered(desk, application)
        assert asking.answer[:2] == ("prediction", UNSURE)
        assert application.counts.policy_errors == 1 and problem in str(application.counts.last_policy_error)

    run(tmp_path, OF_UNSURE, scenario)


def test_a_users_next_is_given_time_only_for_what_has_it(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        body = "return None if len(outputs) > 1 else Choice(('a', 'b', 'c'), (0.0, 0.5, 0.5))"
        application = await desk.application(own(tmp_path, body))
        assert application.stages is not None
        application.stages.latencies.answered("b:1", 2 * SLO_S)
        asking, query = await answered(desk, application)
        assert query.choice is not None and query.choice.models == ("a", "c")
        assert asking.answer[1] == b"3" and application.counts.policy_errors == 0

    run(tmp_path, {**OF_UNSURE, "c": b"3"}, scenario)


def test_each_model_is_asked_once_however_often_next_is_called(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        outputs = desk.models.outputs
        body = f"return Choice((*choice.models, {sorted(outputs)}[len(choice.models)]), (1.0,) + (0.0,) * len(outputs))"
        application = await desk.application(own(tmp_path, body))
        asking, query = await answered(desk, application)
        assert query.stage == len(outputs) and asking.answer[1] == outputs["a"]
        assert all(len(asked) == 1 for asked in desk.models.asked.values())
        # From the cache all of them come within one call: the stack has to hold that.
        asking, query = desk.ask(application, row(0))
        assert asking.answer[1] == outputs["a"] and query.stage == len(outputs)

    run(tmp_path, {"a": UNSURE} | {f"b{number:02}": b"3" for number in range(40)}, scenario, cache=True)


def own(folder: Path, body: str) -> Selection:
    code = folder / "code"
    code.mkdir()
    (code / "own_stages.py").write_text(dedent(OWN).format(next=body))
    return Selection("own_stages:Own", code=str(code))
