"""Rows of unequal length, whose time depends on their bytes."""

import random

import pytest

from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.worker.abstraction.batching.scheduling import Speed, finish_all, make_scheduler
from tests.works import make_work

# 10 ms, and 1 ms for 1000 bytes.
TEXTS = Speed(0.01, 0.0, 1000, per_byte_s=1e-6)


def rows(scheduler: Scheduler, count: int, size: int, now_s: float, slo_s: float) -> list[object]:
    works = [make_work(bytes(size), now_s, slo_s) for _ in range(count)]
    assert all(scheduler.push(work, now_s)[0] for work in works)
    return list(works)


def settled() -> Scheduler:
    scheduler = make_scheduler(TEXTS, slo_s=0.1)
    rows(scheduler, 1, 10, 0.0, 0.1)
    scheduler.decide(0.0)
    finish_all(scheduler, TEXTS.service_s(1, 10))
    return scheduler


def test_what_a_batch_takes_is_learned_from_its_bytes() -> None:
    scheduler = Scheduler(10_000, 1 << 30, 0.0, Flow())
    replica = scheduler.add_replica("0", 1000)
    rng, now_s = random.Random(1), 0.0
    for _ in range(60):
        rows(scheduler, rng.randint(1, 20), rng.choice((10, 100, 3000)), now_s, 10.0)
        for _, batch in scheduler.decide(now_s).batches:
            service_s = TEXTS.service_s(len(batch.works), batch.size_bytes) * rng.lognormvariate(0.0, 0.05)
            now_s += service_s
            scheduler.finished(replica, batch.id, now_s)
    for count, size_bytes in ((1, 10), (10, 100), (10, 30_000)):
        assert replica.times.mean_s(count, size_bytes) == pytest.approx(TEXTS.service_s(count, size_bytes), rel=0.15)


def test_a_long_row_does_not_make_a_batch_of_short_ones_late() -> None:
    """It comes first, takes as much as the SLO has left, and no batch with it is in time for the others."""
    scheduler = settled()
    (long,) = rows(scheduler, 1, 95_000, 9.95, 0.1)
    short = rows(scheduler, 100, 10, 9.96, 0.1)
    decision = scheduler.decide(10.0)
    ((_, batch),) = decision.batches
    assert long not in batch.works
    assert batch.works == short


def test_long_rows_between_short_ones_by_deadline_are_left_out() -> None:
    """No batch of neighbours by deadline is without a long one, and two of them take longer than the SLO has left."""
    scheduler = settled()
    short, long = [], []
    for number in range(12):
        arrival_s = 9.95 + 0.001 * number
        short += rows(scheduler, 5, 10, arrival_s, 0.1)
        long += rows(scheduler, 1, 40_000, arrival_s, 0.1)
    ((_, batch),) = scheduler.decide(10.0).batches
    assert batch.works == short
    assert scheduler.queue.length == len(long)


def test_long_rows_are_not_left_out_where_there_is_time() -> None:
    scheduler = settled()
    (long,) = rows(scheduler, 1, 50_000, 10.0, 0.1)
    short = rows(scheduler, 100, 10, 10.0, 0.1)
    ((_, batch),) = scheduler.decide(10.0).batches
    assert long in batch.works and len(batch.works) == 1 + len(short)


def test_long_rows_get_their_turn() -> None:
    """Under few queries, one that is long is answered within its SLO, beside short ones that keep coming."""
    scheduler = settled()
    now_s = 10.0
    (long,) = rows(scheduler, 1, 60_000, now_s, 0.1)
    free_s = now_s
    for step in range(100):
        now_s = 10.0 + 0.001 * step
        rows(scheduler, 1, 10, now_s, 0.1)
        if scheduler.replicas["0"].in_flight and free_s <= now_s:
            finish_all(scheduler, free_s)
        for _, batch in scheduler.decide(now_s).batches:
            free_s = max(free_s, now_s) + TEXTS.service_s(len(batch.works), batch.size_bytes)
            if long in batch.works:
                assert free_s <= 10.1
                return
    pytest.fail("it was never sent")


def test_a_row_far_longer_than_any_before_is_tried() -> None:
    scheduler = settled()
    replica = scheduler.replicas["0"]
    for number in range(20):
        rows(scheduler, 2, 10 + number % 3, float(number), 0.1)
        for _, batch in scheduler.decide(float(number)).batches:
            assert scheduler.finished(replica, batch.id, number + 0.001 + 0.0001 * (number % 3)) is not None
    # By what shorter ones seem to take for each byte it could not be met.
    assert replica.times.per_byte_s * 1_000_000 > 0.1
    rows(scheduler, 1, 1_000_000, 30.0, 0.1)
    assert [len(batch.works) for _, batch in scheduler.decide(30.0).batches] == [1]


def test_rows_that_are_taken_to_be_too_long_are_tried_now_and_then() -> None:
    scheduler = settled()
    replica = scheduler.replicas["0"]
    for _ in range(6):
        replica.times.record(1, 3000, 5.0)
    rows(scheduler, 1, 10, 9.0, 0.1)
    if scheduler.decide(9.0).batches:
        finish_all(scheduler, 9.01)
    sent_s = []
    for number in range(100):
        now_s = 10.0 + number * 0.1
        rows(scheduler, 1, 3000, now_s, 0.1)
        if scheduler.decide(now_s).batches:
            sent_s.append(now_s)
            finish_all(scheduler, now_s + 0.05)
    # Once a second while they are taken to be so; a few answers show that they are not.
    assert sent_s[0] == 10.0 and len(sent_s) > 50


def test_a_batch_may_have_a_bound_in_bytes_and_the_rest_goes_in_the_next() -> None:
    """A batch of 64 records of 4 MB was made in one step of the loop, which took a third of a second."""
    scheduler = settled()
    scheduler.most_batch_bytes = 10_000
    short = rows(scheduler, 30, 100, 10.0, 1.0)
    (long,) = rows(scheduler, 1, 50_000, 10.0, 2.0)
    more = rows(scheduler, 10, 4_000, 10.0, 3.0)
    sent = []
    now_s = 10.0
    for _ in range(100):
        batches = [batch for _, batch in scheduler.decide(now_s).batches]
        for batch in batches:
            sent += batch.works
            assert len(batch.works) == 1 or sum(len(work.row) for work in batch.works) <= 10_000
        now_s += 0.02
        finish_all(scheduler, now_s)
        if not scheduler.has_work:
            break
    assert len(sent) == len(set(map(id, sent))) == 41 and {*map(id, (*short, long, *more))} == {*map(id, sent)}
