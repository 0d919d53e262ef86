import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipper.worker.abstraction.batching.deadline_queue import (
    MAX_BACKGROUND_SHARE,
    MAX_DUE,
    MAX_IDLE_LANES,
    UNWANTED_EVERY_S,
    DeadlineQueue,
)
from clipper.worker.abstraction.work import Work
from tests.example_counts import share_of
from tests.works import Waiting, make_work

MAX_LENGTH, MAX_BYTES = 12, 60
SLOS_S = (0.5, 1.0, 4.0)


def make_queue() -> DeadlineQueue:
    return DeadlineQueue(MAX_LENGTH, MAX_BYTES)


def names(works: list[Work]) -> list[bytes]:
    return [work.row for work in works]


class QueueMachine(RuleBasedStateMachine):
    """Work arrives as time passes; what comes out is compared with a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_queue()
        self.now_s = 0.0
        self.inside: list[Work] = []
        self.background: list[Work] = []

    def leave(self, works: list[Work]) -> None:
        for work in works:
            (self.inside if work in self.inside else self.background).remove(work)  # raises if it left twice
            assert work.lane == 0

    def size_bytes(self) -> int:
        return sum(len(work.row) for work in self.inside)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 2.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(slo_s=st.sampled_from(SLOS_S), size=st.integers(0, 20), age_s=st.sampled_from([0.0, 0.0, 0.2]))
    def push(self, slo_s: float, size: int, age_s: float) -> None:
        """With an age: it waited to be taken in, and later work did not."""
        work = make_work(bytes(size), self.now_s - age_s, slo_s)
        fits = len(self.inside) < MAX_LENGTH and self.size_bytes() + size <= MAX_BYTES
        assert self.queue.push(work) is fits
        if fits:
            self.inside.append(work)

    @rule(size=st.integers(0, 8))
    def push_background(self, size: int) -> None:
        work = make_work(bytes(size), self.now_s, 4.0)
        fits = len(self.background) < MAX_LENGTH * MAX_BACKGROUND_SHARE
        size_bytes = sum(len(work.row) for work in self.background)
        fits = fits and size_bytes + size <= MAX_BYTES * MAX_BACKGROUND_SHARE
        assert self.queue.push_background(work) is fits
        if fits:
            self.background.append(work)

    @precondition(lambda self: self.inside or self.background)
    @rule(data=st.data(), slo_s=st.sampled_from(SLOS_S))
    def hasten(self, data: st.DataObject, slo_s: float) -> None:
        work = data.draw(st.sampled_from([*self.inside, *self.background]))
        due_s, deadline_s = work.due_s, self.now_s + slo_s
        work.join(Waiting(deadline_s))
        self.queue.hasten(work, slo_s, deadline_s)
        if work in self.background:
            self.background.remove(work)
            self.inside.append(work)
            assert (work.slo_s, work.due_s) == (slo_s, deadline_s)
        assert work.due_s == min(due_s, deadline_s) or work.due_s == deadline_s

    @rule()
    def expire(self) -> None:
        expired = self.queue.expire(self.now_s)
        assert all(work.deadline_s <= self.now_s or not work.is_wanted for work in expired)
        self.leave(expired)
        # Expired work may stay only in the background, behind work that is due later.
        assert all(work.deadline_s > self.now_s for work in self.inside)

    @rule()
    def make_room(self) -> None:
        left = self.queue.make_room(self.now_s)
        assert all(work.deadline_s <= self.now_s or not work.is_wanted for work in left)
        self.leave(left)

    @rule(ahead_s=st.sampled_from([0.0, 0.3, 0.5, 1.0, 3.9]), limit=st.integers(1, 5), returns=st.booleans())
    def take(self, ahead_s: float, limit: int, returns: bool) -> None:
        before, from_s = sorted(self.inside, key=lambda work: work.due_s), ahead_s and self.now_s + ahead_s
        taken = self.queue.take(limit, self.queue.lanes(), from_s)
        self.leave([*taken.batch, *taken.dropped])
        assert all(work.is_wanted and work.due_s >= from_s for work in taken.batch) and len(taken.batch) <= limit
        assert all(work.due_s < from_s or not work.is_wanted for work in taken.dropped)
        # Work that a more patient query has joined may wait again instead of being dropped.
        assert len(taken.batch) == limit or all(len(work.waiters) > 1 for work in self.inside)
        due_s = [work.due_s for work in taken.batch]
        if not any(len(work.waiters) > 1 for work in before):
            # Most urgent first; what a more patient query has joined may have been put behind.
            assert due_s == sorted(due_s)
            out_s = sorted(work.due_s for work in [*taken.batch, *taken.dropped])
            assert out_s == [work.due_s for work in before[: len(out_s)]]
        if returns:
            self.queue.push_back(taken.batch)
            self.inside += taken.batch

    @rule()
    def take_newest(self) -> None:
        wanted = [work.due_s for work in self.inside if work.is_wanted and len(work.waiters) == 1]
        taken = self.queue.take_newest(self.queue.lanes())
        self.leave([*taken.batch, *taken.dropped])
        assert len(taken.batch) == 1 or not self.inside
        if not any(len(work.waiters) > 1 for work in [*self.inside, *taken.batch]):
            assert [work.due_s for work in taken.batch] == ([max(wanted)] if wanted else [])

    @rule(limit=st.integers(1, 5))
    def take_background(self, limit: int) -> None:
        taken = self.queue.take_background(limit)
        assert all(work in self.background for work in [*taken.batch, *taken.dropped])
        self.leave([*taken.batch, *taken.dropped])
        assert len(taken.batch) == limit or not self.background

    @precondition(lambda self: self.inside or self.background)
    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        """A client goes away; its work stays until it is its turn."""
        data.draw(st.sampled_from([*self.inside, *self.background])).waiters[0].done = True

    @rule()
    def clear(self) -> None:
        self.leave(self.queue.clear())
        assert not self.inside and not self.background

    @invariant()
    def counts_are_exact(self) -> None:
        assert (self.queue.length, self.queue.background) == (len(self.inside), len(self.background))
        assert self.queue.size_bytes == self.size_bytes()
        assert sum(len(lane.works) for lane in self.queue.lanes()) == len(self.inside)
        assert sum(lane.size_bytes for lane in self.queue.lanes()) == sum(len(work.row) for work in self.inside)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=share_of(60), stateful_step_count=40, deadline=None)


def fill(queue: DeadlineQueue, *pieces: tuple[bytes, float, float]) -> None:
    """With (row, arrival, SLO) each."""
    assert all(queue.push(make_work(*piece)) for piece in pieces)


def test_most_urgent_first_over_lanes() -> None:
    queue = make_queue()
    fill(queue, (b"a", 0.0, 1.0), (b"b", 0.1, 0.5), (b"c", 0.2, 1.0), (b"d", 0.3, 0.5))
    taken = queue.take(10, queue.lanes())
    assert (names(taken.batch), taken.dropped) == ([b"b", b"d", b"a", b"c"], [])


def test_an_empty_lane_has_nothing_to_take() -> None:
    queue = make_queue()
    fill(queue, (b"only", 1.0, 0.0))
    lanes = queue.lanes()
    queue.take(1, lanes)
    taken = queue.take(1, lanes, 1.0)
    assert (taken.batch, taken.dropped) == ([], [])


def test_most_urgent_first_where_lanes_alternate() -> None:
    """In the order of neither lane after the other: due at 1.0, 1.1 and 1.6."""
    queue = make_queue()
    fill(queue, (b"first", 0.0, 1.0), (b"last", 0.6, 1.0), (b"between", 0.6, 0.5))
    assert names(queue.take(10, queue.lanes()).batch) == [b"first", b"between", b"last"]
    fill(queue, (b"first", 0.0, 1.0), (b"last", 0.6, 1.0), (b"between", 0.6, 0.5))
    taken = queue.take(10, queue.lanes(), 1.6)
    assert (names(taken.dropped), names(taken.batch)) == ([b"first", b"between"], [b"last"])


def test_only_the_lanes_that_are_named_are_taken_from() -> None:
    queue = DeadlineQueue(MAX_LENGTH, 10_000)
    fill(queue, (b"x", 0.0, 1.0), (bytes(1000), 0.1, 1.0), (b"y", 0.2, 1.0))
    short = min(queue.lanes(), key=lambda lane: lane.length_class)
    assert names(queue.take(10, [short]).batch) == [b"x", b"y"]
    assert queue.length == 1


def test_what_is_dropped_does_not_count_towards_the_limit() -> None:
    queue = make_queue()
    fill(queue, (b"1", 0.0, 1.0), (b"2", 0.0, 1.0), (b"3", 5.0, 1.0), (b"4", 5.0, 1.0))
    taken = queue.take(1, queue.lanes(), 6.0)
    assert (names(taken.batch), names(taken.dropped)) == ([b"3"], [b"1", b"2"])


def test_work_is_sent_if_only_the_first_of_its_waiters_went_away() -> None:
    queue = make_queue()
    joined, alone = make_work(b"joined"), make_work(b"alone")
    joined.join(Waiting(1.0))
    for work in (joined, alone):
        queue.push(work)
        work.waiters[0].done = True
    taken = queue.take(10, queue.lanes())
    assert (names(taken.batch), names(taken.dropped)) == ([b"joined"], [b"alone"])


def test_work_that_was_joined_does_not_hide_expired_work_behind_it() -> None:
    queue = make_queue()
    joined = make_work(b"joined", 0.0, slo_s=1.0)
    queue.push(joined)
    fill(queue, (b"dead", 0.1, 1.0), (b"alive", 1.5, 1.0))
    joined.join(Waiting(2.9))
    assert names(queue.expire(2.0)) == [b"dead"]
    assert queue.length == 2
    assert sorted(names(queue.expire(2.9))) == [b"alive", b"joined"]


def test_work_that_a_more_urgent_query_joins_moves_to_its_deadline() -> None:
    queue = make_queue()
    fill(queue, (b"a", 0.0, 1.0), (b"b", 0.1, 1.0))
    work = make_work(b"patient", 0.0, 4.0)
    queue.push(work)
    queue.hasten(work, 0.5, 0.7)
    assert names(queue.take(10, queue.lanes()).batch) == [b"patient", b"a", b"b"]
    # One that has left, or is due sooner, is left alone.
    queue.hasten(work, 0.5, 0.1)
    assert (queue.length, work.due_s) == (0, 0.7)


def test_work_of_the_background_leaves_room() -> None:
    queue = DeadlineQueue(8, 1000)
    assert [queue.push_background(make_work(b"x")) for _ in range(3)] == [True, True, False]
    assert not DeadlineQueue(8, 1000).push_background(make_work(bytes(251)))
    assert all(queue.push(make_work(b"y")) for _ in range(8))


def test_what_comes_back_is_first_again_and_in_order_even_over_the_bound() -> None:
    queue = DeadlineQueue(max_length=3, max_bytes=100)
    for row in (b"1", b"2", b"3"):
        queue.push(make_work(row))
    taken = queue.take(2, queue.lanes()).batch
    assert queue.push(make_work(b"4")) and queue.push(make_work(b"5"))
    queue.push_back(taken)
    assert queue.length == 5 and not queue.push(make_work(b"6"))
    assert names(queue.take(10, queue.lanes()).batch) == [b"1", b"2", b"3", b"4", b"5"]


def test_lanes_of_slos_no_longer_in_use_do_not_pile_up() -> None:
    queue = make_queue()
    for slo_ms in range(1, 1000):
        queue.push(make_work(b"x", slo_s=slo_ms / 1000))
        queue.take(1, queue.lanes())
    assert len(queue._lanes) <= MAX_IDLE_LANES


def test_the_oldest_arrival_of_an_empty_queue_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        make_queue().oldest_arrival_s()


def test_lengths_that_turn_out_to_differ_leave_what_waits_where_it_is() -> None:
    queue = DeadlineQueue(MAX_LENGTH, 10_000)
    work = make_work(bytes(1000), 0.0, 1.0)
    queue.push(work)
    fill(queue, (b"x", 0.1, 1.0))
    assert queue.varies
    queue.hasten(work, 0.5, 0.7)
    assert queue.length == 2 and names(queue.take(10, queue.lanes()).batch) == [bytes(1000), b"x"]
    assert queue.size_bytes == sum(lane.size_bytes for lane in queue.lanes()) == 0


def test_a_lane_that_was_dropped_is_not_pushed_to() -> None:
    queue = DeadlineQueue(1000, 10_000)
    works = [make_work(b"x", slo_s=slo_ms / 1000) for slo_ms in range(2, 2 + MAX_IDLE_LANES)]
    for work in works:
        queue.push(work)
    queue.take(1000, queue.lanes())
    # The lane pushed to last is empty, and goes as one more is made.
    queue.push_back([make_work(b"y", slo_s=7.0)])
    fill(queue, (b"z", 0.0, works[-1].slo_s))
    assert sorted(names(queue.take(10, queue.lanes()).batch)) == [b"y", b"z"]


def test_rows_of_about_one_length_share_a_lane() -> None:
    queue = DeadlineQueue(MAX_LENGTH, 10_000)
    sizes = (0, 1, 127, 128, 511, 512, 2047, 2048)
    for size in sizes:
        fill(queue, (bytes(size), 0.0, 1.0))
    lanes = sorted(queue.lanes(), key=lambda lane: lane.length_class)
    assert [[len(work.row) for work in lane.works] for lane in lanes] == [[0, 1, 127], [128, 511], [512, 2047], [2048]]
    assert [lane.size_bytes for lane in lanes] == [128, 639, 2559, 2048]


def test_rows_that_are_all_as_long_share_a_lane_however_long() -> None:
    queue = DeadlineQueue(MAX_LENGTH, 10_000)
    fill(queue, (bytes(2048), 0.0, 1.0), (bytes(2048), 0.1, 1.0))
    assert [lane.length_class for lane in queue.lanes()] == [0] and not queue.varies


def test_one_call_takes_so_many_expired_pieces_at_most() -> None:
    queue = DeadlineQueue(2 * MAX_DUE, 1 << 20)
    fill(queue, *[(b"x", 0.0, slo_s) for slo_s in (1.0, 2.0) for _ in range(MAX_DUE // 2 + 1)])
    assert (len(queue.expire(3.0)), len(queue.expire(3.0)), queue.length) == (MAX_DUE, 2, 0)


def test_work_is_due_until_its_deadline_and_expires_at_it() -> None:
    queue = make_queue()
    fill(queue, (b"x", 0.0, 1.0))
    assert queue.take_due_before(1.0) == []
    assert names(queue.expire(1.0)) == [b"x"]


def test_the_oldest_arrival_spans_all_lanes_and_background_has_a_mean() -> None:
    queue = make_queue()
    fill(queue, (b"late", 0.2, 0.5), (b"early", 0.1, 4.0))
    assert queue.oldest_arrival_s() == 0.1
    assert queue.background_row_bytes == 0.0
    for row in (b"1", b"123"):
        queue.push_background(make_work(row))
    assert (queue.background, queue.background_row_bytes) == (2, 2.0)
    assert queue.oldest_arrival_s() == 0.1, "as many as the others, and not one of them"


def test_a_query_that_was_late_to_be_read_is_put_where_its_deadline_is() -> None:
    queue = make_queue()
    fill(queue, (b"a", 0.0, 1.0), (b"c", 1.0, 1.0), (b"b", 0.5, 1.0))
    assert names(queue.take(10, queue.lanes()).batch) == [b"a", b"b", b"c"]


def test_lanes_count_what_comes_back() -> None:
    queue = make_queue()
    fill(queue, (b"ab", 0.0, 1.0), (b"abc", 0.1, 1.0))
    queue.push_back(queue.take(1, queue.lanes()).batch)
    assert sum(lane.size_bytes for lane in queue.lanes()) == queue.size_bytes == 5


def test_the_queue_takes_as_many_bytes_as_it_may_and_no_more() -> None:
    queue = DeadlineQueue(MAX_LENGTH, 4)
    assert [queue.push(make_work(row)) for row in (b"1234", b"x", b"")] == [True, False, True]


def test_what_is_dropped_waits_again_for_a_later_query_that_has_joined_it() -> None:
    queue = make_queue()
    joined = make_work(b"joined", 0.0, 1.0)
    queue.push(joined)
    joined.join(Waiting(3.0))
    fill(queue, (b"alone", 0.0, 1.0), (b"sent", 0.1, 1.0))
    taken = queue.take(1, queue.lanes(), 1.1)
    assert (names(taken.batch), names(taken.dropped)) == ([b"sent"], [b"alone"])
    assert (queue.length, joined.due_s) == (1, 3.0)


def test_all_that_waits_is_handed_back_when_it_is_cleared() -> None:
    queue = make_queue()
    fill(queue, (b"a", 0.0, 1.0), (b"b", 0.0, 4.0))
    queue.push_background(make_work(b"c"))
    assert sorted(names(queue.clear())) == [b"a", b"b", b"c"]
    assert (queue.length, queue.size_bytes, queue.background, queue.lanes()) == (0, 0, 0, [])


def test_a_full_queue_gives_up_what_nobody_waits_for() -> None:
    queue = DeadlineQueue(4, 1000)
    works = [make_work(b"left", 0.0, 5.0) for _ in range(3)] + [make_work(b"kept", 0.0, 5.0)]
    for work in works:
        assert queue.push(work)
    assert not queue.push(make_work(b"new", 1.0, 5.0)) and queue.make_room(1.0) == []
    for work in works[:3]:
        work.waiters[0].done = True  # type: ignore[misc]  # its client has left
    # It was searched a moment ago.
    assert queue.make_room(1.0) == []
    assert queue.make_room(1.0 + UNWANTED_EVERY_S) == works[:3]
    assert queue.push(make_work(b"new", 1.0, 5.0)) and queue.length == 2
    assert names(queue.take(4, queue.lanes()).batch) == [b"kept", b"new"]
