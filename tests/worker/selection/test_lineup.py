"""Newcomers in a worker: who is asked, what answers tell of them, and what the decision log says."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from clipper.control.snapshot import Newcomer
from clipper.learning.decisions.evaluation.samples import samples_of
from clipper.learning.decisions.joining import joined
from clipper.learning.decisions.log import DecisionLog
from clipper.learning.decisions.reading import LogReader
from clipper.learning.mathematics.guardrail import RampLosses, ramp_losses
from clipper.learning.policies import trials
from clipper.learning.policies.policy import QueryView
from clipper.learning.policies.trials import FIRST_OPEN
from clipper.settings.application import Link, Selection
from clipper.settings.server import LEAST_LOG_BYTES
from clipper.worker.selection.application import Application
from clipper.worker.selection.description import describe
from clipper.worker.selection.learner import Learner
from tests.selection_desk import ROW, SLO_S, Asking, Desk, on_input, on_query, run
from tests.two_versions import TWO, ask_version, show, with_versions
from tests.waiting import until_async

LEARNS = Selection("thompson", half_life=None, ramp=0.5)
DEPLOYED = Newcomer(7, "m", "2", "1", promoted=True)
LINKED = Newcomer(7, "m", "2")
BOTH = Link("m", "1"), Link("m", "2")


def asked(application: Application, times: int = 400) -> Counter[tuple[str, ...]]:
    totals = application.contexts.prior()
    return Counter(application.select(totals, QueryView()).models for _ in range(times))


async def evidence(desk: Desk, application: Application) -> RampLosses:
    totals = application.contexts._everyone.ledger.totals()
    return ramp_losses(totals, "m:2", 7)


def test_a_deployed_version_answers_a_share_and_the_one_before_the_rest(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, LEARNS, Link("m"), newcomers=(DEPLOYED,))
        assert (application.terms.models, application.terms.newcomers) == (("m",), ("m:2",))
        counts = asked(application)
        assert 150 < counts["m:2",] < 250 and counts["m",] == 400 - counts["m:2",]
        answers = Counter([(await desk.answer(application)).answer[1] for _ in range(40)])
        assert 8 < answers[b"2"] < 32 and answers[b"1"] == 40 - answers[b"2"]
        found = await describe(application, None)
        assert [(each.model, each.version) for each in found.models] == [("m", "1"), ("m:2", "2")]
        assert found.models[1].share == pytest.approx(0.5, abs=0.06)
        # It is through: the link's name means it, with all that was learned of it.
        application.follow(msgspec.structs.replace(application.snapshot, newcomers=()))
        assert (application.terms.models, application.terms.newcomers) == (("m",), ())
        assert (await desk.answer(application)).answer == ("prediction", b"2", 1.0)

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("newcomer", [DEPLOYED, LINKED])
def test_with_nothing_else_that_runs_it_answers_all(tmp_path: Path, newcomer: Newcomer) -> None:
    async def scenario(desk: Desk) -> None:
        links = (Link("m"),) if newcomer.promoted else BOTH
        application = await with_versions(desk, LEARNS, *links, newcomers=(newcomer,))
        show(desk, "2", without="1")
        application.follow(application.snapshot)
        assert application.terms.newcomers == ()
        answers = {(await desk.answer(application)).answer[1] for _ in range(20)}
        assert b"2" in answers and (not newcomer.promoted or answers == {b"2"})
        show(desk, "2")
        application.follow(application.snapshot)
        assert application.terms.newcomers == ("m:2",)

    run(tmp_path, TWO, scenario)


def test_a_newcomer_without_a_replica_is_not_asked(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, LEARNS, Link("m"), newcomers=(DEPLOYED,))
        show(desk, "2", without="2")
        application.follow(application.snapshot)
        assert (application.terms.models, application.terms.newcomers) == (("m",), ())
        assert {(await desk.answer(application)).answer[1] for _ in range(20)} == {b"1"}

    run(tmp_path, TWO, scenario)


def test_a_stopped_one_is_not_asked_while_anything_else_runs(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        stopped = msgspec.structs.replace(LINKED, stopped="it lost more")
        application = await with_versions(desk, LEARNS, *BOTH, current="1", newcomers=(stopped,))
        assert (application.terms.models, application.terms.newcomers) == (("m:1",), ())
        assert set(asked(application)) == {("m:1",)}
        show(desk, "1", without="1")
        application.follow(application.snapshot)
        assert application.terms.models == ("m:1", "m:2")
        assert b"2" in {(await desk.answer(application)).answer[1] for _ in range(20)}

    run(tmp_path, TWO, scenario)


def test_without_a_ramp_newcomers_are_as_all_others(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        never = msgspec.structs.replace(LEARNS, ramp=None)
        application = await with_versions(desk, never, *BOTH, newcomers=(LINKED,))
        assert (application.terms.models, application.terms.newcomers) == (("m:1", "m:2"), ())

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("policy", ["thompson", "exp3", "exp4", "ensemble", "stacking", "cascade"])
def test_feedback_is_evidence_of_the_newcomer_and_of_the_rest(tmp_path: Path, policy: str) -> None:
    async def scenario(desk: Desk) -> None:
        selection = msgspec.structs.replace(LEARNS, policy=policy)
        application = await with_versions(desk, selection, Link("m"), newcomers=(DEPLOYED,))
        for _ in range(40):
            asking = await desk.answer(application)
            await desk.observe(application, on_query(asking.query_id, b"1"))
        known = await evidence(desk, application)
        assert 8 < known.newcomer.count < 32 and known.newcomer.count + known.rest.count == 40
        assert (known.newcomer.mean, known.rest.mean) == (1.0, 0.0)
        # Of an input without a query, what would be answered now.
        for _ in range(10):
            await desk.observe(application, on_input(ROW, b"1"))
        known = await evidence(desk, application)
        assert known.newcomer.count + known.rest.count == 50
        assert (known.newcomer.mean, known.rest.mean) == (1.0, 0.0)

    run(tmp_path, TWO, scenario)


def test_what_was_not_chosen_by_chance_is_no_evidence(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, LEARNS, Link("m"), newcomers=(DEPLOYED,))
        before = await desk.answer(application)
        for version in "12":
            pinned = await ask_version(desk, application, version)
            await desk.observe(application, on_query(pinned.query_id, b"1"))
        known = await evidence(desk, application)
        assert (known.newcomer.count, known.rest.count) == (0.0, 0.0)
        # A query of a ramp that is over by the time of its feedback.
        again = msgspec.structs.replace(DEPLOYED, ramp=8)
        application.follow(msgspec.structs.replace(application.snapshot, newcomers=(again,)))
        await desk.observe(application, on_query(before.query_id, b"1"))
        known = await evidence(desk, application)
        assert (known.newcomer.count, known.rest.count) == (0.0, 0.0)

    run(tmp_path, TWO, scenario)


async def ask_while_held(desk: Desk, application: Application, first: int) -> list[Asking]:
    """Ask 60 queries, with feedback on those that version 1 answers. Returns the others, to which 2 is late."""
    desk.models.held.add("b")
    late = []
    for number in range(first, first + 60):
        asking, query = desk.ask(application, bytes([number]) * 8)
        if query.choice is not None and query.choice.models == ("m",):
            await desk.serve_until(lambda query=query: query.done)
            await desk.observe(application, on_query(asking.query_id, b"1"))
        else:
            late.append(asking)
    desk.loop.advance(SLO_S)
    await until_async(lambda: application.in_flight == 0)
    desk.models.held.clear()
    return late


def test_one_that_never_answers_is_known_without_feedback_on_defaults(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, LEARNS, Link("m"), newcomers=(DEPLOYED,))
        await ask_while_held(desk, application, 0)
        desk.loop.advance(trials.WARM_UP_S)
        await ask_while_held(desk, application, 60)
        Learner(application).make_up()
        ledger = application.contexts._everyone.ledger
        await until_async(lambda: ramp_losses(ledger.totals(), "m:2", 7).newcomer.count)
        known = await evidence(desk, application)
        assert known.newcomer.mean == 1.0 and known.newcomer.count > 5

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("policy", ["thompson", pytest.param("ensemble", marks=pytest.mark.long)])
def test_a_late_answer_is_no_evidence_while_a_newcomer_warms_up(tmp_path: Path, policy: str) -> None:
    async def scenario(desk: Desk) -> None:
        selection = msgspec.structs.replace(LEARNS, policy=policy)
        application = await with_versions(desk, selection, Link("m"), newcomers=(DEPLOYED,))
        late = await ask_while_held(desk, application, 0)
        assert len(late) > 10
        for asking in late:
            assert await desk.observe(application, on_query(asking.query_id, b"1"))
        Learner(application).make_up()
        known = await evidence(desk, application)
        assert known.newcomer.count == 0.0 and known.rest.count == 60 - len(late)
        # The newcomer's answers and failures count from the first one on.
        failed = 0
        while not failed:
            desk.models.held.add("b")
            asking, query = desk.ask(application)
            assert query.choice is not None
            if query.choice.models == ("m:2",):
                await until_async(lambda: desk.models.containers["b"].batches)
                desk.models.containers["b"].take().fail("ValueError: no")
                failed = 1
            desk.models.held.clear()
            await desk.serve_until(lambda query=query: query.done)
            await desk.observe(application, on_query(asking.query_id, b"1"))
        assert (await evidence(desk, application)).newcomer.mean == 1.0
        # So does being late, afterwards.
        desk.loop.advance(trials.WARM_UP_S)
        later = await ask_while_held(desk, application, 60)
        for asking in later:
            assert await desk.observe(application, on_query(asking.query_id, b"1"))
        known = await evidence(desk, application)
        assert known.newcomer.count == 1 + len(later) and known.newcomer.mean == 1.0

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("policy", ["thompson", "exp3", "epsilon_greedy"])
def test_the_decision_log_has_the_true_probabilities(tmp_path: Path, policy: str) -> None:
    async def scenario(desk: Desk) -> None:
        folder = tmp_path / "decisions"
        log = DecisionLog(folder, "w", LEAST_LOG_BYTES)
        desk.surroundings = replace(desk.surroundings, decisions=log)
        selection = msgspec.structs.replace(LEARNS, policy=policy, log_decisions=1.0, ramp=0.25)
        application = await with_versions(desk, selection, Link("m"), newcomers=(DEPLOYED,))
        for _ in range(40):
            asking = await desk.answer(application)
            await desk.observe(application, on_query(asking.query_id, b"1"))
        await log.close()
        found = samples_of(joined(LogReader(folder)))
        assert len(found.taken) == 40 and not found.left_out
        assert {sample.candidates for sample in found.taken} == {("m", "m:2")}
        assert {sample.versions for sample in found.taken} == {("1", "2")}
        assert {(sample.model, sample.propensity) for sample in found.taken} == {("m", 0.75), ("m:2", 0.25)}

    run(tmp_path, TWO, scenario)


def test_a_choice_of_one_that_is_left_is_still_learned(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, LEARNS, Link("m"), newcomers=(DEPLOYED,))
        asking = await desk.answer(application)
        while asking.answer[1] != b"2":
            asking = await desk.answer(application)
        application.follow(msgspec.structs.replace(application.snapshot, newcomers=()))
        await desk.observe(application, on_query(asking.query_id, b"1"))
        assert application.contexts.prior().number("m", "loss") == 1.0

    run(tmp_path, TWO, scenario)


def watching(application: Application) -> None:
    snapshot = msgspec.structs.replace(application.snapshot, watched=(DEPLOYED,))
    application.follow(snapshot)


def test_a_watched_version_answers_all_queries_until_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "WARM_UP_S", 0.0)

    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, Selection(), Link("m"))
        watching(application)
        assert (application.terms.models, application.terms.newcomers) == (("m",), ())
        assert {(await desk.answer(application)).answer[1] for _ in range(20)} == {b"2"}
        assert (await ask_version(desk, application, "1")).answer[1] == b"1"
        (trial,) = application.trials.readings()
        assert (trial.ramp, trial.answers) == (7, 20), "a query that names a version says nothing"
        # It hangs: as many queries as may wait for it are late, and others go to the version before.
        desk.models.held.add("b")
        for number in range(40):
            desk.ask(application, bytes([number]) * 8)
        desk.loop.advance(SLO_S)
        await until_async(lambda: application.in_flight == 0)
        (trial,) = application.trials.readings()
        assert trial.answers == 20 + FIRST_OPEN + 20 and trial.rest[0] == 0, "no chance sent the others elsewhere"
        assert trial.last_error == "m:2 did not answer within the SLO"
        for _ in range(40):
            asking, query = desk.ask(application)
            if query.choice is not None and query.choice.models == ("m:1",):
                await desk.serve_until(lambda query=query: query.done)
                assert asking.answer[1] == b"1"
        desk.loop.advance(SLO_S)
        await until_async(lambda: application.in_flight == 0)
        (trial,) = application.trials.readings()
        assert trial.rest[0] > 5 and trial.rest[1] == 0 and trial.newcomer[1] == trial.newcomer[0] > 5
        desk.models.held.clear()

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize(
    "policy", ["thompson", "exp3", "adaptive", "best_arm", "exp4", "ensemble", "stacking", "cascade"]
)
def test_what_is_learned_of_a_compared_version_before_is_its_own(tmp_path: Path, policy: str) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection(policy, half_life=None, ramp=None)
        application = await with_versions(desk, selection, Link("m"))
        watching(application)
        application.trials.ended(0, ("m",), ("m",), "it raised", 0.0)
        asked = []
        for _ in range(20):
            asking = await desk.answer(application)
            asked.append(asking.answer[1])
            assert await desk.observe(application, on_query(asking.query_id, b"1"))
        before = asked.count(b"1")
        assert 2 < before < 18
        totals = application.contexts._everyone.ledger.totals()
        assert totals.number("m:1", "scored") == before and totals.number("m:1", "loss") == 0
        assert totals.number("m:2", "loss") == totals.number("m:2", "scored") == 20 - before

    run(tmp_path, TWO, scenario)


def test_a_query_to_the_version_before_does_not_go_on_to_the_newcomer(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        selection = Selection("cascade", {"threshold": 1.0}, half_life=None, ramp=None)
        application = await with_versions(desk, selection, Link("m"), Link("m", "1"))
        watching(application)
        application.trials.ended(0, ("m",), ("m",), "it raised", 0.0)
        asked = set()
        for _ in range(20):
            _, query = desk.ask(application)
            await desk.serve_until(lambda query=query: query.done)
            asked.add(query.choice and query.choice.models)
        assert asked == {("m", "m:1"), ("m:1",)}

    run(tmp_path, TWO, scenario)


@pytest.mark.parametrize("without", ["1", "2"])
def test_one_whose_version_before_is_gone_is_not_watched(tmp_path: Path, without: str) -> None:
    async def scenario(desk: Desk) -> None:
        application = await with_versions(desk, Selection(), Link("m"))
        show(desk, "2", without=without)
        watching(application)
        assert application.terms.is_watching == (without == "2")
        assert (application.terms.only_choice is None) == (without == "2")

    run(tmp_path, TWO, scenario)
