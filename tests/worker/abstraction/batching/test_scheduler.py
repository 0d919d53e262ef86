"""Which replica is given a batch, and when: queue, limits, batches in flight."""

import itertools

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.aimd_damped import DampedAimd
from clipper.worker.abstraction.batching.deadline_queue import MAX_DUE
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.replica_state import AHEAD_BELOW_S, ROUND_TRIP_S, SHORT_S
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.batching.service_times import MAX_GROWTH
from clipper.worker.abstraction.batching.small_batches import ENOUGH, MAX_SHORT_WAIT_S
from tests.worker.abstraction.batching.scheduling import (
    HOPELESS,
    LONG,
    SHORT,
    SLO_S,
    Speed,
    finish_all,
    is_empty,
    make_scheduler,
    push,
    sizes,
    teach,
)
from tests.works import make_work


def test_nothing_is_decided_while_there_is_no_replica() -> None:
    scheduler = make_scheduler()
    push(scheduler, 3)
    assert is_empty(scheduler.decide(0.0))
    assert scheduler.queue.length == 3


def test_dead_work_does_not_pile_up_while_there_is_no_replica() -> None:
    scheduler = make_scheduler()
    works = push(scheduler, 3, now_s=0.0)
    push(scheduler, 1, now_s=0.5)
    assert scheduler.decide(1.0).late == works
    assert scheduler.queue.length == 1


@pytest.mark.parametrize(
    ("speeds", "queries", "expected"),
    [
        # One replica: a batch, and one behind it only where the first is short.
        ([LONG], 3, [("0", 3)]),
        ([LONG], 7, [("0", 4)]),
        ([LONG], 20, [("0", 4)]),
        ([SHORT], 7, [("0", 4), ("0", 3)]),
        ([SHORT], 20, [("0", 4), ("0", 4)]),
        # Several: none gets a second batch while another idles; no batch is mostly what it costs anyway.
        ([LONG, LONG], 8, [("0", 4), ("1", 4)]),
        ([LONG, LONG], 3, [("0", 3)]),
        ([SHORT, SHORT], 20, [("0", 4), ("1", 4), ("0", 4), ("1", 4)]),
        ([Speed(0.0, 0.02, 8), Speed(0.0, 0.02, 8)], 6, [("0", 3), ("1", 3)]),
        ([Speed(limit=1)] * 3, 5, [("0", 1), ("1", 1), ("2", 1), ("0", 1), ("1", 1)]),
    ],
)
def test_who_gets_how_many(speeds: list[Speed], queries: int, expected: list[tuple[str, int]]) -> None:
    scheduler = make_scheduler(*speeds)
    push(scheduler, queries)
    assert sizes(scheduler.decide(0.0)) == expected


def test_the_idle_replica_comes_before_the_busy_one() -> None:
    scheduler = make_scheduler(SHORT, SHORT)
    push(scheduler, 2)
    assert sizes(scheduler.decide(0.0)) == [("0", 2)]
    push(scheduler, 2)
    assert sizes(scheduler.decide(0.0)) == [("1", 2)]


def test_the_fastest_idle_replica_is_first_and_an_unknown_one_before_it() -> None:
    scheduler = make_scheduler(LONG, SHORT)
    push(scheduler, 1)
    assert sizes(scheduler.decide(0.0)) == [("1", 1)]
    unknown = Scheduler(1000, 1 << 20, 0.0, Flow())
    teach(unknown.add_replica("known", 4), SHORT)
    unknown.replicas["new"] = type(unknown.replicas["known"])("new", 4, None, type(unknown.replicas["known"].times)())
    push(unknown, 5)
    assert sizes(unknown.decide(0.0))[:2] == [("new", 1), ("known", 4)]


def test_queries_are_bound_to_a_replica_only_when_it_begins_them() -> None:
    """Whatever waits behind a long batch goes to the replica that is idle first."""
    scheduler = make_scheduler(LONG, LONG)
    push(scheduler, 12)
    first = scheduler.decide(0.0)
    assert sizes(first) == [("0", 4), ("1", 4)]
    assert sizes(scheduler.decide(0.01)) == []
    replica, batch = first.batches[1]
    scheduler.finished(replica, batch.id, 0.024)
    assert sizes(scheduler.decide(0.024)) == [("1", 4)]


def test_a_second_batch_goes_behind_one_that_is_short_or_nearly_over() -> None:
    nearly = Speed(AHEAD_BELOW_S * 0.5, 0.0)
    long = Speed(AHEAD_BELOW_S * 1.5, 0.0)
    for speed, at_s, expected in (
        (nearly, 0.0, []),
        (nearly, nearly.fixed_s - ROUND_TRIP_S / 2, [("0", 3)]),
        (long, long.fixed_s - ROUND_TRIP_S / 2, []),
    ):
        scheduler = make_scheduler(speed)
        # So that a few queries at once are no rate that is near what it can do.
        push(scheduler, 1, 0.0)
        scheduler.decide(0.0)
        finish_all(scheduler, speed.fixed_s)
        push(scheduler, 1, 10.0)
        assert sizes(scheduler.decide(10.0)) == [("0", 1)]
        push(scheduler, 3, 10.0)
        assert sizes(scheduler.decide(10.0 + at_s)) == expected
        push(scheduler, 100, 10.0)
        scheduler.decide(10.0 + at_s)
        assert len(scheduler.replicas["0"].in_flight) <= 2


def test_a_replica_that_hangs_is_bound_no_more_than_what_it_has() -> None:
    scheduler = make_scheduler(SHORT, SHORT)
    push(scheduler, 1)
    assert sizes(scheduler.decide(0.0)) == [("0", 1)]
    for round_number in range(1, 20):
        now_s = 0.01 * round_number
        push(scheduler, 4, now_s)
        decision = scheduler.decide(now_s)
        assert sizes(decision) == [("1", 4)]
        replica, batch = decision.batches[0]
        scheduler.finished(replica, batch.id, now_s + SHORT.service_s(4))
    # The same where it is the only one: what it does not answer waits, and goes to the next that is linked.
    scheduler.drain_replica("1")
    push(scheduler, 4, 0.3)
    assert sizes(scheduler.decide(0.3)) == []
    scheduler.resume_replica("1")
    assert sizes(scheduler.decide(0.3)) == [("1", 4)]


def test_a_batch_is_full_if_the_limit_is_what_kept_it_from_being_larger() -> None:
    scheduler = make_scheduler(SHORT)
    controller = scheduler.replicas["0"].controller = DampedAimd(0.006, SHORT.limit)
    controller.limit = SHORT.limit
    push(scheduler, 7)
    (replica, first), (_, second) = scheduler.decide(0.0).batches
    assert (first.was_full, second.was_full) == (True, False)
    # The second began when the first ended, not when it was sent.
    assert scheduler.finished(replica, first.id, 0.5) == (first, 0.5)
    assert scheduler.finished(replica, second.id, 0.8) == (second, pytest.approx(0.3))
    assert replica.batches == 2


def test_idle_time_between_batches_is_not_service_time() -> None:
    scheduler = make_scheduler(SHORT)
    for sent_s in (0.0, 7.0):
        push(scheduler, 1, now_s=sent_s)
        ((replica, batch),) = scheduler.decide(sent_s).batches
        assert scheduler.finished(replica, batch.id, sent_s + 0.25) == (batch, 0.25)


def test_the_delay_counts_from_the_oldest_arrival() -> None:
    scheduler = make_scheduler(SHORT, delay_s=0.01)
    push(scheduler, 1, now_s=1.0)
    decision = scheduler.decide(1.0)
    assert (decision.batches, decision.wake_s) == ([], 1.01)
    push(scheduler, 1, now_s=1.008)
    assert scheduler.decide(1.008).wake_s == 1.01
    decision = scheduler.decide(1.01)
    assert (sizes(decision), decision.wake_s) == ([("0", 2)], None)


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    scheduler = make_scheduler(SHORT, delay_s=0.01)
    push(scheduler, 5)
    decision = scheduler.decide(0.0)
    assert sizes(decision) == [("0", 4)]
    assert decision.wake_s == 0.01


def test_expired_work_is_late_and_makes_no_batch() -> None:
    scheduler = make_scheduler(SHORT)
    works = push(scheduler, 3, now_s=0.0, slo_s=1.0)
    decision = scheduler.decide(1.5)
    assert (decision.batches, decision.late, decision.shed) == ([], works, [])
    assert scheduler.queue.length == 0


def test_a_full_queue_makes_room_by_expiring_or_refuses() -> None:
    scheduler = make_scheduler(max_length=2)
    old = push(scheduler, 2, now_s=0.0, slo_s=1.0)
    assert scheduler.push(make_work(b"new", 0.5), 0.5) == (False, [])
    assert scheduler.push(make_work(b"new", 1.0), 1.0) == (True, old)
    assert scheduler.queue.length == 1


def test_work_too_large_for_the_room_is_refused_even_after_expiring() -> None:
    scheduler = Scheduler(10, 100, 0.0, Flow())
    old = push(scheduler, 1, now_s=0.0, slo_s=1.0)
    assert scheduler.push(make_work(bytes(101), 1.0), 1.0) == (False, old)


def test_all_that_makes_room_for_large_work_is_handed_back() -> None:
    count = MAX_DUE + 5  # more than leaves a queue at once
    scheduler = Scheduler(2 * count, count, 0.0, Flow())
    old = [make_work(b"x", 0.0, 1.0) for _ in range(count)]
    assert all(scheduler.push(work, 0.0)[0] for work in old)
    assert scheduler.push(make_work(bytes(count), 1.0), 1.0) == (True, old)


def test_a_lost_replicas_work_comes_back_in_order() -> None:
    scheduler = make_scheduler(Speed(limit=2), Speed(limit=2))
    works = push(scheduler, 8)
    scheduler.decide(0.0)
    lost = scheduler.lose_replica("0")
    assert lost == [*works[0:2], *works[4:6]]
    scheduler.queue.push_back(lost)
    scheduler.queue.push_back(scheduler.lose_replica("1")[:2])
    assert scheduler.queue.length == 6
    teach(scheduler.add_replica("2", 4, is_fixed=True), SHORT)
    decision = scheduler.decide(0.0)
    assert sizes(decision) == [("2", 4), ("2", 2)]
    assert {id(work) for _, batch in decision.batches for work in batch.works} == {id(work) for work in works[:6]}


def test_a_draining_replica_gets_nothing_until_it_is_wanted_again() -> None:
    scheduler = make_scheduler(SHORT)
    scheduler.drain_replica("0")
    push(scheduler, 1)
    assert sizes(scheduler.decide(0.0)) == []
    scheduler.resume_replica("0")
    assert sizes(scheduler.decide(0.0)) == [("0", 1)]


def test_an_answer_to_a_batch_that_was_not_sent_is_told_as_such() -> None:
    scheduler = make_scheduler(SHORT)
    replica = scheduler.replicas["0"]
    assert scheduler.finished(replica, 1, 0.0) is None
    assert replica.batches == 0


def test_a_new_replica_is_taken_for_its_fastest_sibling_until_it_tells() -> None:
    scheduler = make_scheduler(HOPELESS, LONG)
    new = scheduler.add_replica("new", 1000)
    assert new.times.is_known
    assert new.times.mean_s(3) == pytest.approx(LONG.service_s(3), rel=0.01)
    assert new.limit == LONG.limit * MAX_GROWTH
    teach(new, Speed(0.001, 0.0001, 64))
    assert new.times.mean_s(32) == pytest.approx(0.0042, rel=0.1)


def test_an_unknown_replica_begins_with_one_row_and_grows() -> None:
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    replica = scheduler.add_replica("0", 64)
    push(scheduler, 500)
    largest, now_s = [], 0.0
    while replica.limit < 64:
        batches = scheduler.decide(now_s).batches
        largest.append(max(len(batch.works) for _, batch in batches))
        now_s += 0.0005
        finish_all(scheduler, now_s)
    assert largest[0] == 1
    assert len(largest) <= 4
    assert all(after <= MAX_GROWTH * before for before, after in itertools.pairwise(largest))


def test_queries_that_come_one_at_a_time_are_known_by_the_batch_before() -> None:
    scheduler = make_scheduler(SHORT)
    push(scheduler, 1)
    assert not scheduler.is_quiet(), "nothing has come back"
    scheduler.decide(0.0)
    push(scheduler, 1)
    assert not scheduler.is_quiet(), "one is out"
    scheduler.decide(0.0)
    finish_all(scheduler, 0.0001)
    push(scheduler, 1)
    assert scheduler.is_quiet()
    push(scheduler, 1)
    assert not scheduler.is_quiet(), "two wait"
    scheduler.decide(0.2)
    finish_all(scheduler, 0.2001)
    push(scheduler, 1, 0.2001)
    assert not scheduler.is_quiet(), "the batch before had two"


@given(
    speeds=st.lists(st.sampled_from([SHORT, Speed(0.0005, 0.0001, 1)]), min_size=1, max_size=2),
    slo_s=st.sampled_from([0.0006, 0.01, 1.0]),
    delay_s=st.sampled_from([0.0, 0.001]),
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.0002, 0.0006, 0.03]),
            st.sampled_from([b"1", b"row", b"r" * 300]),
            st.sampled_from([0.0001, 0.0004, 0.002]),
        ),
        max_size=100,
    ),
)
def test_a_query_that_is_sent_alone_leaves_as_if_it_had_been_decided(
    speeds: list[Speed], slo_s: float, delay_s: float, steps: list[tuple[float, bytes, float]]
) -> None:
    """Two schedulers meet the same queries and batches; one of them may send a query alone."""
    quick, thorough = (make_scheduler(*speeds, delay_s=delay_s, slo_s=slo_s) for _ in range(2))
    now_s = 1.0
    for pause_s, row, took_s in steps:
        sent = []
        for scheduler in (quick, thorough):
            scheduler.push(make_work(row, now_s, slo_s), now_s)
            alone = scheduler.send_alone(now_s) if scheduler is quick and scheduler.is_quiet() else None
            event(f"alone: {alone is not None}")
            batches = scheduler.decide(now_s).batches if alone is None else [alone]
            found: list[object] = []
            for replica, batch in batches:
                found += [replica.id, replica.asked_s, batch.id, [work.row for work in batch.works], batch.expected_s]
                found += [batch.size_bytes, batch.is_short, batch.was_full, batch.is_probe]
            finish_all(scheduler, now_s + took_s)
            queue = scheduler.queue
            found += [queue.length, queue.size_bytes, [lane.size_bytes for lane in queue.lanes()]]
            sent.append(found)
        assert sent[0] == sent[1]
        now_s += took_s + pause_s


def test_a_query_leaves_alone_only_where_nothing_else_waits_or_counts() -> None:
    scheduler = make_scheduler(SHORT)
    for now_s in (0.0, 0.001):
        push(scheduler, 1, now_s)
        scheduler.decide(now_s)
        finish_all(scheduler, now_s + 0.0001)
    push(scheduler, 1, 0.0015)
    assert scheduler.is_quiet()
    assert scheduler.send_alone(0.0015 + SLO_S) is None, "it is due"
    scheduler.queue.push_background(make_work(b"background", 0.0015))
    assert scheduler.send_alone(0.0015) is None, "background work may ride along"
    assert len(scheduler.queue.take_background(1).batch) == 1
    assert scheduler.send_alone(0.0015) is None, "another work was the last to come"
    assert len(scheduler.decide(0.0015).batches) == 1
    finish_all(scheduler, 0.0016)
    push(scheduler, 1, 0.0017)
    alone = scheduler.send_alone(0.0017)
    assert alone is not None and [work.row for work in alone[1].works] == [b"0"]


def test_where_batches_take_long_a_query_waits_for_those_beside_it() -> None:
    scheduler = make_scheduler(LONG)
    push(scheduler, 1)
    scheduler.decide(0.0)
    finish_all(scheduler, 0.021)
    push(scheduler, 1)
    assert not scheduler.is_quiet()


@pytest.mark.parametrize(
    ("speed", "is_quiet"),
    [(Speed(0.0009, 0.00008), True), (Speed(0.0009, 0.0002), False)],
)
def test_a_query_leaves_at_once_where_one_of_its_kind_is_answered_shortly(speed: Speed, is_quiet: bool) -> None:
    scheduler = make_scheduler(speed)
    push(scheduler, 1)
    scheduler.decide(0.0)
    finish_all(scheduler, speed.service_s(1))
    push(scheduler, 1)
    assert scheduler.is_quiet() is is_quiet


@pytest.mark.parametrize(
    "other",
    [
        Speed(0.010, 0.005),  # with a smaller fixed time
        Speed(0.0138, 0.0),  # faster from two rows on
    ],
)
def test_a_single_query_goes_to_the_replica_that_is_fastest_for_it(other: Speed) -> None:
    scheduler = make_scheduler(other, Speed(0.012, 0.001))
    push(scheduler, 1)
    assert sizes(scheduler.decide(0.0)) == [("1", 1)]


def test_a_short_batch_waits_for_more_for_a_while_if_they_come() -> None:
    scheduler = make_scheduler(Speed(limit=100))
    assert scheduler.flow_wait_until_s() == 0.0
    push(scheduler, 1, 10.0)
    assert scheduler.flow_wait_until_s() == 10.0 + MAX_SHORT_WAIT_S
    push(scheduler, ENOUGH - 2, 10.001)
    assert scheduler.flow_wait_until_s() == 10.0 + MAX_SHORT_WAIT_S
    push(scheduler, 1, 10.001)
    assert scheduler.flow_wait_until_s() == 0.0


def test_no_batch_waits_that_is_full_or_long() -> None:
    full, long = make_scheduler(SHORT), make_scheduler(LONG)
    push(full, SHORT.limit - 1)
    assert full.flow_wait_until_s() > 0.0
    push(full, 1)
    push(long, 1)
    assert full.flow_wait_until_s() == 0.0
    assert long.flow_wait_until_s() == 0.0


def test_a_fixed_batch_is_allowed_from_the_first_on_and_else_it_grows() -> None:
    scheduler = make_scheduler()
    assert scheduler.add_replica("fixed", 64, is_fixed=True).limit == 64
    assert scheduler.add_replica("grows", 64).limit == 1


def test_what_a_slow_replica_leaves_out_waits_for_a_faster_one() -> None:
    scheduler = make_scheduler(Speed(0.02, 0.001, 8), Speed(0.06, 0.002, 8), slo_s=0.1)
    push(scheduler, 8, 0.0, 0.1)
    assert sizes(scheduler.decide(0.0)) == [("0", 8)]
    # The fast one is busy, and the slow one cannot answer the urgent query.
    (urgent,) = push(scheduler, 1, 0.0, 0.06)
    patient = push(scheduler, 4, 0.01, 0.1)
    decision = scheduler.decide(0.011)
    assert [batch.works for _, batch in decision.batches] == [patient]
    assert (decision.late, decision.shed, scheduler.queue.length) == ([], [], 1)
    finish_all(scheduler, 0.028)
    assert [batch.works for _, batch in scheduler.decide(0.028).batches] == [[urgent]]


def test_a_few_stalls_do_not_make_short_batches_look_long() -> None:
    """A batch in 21 stalls: that is above the time of a short one, and their mean is far below it."""
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    replica = scheduler.add_replica("0", 1000)
    now_s, looked_long = 0.0, 0
    for number in range(3_000):
        push(scheduler, 1, now_s)
        assert sizes(scheduler.decide(now_s)) == [("0", 1)]
        now_s += 3 * SHORT_S if number % 21 == 20 else SHORT_S / 5
        assert finish_all(scheduler, now_s) == 1
        looked_long += replica.times.mean_s(1) >= SHORT_S
    assert looked_long == 0


def test_short_batches_that_become_long_are_noticed_with_the_fourth() -> None:
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    replica = scheduler.add_replica("0", 1000)
    now_s = 0.0
    for number in range(1_004):
        push(scheduler, 1, now_s)
        assert sizes(scheduler.decide(now_s)) == [("0", 1)]
        now_s += SHORT_S / 5 if number < 1_000 else 10 * SHORT_S
        assert finish_all(scheduler, now_s) == 1
    assert replica.times.mean_s(1) == pytest.approx(10 * SHORT_S, rel=0.1)


def test_short_batches_wait_for_more_although_a_third_of_them_stall() -> None:
    scheduler = make_scheduler()
    replica = scheduler.add_replica("0", 64)
    for number in range(300):
        replica.times.record(1 + number % 2, 0, 4 * SHORT_S if number % 3 == 2 else SHORT_S / 5)
    assert replica.times.mean_s(1) >= SHORT_S
    push(scheduler, 2)
    assert scheduler.flow_wait_until_s() > 0.0
    (_, batch), *_ = scheduler.decide(0.0).batches
    assert batch.is_short
