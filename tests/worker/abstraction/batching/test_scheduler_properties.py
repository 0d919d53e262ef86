"""Anything that can happen to a version, in virtual time and in any order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clipper.settings.version import Batching, BatchingPolicy
from clipper.worker.abstraction.batching.controller import make_controller
from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.goodput import IN_TIME
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import MAX_IN_FLIGHT, Scheduler
from clipper.worker.abstraction.batching.small_batches import MAX_SHORT_WAIT_S
from clipper.worker.abstraction.batching.suspects import DEADLY, MOST_ROWS, UNCLEAR
from clipper.worker.abstraction.work import NOBODY, Work
from tests.example_counts import share_of
from tests.worker.abstraction.batching.scheduling import HOPELESS, LONG, SHORT, Speed, teach
from tests.works import Waiting, make_work

MAX_LENGTH, MAX_BYTES = 40, 20_000
SLOS_S = (0.05, 0.2, 1.0)
SPEEDS = (None, SHORT, LONG, HOPELESS, Speed(0.001, 0.002, 64), Speed(0.004, 0.00002, 64, 1e-5))


class SchedulerMachine(RuleBasedStateMachine):
    """Each accepted piece of work leaves exactly once, and the queue's counts are those of what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.next_replica = 0
        self.waiting: list[Work] = []
        self.flying: dict[str, list[Batch]] = {}
        self.draining: set[str] = set()

    @initialize(delay_s=st.sampled_from([0.0, 0.0, 0.01]))
    def begin(self, delay_s: float) -> None:
        self.scheduler = Scheduler(MAX_LENGTH, MAX_BYTES, delay_s, Flow())

    def decide(self) -> None:
        scheduler, now_s = self.scheduler, self.now_s
        is_background = {id(work) for work in self.waiting if self.is_background(work)}
        known = [each for each in scheduler.replicas.values() if not each.is_draining]
        is_hopeless = all(each.times.mean_s(1) * each.times.ratios(1)[0] > min(SLOS_S) for each in known)
        limits = {each.id: each.limit for each in known}
        were_known = {each.id for each in known if each.times.is_known}
        decision = scheduler.decide(now_s)
        assert decision.wake_s is None or decision.wake_s > now_s
        for replica, batch in decision.batches:
            assert replica.id not in self.draining
            assert 1 <= len(batch.works) <= max(limits[replica.id], MOST_ROWS * bool(batch.source))
            assert limits[replica.id] <= replica.max_batch
            assert {scheduler.suspects.name_of(work) for work in batch.works} <= {batch.source}
            if batch.source == DEADLY:
                assert len(batch.works) == 1
                flying = [each for batches in self.flying.values() for each in batches if each.source == DEADLY]
                assert all(each.works[0].deadline_s <= now_s for each in flying)
            assert batch.size_bytes in (0, sum(len(work.row) for work in batch.works))
            self.flying[replica.id].append(batch)
            asked = [work for work in batch.works if work.waiters is not NOBODY]
            assert len(asked) in (0, len(batch.works))
            assert all(work.is_wanted for work in asked)
            self.leave(asked)
            if replica.id in were_known and not is_hopeless:
                # Work that other queries have joined is sent for their sake; and a few of a large batch may be late.
                late = [work for work in asked if work.deadline_s <= now_s and len(work.waiters) == 1]
                late = [work for work in late if id(work) not in is_background]
                assert len(late) <= (1 - IN_TIME) * len(asked)
        self.leave(decision.late)
        self.leave(decision.shed)
        if decision.wake_s is None:
            self.nothing_waits_that_an_idle_replica_could_answer()

    def nothing_waits_that_an_idle_replica_could_answer(self) -> None:
        idle = [each for each in self.scheduler.replicas.values() if not each.is_draining and not each.in_flight]
        assert not idle or not self.scheduler.suspects.length or self.scheduler.queue.length
        for replica in self.scheduler.replicas.values():
            if replica.times.is_known and not replica.is_draining and not replica.in_flight:
                for work in self.waiting:
                    done_s = self.now_s + replica.times.slow_s(1, len(work.row))
                    assert self.is_background(work) or work.due_s < done_s

    def leave(self, works: list[Work]) -> None:
        for work in works:
            self.waiting.remove(work)  # raises if it left twice
            assert not work.lane

    def is_background(self, work: Work) -> bool:
        return not self.scheduler.suspects.name_of(work) and work.lane == self.scheduler.queue._background.id

    @rule(
        speed=st.sampled_from(SPEEDS),
        policy=st.sampled_from(["goodput", "goodput", "fixed", "aimd", "quantile", "aimd_damped", "quantile_refit"]),
        is_far=st.booleans(),
    )
    def link_replica(self, speed: Speed | None, policy: BatchingPolicy, is_far: bool) -> None:
        if len(self.flying) < 3:
            replica_id = str(self.next_replica)
            self.next_replica += 1
            controller = make_controller(Batching(policy, 64), 0.02)
            replica = self.scheduler.add_replica(replica_id, 64, controller, is_fixed=policy == "fixed", is_far=is_far)
            if speed is not None:
                teach(replica, speed)
            self.flying[replica_id] = []
            self.decide()

    @rule(
        count=st.integers(1, 15),
        slo_s=st.sampled_from(SLOS_S),
        size=st.sampled_from([0, 1, 40, 3000]),
        seconds=st.sampled_from([0.0, 0.0, 0.003, 0.05, 0.5]),
        source=st.sampled_from(["a", "a", "b", "c"]),
    )
    def receive_queries(self, count: int, slo_s: float, size: int, seconds: float, source: str) -> None:
        self.now_s += seconds
        self.scheduler.suspects.meet(source)
        for _ in range(count):
            work = make_work(bytes(size), self.now_s, slo_s, source)
            accepted, expired = self.scheduler.push(work, self.now_s)
            assert all(one.done or one.deadline_s <= self.now_s for each in expired for one in each.waiters)
            self.leave(expired)
            full = len(self.waiting) >= MAX_LENGTH or sum(len(each.row) for each in self.waiting) + size > MAX_BYTES
            assert accepted or full or source in self.scheduler.suspects.by_name
            if accepted:
                self.waiting.append(work)
        self.decide()

    @rule(count=st.integers(1, 5), size=st.sampled_from([1, 40, 3000]))
    def receive_background(self, count: int, size: int) -> None:
        for _ in range(count):
            work = make_work(bytes(size), self.now_s, 1.0, "background")
            if self.scheduler.suspects.meet(work.source):
                accepted, expired = self.scheduler.push(work, self.now_s)
                self.leave(expired)
            else:
                accepted = self.scheduler.queue.push_background(work)
            if accepted:
                self.waiting.append(work)
        self.decide()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), slo_s=st.sampled_from(SLOS_S))
    def join(self, data: st.DataObject, slo_s: float) -> None:
        work = data.draw(st.sampled_from(self.waiting))
        work.join(Waiting(self.now_s + slo_s))
        self.scheduler.suspects.queue_of(work).hasten(work, slo_s, self.now_s + slo_s)
        assert not self.is_background(work)
        self.decide()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_client_goes_away(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.waiting)).waiters[0].done = True

    @precondition(lambda self: any(self.flying.values()))
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.0002, 0.01, 0.3, 3.0]), fails=st.sampled_from([0, 0, 1, 9]))
    def finish_batch(self, data: st.DataObject, seconds: float, fails: int) -> None:
        self.now_s += seconds
        replica_id = data.draw(st.sampled_from(sorted(each for each, batches in self.flying.items() if batches)))
        batch = data.draw(st.sampled_from(self.flying[replica_id]))
        replica = self.scheduler.replicas[replica_id]
        failed = range(min(fails, len(batch.works)))
        finished = self.scheduler.finished(replica, batch.id, self.now_s, failed)
        assert finished is not None and finished[0] is batch and finished[1] >= 0
        if len(self.scheduler.suspects.known) > 1:
            # A copy that probes a replica is of no application.
            assert {batch.works[row].source for row in failed} <= {*self.scheduler.suspects.by_name, ""}
        assert self.scheduler.finished(replica, batch.id, self.now_s) is None
        self.flying[replica_id].remove(batch)
        self.decide()

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def drain_or_resume(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.flying)))
        if replica_id in self.draining:
            self.scheduler.resume_replica(replica_id)
        else:
            self.scheduler.drain_replica(replica_id)
        self.draining ^= {replica_id}
        self.decide()

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), group=st.sampled_from(["", UNCLEAR, DEADLY, DEADLY]))
    def lose_replica(self, data: st.DataObject, group: str) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.flying)))
        lost = self.scheduler.lose_replica(replica_id)
        flown = [work for batch in self.flying.pop(replica_id) for work in batch.works]
        assert lost == [work for work in flown if work.waiters is not NOBODY]
        self.draining.discard(replica_id)
        for work in lost:
            work.group = work.group or group
        self.scheduler.suspects.push_back(lost)
        self.waiting += lost
        self.decide()

    @rule(source=st.sampled_from(["a", "b"]))
    def hold_application(self, source: str) -> None:
        if self.scheduler.suspects.hold(source, self.now_s, 1.0, 8.0):
            self.leave(self.scheduler.suspects.take_of(source))
            assert not [work for work in self.waiting if work.source == source]

    @rule(seconds=st.sampled_from([0.0005, 0.02, 0.3, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.decide()

    @rule(slo_s=st.sampled_from(SLOS_S))
    def set_slo(self, slo_s: float) -> None:
        self.scheduler.set_slo(slo_s)
        self.scheduler.is_quiet()
        assert self.scheduler.flow_wait_until_s() <= self.now_s + MAX_SHORT_WAIT_S

    @invariant()
    def counts_are_exact(self) -> None:
        queue, suspects = self.scheduler.queue, self.scheduler.suspects
        apart = [work for work in self.waiting if suspects.name_of(work)]
        assert (suspects.length, suspects.size_bytes) == (len(apart), sum(len(work.row) for work in apart))
        background = [work for work in self.waiting if self.is_background(work)]
        others = len(self.waiting) - len(background) - len(apart)
        assert (queue.length, queue.background) == (others, len(background))
        size_bytes = sum(len(work.row) for work in self.waiting if not self.is_background(work))
        assert queue.size_bytes + suspects.size_bytes == size_bytes
        assert all(work.lane for work in self.waiting)
        for lane in queue.lanes():
            assert lane.size_bytes == sum(len(work.row) for work in lane.works)

    @invariant()
    def what_is_in_flight_is_bounded(self) -> None:
        for replica_id, batches in self.flying.items():
            replica: ReplicaState = self.scheduler.replicas[replica_id]
            assert list(replica.in_flight.values()) == batches
            assert len(batches) <= MAX_IN_FLIGHT


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=share_of(40), stateful_step_count=40, deadline=None)
