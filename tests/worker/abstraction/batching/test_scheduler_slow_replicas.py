"""Replicas that are too slow for any query, and those of which nothing is known."""

import itertools

from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.probing import PROBE_EVERY_S, PROBE_TIMES
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import NOBODY
from tests.worker.abstraction.batching.scheduling import HOPELESS, SLO_S, Speed, is_empty, make_scheduler, push, sizes


class TestReplicaTooSlowForAnyQuery:
    def test_it_is_sent_a_copy_now_and_then_while_another_serves(self) -> None:
        """At most once in so long, or a tenth of its time; the query itself is answered by the other."""
        scheduler = make_scheduler(Speed(0.01, 0.001, 64), HOPELESS)
        probes: list[float] = []
        every_s = max(PROBE_EVERY_S, PROBE_TIMES * HOPELESS.service_s(1))
        busy_until_s = 0.0
        for step in range(600):
            now_s = 10.0 + 0.1 * step
            if scheduler.replicas["1"].in_flight and now_s >= busy_until_s:
                (batch_id,) = scheduler.replicas["1"].in_flight
                scheduler.finished(scheduler.replicas["1"], batch_id, busy_until_s)
            # More than it takes at once, so that the other is looked at.
            works = push(scheduler, 70, now_s)
            decision = scheduler.decide(now_s)
            for replica, batch in decision.batches:
                if replica.id == "1":
                    (probe,) = batch.works
                    assert probe.waiters is NOBODY and probe not in works
                    probes.append(now_s)
                    busy_until_s = now_s + HOPELESS.service_s(1)
                else:
                    scheduler.finished(replica, batch.id, now_s + 0.05)
            scheduler.queue.clear()
        assert 2 <= len(probes) <= 4
        assert all(later - sooner >= every_s - 1e-6 for sooner, later in itertools.pairwise(probes))

    def test_alone_it_is_given_the_newest_query(self) -> None:
        scheduler = make_scheduler(HOPELESS)
        push(scheduler, 3, 9.5)
        newest = push(scheduler, 1, 10.0)
        decision = scheduler.decide(10.0)
        assert [batch.works for _, batch in decision.batches] == [newest]
        assert is_empty(scheduler.decide(10.0)), "and it binds no more"

    def test_one_quick_batch_brings_it_back(self) -> None:
        scheduler = make_scheduler(HOPELESS)
        push(scheduler, 5, 10.0)
        ((replica, batch),) = scheduler.decide(10.0).batches
        scheduler.finished(replica, batch.id, 10.004)
        decision = scheduler.decide(10.004)
        assert sizes(decision) == [("0", 4)]
        assert (decision.late, decision.shed) == ([], [])

    def test_a_lost_probe_is_nobodys_work(self) -> None:
        scheduler = make_scheduler(Speed(0.01, 0.001, 4), HOPELESS)
        push(scheduler, 6, 30.0)
        assert sizes(scheduler.decide(30.0)) == [("0", 4), ("1", 1)]
        assert scheduler.lose_replica("1") == []


def test_an_unknown_replica_is_not_given_work_past_its_deadline() -> None:
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    stale, fresh = push(scheduler, 5, 0.0), push(scheduler, 1, 2.9)
    scheduler.add_replica("0", 64)
    decision = scheduler.decide(3.0)
    assert [batch.works for _, batch in decision.batches] == [fresh]
    assert decision.late == stale


def test_an_answer_in_no_time_of_one_that_was_too_slow_is_taken() -> None:
    """A clock that is coarse may say that no time has passed."""
    scheduler = make_scheduler(HOPELESS)
    push(scheduler, 5, 10.0)
    ((replica, batch),) = scheduler.decide(10.0).batches
    assert scheduler.finished(replica, batch.id, 10.0) is not None
    assert 0.0 <= replica.times.mean_s(1) < SLO_S


def test_a_probe_is_a_copy_of_the_only_query_that_waits() -> None:
    scheduler = make_scheduler(Speed(0.01, 0.001, 4), HOPELESS)
    works = push(scheduler, 5, 30.0)
    decision = scheduler.decide(30.0)
    assert sizes(decision) == [("0", 4), ("1", 1)]
    assert decision.batches[1][1].works[0].row == works[4].row
    assert scheduler.queue.length == 1
