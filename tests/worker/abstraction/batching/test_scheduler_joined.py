"""Work that more than one query waits for, each with a deadline of its own."""

import pytest

from clipper.worker.abstraction.batching.aimd_damped import DampedAimd
from tests.worker.abstraction.batching.scheduling import Speed, make_scheduler, push
from tests.works import Waiting, make_work


def test_a_query_that_joined_one_that_became_late_is_still_answered() -> None:
    """All that waits is past the first deadline of each, but not past that of who joined."""
    scheduler = make_scheduler(Speed(0.01, 0.001, 64))
    work = make_work(b"hot", 0.0, 1.0)
    scheduler.push(work, 0.0)
    work.join(Waiting(6.0))
    scheduler.queue.hasten(work, 1.0, 6.0)
    decision = scheduler.decide(5.1)
    assert [batch.works for _, batch in decision.batches] == [[work]]


def test_no_work_stays_for_good_because_a_late_query_joined_it() -> None:
    scheduler = make_scheduler(Speed(0.01, 0.001, 64))
    work = make_work(b"hot", 0.0, 1.0)
    scheduler.push(work, 0.0)
    work.join(Waiting(1.5))
    decision = scheduler.decide(5.1)
    assert decision.late == [work]
    assert scheduler.queue.length == 0


def test_what_was_joined_is_not_kept_at_the_cost_of_one_that_can_be_met() -> None:
    scheduler = make_scheduler(Speed(0.01, 0.001, 64))
    joined = make_work(b"joined", 0.0, 1.0)
    scheduler.push(joined, 0.0)
    joined.join(Waiting(1.5))
    fresh = push(scheduler, 1, 4.9)
    decision = scheduler.decide(5.1)
    assert [batch.works for _, batch in decision.batches] == [fresh]
    assert decision.late == [joined]


@pytest.mark.parametrize("has_controller", [False, True])
def test_hastened_work_that_is_late_is_counted_once(has_controller: bool) -> None:
    scheduler = make_scheduler(Speed(0.01, 0.001, 64))
    if has_controller:
        scheduler.replicas["0"].controller = DampedAimd(0.3, 64)
    hastened = make_work(b"x", 0.0, 1.0)
    scheduler.push(hastened, 0.0)
    fresh = push(scheduler, 1, 0.01, 1.0)
    hastened.join(Waiting(0.2))
    scheduler.queue.hasten(hastened, 0.19, 0.2)
    hastened.deadline_s = 0.2
    decision = scheduler.decide(0.5)
    assert [batch.works for _, batch in decision.batches] == [fresh]
    assert decision.late == [hastened]
