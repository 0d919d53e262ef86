from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipper.worker.selection.feedback.join_table import (
    BYTES_PER_QUERY,
    OUTPUT_OVERHEAD_BYTES,
    QUERY_OVERHEAD_BYTES,
    JoinTable,
)
from clipper.worker.selection.query import Query
from tests.example_counts import share_of

MAX_BYTES = 10 * QUERY_OVERHEAD_BYTES


@dataclass
class Owner:
    """The part of a query's owner that the query uses."""

    feedback_ttl_s: float
    budget_s: float = 1.0
    judged = bytes


def make_query(number: int, size_bytes: int, arrival_s: float = 0.0, ttl_s: float = 1.0) -> Query:
    owner: Any = Owner(ttl_s)
    asker: Any = None
    return Query(owner, asker, number, bytes(size_bytes), None, arrival_s, arrival_s + owner.budget_s)


def test_contexts_count_as_the_memory_that_they_take() -> None:
    for context, size_bytes in (("x" * 1000, 1000), ("x" * 999 + "🎲", 4000), ("é" * 10, 40)):
        table = JoinTable(1000, 20 * (QUERY_OVERHEAD_BYTES + size_bytes))
        for number in range(100):
            query = make_query(number, 0)
            query.context = context
            table.remember(query, 0.0)
        assert len(table) <= 20 and table.size_bytes == len(table) * (QUERY_OVERHEAD_BYTES + size_bytes)


def size_of(query: Query) -> int:
    outputs = [*query.outputs.values(), *(query.shadow_outputs or {}).values()]
    size = QUERY_OVERHEAD_BYTES + (0 if query.row is None else len(query.row)) + sum(map(len, outputs))
    return size + OUTPUT_OVERHEAD_BYTES * (len(outputs) - 1 if outputs else 0)


class Joining(RuleBasedStateMachine):
    """Queries of several times to live against a plain list of all that were ever kept."""

    def __init__(self) -> None:
        super().__init__()
        self.table = JoinTable(1000, MAX_BYTES)
        self.now_s = 0.0
        self.kept: list[tuple[Query, float]] = []
        self.number = 0

    @rule(
        size=st.integers(0, 3000), output=st.integers(0, 500), shadow=st.booleans(), ttl_s=st.sampled_from([1, 5, 50])
    )
    def remember(self, size: int, output: int, shadow: bool, ttl_s: float) -> None:
        self.number += 1
        query = make_query(self.number, size, self.now_s, ttl_s)
        query.first_model, query.first_output = "m", bytes(output)
        if shadow:
            query.shadow_outputs = {"s": b"1"}
        self.table.remember(query, self.now_s)
        self.kept.append((query, self.now_s + ttl_s))

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), size=st.integers(0, 2000))
    def late_output(self, data: st.DataObject, size: int) -> None:
        query, _ = data.draw(st.sampled_from(self.kept))
        before = size_of(query)
        query.more_outputs = {"late": query.outputs.get("late", b"") + bytes(size)}
        self.table.grow(query.id, size_of(query) - before)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        query, until_s = data.draw(st.sampled_from(self.kept))
        found = self.table.find(query.id, self.now_s)
        assert found in (None, query)
        if until_s <= self.now_s:
            assert found is None

    @invariant()
    def is_bounded_and_keeps_the_newest(self) -> None:
        assert self.table.size_bytes <= MAX_BYTES
        live = [query for query, until_s in self.kept if until_s > self.now_s]
        size = 0
        for query in reversed([query for query, _ in self.kept]):
            size += size_of(query)
            if size > MAX_BYTES:
                break
            if query in live:
                assert self.table.find(query.id, self.now_s) is query

    @invariant()
    def counts_what_it_holds(self) -> None:
        held = [query for query, _ in self.kept if self.table.find(query.id, self.now_s) is query]
        assert len(held) <= len(self.table)
        assert sum(map(size_of, held)) <= self.table.size_bytes


Joining.TestCase.settings = settings(max_examples=share_of(60), stateful_step_count=40, deadline=None)
TestJoining = Joining.TestCase


def fill(table: JoinTable, numbers: range, now_s: float, until_s: float) -> None:
    for number in numbers:
        table.remember(make_query(number, 0, now_s, until_s - now_s), now_s)


def test_what_is_over_makes_room_while_more_comes() -> None:
    table = JoinTable(1000, 1000 * QUERY_OVERHEAD_BYTES)
    fill(table, range(100), 0.0, 1.0)
    fill(table, range(100, 200), 2.0, 3.0)
    assert len(table) == 100 and table.evicted == 0


def test_query_that_is_behind_one_that_lives_longer_is_over_in_its_time() -> None:
    table = JoinTable(1000, 1000 * QUERY_OVERHEAD_BYTES)
    fill(table, range(1), 0.0, 100.0)
    fill(table, range(1, 2), 0.0, 1.0)
    assert table.find(1, 0.5) is not None
    assert table.find(1, 1.0) is None
    assert table.find(0, 1.0) is not None


def test_the_oldest_go_first_when_it_is_full() -> None:
    table = JoinTable(10, 10 * QUERY_OVERHEAD_BYTES)
    fill(table, range(15), 0.0, 100.0)
    assert [table.find(number, 1.0) is not None for number in range(15)] == [False] * 5 + [True] * 10
    assert table.evicted == 5


def test_of_many_some_go_at_once() -> None:
    table = JoinTable(2048, 2048 * QUERY_OVERHEAD_BYTES)
    fill(table, range(2049), 0.0, 100.0)
    assert (len(table), table.evicted) == (2047, 2)
    assert table.find(1, 1.0) is None
    assert table.find(2, 1.0) is not None


def test_query_larger_than_the_table_is_not_kept() -> None:
    table = JoinTable(10, 10 * QUERY_OVERHEAD_BYTES)
    table.remember(make_query(1, 20 * QUERY_OVERHEAD_BYTES), 0.0)
    assert len(table) == table.size_bytes == 0


def test_output_for_a_query_that_is_forgotten_is_not_counted() -> None:
    table = JoinTable(1000, MAX_BYTES)
    table.grow(7, 100)
    assert table.size_bytes == 0


def test_so_many_are_kept_and_their_outputs_are_bounded_as_well() -> None:
    table = JoinTable(100)
    fill(table, range(150), 0.0, 100.0)
    assert (len(table), table.evicted) == (100, 50)
    large = JoinTable(100)
    for number in range(100):
        query = make_query(number, 0, 0.0, 100.0)
        query.first_model, query.first_output = "m", bytes(BYTES_PER_QUERY)
        large.remember(query, 0.0)
    assert len(large) < 100 and large.size_bytes <= 100 * BYTES_PER_QUERY


def test_it_tells_why_a_query_is_not_there() -> None:
    table = JoinTable(10)
    fill(table, range(15), 0.0, 5.0)
    assert [table.why_not(number, 5.0) for number in (0, 4, 5, 99)] == [
        "evicted",
        "evicted",
        "unanswered",
        "unanswered",
    ]
    assert table.find(9, 6.0) is None
    assert [table.why_not(number, 5.0) for number in (0, 9, 14, 99)] == ["over", "over", "over", "unanswered"]
    # Of an application whose feedback may come later, none is over.
    assert table.why_not(9, 50.0) == "unanswered"


def test_its_statistics_tell_how_far_back_it_reaches() -> None:
    table = JoinTable(10)
    assert table.statistics(7.0).age_s == 0.0
    fill(table, range(12), 1.0, 100.0)
    found = table.statistics(7.0)
    assert (found.queries, found.max_queries, found.evicted, found.age_s) == (10, 10, 2, 6.0)
    assert found.size_bytes == 10 * QUERY_OVERHEAD_BYTES and found.capacity_bytes == 10 * BYTES_PER_QUERY
