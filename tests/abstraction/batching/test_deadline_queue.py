import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clipper.abstraction.batching.deadline_queue import MAX_RESERVED_SHARE, DeadlineQueue
from clipper.abstraction.work import Work
from works import Waiting, make_work

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
        self.inside: list[Work] = []
        self.now_s = 0.0

    def leave(self, works: list[Work]) -> None:
        for work in works:
            self.inside.remove(work)  # raises if it left twice

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 2.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(slo_s=st.sampled_from(SLOS_S), size=st.integers(0, 20))
    def push(self, slo_s: float, size: int) -> None:
        work = make_work(bytes(size), self.now_s, slo_s)
        fits = len(self.inside) < MAX_LENGTH and sum(len(each.row) for each in self.inside) + size <= MAX_BYTES
        assert self.queue.push(work) is fits
        if fits:
            self.inside.append(work)

    @rule()
    def expire(self) -> None:
        expired = self.queue.expire(self.now_s)
        assert all(work.deadline_s <= self.now_s for work in expired)
        self.leave(expired)
        assert all(work.deadline_s > self.now_s for work in self.inside)

    @rule(limit=st.integers(1, 5), service_s=st.sampled_from([0.0, 0.1, 9.0]), returns=st.booleans())
    def take(self, limit: int, service_s: float, returns: bool) -> None:
        batch, late = self.queue.take(limit, self.now_s, service_s)
        self.leave([*batch, *late])
        reserved = {slo_s: min(service_s, slo_s * MAX_RESERVED_SHARE) for slo_s in SLOS_S}
        assert all(work.deadline_s >= self.now_s + reserved[work.slo_s] for work in batch)
        assert all(work.deadline_s < self.now_s + reserved[work.slo_s] for work in late)
        deadlines = [work.deadline_s for work in batch]
        assert deadlines == sorted(deadlines)
        assert len(batch) <= limit and (len(batch) == limit or not self.inside)
        assert all(work.deadline_s >= max(deadlines, default=0.0) for work in self.inside)
        if returns:
            self.queue.push_back(batch)
            self.inside += batch

    @rule(index=st.integers(0, MAX_LENGTH), done=st.booleans())
    def stop_waiting(self, index: int, done: bool) -> None:
        """A client goes away; its work stays until it is its turn."""
        if done and index < len(self.inside):
            self.inside.pop(index).waiters[0].done = True
            batch, late = self.queue.take(MAX_LENGTH, self.now_s, 0.0)
            assert len(batch) + len(late) == len(self.inside) + 1
            assert all(not work.waiters[0].done for work in batch)
            self.inside.clear()

    @rule()
    def clear(self) -> None:
        self.leave(self.queue.clear())
        assert not self.inside

    @invariant()
    def counts_are_exact(self) -> None:
        assert self.queue.length == len(self.inside)
        assert self.queue.size_bytes == sum(len(work.row) for work in self.inside)
        if self.inside:
            assert self.queue.oldest_arrival_s() == min(work.arrival_s for work in self.inside)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_earliest_deadline_first_over_lanes() -> None:
    queue = make_queue()
    for row, arrival_s, slo_s in [(b"a", 0.0, 1.0), (b"b", 0.1, 0.5), (b"c", 0.2, 1.0), (b"d", 0.3, 0.5)]:
        queue.push(make_work(row, arrival_s, slo_s))
    batch, late = queue.take(10, 0.3, 0.0)
    assert names(batch) == [b"b", b"d", b"a", b"c"]
    assert late == []


def test_work_past_its_deadline_or_too_late_for_the_batch_is_not_taken() -> None:
    queue = make_queue()
    for row, arrival_s in [(b"past", 0.0), (b"too late", 0.9), (b"in time", 1.5)]:
        queue.push(make_work(row, arrival_s, slo_s=1.0))
    batch, late = queue.take(10, 1.5, 0.45)
    assert (names(batch), names(late)) == ([b"in time"], [b"past", b"too late"])


def test_however_slow_the_replica_a_fresh_query_is_sent() -> None:
    queue = make_queue()
    queue.push(make_work(b"fresh", 10.0, slo_s=1.0))
    batch, _ = queue.take(10, 10.0, service_s=100.0)
    assert names(batch) == [b"fresh"]


def test_late_work_does_not_count_towards_the_limit() -> None:
    queue = make_queue()
    for row, arrival_s in [(b"1", 0.0), (b"2", 0.0), (b"3", 5.0), (b"4", 5.0)]:
        queue.push(make_work(row, arrival_s, slo_s=1.0))
    batch, late = queue.take(1, 5.0, 0.0)
    assert (names(batch), names(late)) == ([b"3"], [b"1", b"2"])


def test_work_is_sent_if_only_the_first_of_its_waiters_went_away() -> None:
    queue = make_queue()
    joined, alone = make_work(b"joined"), make_work(b"alone")
    joined.join(Waiting(1.0))
    for work in (joined, alone):
        queue.push(work)
        work.waiters[0].done = True
    batch, late = queue.take(10, 0.0, 0.0)
    assert (names(batch), names(late)) == ([b"joined"], [b"alone"])


def test_work_that_was_joined_does_not_hide_expired_work_behind_it() -> None:
    queue = make_queue()
    joined = make_work(b"joined", 0.0, slo_s=1.0)
    queue.push(joined)
    queue.push(make_work(b"dead", 0.1, slo_s=1.0))
    queue.push(make_work(b"alive", 1.5, slo_s=1.0))
    joined.join(Waiting(2.9))
    assert names(queue.expire(2.0)) == [b"dead"]
    assert queue.length == 2
    assert names(queue.expire(2.9)) == [b"alive", b"joined"]


def test_what_comes_back_is_first_again_and_in_order_even_over_the_bound() -> None:
    queue = DeadlineQueue(max_length=3, max_bytes=100)
    for row in (b"1", b"2", b"3"):
        queue.push(make_work(row))
    taken, _ = queue.take(2, 0.0, 0.0)
    assert queue.push(make_work(b"4")) and queue.push(make_work(b"5"))
    queue.push_back(taken)
    assert queue.length == 5 and not queue.push(make_work(b"6"))
    assert names(queue.take(10, 0.0, 0.0)[0]) == [b"1", b"2", b"3", b"4", b"5"]


def test_lanes_of_slos_no_longer_in_use_do_not_pile_up() -> None:
    queue = make_queue()
    for slo_ms in range(1, 1000):
        queue.push(make_work(b"x", slo_s=slo_ms / 1000))
        queue.take(1, 0.0, 0.0)
    assert len(queue._lanes) == 1


def test_the_oldest_arrival_of_an_empty_queue_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        make_queue().oldest_arrival_s()
