"""Limits of queries, tried against what is asked of them by random clients and clocks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.errors import TooLarge, TooManyRequests
from clipper.worker.frontend.client_limits import Limit, Limits, share_in_flight, share_per_second

# The next request comes so long after the last, with so many queries; those in flight before are answered then, or not.
STEPS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 12), st.booleans()), min_size=1, max_size=80)
RATES = st.none() | st.sampled_from([0.001, 0.5, 1.0, 2.5, 10.0, 1000.0]) | st.floats(0.1, 50)


@given(STEPS, st.none() | st.integers(1, 20), RATES)
def test_no_more_is_let_in_than_the_limits_say(
    steps: list[tuple[float, int, bool]], max_in_flight: int | None, max_per_second: float | None
) -> None:
    limit = Limit("it", max_in_flight, max_per_second, 0.0)
    limits, now_s = Limits(limit), 0.0
    admitted: list[tuple[float, int]] = []
    in_flight: list[int] = []
    for gap_s, count, ends in steps:
        now_s += gap_s
        if ends and in_flight:
            limits.give_back(in_flight.pop())
        before = limit.in_flight, limit.refused
        try:
            limits.admit(count, now_s)
        except TooLarge:
            assert max_in_flight is not None or max_per_second is not None
            assert count > min(max_in_flight or math.inf, max(max_per_second or math.inf, 1))
            assert (limit.in_flight, limit.refused) == (before[0], before[1] + 1)
            continue
        except TooManyRequests as error:
            assert error.retry_after_s >= 1
            assert (limit.in_flight, limit.refused) == (before[0], before[1] + 1)
            continue
        admitted.append((now_s, count))
        in_flight.append(count)
        assert limit.in_flight == sum(in_flight) <= (max_in_flight or math.inf)
    if max_per_second is not None:
        for first in range(len(admitted)):
            for last in range(first, len(admitted)):
                span_s = admitted[last][0] - admitted[first][0]
                count = sum(count for _, count in admitted[first : last + 1])
                assert count <= max(max_per_second, 1) + max_per_second * span_s + 1e-3


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), min_size=1, max_size=40), RATES)
def test_who_waits_as_long_as_was_said_is_let_in(steps: list[tuple[float, int]], max_per_second: float | None) -> None:
    limit, now_s = Limit("it", None, max_per_second, 0.0), 0.0
    for gap_s, count in steps:
        now_s += gap_s
        try:
            limit.check(count, now_s)
        except TooLarge:
            continue
        except TooManyRequests as error:
            now_s += error.retry_after_s
            limit.check(count, now_s)
        limit.take(count)


@given(st.floats(0.1, 100), st.integers(1, 200))
def test_who_asks_within_the_limit_is_never_refused(max_per_second: float, count: int) -> None:
    limit = Limit("it", None, max_per_second, 0.0)
    for number in range(count):
        limit.check(1, number / max_per_second)
        limit.take(1)


def test_a_limit_begins_with_the_queries_of_one_second() -> None:
    limit = Limit("application 'a'", None, 10, 5.0)
    for _ in range(10):
        limit.check(1, 5.0)
        limit.take(1)
    with pytest.raises(TooManyRequests, match="application 'a' may send 10 queries a second: try again in 1 s"):
        limit.check(1, 5.0)
    limit.check(1, 5.1)


def test_one_that_is_slower_than_one_a_second_says_when() -> None:
    limit = Limit("key 'k'", None, 0.1, 0.0)
    limit.check(1, 0.0)
    limit.take(1)
    with pytest.raises(TooManyRequests) as refused:
        limit.check(1, 2.5)
    assert refused.value.retry_after_s == 8
    limit.check(1, 10.5)


def test_a_request_larger_than_the_limit_is_told_so_and_not_to_wait() -> None:
    with pytest.raises(TooLarge, match="the request has 11 queries, and it may have 10 in a second: send fewer"):
        Limit("it", None, 10, 0.0).check(10, 0.0, admitted=1)
    with pytest.raises(TooLarge, match="may have 10 in flight"):
        Limit("it", 10, None, 0.0).check(10, 0.0, admitted=1)


def test_limits_change_while_queries_are_in_flight() -> None:
    limit = Limit("it", 5, 100, 0.0)
    limit.take(5)
    limit.follow(3, 2, 0.0)
    with pytest.raises(TooManyRequests, match="3 queries in flight, and has 5"):
        limit.check(1, 0.0)
    limit.in_flight -= 3
    limit.check(1, 0.0)
    limit.take(1)
    limit.follow(None, 2, 0.0)
    limit.take(1)
    with pytest.raises(TooManyRequests):  # what is left of the larger bucket is that of the smaller
        limit.check(1, 0.0)
    limit.follow(None, None, 0.0)
    limit.check(1000, 0.0)
    limit.in_flight -= 4
    assert limit.in_flight == 0


def test_a_time_before_the_last_gives_nothing_and_takes_nothing() -> None:
    limit = Limit("it", None, 2, 100.0)
    limit.take(2)
    limit.follow(None, 2, 90.0)
    with pytest.raises(TooManyRequests):
        limit.check(1, 95.0)
    limit.check(1, 100.5)


def test_of_two_limits_none_takes_what_the_other_refuses() -> None:
    wide, narrow = Limit("wide", 10, 100, 0.0), Limit("narrow", 1, None, 0.0)
    limits = Limits(wide, narrow)
    limits.admit(1, 0.0)
    for _ in range(20):
        with pytest.raises(TooManyRequests, match="narrow"):
            limits.admit(1, 0.0)
    assert (wide.in_flight, wide.refused, narrow.in_flight, narrow.refused) == (1, 0, 1, 20)
    limits.give_back(1)
    assert (wide.in_flight, narrow.in_flight) == (0, 0)


@given(STEPS, st.none() | st.integers(1, 5), RATES, st.none() | st.integers(1, 5), RATES)
def test_one_is_let_in_as_a_count_of_one_is(
    steps: list[tuple[float, int, bool]],
    first_most: int | None,
    first_rate: float | None,
    second_most: int | None,
    second_rate: float | None,
) -> None:
    quick = Limit("a", first_most, first_rate, 0.0), Limit("b", second_most, second_rate, 0.0)
    slow = Limit("a", first_most, first_rate, 0.0), Limit("b", second_most, second_rate, 0.0)
    by_one, by_count, now_s = Limits(*quick), Limits(*slow), 0.0
    for gap_s, _, ends in steps:
        now_s += gap_s
        if ends and quick[0].in_flight:
            by_one.give_back(1)
            by_count.give_back(1)
        told = []
        for ask in (lambda now_s=now_s: by_one.admit_one(now_s), lambda now_s=now_s: by_count.admit(1, now_s)):
            try:
                ask()
                told.append("")
            except TooManyRequests as error:
                told.append(str(error))
        assert told[0] == told[1]
        for one, other in zip(quick, slow):
            assert (one.in_flight, one.refused) == (other.in_flight, other.refused)


@given(st.integers(1, 200), st.sets(st.integers(0, 80), min_size=1, max_size=64))
def test_workers_that_came_and_went_never_let_in_more_than_the_limit(most: int, indexes: set[int]) -> None:
    """Their indexes are different, and have gaps where nodes were lost. The remainder may then be let in by
    nobody."""
    workers = len(indexes)
    total = sum(share_in_flight(most, workers, index) or 0 for index in indexes)
    assert max(most - most % workers, workers) <= total <= max(most, workers)


@given(st.integers(1, 200), st.integers(1, 64))
def test_workers_have_equal_shares(most: int, workers: int) -> None:
    shares = [share_in_flight(most, workers, index) for index in range(workers)]
    assert sum(filter(None, shares)) == max(most, workers)
    assert share_in_flight(None, workers, 0) is None
    share = share_per_second(float(most), workers)
    assert share is not None and share * workers == pytest.approx(most)
