"""Work of the background: done where it costs no prediction its answer, and not for ever put off."""

import pytest

from clipper.worker.abstraction.batching.background import BACKGROUND_SHARE, RIDE_SHARE
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import Work
from tests.worker.abstraction.batching.scheduling import (
    LONG,
    SHORT,
    SLO_S,
    Speed,
    finish_all,
    make_scheduler,
    push,
    sizes,
)
from tests.works import Waiting, make_work


def push_background(scheduler: Scheduler, count: int, now_s: float = 0.0, size: int = 1) -> list[Work]:
    works = [make_work(bytes(size), now_s, SLO_S) for _ in range(count)]
    assert all(scheduler.queue.push_background(work) for work in works)
    return works


def test_it_is_done_when_no_prediction_waits() -> None:
    scheduler = make_scheduler(LONG)
    works = push_background(scheduler, 3)
    decision = scheduler.decide(0.0)
    assert [batch.works for _, batch in decision.batches] == [works]
    assert scheduler.queue.background == 0


def test_a_replica_is_busy_with_it_only_as_long_as_a_prediction_can_wait() -> None:
    speed = Speed(0.1, 0.01, 1000)
    scheduler = make_scheduler(speed)
    push_background(scheduler, 200)
    ((_, batch),) = scheduler.decide(0.0).batches
    assert speed.service_s(len(batch.works)) + speed.service_s(1) <= BACKGROUND_SHARE * SLO_S + 1e-6
    assert speed.service_s(len(batch.works) + 2) + speed.service_s(1) > BACKGROUND_SHARE * SLO_S


def test_it_is_one_batch_at_a_time() -> None:
    scheduler = make_scheduler(SHORT)
    push_background(scheduler, 20)
    assert sizes(scheduler.decide(0.0)) == [("0", 4)]
    assert sizes(scheduler.decide(0.0)) == []


def test_predictions_go_first() -> None:
    scheduler = make_scheduler(LONG)
    push_background(scheduler, 20)
    works = push(scheduler, 10)
    ((_, batch),) = scheduler.decide(0.0).batches
    assert batch.works == works[:4]
    finish_all(scheduler, 0.024)
    ((_, batch),) = scheduler.decide(0.024).batches
    assert batch.works == works[4:8]


def test_it_rides_along_where_there_is_room() -> None:
    scheduler = make_scheduler(Speed(0.02, 0.001, 100))
    background = push_background(scheduler, 50)
    works = push(scheduler, 20)
    ((_, batch),) = scheduler.decide(0.0).batches
    assert batch.works == works + background[: int(20 * RIDE_SHARE)]


def test_it_does_not_ride_along_where_a_prediction_would_be_late_for_it() -> None:
    speed = Speed(0.2, 0.03, 100)
    scheduler = make_scheduler(speed)
    push_background(scheduler, 50)
    works = push(scheduler, 24)
    assert speed.service_s(24) < SLO_S < speed.service_s(24 + int(24 * RIDE_SHARE))
    ((_, batch),) = scheduler.decide(0.0).batches
    assert batch.works == works


@pytest.mark.parametrize("service_s", [0.3, 0.6, 0.9, 1.0, 1.7])
def test_where_it_is_quiet_it_is_done_on_a_slow_model_too(service_s: float) -> None:
    scheduler = make_scheduler(Speed(service_s * 0.9, service_s * 0.1, 8))
    push_background(scheduler, 3)
    assert scheduler.decide(0.0).batches


def test_where_predictions_keep_coming_a_slow_model_does_none() -> None:
    """Each batch of it would make those that come meanwhile late. It is looked at again later."""
    scheduler = make_scheduler(Speed(0.5, 0.05, 8))
    for step in range(200):
        push(scheduler, 1, step * 0.05)
        scheduler._rate.look(scheduler.queue.arrivals, step * 0.05, SLO_S)
        scheduler.queue.clear()
    push_background(scheduler, 3)
    decision = scheduler.decide(10.0)
    assert decision.batches == []
    assert decision.wake_s is not None and decision.wake_s > 10.0
    # The same when it has become quiet.
    assert scheduler.decide(40.0).batches


def test_what_a_prediction_joins_is_hastened() -> None:
    scheduler = make_scheduler(LONG)
    background = push_background(scheduler, 20)
    works = push(scheduler, 2)
    background[7].join(Waiting(0.5))
    scheduler.queue.hasten(background[7], 0.5, 0.5)
    ((_, batch),) = scheduler.decide(0.0).batches
    assert batch.works == [background[7], *works]
    assert scheduler.queue.background == 19


def test_a_draining_replica_does_none() -> None:
    scheduler = make_scheduler(LONG)
    scheduler.drain_replica("0")
    push_background(scheduler, 3)
    assert scheduler.decide(0.0).batches == []


def test_what_a_lost_replica_had_of_it_is_background_again() -> None:
    scheduler = make_scheduler(LONG)
    push_background(scheduler, 3)
    scheduler.decide(0.0)
    scheduler.queue.push_back(scheduler.lose_replica("0"))
    assert (scheduler.queue.length, scheduler.queue.background) == (0, 3)


def test_long_rows_of_it_make_no_prediction_late() -> None:
    speed = Speed(0.01, 0.0, 1000, per_byte_s=1e-6)
    scheduler = make_scheduler(speed, slo_s=0.1)
    push_background(scheduler, 25, size=10_000)
    ((_, batch),) = scheduler.decide(0.0).batches
    assert speed.service_s(len(batch.works), sum(len(work.row) for work in batch.works)) <= BACKGROUND_SHARE * 0.1


def test_its_long_rows_do_not_ride_along_where_a_prediction_would_be_late() -> None:
    speed = Speed(0.01, 0.0, 1000, per_byte_s=1e-6)
    scheduler = make_scheduler(speed)
    push_background(scheduler, 2, size=100_000)
    push(scheduler, 8, slo_s=0.05)
    ((_, batch),) = scheduler.decide(0.0).batches
    assert speed.service_s(len(batch.works), sum(len(work.row) for work in batch.works)) <= 0.05
