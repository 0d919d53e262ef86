"""The lease by itself, and supervisors with drifting clocks, pauses and cuts around one storage, simulated."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.supervisor.registry.lease import Lease, LeaseTimes

TERMS = LeaseTimes()
TIMES = st.floats(0.0, 100.0)


@given(st.lists(st.tuples(TIMES, st.booleans()), max_size=8), TIMES)
def test_a_holder_may_act_for_a_time_after_its_latest_granted_request(
    answers: list[tuple[float, bool]], now_s: float
) -> None:
    """In whatever order answers come."""
    lease = Lease(TERMS, 7, 0.0)
    for asked_at_s, is_answered in answers:
        if is_answered:
            lease.confirm(asked_at_s)
        else:
            lease.miss(asked_at_s, asked_at_s + 1.5, "away")
    granted = max([0.0, *(asked_at_s for asked_at_s, is_answered in answers if is_answered)])
    assert lease.may_act(now_s) == (now_s < granted + 4.0)
    assert lease.age_s(now_s) == now_s - granted


@given(st.lists(TIMES, max_size=3), TIMES)
def test_a_lost_lease_stays_lost(later: list[float], now_s: float) -> None:
    lease = Lease(TERMS, 7, 0.0)
    lease.lose("another leads")
    for asked_at_s in later:
        lease.confirm(asked_at_s)
    lease.lose("a second reason")
    assert not lease.may_act(now_s)
    assert lease.why_lost == "another leads"


def test_silence_lasts_from_the_first_unanswered_request_to_an_answer() -> None:
    lease = Lease(TERMS, 7, 0.0)
    assert (lease.renew_at_s, lease.silent_since_s) == (1.0, None)
    lease.miss(1.0, 2.5, "timed out")
    lease.miss(3.0, 3.0, "refused")
    assert (lease.renew_at_s, lease.silent_since_s, lease.why_silent) == (3.5, 1.0, "refused")
    lease.confirm(3.5)
    assert (lease.renew_at_s, lease.silent_since_s) == (4.5, None)
    lease.confirm(2.0)  # a late answer takes nothing back
    assert lease.renew_at_s == 4.5


# How far a machine's clock may be off within a second, far more than any is.
DRIFT = 0.01
TIMEOUT_S = 2.5
ASK_EVERY_S = 0.5
# Until the storage has on its disk what it was sent, which it confirms only then.
DISK_S = 1.0


@dataclass(frozen=True)
class State:
    epoch: int = 0
    holder: str = ""
    held_until_s: float = float("-inf")


@dataclass
class Storage:
    """Does the same with the lease as the scripts of the registry, on a clock of its own."""

    rate: float
    state: State = State()
    on_disk: State = State()
    crashes: int = 0
    away_until_s: float = 0.0
    accepted: list[int] = field(default_factory=list)

    def grant(self, t: float, who: str) -> int | None:
        if self.state.held_until_s > t * self.rate and self.state.holder != who:
            return None
        self.state = State(self.state.epoch + 1, who, t * self.rate + TERMS.duration_s)
        return self.state.epoch

    def renew(self, t: float, epoch: int) -> bool:
        """Also what a change does."""
        if epoch == self.state.epoch:
            self.state = replace(self.state, held_until_s=t * self.rate + TERMS.duration_s)
        return epoch == self.state.epoch

    def crash(self, t: float, away_s: float) -> None:
        self.state, self.crashes, self.away_until_s = self.on_disk, self.crashes + 1, t + away_s


class Supervisor:
    """Asks for the lease, renews it and makes changes, through a network that is slow and loses messages."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.rate = world.random.uniform(1 - DRIFT, 1 + DRIFT)
        self.offset_s = world.random.uniform(-1000, 1000)
        self.lease: Lease | None = None
        self.resumes_at = 0.0
        self.is_dead = False
        self.requests = itertools.count()
        self.waits_for = -1
        self.led_from: list[float] = []

    def clock_s(self) -> float:
        return self.world.now * self.rate + self.offset_s

    def acts(self) -> bool:
        return not self.is_dead and self.lease is not None and self.lease.may_act(self.clock_s())

    def step(self) -> None:
        """Send a request, and wait for its answer."""
        world, lease, asked_at_s = self.world, self.lease, self.clock_s()
        self.waits_for = number = next(self.requests)
        is_change = lease is not None and world.random.random() < 0.3

        def arrive() -> None:
            storage = world.storage
            if world.now < storage.away_until_s or world.loses():
                return
            answer = storage.grant(world.now, self.name) if lease is None else storage.renew(world.now, lease.epoch)
            crashes = storage.crashes
            world.at(world.random.uniform(0, DISK_S) if answer else 0.0, lambda: confirm(answer, crashes))

        def confirm(answer: int | bool | None, crashes: int) -> None:
            storage = world.storage
            if storage.crashes > crashes:
                return
            if answer:
                storage.on_disk = storage.state
            if is_change and answer and lease is not None:
                storage.accepted.append(lease.epoch)
            if not world.loses():
                world.at(world.delay(), lambda: self.receive(number, asked_at_s, answer), self)

        world.at(world.delay(), arrive)
        world.at(TIMEOUT_S, lambda: self.time_out(number, asked_at_s), self)

    def receive(self, number: int, asked_at_s: float, answer: int | bool | None) -> None:
        if self.waits_for != number:
            return
        self.waits_for = -1
        if self.lease is not None and answer:
            self.lease.confirm(asked_at_s)
        elif self.lease is not None:
            self.lease = None  # it steps down, and stands by
        elif answer:
            self.lease = Lease(self.world.times, int(answer), asked_at_s)
            self.led_from.append(self.world.now)
        self.again()

    def time_out(self, number: int, asked_at_s: float) -> None:
        if self.waits_for != number:
            return
        self.waits_for = -1
        if self.lease is not None:
            self.lease.miss(asked_at_s, self.clock_s(), "no answer")
        self.again()

    def again(self) -> None:
        wait_s = ASK_EVERY_S if self.lease is None else self.lease.renew_at_s - self.clock_s()
        self.world.at(max(0.0, wait_s), self.step, self)


class World:
    def __init__(self, seed: int, times: LeaseTimes = TERMS, faults: float = 1.0) -> None:
        self.random, self.times, self.faults = Random(seed), times, faults
        self.now = 100.0
        self.storage = Storage(self.random.uniform(1 - DRIFT, 1 + DRIFT))
        self.queue: list[tuple[float, int, Callable[[], None], Supervisor | None]] = []
        self.order = itertools.count()
        self.supervisors = [Supervisor(self, name) for name in "abc"]
        self.slow_until = self.lossy_until = 0.0
        for one in self.supervisors:
            self.at(self.random.uniform(0, 1), one.step, one)

    def at(self, delay_s: float, act: Callable[[], None], whose: Supervisor | None = None) -> None:
        heapq.heappush(self.queue, (self.now + delay_s, next(self.order), act, whose))

    def delay(self) -> float:
        return self.random.uniform(0, 4 if self.now < self.slow_until else 0.01)

    def loses(self) -> bool:
        return self.now < self.lossy_until and self.random.random() < 0.5

    def fault(self) -> None:
        """A process is paused for longer than a lease, the network loses or delays, or the storage crashes."""
        kind, lasts_s = self.random.randrange(4), self.random.uniform(0.5, 9)
        if kind == 0:
            self.random.choice(self.supervisors).resumes_at = self.now + lasts_s
        elif kind == 1:
            self.slow_until = self.now + lasts_s
        elif kind == 2:
            self.lossy_until = self.now + lasts_s
        else:
            self.storage.crash(self.now, self.random.uniform(0, 4))

    def run(self, seconds: float) -> int:
        """Run for so long; return how many supervisors acted at once at most."""
        most, end = 0, self.now + seconds
        next_fault = self.now + self.random.expovariate(self.faults / 3) if self.faults else float("inf")
        while self.queue and self.now < end:
            at, _, act, whose = heapq.heappop(self.queue)
            if whose is not None and whose.resumes_at > at:
                # A paused process does it when it goes on.
                heapq.heappush(self.queue, (whose.resumes_at, next(self.order), act, whose))
                continue
            self.now = max(self.now, at)
            if self.now >= next_fault:
                self.fault()
                next_fault = self.now + self.random.expovariate(self.faults / 3)
            if whose is None or not whose.is_dead:
                act()
            most = max(most, sum(one.acts() for one in self.supervisors))
        return most


def test_two_never_act_at_once_and_changes_of_an_older_epoch_are_refused() -> None:
    grants = 0
    for seed in range(150):
        world = World(seed)
        assert world.run(120.0) == 1, f"seed {seed}"
        assert world.storage.accepted == sorted(world.storage.accepted)
        assert world.storage.accepted, f"seed {seed}: nobody could change anything"
        grants += world.storage.state.epoch
    assert grants > 1000  # else the faults were too few to tell anything


def test_the_simulation_finds_two_that_act_if_holders_outstay_their_lease() -> None:
    times = LeaseTimes(margin_s=-0.5)
    assert any(World(seed, times).run(120.0) > 1 for seed in range(150))


@pytest.mark.parametrize("seed", range(20))
def test_after_the_leader_s_death_another_leads_within_seven_seconds(seed: int) -> None:
    world = World(seed, faults=0)
    world.run(world.random.uniform(3, 30))
    (leader,) = (one for one in world.supervisors if one.acts())
    died_at, leader.is_dead = world.now, True
    world.run(7.0)
    assert [one for one in world.supervisors if one.acts() and one.led_from[-1] > died_at]


def test_without_faults_the_first_leader_goes_on() -> None:
    world = World(1, faults=0)
    assert world.run(300.0) == 1
    assert world.storage.state.epoch == 1
