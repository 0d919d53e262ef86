"""The scheduler lets a replica wait for those it has just answered, once it has seen that they come back."""

import pytest

from clipper.settings.version import BatchingPolicy
from clipper.worker.abstraction.batching.decision import Decision
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.worker.abstraction.batching.scheduling import Speed, make_scheduler, push, sizes
from tests.worker.abstraction.batching.simulation import ROUND_TRIP_S, Model, Run, Simulation

# A forest of scikit-learn's with 100 trees, and pictures of 784 numbers in JSON.
FOREST = Model(3.4e-3, 16e-6, outlier_share=0.0)
CLIENTS = 128
SETTLED_S, END_S = 0.4, 0.8

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
    assert decision.wake_s == pytest.approx(scheduler.replicas["0"].last_done_s + 0.004, abs=1e-4)
    assert sizes(decide(scheduler, 0.0041)) == [("0", 64)]


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
        (Speed(0.004, 0.0002, 1000), 16, 600),  # so many wait that a few more do not matter
    ],
)
def test_a_replica_does_not_wait_where_that_would_answer_no_more(speed: Speed, size: int, waiting: int) -> None:
    decision = decide(after_batches(speed, size, waiting))
    assert sizes(decision) == [("0", waiting)]
    assert decision.wake_s is None


def test_a_replica_does_not_wait_for_those_who_do_not_come_back() -> None:
    assert sizes(decide(after_batches(COSTLY, size=64, waiting=64, come_back=False))) == [("0", 64)]


def run(policy: BatchingPolicy, front_s: float) -> Run:
    """``CLIENTS`` ask the forest again and again, through a front that takes so long for each."""
    simulation = Simulation(lambda _: (FOREST,), CLIENTS, policy, front_s=front_s)
    return simulation.until(END_S).between(SETTLED_S)


@pytest.mark.parametrize("front_s", [5e-6, 15e-6, 25e-6, 35e-6, 50e-6])
def test_it_answers_what_it_can_however_slowly_they_return(front_s: float) -> None:
    """Waiting for all takes the time until they are back, and batches of half of them the fixed time once more."""
    back_s = ROUND_TRIP_S + CLIENTS * front_s
    all_s = FOREST.fixed_s + CLIENTS * FOREST.per_row_s
    of_all, of_halves = CLIENTS / (back_s + all_s), CLIENTS / max(FOREST.fixed_s + all_s, CLIENTS * front_s)
    answered = run("goodput", front_s).in_time() / (END_S - SETTLED_S)
    assert answered >= 0.95 * max(of_all, of_halves)
    # The paper's rule keeps to halves once its limit is half of them.
    assert answered >= 0.97 * run("aimd", front_s).in_time() / (END_S - SETTLED_S)
