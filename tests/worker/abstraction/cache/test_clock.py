from collections import OrderedDict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipper.worker.abstraction.cache import clock
from clipper.worker.abstraction.cache.clock import (
    ENTRY_OVERHEAD_BYTES,
    HASHED_BYTES,
    MAX_ENTRY_SHARE,
    CacheTable,
    ClockCache,
)
from clipper.worker.abstraction.work import Work
from tests.example_counts import share_of
from tests.works import make_work

CAPACITY_BYTES = 10 * (ENTRY_OVERHEAD_BYTES + 20)
LARGEST_BYTES = CAPACITY_BYTES // MAX_ENTRY_SHARE - ENTRY_OVERHEAD_BYTES

ROWS = st.integers(0, 15).map(lambda number: b"row %d" % number)
OUTPUTS = st.integers(0, LARGEST_BYTES + 5).map(lambda size: b"7" * size)
TABLES = st.integers(0, 1)


def finish(table: CacheTable, row: bytes, output: bytes = b"1") -> Work:
    work = make_work(row)
    work.key = table.key_of(row)
    begin(table, work)
    work.output = output
    table.fulfil([work])
    return work


def begin(table: CacheTable, work: Work) -> None:
    work.table = table
    table.entries[work.key] = work


def find(table: CacheTable, row: bytes) -> Work | None:
    return table.find(row, table.key_of(row))


def rows_kept(table: CacheTable, rows: list[bytes]) -> list[bytes]:
    """Which of them are entries, without setting a reference bit: only a copy of the table is asked."""
    return [row for row in rows if table.key_of(row) in table.entries]


class ClockMachine(RuleBasedStateMachine):
    """Any sequence of calls against the textbook's CLOCK: an ordered dict of entries with a reference bit."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = ClockCache(CAPACITY_BYTES)
        self.tables = [CacheTable(self.cache), CacheTable(self.cache)]
        self.in_flight: dict[tuple[int, bytes], Work] = {}
        self.ring: OrderedDict[tuple[int, bytes], list[bytes | bool]] = OrderedDict()
        self.evictions = 0
        self.lookups = [[0, 0, 0], [0, 0, 0]]

    def size_bytes(self) -> int:
        return sum(len(row) + len(output) + ENTRY_OVERHEAD_BYTES for (_, row), (output, _) in self.ring.items())

    @rule(index=TABLES, row=ROWS)
    def ask(self, index: int, row: bytes) -> None:
        key = index, row
        found = find(self.tables[index], row)
        if key in self.ring:
            assert found is not None and found.output == self.ring[key][0] and found.row == row
            self.ring[key][1] = True
            self.lookups[index][0] += 1
        elif key in self.in_flight:
            assert found is self.in_flight[key], "equal inputs in flight have one piece of work"
            self.lookups[index][1] += 1
        else:
            assert found is None
            self.lookups[index][2] += 1
            self.in_flight[key] = work = make_work(row)
            begin(self.tables[index], work)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), output=OUTPUTS)
    def fulfil(self, data: st.DataObject, output: bytes) -> None:
        key = data.draw(st.sampled_from(sorted(self.in_flight)))
        work = self.in_flight.pop(key)
        work.output = output
        self.tables[key[0]].fulfil([work])
        if (len(key[1]) + len(output) + ENTRY_OVERHEAD_BYTES) * MAX_ENTRY_SHARE <= CAPACITY_BYTES:
            self._admit(key, output)

    def _admit(self, key: tuple[int, bytes], output: bytes) -> None:
        size = len(key[1]) + len(output) + ENTRY_OVERHEAD_BYTES
        while self.size_bytes() + size > CAPACITY_BYTES:
            head, (kept, used) = self.ring.popitem(last=False)
            if used:
                self.ring[head] = [kept, False]
            else:
                self.evictions += 1
        self.ring[key] = [output, False]

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.tables[key[0]].forget(self.in_flight.pop(key))

    @rule(index=TABLES)
    def close(self, index: int) -> None:
        """The version goes, and another takes its place; work in flight will end as if it had never been cached."""
        table = self.tables[index]
        table.close()
        assert len(table.entries) == 0
        for key in [key for key in self.in_flight if key[0] == index]:
            assert self.in_flight.pop(key).table is None
        for key in [key for key in self.ring if key[0] == index]:
            del self.ring[key]
        self.tables[index] = CacheTable(self.cache)
        self.lookups[index] = [0, 0, 0]

    @invariant()
    def counts_are_exact(self) -> None:
        statistics = self.cache.statistics()
        assert statistics.size_bytes == self.size_bytes() <= statistics.capacity_bytes == CAPACITY_BYTES
        assert statistics.entries == len(self.ring)
        assert statistics.evictions == self.evictions
        for table, counts in zip(self.tables, self.lookups, strict=True):
            assert [table.hits, table.joins, table.misses] == counts

    @invariant()
    def entries_are_those_in_flight_and_those_kept(self) -> None:
        for index, table in enumerate(self.tables):
            known = [row for at, row in [*self.ring, *self.in_flight] if at == index]
            assert len(table.entries) == len(known) == len(rows_kept(table, known))


TestClock = ClockMachine.TestCase
TestClock.settings = settings(max_examples=share_of(60), stateful_step_count=60, deadline=None)


def test_what_was_used_gets_a_second_chance_in_order() -> None:
    # Room for eight entries at most, which is the largest share an entry may have.
    cache = ClockCache(8 * (ENTRY_OVERHEAD_BYTES + 2))
    table = CacheTable(cache)
    rows = [b"%d" % number for number in range(8)]
    for row in rows:
        finish(table, row)
    find(table, b"0")
    find(table, b"2")
    finish(table, b"a")
    assert rows_kept(table, rows) == [b"0", b"2", b"3", b"4", b"5", b"6", b"7"]
    finish(table, b"b")
    assert rows_kept(table, rows) == [b"0", b"2", b"4", b"5", b"6", b"7"]
    assert cache.statistics().evictions == 2


def test_work_in_flight_is_not_evicted_however_much_comes() -> None:
    cache = ClockCache(CAPACITY_BYTES)
    table = CacheTable(cache)
    flying = make_work(b"flying")
    begin(table, flying)
    for number in range(100):
        finish(table, b"%d" % number)
    assert find(table, b"flying") is flying


def test_an_entry_over_its_share_is_answered_but_not_kept() -> None:
    cache = ClockCache(CAPACITY_BYTES)
    table = CacheTable(cache)
    finish(table, b"small")
    finish(table, b"", b"7" * (LARGEST_BYTES + 1))
    finish(table, b"also small", b"7")
    assert rows_kept(table, [b"small", b"", b"also small"]) == [b"small", b"also small"]
    finish(table, b"", b"7" * LARGEST_BYTES)
    assert find(table, b"") is not None


@pytest.mark.parametrize("capacity_bytes", [0, 1, ENTRY_OVERHEAD_BYTES])
def test_a_cache_too_small_for_anything_keeps_nothing_and_still_joins(capacity_bytes: int) -> None:
    table = CacheTable(ClockCache(capacity_bytes))
    work = make_work(b"x")
    begin(table, work)
    assert find(table, b"x") is work
    work.output = b"1"
    table.fulfil([work])
    assert find(table, b"x") is None


def test_batch_larger_than_the_cache_keeps_its_latest() -> None:
    cache = ClockCache(CAPACITY_BYTES)
    table = CacheTable(cache)
    old = finish(table, b"old")
    works = [make_work(b"%d" % number) for number in range(CAPACITY_BYTES // ENTRY_OVERHEAD_BYTES + 3)]
    for work in works:
        begin(table, work)
        work.output = b"1"
    table.fulfil(works)
    kept = rows_kept(table, [work.row for work in [old, *works]])
    assert 0 < len(kept) < len(works)
    assert kept == [work.row for work in works[-len(kept) :]]
    assert cache.statistics().size_bytes <= CAPACITY_BYTES


def test_keys_are_compared_whole() -> None:
    # Many inputs in one dict share hash slots; each still finds its own output and no other.
    table = CacheTable(ClockCache(1 << 30))
    rows = [number.to_bytes(3, "little") + bytes(tail) for number in range(2_000) for tail in (0, 1)]
    for row in rows:
        finish(table, row, row.hex().encode())
    for row in rows:
        found = find(table, row)
        assert found is not None and found.output == row.hex().encode()


def test_versions_do_not_see_each_others_outputs() -> None:
    cache = ClockCache(CAPACITY_BYTES)
    one, two = CacheTable(cache), CacheTable(cache)
    finish(one, b"x", b"1")
    assert find(two, b"x") is None
    finish(two, b"x", b"2")
    finish(two, b"y", b"3")
    two.close()
    found = find(one, b"x")
    assert found is not None and found.output == b"1"
    assert (len(one.entries), len(two.entries), find(two, b"x")) == (1, 0, None)
    assert (cache.statistics().entries, cache.statistics().size_bytes) == (1, ENTRY_OVERHEAD_BYTES + 2)


def test_large_inputs_are_found_by_their_hash_and_compared_whole() -> None:
    table = CacheTable(ClockCache(1 << 20))
    size = HASHED_BYTES
    rows = [bytes(size), bytes(size - 1) + b"1", b"1" + bytes(size - 1), bytes(size - 1), bytes(size + 1)]
    works = [finish(table, row, b"%d" % number) for number, row in enumerate(rows)]
    assert [find(table, bytes(bytearray(row))) for row in rows] == works
    assert table.peek(rows[1]) == b"1"
    assert find(table, b"2" + bytes(size - 1)) is None
    assert (table.hits, table.misses) == (5, 1)


def test_of_two_inputs_with_one_hash_the_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "xxh3_64_intdigest", lambda row, seed: 7)
    cache = ClockCache(10 * (HASHED_BYTES + ENTRY_OVERHEAD_BYTES))
    table = CacheTable(cache)
    first, second = bytes(HASHED_BYTES), b"1" * HASHED_BYTES
    finish(table, first, b"1")
    assert find(table, second) is None and table.peek(second) is None
    work = finish(table, second, b"2")
    assert find(table, first) is None
    assert find(table, second) is work and table.peek(second) == b"2"

    for number in range(60):
        finish(table, b"%d" % number, bytes(100))

    assert find(table, second) is None
    assert cache.statistics().size_bytes == sum(
        ENTRY_OVERHEAD_BYTES + len(each.row) + len(each.output or b"") for each in table.entries.values()
    )


def test_work_that_was_forgotten_is_not_kept_when_its_output_comes() -> None:
    cache = ClockCache(CAPACITY_BYTES)
    table = CacheTable(cache)
    work = make_work(b"x")
    begin(table, work)
    table.forget(work)
    other = make_work(b"y")
    begin(table, other)
    work.output = other.output = b"1"
    table.fulfil([work, other])
    assert find(table, b"x") is None and find(table, b"y") is other
    assert cache.statistics().entries == 1


def test_look_ups_are_counted_one_by_one() -> None:
    table = CacheTable(ClockCache(CAPACITY_BYTES))
    find(table, b"x")
    begin(table, make_work(b"x"))
    find(table, b"x")
    finish(table, b"y")
    find(table, b"y")
    assert (table.misses, table.joins, table.hits, len(table.entries)) == (1, 1, 1, 2)
    table.peek(b"y")
    assert (table.misses, table.joins, table.hits) == (1, 1, 1)


def test_a_new_entry_stays_where_all_others_have_been_used() -> None:
    cache = ClockCache(8 * (ENTRY_OVERHEAD_BYTES + 2))
    table = CacheTable(cache)
    rows = [b"%d" % number for number in range(8)]
    for row in rows:
        finish(table, row)
        find(table, row)
    finish(table, b"a")
    assert rows_kept(table, [*rows, b"a"]) == [*rows[1:], b"a"]
