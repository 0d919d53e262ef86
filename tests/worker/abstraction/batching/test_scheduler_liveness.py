"""Whatever was learned, a version that is asked is sent a query within a bounded time, and so is each idle replica."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clipper.settings.version import Batching, BatchingPolicy
from clipper.worker.abstraction.batching.controller import make_controller
from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.probing import PROBE_EVERY_S, PROBE_TIMES
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import NOBODY
from tests.example_counts import share_of
from tests.worker.abstraction.batching.scheduling import Speed, make_scheduler, push, sizes
from tests.works import Waiting, make_work

POLICIES: tuple[BatchingPolicy, ...] = get_args(BatchingPolicy)
# The time of a batch, in SLOs: most are close to the one that leaves no query the time that its answer needs.
SERVICE_SLOS = (0.01, 0.3, 0.6, 0.8, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 1.0, 1.02, 2.0, 50.0)
# The part of its SLO that a query has left at the scheduler: the answer's way and a turn of the loop take the rest.
LEFT = (1.0, 0.98, 0.95, 0.8)


@dataclass(frozen=True, slots=True)
class Step:
    """Time passes, queries come, and what leaves for a replica will take ``service_slos``; one replica may die."""

    wait_slos: float
    count: int
    lane: int
    size: int
    service_slos: float
    crash: bool = False


STEPS = st.builds(
    Step,
    wait_slos=st.sampled_from([0.0, 0.01, 0.3, 1.0, 30.0]),
    count=st.sampled_from([1, 1, 3, 40]),
    lane=st.integers(0, 1),
    size=st.sampled_from([1, 1, 40, 4000]),
    service_slos=st.sampled_from(SERVICE_SLOS),
    crash=st.sampled_from([False] * 9 + [True]),
)
COLD = Step(0.0, 1, 0, 1, 0.98)


class Version:
    """A scheduler with its replicas in virtual time. It asserts the bound at each decision."""

    def __init__(
        self,
        policy: BatchingPolicy,
        slos_s: Sequence[float],
        far: Sequence[bool] = (False,),
        left: float = 0.9,
        timer_late_s: float = 0.0,
    ) -> None:
        self.now_s, self.wake_s = 1000.0, inf
        self.slos_s, self.left, self.timer_late_s = slos_s, left, timer_late_s
        self.policy = policy
        self.scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
        self.scheduler.set_slo(min(slos_s))
        self.ends: list[tuple[float, str, Batch]] = []
        self.asked_s: dict[str, float] = {}
        self.links = 0
        self.in_time = 0
        for is_far in far:
            self.link(is_far)

    def link(self, is_far: bool) -> None:
        self.links += 1
        batching = Batching(self.policy, max_batch=64)
        controller = make_controller(batching, min(self.slos_s))
        most, is_fixed = (1 if self.policy == "none" else 64), self.policy in ("fixed", "none")
        self.scheduler.add_replica(str(self.links), most, controller, is_fixed=is_fixed, is_far=is_far)
        self.asked_s[str(self.links)] = self.now_s

    def take(self, step: Step) -> None:
        self.wait(step.wait_slos * self.slos_s[0], step.service_slos)
        if step.crash:
            replica = next(iter(self.scheduler.replicas.values()))
            self.ends = [end for end in self.ends if end[1] != replica.id]
            self.scheduler.queue.push_back(self.scheduler.lose_replica(replica.id))
            self.link(replica.is_far)
        slo_s = self.slos_s[step.lane % len(self.slos_s)]
        arrival_s = self.now_s - (1 - self.left) * slo_s
        for _ in range(step.count):
            self.scheduler.push(make_work(bytes(step.size), arrival_s, slo_s), self.now_s)
        self.decide(step.service_slos)

    def wait(self, seconds: float, service_slos: float) -> None:
        """Let time pass, with the batches that end and the timers that are due in it."""
        until_s = self.now_s + seconds
        while min([self.wake_s, *(end[0] for end in self.ends)]) <= until_s:
            end = min(self.ends, key=lambda end: end[0], default=None)
            if end is None or end[0] > self.wake_s:
                self.now_s, self.wake_s = max(self.now_s, self.wake_s), inf
            else:
                self.ends.remove(end)
                self.now_s, replica_id, batch = end
                self.in_time += sum(work.due_s >= self.now_s for work in batch.works if work.waiters is not NOBODY)
                assert self.scheduler.finished(self.scheduler.replicas[replica_id], batch.id, self.now_s) is not None
            self.decide(service_slos)
        self.now_s = max(self.now_s, until_s)

    def decide(self, service_slos: float) -> None:
        replicas = self.scheduler.replicas.values()
        every_s = {each.id: max(PROBE_EVERY_S, PROBE_TIMES * each.times.mean_s(1)) for each in replicas}
        every_s[min(replicas, key=lambda each: each.times.mean_s(1)).id] = PROBE_EVERY_S
        decision = self.scheduler.decide(self.now_s)
        for replica, batch in decision.batches:
            assert all(work.due_s >= self.now_s for work in batch.works if len(work.waiters) == 1)
            self.asked_s[replica.id] = self.now_s
            began_s = max([self.now_s, *(end_s for end_s, replica_id, _ in self.ends if replica_id == replica.id)])
            self.ends.append((began_s + service_slos * self.slos_s[0], replica.id, batch))
        self.wake_s = inf if decision.wake_s is None else decision.wake_s + self.timer_late_s
        if any(work.due_s >= self.now_s for work in (*decision.late, *decision.shed)):
            for replica in replicas:
                assert replica.in_flight or self.now_s < self.asked_s[replica.id] + every_s[replica.id]


@given(
    policy=st.sampled_from(POLICIES),
    slos_s=st.sampled_from([(0.1,), (0.05,), (0.02,), (0.005,), (1.0,), (30.0,), (0.1, 0.02), (0.1, 1.0)]),
    far=st.sampled_from([(False,), (True,), (False, False), (False, True), (True, True, False)]),
    left=st.sampled_from(LEFT),
    timer_late_s=st.sampled_from([0.0, 0.0005, 0.005]),
    history=st.lists(STEPS, min_size=1, max_size=40),
)
@example("goodput", (0.1,), (False,), 0.98, 0.0, [COLD])
@example("goodput", (0.1,), (False,), 0.98, 0.0, [COLD] * 40)
@example("aimd", (0.005,), (False,), 0.7, 0.0, [COLD] * 10)
@example("goodput", (0.1,), (False, False), 0.98, 0.0, [COLD] * 10)
@settings(max_examples=share_of(300), deadline=None)
def test_a_version_that_is_asked_is_sent_queries_whatever_its_history(
    policy: BatchingPolicy,
    slos_s: tuple[float, ...],
    far: tuple[bool, ...],
    left: float,
    timer_late_s: float,
    history: list[Step],
) -> None:
    version = Version(policy, slos_s, far, left, timer_late_s)
    for step in history:
        version.take(step)
    # From now on its batches are quick. It answers within three probes: one query comes in each tenth of a second.
    version.wait(100 * slos_s[0], 0.01)
    version.in_time = 0
    for _ in range(40):
        version.take(Step(PROBE_EVERY_S / 10 / slos_s[0], 1, 0, 1, 0.01))
    assert version.in_time


@pytest.mark.parametrize(("slo_s", "first_s"), [(0.1, 0.098), (0.05, 0.046), (0.05, 0.049), (0.02, 0.019)])
def test_after_one_slow_first_batch_the_next_query_is_sent_at_once(slo_s: float, first_s: float) -> None:
    version = Version("goodput", (slo_s,))
    version.take(Step(0.0, 1, 0, 1, first_s / slo_s))
    version.wait(1.0, 0.01)
    version.take(Step(0.0, 1, 0, 1, 0.01))
    assert len(version.ends) == 1
    version.wait(1.0, 0.01)
    assert version.in_time == 1


def test_what_is_given_up_is_sent_once_a_second_if_the_replica_idles() -> None:
    """A fresh query would just be in time, but by the time that it is seen it would not: nothing else is sent."""
    scheduler = make_scheduler(Speed(0.095, 0.0, 64), slo_s=0.1)
    sent: list[float] = []
    for step in range(100):
        now_s = 10.0 + 0.05 * step
        work = make_work(b"", now_s - 0.009, 0.1)
        scheduler.push(work, now_s)
        decision = scheduler.decide(now_s)
        assert decision.late == ([] if decision.batches else [work])
        for replica, batch in decision.batches:
            assert batch.works == [work], "the query itself: it has nothing to lose"
            sent.append(now_s)
            scheduler.finished(replica, batch.id, now_s + 0.095)
    assert len(sent) == 5
    assert all(later - sooner == pytest.approx(PROBE_EVERY_S) for sooner, later in pairwise(sent))


def test_a_slow_replica_beside_others_is_sent_what_they_give_up() -> None:
    scheduler = make_scheduler(Speed(0.01, 0.001, 8), Speed(0.09, 0.001, 8), slo_s=0.1)
    push(scheduler, 8, 9.97, slo_s=0.1)
    late = push(scheduler, 1, 9.93, slo_s=0.1)
    decision = scheduler.decide(10.025)
    assert sizes(decision) == [("0", 8), ("1", 1)]
    assert decision.batches[1][1].works == late and not decision.late


def test_if_the_client_has_gone_a_copy_of_its_row_is_sent() -> None:
    """Nobody is answered by it, but the replica's time is learned."""
    scheduler = make_scheduler(Speed(0.095, 0.0, 64), slo_s=0.1)
    work = make_work(b"row", 9.99, 0.1)
    assert scheduler.push(work, 10.0) == (True, [])
    work.waiters[0] = Waiting()
    work.waiters[0].done = True
    decision = scheduler.decide(10.0)
    assert decision.late == [work]
    ((_, batch),) = decision.batches
    assert batch.works[0].row == b"row" and batch.works[0].waiters is NOBODY


def test_nothing_is_sent_for_queries_that_are_over() -> None:
    scheduler = make_scheduler(Speed(0.01, 0.001, 8), slo_s=0.1)
    over = push(scheduler, 1, 9.0, slo_s=0.1)
    decision = scheduler.decide(10.0)
    assert decision.late == over and not decision.batches
