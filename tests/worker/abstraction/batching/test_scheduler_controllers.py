"""The scheduler under controllers, which say how large a batch may be."""

from clipper.worker.abstraction.batching.aimd_damped import DampedAimd
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.worker.abstraction.batching.scheduling import LONG, SLO_S, push, teach


def test_a_controller_hears_of_its_batches_and_sets_the_limit() -> None:
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    controller = DampedAimd(SLO_S * DampedAimd.share_of_slo, 64)
    replica = scheduler.add_replica("0", 64, controller)
    for expected in (1, 2, 4, 8):
        assert replica.limit == replica.batch_limit(SLO_S) == expected
        push(scheduler, 100)
        ((_, batch), *_) = scheduler.decide(0.0).batches
        assert len(batch.works) == expected
        for batch_id in list(replica.in_flight):
            scheduler.finished(replica, batch_id, 0.0001)
        scheduler.queue.clear()
        controller.limit = 2 * expected


def test_with_a_controller_only_those_that_cannot_be_met_are_left_out() -> None:
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    controller = DampedAimd(SLO_S * DampedAimd.share_of_slo, 4)
    controller.limit = 4
    teach(scheduler.add_replica("0", 4, controller), LONG)
    stale, met = push(scheduler, 2, 0.0), push(scheduler, 6, 0.5)
    decision = scheduler.decide(0.99)
    assert [batch.works for _, batch in decision.batches] == [met[:4]]
    assert decision.late + decision.shed == stale


def test_the_slo_sets_each_controllers_budget() -> None:
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    controllers = [DampedAimd(1.0, 64), DampedAimd(1.0, 64)]
    for number, controller in enumerate(controllers):
        scheduler.add_replica(str(number), 64, controller)
    scheduler.set_slo(0.02)
    assert [controller._budget_s for controller in controllers] == [0.02 * DampedAimd.share_of_slo] * 2
