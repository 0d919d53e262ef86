"""Work in pieces: in whose turn it is done, what it may hold, and how it ends."""

import gc
from collections import Counter, deque
from collections.abc import Callable, Generator

import pytest

from clipper.base.turn_budget import LONGEST_TURN_S, VISIT_S, TurnBudget
from clipper.errors import WrongInput
from clipper.values.inputs.long_text import SHORT_TEXT_BYTES
from clipper.worker.frontend import limits
from clipper.worker.frontend.budget import Budget
from clipper.worker.frontend.exchange import Exchange
from clipper.worker.frontend.feedback_line import MAX_WAIT_S
from clipper.worker.frontend.long_work import FeedbackLines, LongWork, Unlearned


class Line:
    """A connection that counts the answers of its exchanges."""

    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


class Turns:
    """A loop whose turns the test takes."""

    def __init__(self) -> None:
        self.due: deque[Callable[[], None]] = deque()
        self.budget = Budget()
        self.refused: Counter[str] = Counter()
        self.now_s = 0.0
        self.turn = TurnBudget(self.due.append, lambda: self.now_s)
        self.work = LongWork(self.turn, self.budget, self.refused)
        self.lines = FeedbackLines()
        self.done: list[str] = []

    def take(self) -> None:
        for _ in range(len(self.due)):
            self.due.popleft()()

    def begin(
        self,
        name: str,
        body_bytes: int,
        steps: int = 3,
        pieces: int = 0,
        lines: FeedbackLines | None = None,
        asks: object = None,
    ) -> Exchange:
        exchange = Exchange(Line())
        line = (lines or self.lines).of(body_bytes) if pieces else None
        self.work.begin(exchange, body_bytes, self._steps(exchange, name, steps), line, pieces, asks)
        return exchange

    def _steps(self, exchange: Exchange, name: str, steps: int) -> Generator[None, None, None]:
        for _ in range(steps):
            self.done.append(name)
            self.now_s += VISIT_S
            yield
        exchange.answer(200, b"1")


SMALL, LARGE = 100, SHORT_TEXT_BYTES + 1


@pytest.fixture
def turns() -> Turns:
    return Turns()


def test_jobs_go_on_in_later_turns_and_release_what_they_held(turns: Turns) -> None:
    exchange = turns.begin("a", SMALL)
    assert exchange.response is None and turns.budget.held_bytes == SMALL + limits.HELD_BYTES_PER_REQUEST
    while turns.due:
        turns.take()
    assert exchange.response is not None and turns.budget.held_bytes == 0 and turns.done == ["a"] * 3


def test_small_ones_do_not_wait_for_large_ones_which_go_one_after_another(turns: Turns) -> None:
    turns.begin("A", LARGE, 5)
    turns.begin("B", LARGE, 2)
    turns.begin("a", SMALL, 2)
    turns.begin("b", SMALL, 2)
    while turns.due:
        turns.take()
    assert [name for name in turns.done if name.isupper()] == ["A"] * 5 + ["B"] * 2
    assert turns.done.index("b") < 8 and turns.done[-1] == "B"


def test_no_application_waits_for_the_long_work_of_another(turns: Turns) -> None:
    for asks in ("greedy", "modest"):
        for body_bytes in (LARGE, SMALL):
            for _ in range(1 if asks == "modest" else 30):
                turns.begin(f"{asks} {body_bytes}", body_bytes, 5, asks=asks)
    while turns.done.count(f"modest {LARGE}") < 5 or turns.done.count(f"modest {SMALL}") < 5:
        before_s = turns.now_s
        turns.take()
        assert turns.now_s - before_s <= LONGEST_TURN_S + VISIT_S, "a turn takes no longer than its budget and a visit"
    assert turns.done.count(f"greedy {LARGE}") <= 7 and turns.done.count(f"greedy {SMALL}") <= 7


def test_few_large_bodies_are_read_at_once(turns: Turns) -> None:
    for number in range(3 * limits.MAX_LARGE_JOBS):
        turns.begin(f"{number}", LARGE, 3, asks=number)
    while turns.due:
        turns.take()
        counts = [turns.done.count(name) for name in set(turns.done)]
        assert sum(count < 3 for count in counts) <= limits.MAX_LARGE_JOBS
    assert sorted(turns.done) == sorted(f"{number}" for number in range(3 * limits.MAX_LARGE_JOBS) for _ in range(3))
    assert turns.budget.held_bytes == 0


def test_large_bodies_of_one_application_leave_room_for_those_of_others(turns: Turns) -> None:
    body_bytes = 8 << 20
    greedy = [turns.begin("greedy", body_bytes, asks="greedy") for _ in range(20)]
    refused = [exchange for exchange in greedy if exchange.response is not None]
    assert len(refused) == 20 - limits.MAX_LARGE_BYTES // (body_bytes + limits.HELD_BYTES_PER_REQUEST)
    assert all(exchange.response.startswith(b"HTTP/1.1 503 ") for exchange in refused if exchange.response)
    modest = turns.begin("modest", body_bytes, asks="modest")
    assert modest.response is None
    for exchange in greedy[:3]:
        exchange.cancel()
    turns.work.sweep()
    assert turns.begin("greedy", body_bytes, asks="greedy").response is None
    while turns.due:
        turns.take()
    assert modest.response is not None and modest.response.startswith(b"HTTP/1.1 200 ")
    assert turns.budget.held_bytes == 0 and turns.begin("greedy", limits.MAX_LARGE_BYTES // 2).response is None


def test_job_whose_client_leaves_is_dropped(turns: Turns) -> None:
    kept, left = turns.begin("a", SMALL), turns.begin("b", SMALL)
    left.cancel()
    while turns.due:
        turns.take()
    assert kept.response is not None and left.response is None and "b" not in turns.done
    assert turns.budget.held_bytes == 0


def test_job_that_is_cancelled_twice_releases_once(turns: Turns) -> None:
    job = turns.begin("a", SMALL).started
    assert job is not None
    job.cancel()
    job.cancel()
    assert turns.budget.held_bytes == 0


def test_a_job_whose_step_ends_its_own_request_is_dropped(turns: Turns) -> None:
    """So it is if the step asks for memory, and the request's stream has to end for that."""

    def ending(exchange: Exchange) -> Generator[None, None, None]:
        turns.done.append("ending")
        exchange.cancel()
        yield
        turns.done.append("went on")

    ended = []
    for _ in range(limits.MAX_LARGE_JOBS):
        ended.append(Exchange(Line()))
        turns.work.begin(ended[-1], LARGE, ending(ended[-1]))
    while turns.due:
        turns.take()
    assert turns.done == ["ending"] * limits.MAX_LARGE_JOBS and turns.budget.held_bytes == 0
    assert all(exchange.response is None for exchange in ended)
    other = turns.begin("large", LARGE)
    while turns.due:
        turns.take()
    assert other.response is not None and turns.budget.held_bytes == 0


def test_without_room_a_request_is_refused_at_once(turns: Turns) -> None:
    turns.budget.bound_bytes = LARGE + 2 * limits.HELD_BYTES_PER_REQUEST
    turns.begin("A", LARGE)
    refused = turns.begin("B", LARGE)
    assert refused.response is not None and b"503" in refused.response and b'"overloaded"' in refused.response
    assert turns.refused == {"overloaded": 1}
    while turns.due:
        turns.take()
    assert turns.begin("C", LARGE).response is None


def test_bug_costs_one_request(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Generator[None, None, None]:
        yield
        raise ValueError("a bug")

    exchange = Exchange(Line())
    turns.work.begin(exchange, SMALL, broken())
    other = turns.begin("a", SMALL)
    while turns.due:
        turns.take()
    assert exchange.response is not None and b"internal_error" in exchange.response
    assert other.response is not None and turns.budget.held_bytes == 0
    assert "failed to handle a request" in caplog.text


def test_an_error_of_the_tree_refuses_the_request_and_is_counted(turns: Turns) -> None:
    def wrong() -> Generator[None, None, None]:
        yield
        raise WrongInput("expected another input")

    exchange = Exchange(Line())
    turns.work.begin(exchange, SMALL, wrong())
    while turns.due:
        turns.take()
    assert exchange.response is not None and b"expected another input" in exchange.response
    assert turns.refused == {"wrong_input": 1} and turns.budget.held_bytes == 0


def fill(turns: Turns, body_bytes: int) -> Unlearned:
    """As much feedback as is learned from at once."""
    return turns.work.take(turns.lines.of(body_bytes), limits.MAX_UNLEARNED)


@pytest.mark.parametrize(("size_bytes", "other_bytes"), [(LARGE, SMALL), (SMALL, LARGE)])
def test_feedback_waits_unread_until_less_is_to_be_learned(turns: Turns, size_bytes: int, other_bytes: int) -> None:
    unlearned = fill(turns, size_bytes)
    unread = [turns.begin(name, size_bytes, pieces=5) for name in ("gone", "first", "second")]
    turns.begin("query", size_bytes)
    turns.begin("other", other_bytes, pieces=5)
    for _ in range(10):
        turns.take()
    turns.begin("of another application", size_bytes, pieces=5, lines=FeedbackLines())
    for _ in range(10):
        turns.take()
    assert set(turns.done) == {"query", "other", "of another application"}
    assert not turns.lines.of(size_bytes).has_room and turns.lines.of(other_bytes).has_room
    unread[0].cancel()
    turns.work.learned(unlearned)
    for _ in range(10):
        turns.take()
    assert turns.done[-6:] == ["first"] * 3 + ["second"] * 3
    assert "gone" not in turns.done and turns.budget.held_bytes == 0
    assert turns.lines.of(size_bytes).has_room


def test_an_endpoint_that_takes_anothers_place_has_its_lines(turns: Turns) -> None:
    before = turns.work.lines_of("a")
    assert turns.work.lines_of("a") is before and turns.work.lines_of("b") is not before
    before.of(SMALL).take(5, 0.0)
    del before
    gc.collect()
    assert turns.work.lines_of("a").of(SMALL).unlearned == 0, "the application had gone"


def test_while_feedback_is_read_it_counts_for_as_many_pieces_as_it_may_be(turns: Turns) -> None:
    exchanges = [turns.begin(name, LARGE, pieces=limits.MAX_UNLEARNED) for name in ("a", "b", "c")]
    while turns.due:
        turns.take()
        assert len({name for name in "abc" if 0 < turns.done.count(name) < 3}) <= 1
    assert all(exchange.response is not None for exchange in exchanges)
    assert turns.done == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


def test_feedback_that_has_waited_for_too_long_is_refused(turns: Turns) -> None:
    fill(turns, LARGE)
    early = turns.begin("early", LARGE, pieces=5)
    turns.now_s = 20.0
    late = turns.begin("late", LARGE, pieces=5)
    turns.now_s = MAX_WAIT_S + 1.0
    turns.work.sweep()
    assert early.response is not None and b"503" in early.response and b'"overloaded"' in early.response
    assert turns.refused == {"overloaded": 1}
    assert late.response is None and turns.budget.held_bytes == LARGE + limits.HELD_BYTES_PER_REQUEST
    while turns.due:
        turns.take()
    assert turns.done == []


def test_unread_feedback_leaves_room_for_the_requests_of_others(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNREAD_BYTES", 3 * (LARGE + limits.HELD_BYTES_PER_REQUEST))
    unlearned = fill(turns, LARGE)

    def waiting(count: int) -> list[Exchange]:
        return [turns.begin("list", LARGE, steps=1, pieces=5) for _ in range(count)]

    # However the room is given back: to who leaves, to who is let in, to who has waited for too long.
    for end in ("leave", "learned", "overdue"):
        kept, refused = waiting(3), waiting(1)[0]
        assert refused.response is not None and b"waits unread" in refused.response
        assert all(exchange.response is None for exchange in kept)
        query = turns.begin("query", LARGE, steps=1)
        match end:
            case "leave":
                for exchange in kept:
                    exchange.cancel()
            case "learned":
                turns.work.learned(unlearned)
                while turns.due:
                    turns.take()
                assert all(exchange.response is not None for exchange in kept)
                unlearned = fill(turns, LARGE)
            case "overdue":
                turns.now_s += MAX_WAIT_S + 1.0
                turns.work.sweep()
        while turns.due:
            turns.take()
        assert query.response is not None and query.response.startswith(b"HTTP/1.1 200 ")
        assert turns.budget.held_bytes == 0
    assert all(exchange.response is None for exchange in waiting(3))


def test_feedback_whose_client_leaves_unread_is_forgotten_at_once(turns: Turns) -> None:
    unlearned = fill(turns, LARGE)
    for _ in range(3):
        for exchange in [turns.begin("list", LARGE, pieces=5) for _ in range(10)]:
            exchange.cancel()
    assert turns.budget.held_bytes == 0 and not turns.due
    turns.work.learned(unlearned)
    assert not turns.due and not turns.done


def test_feedback_whose_client_leaves_while_it_is_read_makes_room(turns: Turns) -> None:
    left = turns.begin("left", LARGE, steps=100, pieces=limits.MAX_UNLEARNED)
    turns.begin("next", LARGE, pieces=5)
    turns.take()
    assert set(turns.done) == {"left"}
    left.cancel()
    while turns.due:
        turns.take()
    assert turns.done[-3:] == ["next"] * 3 and turns.budget.held_bytes == 0
