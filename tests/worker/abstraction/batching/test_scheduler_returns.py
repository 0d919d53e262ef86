"""The scheduler lets a replica wait for those it has just answered, once it has seen that they come back."""

import pytest

from clipper.worker.abstraction.batching.decision import Decision
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.worker.abstraction.batching.scheduling import Speed, make_scheduler, push, sizes

COSTLY = Speed(0.004, 0.00002, 1000)


def after_batches(speed: Speed, size: int, waiting: int, *, rounds: int = 8, come_back: bool = True) -> Scheduler:
    """So many batches have come back, one after the other; those of the last one have not yet."""
    scheduler = make_scheduler(speed)
    now_s = 0.0
    for number in range(rounds):
        if not scheduler.queue.length:
            push(scheduler, size, now_s)
        ((replica, batch), *_) = scheduler.decide(now_s).batches
        assert len(batch.works) == size
        if number == rounds - 1:
            push(scheduler, waiting, now_s)
        service_s = speed.service_s(size)
        assert scheduler.finished(replica, batch.id, now_s + service_s) is not None
        now_s += service_s + 0.00001
        if number < rounds - 1:
            if come_back:
                push(scheduler, size, now_s)
            scheduler._returns.look(scheduler.queue.arrivals, now_s)
            now_s += 0.005 if come_back else 0.5
    return scheduler


def decide(scheduler: Scheduler, later_s: float = 0.0) -> Decision:
    return scheduler.decide(scheduler.replicas["0"].last_done_s + later_s)


def test_a_replica_waits_where_batches_cost_much_whatever_their_size() -> None:
    scheduler = after_batches(COSTLY, size=64, waiting=64)
    decision = decide(scheduler)
    assert sizes(decision) == []
    assert decision.wake_s == pytest.approx(scheduler.replicas["0"].last_done_s + 0.002, abs=1e-4)
    assert sizes(decide(scheduler, 0.0021)) == [("0", 64)]


def test_gathered_rows_go_when_the_rest_come_too_slowly_or_all_are_back() -> None:
    scheduler = after_batches(COSTLY, size=64, waiting=10)
    done_s = scheduler.replicas["0"].last_done_s
    push(scheduler, 40, done_s)
    assert sizes(decide(scheduler)) == []
    assert sizes(decide(scheduler, 0.002)) == []
    assert sizes(decide(scheduler, 0.0045)) == [("0", 50)]
    scheduler = after_batches(COSTLY, size=64, waiting=10)
    push(scheduler, 64, scheduler.replicas["0"].last_done_s)
    assert sizes(decide(scheduler)) == [("0", 74)]


@pytest.mark.parametrize(
    ("speed", "size", "waiting"),
    [
        (COSTLY, 1, 1),  # few clients: each would only wait
        (Speed(0.00005, 0.000001, 1000), 64, 64),  # nothing to save
        (Speed(0.004, 0.002, 1000), 64, 64),  # most of the time is per row
        (COSTLY, 16, 600),  # so many wait that a few more do not matter
    ],
)
def test_a_replica_does_not_wait_where_that_would_answer_no_more(speed: Speed, size: int, waiting: int) -> None:
    decision = decide(after_batches(speed, size, waiting))
    assert sizes(decision) == [("0", waiting)]
    assert decision.wake_s is None


def test_a_replica_does_not_wait_for_those_who_do_not_come_back() -> None:
    assert sizes(decide(after_batches(COSTLY, size=64, waiting=64, come_back=False))) == [("0", 64)]
