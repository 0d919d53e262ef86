import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.control.snapshot import ApplicationSnapshot, ModelSnapshot, Snapshot, VersionSnapshot
from clipper.errors import NotFound, WrongInput
from clipper.learning.stores.sqlite import SqliteStore
from clipper.settings.application import Link, Selection
from clipper.settings.version import Batching
from clipper.worker.abstraction.predictor import Predictor
from clipper.worker.selection.application import Application
from clipper.worker.selection.query import Query, QueryIds
from clipper.worker.selection.terms import JOINT_MARGIN_SHARE, MARGIN_SHARE, MAX_MARGIN_S
from tests.event_loops import ShiftedLoop, run_clean, turn_over
from tests.selection_desk import ROW, SLO_S, Asking, make_surroundings
from tests.small_container import SmallContainer
from tests.waiting import until_async


class Digits:
    """Applications of one model ``digits``, its container, and a clock to move."""

    def __init__(self, tmp_path: Path) -> None:
        self.container = SmallContainer(tmp_path / "s")
        self.predictor = Predictor(1 << 20)
        self.store = SqliteStore(tmp_path / "selection.sqlite3")
        self.surroundings = make_surroundings(self.predictor, self.store)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShiftedLoop)
        self.loop = loop

    async def start(self) -> None:
        """Version 1 has a container, 2 has none, 3 takes another type."""
        await self.container.start()
        batching = Batching("fixed", 1)
        versions = (
            VersionSnapshot("1", "doubles", batching, replicas=(self.container.replica,)),
            VersionSnapshot("2", "doubles", batching),
            VersionSnapshot("3", "floats", batching),
        )
        self.predictor.apply(Snapshot(1, (), (ModelSnapshot("digits", "1", versions),)))
        await self.predictor.settle()

    def application(self, default: str | None = None, slo_s: float = SLO_S, link: Link | None = None) -> Application:
        return Application(snapshot(default, slo_s, link), self.surroundings)

    def ask(self, application: Application, row: bytes = ROW, version: str | None = None) -> tuple[Asking, Query]:
        asking = Asking()
        return asking, application.predict(row, asking, self.loop.time(), version)

    async def answer(self, output: bytes) -> None:
        await until_async(lambda: self.container.batches)
        self.container.take().answer([output])


def snapshot(default: str | None = None, slo_s: float = SLO_S, link: Link | None = None) -> ApplicationSnapshot:
    return ApplicationSnapshot("app", "doubles", slo_s * 1000, default, links=(link or Link("digits"),))


Scenario = Callable[[Digits], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    def run_scenario(scenario: Scenario) -> None:
        async def whole() -> None:
            digits = Digits(tmp_path)
            await digits.start()
            try:
                await scenario(digits)
            finally:
                digits.predictor.close()
                await digits.store.close()
                await digits.container.kill()

        run_clean(whole())

    return run_scenario


def test_an_answer_leaves_as_soon_as_it_is_there_and_again_from_the_cache(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application(default="0")
        asking, query = digits.ask(application)
        assert not query.done and application.in_flight == 1
        await digits.answer(b"[7]")
        await until_async(lambda: query.done)
        assert asking.answer == ("prediction", b"[7]", 1.0)
        again, query = digits.ask(application)
        assert query.done and again.answer == ("prediction", b"[7]", 1.0)
        assert again.query_id == asking.query_id + 1
        statistics = application.statistics()
        assert (statistics.queries, statistics.slo_misses, application.in_flight) == (2, 0, 0)
        assert sum(statistics.latency_s.counts) == 2

    run(scenario)


@pytest.mark.parametrize("default", [None, "null"])
def test_at_the_deadline_a_query_ends_and_its_output_is_still_kept(
    run: Callable[[Scenario], None], default: str | None
) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application(default)
        asking, query = digits.ask(application)
        await until_async(lambda: digits.container.batches)
        digits.loop.advance(SLO_S / 2)
        await turn_over(20)
        assert not query.done
        digits.loop.advance(SLO_S / 2)
        await until_async(lambda: query.done)
        explanation = "digits:1 did not answer within the SLO"
        if default is None:
            assert asking.answer == ("none", "timeout", explanation)
            assert application.statistics().errors == {"timeout": 1}
        else:
            assert asking.answer == ("default", b"null", "timeout", explanation)
            assert application.statistics().defaults == {"timeout": 1}
        # No output came within the SLO, though the answer did.
        assert application.statistics().slo_misses == 1
        assert application.counts.told_explanations() == {"timeout": explanation}
        await digits.answer(b"7")
        await until_async(lambda: digits.predictor.queues()[0].statistics().outputs)
        late, _ = digits.ask(application)
        assert late.answer == ("prediction", b"7", 1.0)

    run(scenario)


def test_each_query_ends_by_its_own_deadline(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application()
        first, _ = digits.ask(application, b"a" * 8)
        digits.loop.advance(SLO_S / 2)
        second, _ = digits.ask(application, b"b" * 8)
        digits.loop.advance(SLO_S / 2)
        await until_async(lambda: first.answer)
        await turn_over(20)
        assert not second.answer and application.in_flight == 1
        digits.loop.advance(SLO_S / 2)
        await until_async(lambda: second.answer)
        # The timer that was off while nothing waited is on again.
        third, _ = digits.ask(application, b"c" * 8)
        digits.loop.advance(SLO_S)
        await until_async(lambda: third.answer)

    run(scenario)


def test_queries_that_come_out_of_order_end_by_their_own_deadlines(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application()
        now_s = digits.loop.time()
        # The worker took in the last come first.
        last, first, second = Asking(), Asking(), Asking()
        for number, (age, asking) in enumerate(((0.0, last), (0.5, first), (0.25, second))):
            application.predict(bytes([number]) * 8, asking, now_s - age * SLO_S)
        for waited, left in ((0.5, 2), (0.25, 1), (0.25, 0)):
            digits.loop.advance(waited * SLO_S)
            await until_async(lambda left=left: application.in_flight == left)
            assert [bool(asking.answer) for asking in (first, second, last)] == [left < 3, left < 2, left < 1]
        assert application.in_flight == 0

    run(scenario)


@pytest.mark.parametrize("default", [None, "0"])
def test_a_query_that_there_is_no_time_for_is_answered_at_once(
    run: Callable[[Scenario], None], default: str | None
) -> None:
    async def scenario(digits: Digits) -> None:
        application, asking = digits.application(default), Asking()
        application.shed(asking)
        explanation = "the worker gets more queries than it can answer within the SLO"
        statistics = application.statistics()
        assert statistics.queries == 1
        if default is None:
            assert asking.answer == ("none", "overloaded", explanation)
            assert statistics.errors == {"overloaded": 1}
        else:
            assert asking.answer == ("default", b"0", "overloaded", explanation)
            assert statistics.defaults == {"overloaded": 1}
        assert not digits.container.batches

    run(scenario)


@pytest.mark.parametrize("default", [None, "0"])
@pytest.mark.parametrize(
    ("link", "reason", "explanation"),
    [
        (Link("digits", "2"), "no_replica", "digits:2 has no replica"),
        (Link("digits", "9"), "no_replica", "model digits has no running version that takes float64[*]"),
        (Link("digits", "3"), "no_replica", "model digits has no running version that takes float64[*]"),
        (Link("faces"), "no_replica", "model faces has no running version that takes float64[*]"),
    ],
)
def test_what_cannot_be_asked_is_answered_at_once_with_the_reason(
    run: Callable[[Scenario], None], default: str | None, link: Link, reason: str, explanation: str
) -> None:
    async def scenario(digits: Digits) -> None:
        asking, query = digits.ask(digits.application(default, link=link))
        assert query.done
        if default is None:
            assert asking.answer == ("none", reason, explanation)
        else:
            assert asking.answer == ("default", b"0", reason, explanation)

    run(scenario)


def test_an_application_without_a_link(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        bare = ApplicationSnapshot("app", "doubles", 20.0)
        asking, _ = digits.ask(Application(bare, digits.surroundings))
        assert asking.answer == ("none", "no_replica", "application app has no linked model")

    run(scenario)


def test_the_models_own_failure_is_told(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        asking, query = digits.ask(digits.application(default="0"))
        await until_async(lambda: digits.container.batches)
        digits.container.take().fail("ValueError: no")
        await until_async(lambda: query.done)
        assert asking.answer == ("default", b"0", "model_error", "ValueError: no")

    run(scenario)


def test_a_query_may_name_a_version(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application(link=Link("digits", "2"))
        asking, query = digits.ask(application, version="1")
        await digits.answer(b"1")
        await until_async(lambda: query.done)
        assert asking.answer == ("prediction", b"1", 1.0)
        with pytest.raises(NotFound, match="'9'"):
            digits.ask(application, version="9")
        with pytest.raises(WrongInput, match=r"digits:3 takes float32\[\*\], application app has float64\[\*\]"):
            digits.ask(application, version="3")
        assert application.statistics().queries == 1

    run(scenario)


def test_a_query_whose_client_went_away_is_not_answered_and_not_sent(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application()
        asking, query = digits.ask(application)
        query.cancel()
        other, other_query = digits.ask(application, b"o" * 8)
        await digits.answer(b"1")
        await until_async(lambda: other_query.done)
        assert not asking.answer and other.answer == ("prediction", b"1", 1.0)
        assert digits.container.batches == [] and application.in_flight == 0
        digits.loop.advance(2 * SLO_S)
        await turn_over(20)
        assert not asking.answer

    run(scenario)


def test_a_smaller_slo_holds_for_what_waits_and_what_comes(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application(slo_s=1000.0)
        before, _ = digits.ask(application, b"a" * 8)
        application.follow(snapshot(slo_s=SLO_S))
        after, _ = digits.ask(application, b"b" * 8)
        digits.loop.advance(SLO_S)
        await until_async(lambda: before.answer and after.answer)

    run(scenario)


def test_a_larger_slo_is_for_what_comes(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application(default="0")
        before, _ = digits.ask(application, b"a" * 8)
        application.follow(snapshot("1", slo_s=1000.0))
        after, _ = digits.ask(application, b"b" * 8)
        digits.loop.advance(SLO_S)
        await until_async(lambda: before.answer)
        await turn_over(20)
        assert before.answer[:3] == ("default", b"1", "timeout") and not after.answer
        application.close()

    run(scenario)


def test_close_answers_everyone_and_who_comes_later_as_well(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application(default="0")
        askings = [digits.ask(application, bytes([number]) * 8)[0] for number in range(3)]
        application.close()
        assert [asking.answer[:3] for asking in askings] == [("default", b"0", "unavailable")] * 3
        assert application.in_flight == 0
        # A request that was being read when the application went.
        late, _ = digits.ask(application, b"l" * 8)
        await until_async(lambda: digits.container.batches)
        digits.loop.advance(SLO_S)
        await until_async(lambda: late.answer)

    run(scenario)


def test_a_late_answer_counts_as_a_miss(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        application = digits.application()
        asking, query = digits.ask(application)
        await until_async(lambda: digits.container.batches)
        digits.loop.advance(2 * SLO_S)
        await until_async(lambda: query.done)
        assert asking.answer[1] == "timeout"
        assert application.statistics().slo_misses == 1

    run(scenario)


@given(st.floats(0.001, 60.0))
def test_the_answer_leaves_a_little_before_the_slo(slo_s: float) -> None:
    async def scenario() -> None:
        store = SqliteStore(Path("never-opened"))
        application = Application(snapshot(slo_s=slo_s), make_surroundings(Predictor(0), store))
        margin_s = slo_s - application.terms.budget_s
        assert 0 < margin_s <= min(slo_s * MARGIN_SHARE, MAX_MARGIN_S) + 1e-9

    asyncio.run(scenario())


def test_an_answer_of_several_models_leaves_earlier(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        links = (Link("other"), Link("third"))
        both = ApplicationSnapshot("app", "doubles", SLO_S * 1000, "0", Selection("ensemble"), links)
        one, joint = digits.application(), Application(both, digits.surroundings)
        now_s = digits.loop.time()
        deadlines_s = [application.predict(ROW, Asking(), now_s).deadline_s for application in (one, joint)]
        earlier_s = min(SLO_S * JOINT_MARGIN_SHARE, MAX_MARGIN_S)
        assert deadlines_s[0] - deadlines_s[1] == pytest.approx(earlier_s)

    run(scenario)


def test_a_policy_that_is_not_known_makes_every_query_a_policy_error(run: Callable[[Scenario], None]) -> None:
    async def scenario(digits: Digits) -> None:
        unknown = ApplicationSnapshot("app", "doubles", 20.0, "0", Selection("best"), (Link("digits"),))
        application = Application(unknown, digits.surroundings)
        asking, _ = digits.ask(application)
        assert asking.answer[:3] == ("default", b"0", "policy_error") and "'best'" in asking.answer[3]
        selection = application.statistics().selection
        assert selection is not None and "'best'" in str(selection.last_policy_error)

    run(scenario)


def test_query_ids_differ_over_instances_and_any_json_reader_keeps_them() -> None:
    last, next_instance = QueryIds(2**20 - 2).next + 2**QueryIds.COUNT_BITS - 1, QueryIds(2**20 - 1).next
    assert last < next_instance
    assert next_instance + 2**QueryIds.COUNT_BITS - 1 < 2**53


def test_query_ids_begin_anew_rather_than_take_those_of_the_next_instance() -> None:
    ids = QueryIds(5)
    first = ids.take()
    ids.next = first + 2**QueryIds.COUNT_BITS - 1

    assert QueryIds.instance_of(ids.take()) == 5
    assert ids.take() == first
