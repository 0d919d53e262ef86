"""Clients that ask again: how they are recognized, and how long they are waited for, from facts alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.returns import (
    BELIEVED,
    GAIN,
    LEAST_ANSWERED,
    LEAST_FIXED_S,
    MAX_TIMES,
    MOST_WINDOWS,
    WINDOW_SHARE,
    Returns,
)
from clipper.worker.abstraction.batching.service_times import ServiceTimes
from tests.works import make_work

DONE_S = 1.0


def make_replica(answered: int, left: int, fixed_s: float = 0.0033, per_row_s: float = 27e-6) -> ReplicaState:
    """It has answered so many at 1 s, while others were left."""
    times = ServiceTimes()
    times.fixed_s, times.per_row_s, times.is_known = fixed_s, per_row_s, True
    return ReplicaState("0", 1024, None, times, last_done_s=DONE_S, last_size=answered, last_left=left)


def believing() -> Returns:
    returns = Returns()
    returns.share = 1.0
    return returns


def wait_s(came_s: float, back: int, replica: ReplicaState | None = None, limit: int = 1024) -> float:
    """How much longer to wait when so many of 128 are back, ``came_s`` after the first."""
    replica = replica or make_replica(128, 0)
    queue = DeadlineQueue(10_000, 1 << 20)
    for _ in range(replica.last_left + back):
        queue.push(make_work(b"", DONE_S))
    now_s = DONE_S + came_s
    return believing().until_s(replica, replica.last_left + back, limit, queue, now_s) - now_s


def test_it_goes_on_while_they_come_as_fast_as_a_worker_reads() -> None:
    """20 us a query, for an image of 784 numbers in JSON."""
    for back in range(1, 128):
        assert wait_s(back * 20e-6, back) > 0


def test_it_ends_where_they_come_slowly() -> None:
    assert wait_s(40 * 20e-6 + 0.004, 40) < 0


def test_it_ends_when_all_are_back_or_fill_a_batch() -> None:
    assert wait_s(0.001, 128) < 0
    assert wait_s(0.001, 64, limit=64) < 0
    assert wait_s(0.001, 60, make_replica(80, 0), limit=64) > 0


def test_while_none_is_back_it_is_for_a_fixed_time() -> None:
    replica = make_replica(128, 100)
    assert wait_s(0.0, 0, replica) == pytest.approx(0.0033)
    assert wait_s(0.0034, 0, replica) < 0


@pytest.mark.parametrize(
    ("each_us", "answered", "left", "limit", "waits"),
    [
        (21, 128, 0, 1024, True),  # all are back after 2.7 ms, and another batch costs 3.3 ms
        (23, 128, 0, 1024, False),
        (21, 64, 64, 1024, True),  # those that wait would have to come back, too
        (23, 64, 64, 1024, False),
        (44, 64, 0, 1024, True),
        (47, 64, 0, 1024, False),
        (22, 64, 36, 64, True),  # in batches of 64 of 100 the other 36 are there, and 28 have to come
        (24, 64, 36, 64, False),
    ],
)
def test_nobody_is_waited_for_who_takes_too_long(
    each_us: int, answered: int, left: int, limit: int, waits: bool
) -> None:
    returns = believing()
    returns.each_s = each_us * 1e-6
    queue = DeadlineQueue(10_000, 1 << 20)
    queue.push(make_work(b"", DONE_S))
    until_s = returns.until_s(make_replica(answered, left), max(left, 1), limit, queue, DONE_S + 20e-6)
    assert (until_s > DONE_S) is waits


def test_the_time_until_clients_are_back_is_learned_once_most_are() -> None:
    returns = Returns()
    returns.answered(100, 0, 1.0, 0.01)
    returns.look(74, 1.001)
    returns.look(80, 1.002)
    returns.look(100, 1.004)
    returns.answered(100, 100, 1.01, 0.01)
    assert returns.each_s == pytest.approx(25e-6)
    returns.look(100, 1.011)  # nobody is back, and nobody comes: nothing is learned
    returns.answered(100, 100, 1.02, 0.01)
    assert returns.each_s == pytest.approx(25e-6)
    returns.look(150, 1.021)  # only half of them come back before the next batch is answered
    returns.answered(100, 150, 1.03, 0.01)
    assert returns.each_s == pytest.approx(25e-6 + GAIN * (100e-6 - 25e-6))


def test_a_pause_does_not_count_as_the_time_until_clients_are_back() -> None:
    returns = Returns()
    returns.answered(100, 0, 1.0, 0.01)
    returns.look(1, 3600.0)
    returns.answered(100, 1, 3600.1, 0.01)
    assert returns.each_s == pytest.approx(MOST_WINDOWS * WINDOW_SHARE * 0.01 / 100)


@given(
    left=st.integers(0, 300),
    answered=st.integers(1, 300),
    back=st.integers(0, 300),
    elapsed_s=st.floats(0, 1),
    fixed_s=st.floats(0, 0.1),
    per_row_s=st.floats(1e-7, 0.01),
)
def test_the_wait_is_bounded_and_only_for_batches_dear_beside_their_rows(
    left: int, answered: int, back: int, elapsed_s: float, fixed_s: float, per_row_s: float
) -> None:
    if left + back == 0:
        back = 1
    more_s = wait_s(elapsed_s, back, make_replica(answered, left, fixed_s, per_row_s))
    assert more_s + elapsed_s <= MAX_TIMES * fixed_s + 1e-9 or more_s <= 0
    if fixed_s < LEAST_FIXED_S or answered < LEAST_ANSWERED:
        assert more_s <= 0


def rounds(returns: Returns, count: int, *, size: int, early: int, later: int = 0) -> None:
    """Batches of 10 ms, 20 ms from one to the next; so many come right after each, and in the time that is left."""
    arrivals, now_s = 0, 0.0
    for _ in range(count + 1):
        now_s += 0.02
        returns.answered(size, arrivals, now_s, 0.01)
        arrivals += early
        returns.look(arrivals, now_s + 0.002)
        arrivals += later
        returns.look(arrivals, now_s + 0.015)


def test_clients_that_come_back_are_believed_to_after_a_few_batches() -> None:
    returns = Returns()
    rounds(returns, 1, size=64, early=64)
    assert returns.share < BELIEVED
    rounds(returns, 2, size=64, early=64)
    assert returns.share >= BELIEVED


@pytest.mark.parametrize(
    ("early", "later"),
    [
        (0, 0),
        (10, 0),
        # As many at any time: a quarter of it is early.
        (16, 48),
        (64, 192),
    ],
)
def test_those_who_would_have_come_anyway_are_not(early: int, later: int) -> None:
    returns = Returns()
    rounds(returns, 10, size=64, early=early, later=later)
    assert returns.share < BELIEVED


def test_they_are_no_longer_believed_to_when_they_stop() -> None:
    returns = Returns()
    rounds(returns, 10, size=64, early=64)
    rounds(returns, 4, size=64, early=0)
    assert returns.share < BELIEVED
    queue = DeadlineQueue(10, 100)
    queue.push(make_work(b"", DONE_S))
    assert returns.until_s(make_replica(128, 0), 1, 1024, queue, DONE_S) == 0.0


def test_small_batches_tell_nothing() -> None:
    returns = Returns()
    rounds(returns, 10, size=LEAST_ANSWERED - 1, early=LEAST_ANSWERED - 1)
    assert returns.share == 0.0


@pytest.mark.parametrize(
    ("early", "later", "early_share"),
    [
        (64, 0, 1.0),
        (32, 0, 0.5),  # half of them are back, all of these at once
        (32, 32, 1 / 3),  # a quarter would be early anyway, so that a third of the rest is
        (16, 48, 0.0),
        (128, 0, 1.0),  # more than were answered say no more
    ],
)
def test_the_share_is_of_those_who_are_earlier_than_by_chance(early: int, later: int, early_share: float) -> None:
    returns = Returns()
    rounds(returns, 1, size=64, early=early, later=later)
    assert returns.share == pytest.approx(GAIN * early_share)


def test_where_the_window_is_nearly_all_of_the_time_few_can_be_early() -> None:
    returns = Returns()
    returns.answered(64, 0, 1.0, 1.0)
    returns.look(64, 1.1)
    returns.answered(64, 64, 1.2, 1.0)
    assert returns.share == pytest.approx(GAIN)  # all of them, beyond the four fifths that count as chance
    returns.answered(64, 64, 1.3, 1.0)
    assert returns.share == pytest.approx(GAIN * (1 - GAIN))  # nobody came


def test_a_batch_of_the_least_size_tells_something() -> None:
    returns = Returns()
    rounds(returns, 1, size=LEAST_ANSWERED, early=LEAST_ANSWERED)
    assert returns.share == pytest.approx(GAIN)


@pytest.mark.parametrize(
    ("answered", "fixed_s", "share", "waits"),
    [
        (LEAST_ANSWERED, 0.004, 1.0, True),
        (LEAST_ANSWERED - 1, 0.004, 1.0, False),
        (128, LEAST_FIXED_S, 1.0, True),
        (128, 0.99 * LEAST_FIXED_S, 1.0, False),
        (128, 0.004, BELIEVED, True),
        (128, 0.004, 0.99 * BELIEVED, False),
    ],
)
def test_who_is_waited_for(answered: int, fixed_s: float, share: float, waits: bool) -> None:
    returns = Returns()
    returns.share = share
    queue = DeadlineQueue(10_000, 1 << 20)
    queue.push(make_work(b"", DONE_S))
    until_s = returns.until_s(make_replica(answered, 0, fixed_s), 1, 1024, queue, DONE_S + 20e-6)
    assert (until_s > DONE_S) is waits


def test_the_wait_is_until_the_rest_is_back_at_the_rate_of_the_first() -> None:
    # 64 of 128 are back after 1 ms: the others are expected after as much again.
    assert wait_s(0.001, 64) == pytest.approx(0.001)
    # It counts from the first that came, where that was later than the answer.
    queue = DeadlineQueue(10_000, 1 << 20)
    for _ in range(64):
        queue.push(make_work(b"", DONE_S + 0.002))
    until_s = believing().until_s(make_replica(128, 0), 64, 1024, queue, DONE_S + 0.003)
    assert until_s == pytest.approx(DONE_S + 0.004)


def test_one_that_is_back_tells_how_fast_the_others_come() -> None:
    queue = DeadlineQueue(10_000, 1 << 20)
    queue.push(make_work(b"", DONE_S + 0.001))
    until_s = believing().until_s(make_replica(128, 0), 1, 1024, queue, DONE_S + 0.001 + 20e-6)
    assert until_s == pytest.approx(DONE_S + 0.001 + 128 * 20e-6)


def test_one_that_comes_after_the_window_is_not_early() -> None:
    returns = Returns()
    returns.answered(LEAST_ANSWERED, 0, 1.0, 0.01)
    returns.look(1, 1.015)
    returns.answered(LEAST_ANSWERED, 1, 1.02, 0.01)
    assert returns.share == 0.0


def test_the_time_counts_from_the_first_return_even_while_it_is_alone() -> None:
    queue = DeadlineQueue(10_000, 1 << 20)
    queue.push(make_work(b"", DONE_S + 0.0005))
    until_s = believing().until_s(make_replica(128, 0), 1, 1024, queue, DONE_S + 0.00052)
    assert until_s == pytest.approx(DONE_S + 0.0005 + 128 * 20e-6)
