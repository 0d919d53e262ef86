"""The budget of a turn, with a loop and a clock that are simulated."""

from collections import Counter, deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.base.turn_budget import (
    LONGEST_TURN_S,
    MOST_UNREAD_TURNS,
    OTHERS_SHARE,
    PATIENCE_SHARE_OF_SLO,
    VISIT_S,
    Backlog,
    TurnBudget,
)
from tests.example_counts import share_of

NEVER_S = float("inf")
SLO_S = 0.02
PATIENCE_S = SLO_S * PATIENCE_SHARE_OF_SLO


class Loop:
    """A worker's loop that does nothing but read and take in."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self.given_out = 0
        self.turn = TurnBudget(self.soon.append, lambda: self.now_s, self._give_out)
        self.turn.set_slo(SLO_S)
        self.ended: list[Request] = []

    def _give_out(self) -> None:
        self.given_out += 1

    def read(self, request: "Request") -> None:
        """A connection has read a request: as ``Connection`` does."""
        request.arrived_s = self.now_s
        if self.turn.is_open(self.now_s):
            request.enter(is_late=False)
        else:
            request.arrived_s = self.turn.arrived_s(self.now_s)
            self.turn.wait(request)

    def end_turn(self) -> None:
        for _ in range(len(self.soon)):
            self.soon.popleft()()

    def settle(self) -> None:
        while self.soon:
            self.end_turn()
            self.now_s += 1e-4


class Request:
    def __init__(self, loop: Loop, due_s: float = 0.0, patience_s: float = PATIENCE_S, cost_s: float = 35e-6) -> None:
        self.loop, self.due_s, self.patience_s, self.cost_s = loop, due_s, patience_s, cost_s
        self.arrived_s = 0.0
        self.asks: object = "app" if patience_s < NEVER_S else None
        self.waited_s: float | None = None
        self.is_late = False

    def enter(self, *, is_late: bool) -> None:
        assert self.waited_s is None, "entered twice"
        self.is_late = is_late
        self.waited_s = self.loop.now_s - self.arrived_s
        self.loop.now_s += 14e-6 if is_late else self.cost_s
        self.loop.ended.append(self)


def overload(per_s: float, seconds: float, read_s: float = 8e-6) -> Loop:
    """Requests that come evenly, each read by the first poll after it came."""
    loop = Loop()
    number, last = 0, int(per_s * seconds)
    while number < last:
        if not loop.soon and number / per_s > loop.now_s:
            loop.now_s = number / per_s
        while number < last and number / per_s <= loop.now_s:
            due_s = number / per_s
            number += 1
            loop.now_s += read_s
            loop.read(Request(loop, due_s))
        loop.end_turn()
    loop.settle()
    return loop


def good(loop: Loop, begin_s: float) -> list[Request]:
    """Those that were taken in with half of their SLO left."""
    return [
        request
        for request in loop.ended
        if not request.is_late and request.due_s >= begin_s and request.arrived_s - request.due_s < SLO_S / 4
    ]


def test_below_what_the_worker_can_do_nothing_is_late_and_all_is_in_order() -> None:
    loop = overload(20_000, 1.0)
    assert len(loop.ended) == 20_000
    assert not any(request.is_late for request in loop.ended)
    assert [request.due_s for request in loop.ended] == sorted(request.due_s for request in loop.ended)


def test_over_what_the_worker_can_do_it_takes_in_what_time_allows() -> None:
    # Of a second each request costs 8 us to read, and then 35 to take in or 14 to shed.
    for per_s in (26_000, 30_000, 36_000):
        loop = overload(per_s, 2.0)
        feasible = (1 - per_s * 22e-6) / (35e-6 - 14e-6)
        taken = good(loop, 1.0)
        assert len(taken) > 0.9 * min(feasible, per_s), (per_s, len(taken), feasible)
        assert all(request.waited_s is not None and request.waited_s <= PATIENCE_S for request in taken)
        assert len(loop.ended) == per_s * 2


@pytest.mark.parametrize("per_s", [26_000, 30_000, 36_000])
def test_what_was_not_read_for_a_turn_counts_from_when_it_may_have_come(per_s: int) -> None:
    """A query that is answered within its SLO from then on is in time for its client."""
    loop = overload(per_s, 0.5)
    waited_s = [request.arrived_s - request.due_s for request in loop.ended if request.due_s >= 0.1]
    assert sum(unseen_s <= 0.05 * SLO_S for unseen_s in waited_s) >= 0.99 * len(waited_s)
    # It counts as waiting for no longer than about a turn more than it did.
    assert min(waited_s) >= -1.5 * LONGEST_TURN_S


def test_after_a_turn_that_was_blocked_some_is_taken_to_be_new() -> None:
    loop = Loop()
    loop.read(Request(loop))
    loop.now_s += 1.0
    assert loop.turn.arrived_s(loop.now_s) == pytest.approx(loop.now_s - MOST_UNREAD_TURNS * LONGEST_TURN_S)


def test_far_over_it_half_of_the_time_goes_to_answerable_requests() -> None:
    loop = overload(80_000, 0.5, read_s=2e-6)
    taken = [request for request in loop.ended if not request.is_late]
    late = [request for request in loop.ended if request.is_late]
    assert len(taken) * 35e-6 > 0.3 * (len(taken) * 35e-6 + len(late) * 14e-6)


def test_a_turn_takes_in_for_a_bounded_time() -> None:
    loop = Loop()
    for _ in range(1000):
        loop.read(Request(loop))
    assert len(loop.ended) * 35e-6 < 2 * LONGEST_TURN_S + 35e-6
    before_s, turns = loop.now_s, 0
    while loop.soon:
        loop.end_turn()
        turns += 1
        assert loop.now_s - before_s <= LONGEST_TURN_S + 35e-6
        before_s = loop.now_s
    assert len(loop.ended) == 1000
    assert loop.given_out >= turns - 1, "batches leave with each turn that took some in"


def test_the_last_come_first_once_the_first_have_waited_for_long() -> None:
    loop = Loop()
    old = [Request(loop) for _ in range(500)]
    for request in old:
        loop.read(request)
    loop.now_s += PATIENCE_S * 0.6
    new = [Request(loop) for _ in range(20)]
    for request in new:
        loop.read(request)
    loop.end_turn()
    assert all(request.waited_s is not None for request in new)
    assert any(request.waited_s is None for request in old)
    loop.settle()
    assert Counter(request.is_late for request in new) == {False: 20}


def test_other_requests_are_never_late_and_get_a_share_beside_any_queries() -> None:
    loop = Loop()
    for _ in range(3000):
        loop.read(Request(loop))
    patient = [Request(loop, patience_s=NEVER_S) for _ in range(20)]
    for request in patient:
        loop.read(request)
    for _ in range(5):
        loop.end_turn()
    assert all(request.waited_s is not None and not request.is_late for request in patient)


def test_a_flood_of_one_application_does_not_make_another_wait() -> None:
    loop = Loop()
    other: list[Request] = []
    for turn in range(200):
        for _ in range(200):
            loop.read(Request(loop))
        if turn % 5 == 0:
            other.append(Request(loop))
            other[-1].asks = "other"
            loop.read(other[-1])
        loop.end_turn()
    loop.settle()
    assert any(request.is_late for request in loop.ended)
    assert not any(request.is_late for request in other)
    assert all(request.waited_s is not None and request.waited_s < 3 * LONGEST_TURN_S for request in other)


class Greedy(Request):
    """A connection that holds more than it will ever be rid of."""

    def __init__(self, loop: Loop, cost_s: float) -> None:
        super().__init__(loop, cost_s=cost_s)
        self.visits = 0

    def enter(self, *, is_late: bool) -> None:
        self.visits += 1
        self.loop.now_s += self.cost_s
        self.loop.turn.wait_behind(self)


@pytest.mark.parametrize("connections", [1, 5, 30, 1000])
@pytest.mark.parametrize("visit_s", [20e-6, 200e-6, 1e-3])
def test_connections_that_hold_more_than_a_visit_takes_make_no_query_wait(connections: int, visit_s: float) -> None:
    loop = Loop()
    greedy = [Greedy(loop, visit_s) for _ in range(connections)]
    for each in greedy:
        loop.turn.wait_behind(each)
    queries, health = [], []
    for turn in range(500):
        # As many queries as a turn has time for, and now and then one with an unknown head.
        for _ in range(5):
            queries.append(Request(loop))
            loop.read(queries[-1])
        if turn % 3 == 0:
            health.append(Request(loop, patience_s=NEVER_S))
            loop.read(health[-1])
        loop.end_turn()
    assert all(query.waited_s is not None and not query.is_late for query in queries)
    for request in queries + health:
        assert request.waited_s is not None
        # At worst it has just missed a turn, whose visits may end over time by one each.
        assert request.waited_s <= 2 * (LONGEST_TURN_S + visit_s), request.waited_s
    visits = [each.visits for each in greedy]
    assert sum(visits) >= 500, "they have a visit in each turn, too"
    assert max(visits) - min(visits) <= 1, "and the same share each"


@pytest.mark.parametrize("other_cost_s", [20e-6, 110e-6, 400e-6])
@pytest.mark.parametrize("lines", [2, 6])
def test_applications_have_equal_times_however_long_their_visits_are(other_cost_s: float, lines: int) -> None:
    loop, used_s, waiting = Loop(), Counter[object](), Counter[object]()
    loop.turn.set_slo(1.0)
    for _ in range(400):
        for line in range(lines):
            for _ in range(200 - waiting[line]):
                waiting[line] += 1
                request = Request(loop, patience_s=1e6)
                request.asks, request.cost_s = line, other_cost_s if line else 25e-6
                request.arrived_s = loop.now_s
                loop.turn.wait(request)
        before = len(loop.ended)
        loop.end_turn()
        for request in loop.ended[before:]:
            used_s[request.asks] += request.cost_s
            waiting[request.asks] -= 1
    assert max(used_s.values()) - min(used_s.values()) <= 2 * other_cost_s, used_s


def test_an_application_that_was_alone_owes_nothing_to_those_that_come() -> None:
    loop = Loop()
    for _ in range(2000):
        for _ in range(100):
            loop.read(Request(loop, patience_s=1e6))
        loop.end_turn()
    for _ in range(200):
        late = Request(loop, patience_s=1e6)
        late.asks = "other"
        loop.read(late)
    before = len(loop.ended)
    for _ in range(2):
        loop.end_turn()
    asked = Counter(request.asks for request in loop.ended[before:])
    assert abs(asked["app"] - asked["other"]) <= 4, asked


@settings(max_examples=share_of(100), deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([PATIENCE_S, 10 * PATIENCE_S, NEVER_S]), st.floats(0, 0.03)),
        max_size=30,
    )
)
def test_each_enters_once_and_none_is_told_late_before_its_time(steps: list[tuple[int, float, float]]) -> None:
    loop, requests = Loop(), []
    for count, patience_s, passed_s in steps:
        for _ in range(count):
            requests.append(Request(loop, patience_s=patience_s, cost_s=1e-4))
            loop.read(requests[-1])
        loop.end_turn()
        loop.now_s += passed_s
    loop.settle()
    for request in requests:
        assert request.waited_s is not None
        assert not request.is_late or request.waited_s > request.patience_s


class Endless:
    """Work that is never done, in a line of its own: with queries if it has a name, else behind them."""

    arrived_s, patience_s = 0.0, NEVER_S

    def __init__(self, loop: Loop, cost_s: float, asks: object = None) -> None:
        self.loop, self.cost_s, self.asks = loop, cost_s, asks
        self.used_s = 0.0
        self.wait()

    def wait(self) -> None:
        if self.asks is None:
            self.loop.turn.wait_behind(self, self)
        else:
            self.loop.turn.wait(self)

    def enter(self, *, is_late: bool) -> None:
        assert not is_late
        self.used_s += self.cost_s
        self.loop.now_s += self.cost_s
        self.wait()


COSTS_S = st.lists(st.floats(10e-6, 1.5e-3), max_size=6)


@settings(max_examples=share_of(100), deadline=None)
@given(of_queries=COSTS_S, others=COSTS_S, slo_s=st.floats(0.002, 1.0))
def test_a_turn_is_as_long_as_its_budget_whatever_there_is_to_do(
    of_queries: list[float], others: list[float], slo_s: float
) -> None:
    loop = Loop()
    loop.turn.set_slo(slo_s)
    first = [Endless(loop, cost_s, number) for number, cost_s in enumerate(of_queries)]
    behind = [Endless(loop, cost_s) for cost_s in others]
    budget_s = min(max(slo_s / 10, 0.5e-3), LONGEST_TURN_S)
    for _ in range(400):
        before_s = loop.now_s
        loop.end_turn()
        # A visit that has begun is not cut off: of each kind one may end over the time.
        assert loop.now_s - before_s <= budget_s + max(of_queries, default=0.0) + max(others, default=0.0)
    assert all(each.used_s for each in first + behind), "nobody waits for ever"


def test_other_requests_have_a_quarter_of_the_time_beside_any_queries() -> None:
    loop = Loop()
    behind = [Endless(loop, cost_s) for cost_s in (1e-3, 0.2e-3, 20e-6)]
    queries = 0
    for _ in range(200):
        for _ in range(100):
            queries += 1
            loop.read(Request(loop, patience_s=1e6))
        loop.end_turn()
    used_s = sum(each.used_s for each in behind)
    assert len(loop.ended) < queries, "there was more than the loop had time for"
    assert OTHERS_SHARE * 0.8 <= used_s / (used_s + sum(each.cost_s for each in loop.ended)) <= OTHERS_SHARE * 1.4


def test_handshakes_and_long_bodies_make_no_query_wait() -> None:
    loop = Loop()
    Endless(loop, 1e-3)
    Endless(loop, 0.5e-3)
    Endless(loop, 0.5e-3, "long bodies")
    queries = []
    for _ in range(500):
        for _ in range(5):
            queries.append(Request(loop))
            loop.read(queries[-1])
        loop.end_turn()
    assert all(query.waited_s is not None and query.waited_s <= LONGEST_TURN_S + 1.5e-3 for query in queries)


# -- backlogs ------------------------------------------------------------------------------------------------------


class Pieces:
    """Things to do in pieces of half a visit each."""

    def __init__(self, asks: object = None, in_turns: bool = False) -> None:
        self.loop = Loop()
        self.may_go_on = True
        self.done: list[str] = []
        self.left: Counter[str] = Counter()
        self.backlog = Backlog[str](
            self.loop.turn, self.do, asks=asks, in_turns=in_turns, may_go_on=lambda: self.may_go_on
        )

    def do(self, name: str, end_s: float) -> bool:
        self.loop.now_s += VISIT_S / 2
        self.done.append(name)
        self.left[name] -= 1
        return self.left[name] == 0

    def begin(self, **pieces: int) -> None:
        self.left.update(pieces)
        for name in pieces:
            self.backlog.begin(name)


def test_a_backlog_does_one_thing_after_another_or_the_next_each_visit() -> None:
    for in_turns, order in ((False, "aaaabbbb"), (True, "aabbaabb")):
        pieces = Pieces(in_turns=in_turns)
        pieces.left.update(a=4, b=4)
        pieces.backlog.add("a")
        pieces.backlog.add("b")
        for turns in range(1, 5):
            pieces.loop.end_turn()
            assert len(pieces.done) == 2 * turns, "a visit in each turn"
        assert "".join(pieces.done) == order
        pieces.loop.settle()
        assert not pieces.backlog.items


def test_a_backlog_begins_at_once_if_the_turn_has_time() -> None:
    pieces = Pieces()
    pieces.begin(a=3, b=1)
    assert pieces.done == ["a", "a"]
    pieces.loop.settle()
    assert pieces.done == ["a", "a", "a", "b"]


def test_a_backlog_waits_while_it_may_not_go_on_and_for_no_longer() -> None:
    pieces = Pieces("queries")
    pieces.may_go_on = False
    pieces.begin(a=1)
    pieces.loop.settle()
    assert pieces.done == [] and not pieces.loop.soon, "nor does it take turns meanwhile"
    pieces.may_go_on = True
    pieces.backlog.go_on()
    pieces.loop.settle()
    assert pieces.done == ["a"]


def test_a_backlog_outlives_what_fails() -> None:
    pieces = Pieces()
    pieces.left.update(a=1)

    def fail(name: str, end_s: float) -> bool:
        raise ValueError(name)

    backlog = Backlog[str](pieces.loop.turn, fail)
    for name in ("a", "b"):
        backlog.add(name)
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=name):
            pieces.loop.settle()
    pieces.loop.settle()
    assert not backlog.items
