import heapq
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipper.abstraction.batching.controller import make_controller
from clipper.abstraction.batching.dispatcher import (
    BATCH_SHARE_OF_SLO,
    MAX_IN_FLIGHT,
    PREFETCH_S,
    Batch,
    Dispatcher,
    ReplicaState,
    Turn,
)
from clipper.abstraction.work import Work
from clipper.snapshot import Batching
from works import make_work


class Steady:
    """A controller whose limit and expectation the test sets."""

    def __init__(self, limit: int = 4, service_s: float = 0.0) -> None:
        self.limit = limit
        self.service_s = service_s
        self.budget_s = 0.0
        self.observed: list[tuple[int, float, bool]] = []

    def observe(self, size: int, service_s: float, was_full: bool) -> None:
        self.observed.append((size, round(service_s, 9), was_full))

    def predict_s(self, size: int) -> float:
        return self.service_s

    def set_budget(self, budget_s: float) -> None:
        self.budget_s = budget_s


SLOW_S = PREFETCH_S * 20


def make_dispatcher(*controllers: Steady, delay_s: float = 0.0, max_length: int = 1000) -> Dispatcher:
    dispatcher = Dispatcher(max_length, 1 << 20, delay_s)
    for number, controller in enumerate(controllers):
        dispatcher.add_replica(str(number), controller)
    return dispatcher


def push(dispatcher: Dispatcher, count: int, now_s: float = 0.0, slo_s: float = 1.0) -> list[Work]:
    works = [make_work(b"%d" % number, now_s, slo_s) for number in range(count)]
    assert all(dispatcher.push(work, now_s) == (True, []) for work in works)
    return works


def sizes(turn: Turn) -> list[tuple[str, int]]:
    return [(replica.id, len(batch.works)) for replica, batch in turn.assignments]


class DispatcherMachine(RuleBasedStateMachine):
    """Anything that can happen to a version, in virtual time; each accepted piece of work leaves exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(20, 1 << 20, 0.0)
        self.now_s = 0.0
        self.next_replica = 0
        self.queued: list[Work] = []
        self.flying: dict[str, list[Batch]] = {}
        self.draining: set[str] = set()

    def run_turn(self) -> None:
        turn = self.dispatcher.next_turn(self.now_s)
        for replica, batch in turn.assignments:
            assert replica.id not in self.draining
            assert len(batch.works) <= replica.controller.limit
            assert all(work.deadline_s >= self.now_s for work in batch.works)
            self.leave_queue(batch.works)
            self.flying[replica.id].append(batch)
        self.leave_queue(turn.late)
        if any(replica_id not in self.draining and not self.flying[replica_id] for replica_id in self.flying):
            assert not self.queued, "a replica idles while work waits"

    def leave_queue(self, works: list[Work]) -> None:
        for work in works:
            self.queued.remove(work)  # raises if it left twice

    @rule(limit=st.integers(1, 6), service_s=st.sampled_from([0.0, SLOW_S]))
    def link_replica(self, limit: int, service_s: float) -> None:
        if len(self.flying) < 3:
            replica_id = str(self.next_replica)
            self.next_replica += 1
            self.dispatcher.add_replica(replica_id, Steady(limit, service_s))
            self.flying[replica_id] = []
            self.run_turn()

    @rule(count=st.integers(1, 9), slo_s=st.sampled_from([0.2, 1.0]), seconds=st.sampled_from([0.0, 0.05, 0.5]))
    def receive_queries(self, count: int, slo_s: float, seconds: float) -> None:
        self.now_s += seconds
        for _ in range(count):
            work = make_work(b"x", self.now_s, slo_s)
            accepted, expired = self.dispatcher.push(work, self.now_s)
            assert all(each.deadline_s <= self.now_s for each in expired)
            self.leave_queue(expired)
            assert accepted or len(self.queued) >= 20
            if accepted:
                self.queued.append(work)
        self.run_turn()

    @precondition(lambda self: any(self.flying.values()))
    @rule(data=st.data())
    def finish_batch(self, data: st.DataObject) -> None:
        self.now_s += 0.01
        replica_id = data.draw(st.sampled_from(sorted(each for each, batches in self.flying.items() if batches)))
        batch = data.draw(st.sampled_from(self.flying[replica_id]))
        replica = self.dispatcher.replicas[replica_id]
        finished = self.dispatcher.finished(replica, batch.id, self.now_s)
        assert finished is not None and finished[0] is batch and finished[1] >= 0
        assert self.dispatcher.finished(replica, batch.id, self.now_s) is None
        self.flying[replica_id].remove(batch)
        self.run_turn()

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def drain_or_resume(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.flying)))
        if replica_id in self.draining:
            self.dispatcher.resume_replica(replica_id)
        else:
            self.dispatcher.drain_replica(replica_id)
        self.draining ^= {replica_id}
        self.run_turn()

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def lose_replica(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.flying)))
        lost = self.dispatcher.lose_replica(replica_id)
        assert lost == [work for batch in self.flying.pop(replica_id) for work in batch.works]
        self.draining.discard(replica_id)
        self.dispatcher.queue.push_back(lost)
        self.queued += lost
        self.run_turn()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert self.dispatcher.queue.length == len(self.queued)
        for replica_id, batches in self.flying.items():
            in_flight = self.dispatcher.replicas[replica_id].in_flight
            assert list(in_flight.values()) == batches
            assert len(batches) <= MAX_IN_FLIGHT


TestDispatcher = DispatcherMachine.TestCase
TestDispatcher.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_nothing_is_decided_while_there_is_no_replica() -> None:
    dispatcher = make_dispatcher()
    push(dispatcher, 3)
    assert dispatcher.next_turn(0.0) == Turn([], [])
    assert dispatcher.queue.length == 3


def test_dead_work_does_not_pile_up_while_there_is_no_replica() -> None:
    dispatcher = make_dispatcher()
    works = push(dispatcher, 3, now_s=0.0)
    push(dispatcher, 1, now_s=0.5)
    assert dispatcher.next_turn(1.0).late == works
    assert dispatcher.queue.length == 1


@pytest.mark.parametrize(
    ("limits", "service_s", "queries", "expected"),
    [
        # One replica: a batch, and a full one behind it; a part of one only behind a short batch.
        ([4], SLOW_S, 3, [("0", 3)]),
        ([4], SLOW_S, 7, [("0", 4)]),
        ([4], SLOW_S, 8, [("0", 4), ("0", 4)]),
        ([4], SLOW_S, 20, [("0", 4), ("0", 4)]),
        ([4], 0.0, 7, [("0", 4), ("0", 3)]),
        # Several: none gets a second batch while another idles.
        ([4, 4], SLOW_S, 6, [("0", 4), ("1", 2)]),
        ([4, 4], 0.0, 6, [("0", 4), ("1", 2)]),
        ([4, 4], SLOW_S, 12, [("0", 4), ("1", 4), ("0", 4)]),
        ([2, 8], SLOW_S, 14, [("0", 2), ("1", 8), ("0", 2)]),
        ([1, 1, 1], 0.0, 5, [("0", 1), ("1", 1), ("2", 1), ("0", 1), ("1", 1)]),
    ],
)
def test_who_gets_how_many(limits: list[int], service_s: float, queries: int, expected: list[tuple[str, int]]) -> None:
    dispatcher = make_dispatcher(*(Steady(limit, service_s) for limit in limits))
    push(dispatcher, queries)
    assert sizes(dispatcher.next_turn(0.0)) == expected


def test_the_idle_replica_comes_before_the_busy_one() -> None:
    dispatcher = make_dispatcher(Steady(4), Steady(4))
    push(dispatcher, 2)
    assert sizes(dispatcher.next_turn(0.0)) == [("0", 2)]
    push(dispatcher, 2)
    assert sizes(dispatcher.next_turn(0.0)) == [("1", 2)]


def test_a_second_batch_that_is_not_full_goes_out_only_behind_a_short_one() -> None:
    long, short = make_dispatcher(Steady(4, PREFETCH_S)), make_dispatcher(Steady(4, PREFETCH_S * 0.9))
    for dispatcher in (long, short):
        push(dispatcher, 1)
        dispatcher.next_turn(0.0)
        push(dispatcher, 3)
    assert sizes(long.next_turn(0.0)) == []
    assert sizes(short.next_turn(0.0)) == [("0", 3)]
    push(short, 100)
    assert sizes(short.next_turn(0.0)) == [], "two are in flight"


def test_a_batch_is_full_if_the_limit_is_what_kept_it_from_being_larger() -> None:
    controller = Steady(4, 0.0)
    dispatcher = make_dispatcher(controller)
    push(dispatcher, 7)
    (replica, first), (_, second) = dispatcher.next_turn(0.0).assignments
    assert (first.was_full, second.was_full) == (True, False)
    dispatcher.finished(replica, first.id, 0.5)
    # The second began when the first ended, not when it was sent.
    dispatcher.finished(replica, second.id, 0.8)
    assert controller.observed == [(4, 0.5, True), (3, 0.3, False)]
    assert replica.batches == 2


def test_idle_time_between_batches_is_not_service_time() -> None:
    controller = Steady()
    dispatcher = make_dispatcher(controller)
    for sent_s in (0.0, 7.0):
        push(dispatcher, 1, now_s=sent_s)
        ((replica, batch),) = dispatcher.next_turn(sent_s).assignments
        dispatcher.finished(replica, batch.id, sent_s + 0.25)
    assert [service_s for _, service_s, _ in controller.observed] == [0.25, 0.25]


def test_the_delay_counts_from_the_oldest_arrival() -> None:
    dispatcher = make_dispatcher(Steady(4), delay_s=0.01)
    push(dispatcher, 1, now_s=1.0)
    turn = dispatcher.next_turn(1.0)
    assert (turn.assignments, turn.wake_s) == ([], 1.01)
    push(dispatcher, 1, now_s=1.008)
    assert dispatcher.next_turn(1.008).wake_s == 1.01
    turn = dispatcher.next_turn(1.01)
    assert (sizes(turn), turn.wake_s) == ([("0", 2)], None)


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    dispatcher = make_dispatcher(Steady(4), delay_s=0.01)
    push(dispatcher, 5)
    turn = dispatcher.next_turn(0.0)
    assert sizes(turn) == [("0", 4)]
    assert turn.wake_s == 0.01


def test_a_batch_that_fills_one_replica_does_not_wait_because_another_could_take_more() -> None:
    dispatcher = make_dispatcher(Steady(8), Steady(2), delay_s=0.01)
    push(dispatcher, 3)
    turn = dispatcher.next_turn(0.0)
    assert sizes(turn) == [("1", 2)]
    assert turn.wake_s == 0.01


def test_expired_work_is_late_and_makes_no_batch() -> None:
    dispatcher = make_dispatcher(Steady())
    works = push(dispatcher, 3, now_s=0.0, slo_s=1.0)
    turn = dispatcher.next_turn(1.5)
    assert (turn.assignments, turn.late) == ([], works)


def test_a_full_queue_makes_room_by_expiring_or_refuses() -> None:
    dispatcher = make_dispatcher(max_length=2)
    old = push(dispatcher, 2, now_s=0.0, slo_s=1.0)
    assert dispatcher.push(make_work(b"new", 0.5), 0.5) == (False, [])
    assert dispatcher.push(make_work(b"new", 1.0), 1.0) == (True, old)
    assert dispatcher.queue.length == 1


def test_work_too_large_for_the_room_is_refused_even_after_expiring() -> None:
    dispatcher = Dispatcher(10, 100, 0.0)
    old = push(dispatcher, 1, now_s=0.0, slo_s=1.0)
    assert dispatcher.push(make_work(bytes(101), 1.0), 1.0) == (False, old)


def test_a_lost_replicas_work_comes_back_in_order() -> None:
    dispatcher = make_dispatcher(Steady(2, 0.0), Steady(2, 0.0))
    works = push(dispatcher, 8)
    dispatcher.next_turn(0.0)
    lost = dispatcher.lose_replica("0")
    assert lost == [*works[0:2], *works[4:6]]
    dispatcher.queue.push_back(lost)
    dispatcher.queue.push_back(dispatcher.lose_replica("1")[:2])
    assert dispatcher.queue.length == 6
    dispatcher.add_replica("2", Steady(4))
    assert sizes(dispatcher.next_turn(0.0)) == [("2", 4), ("2", 2)]


def test_a_draining_replica_gets_nothing_until_it_is_wanted_again() -> None:
    dispatcher = make_dispatcher(Steady())
    dispatcher.drain_replica("0")
    push(dispatcher, 1)
    assert sizes(dispatcher.next_turn(0.0)) == []
    dispatcher.resume_replica("0")
    assert sizes(dispatcher.next_turn(0.0)) == [("0", 1)]


def test_an_answer_to_a_batch_that_was_not_sent_is_told_as_such() -> None:
    controller = Steady()
    dispatcher = make_dispatcher(controller)
    assert dispatcher.finished(dispatcher.replicas["0"], 1, 0.0) is None
    assert controller.observed == []


def test_the_slo_sets_each_replicas_budget() -> None:
    controllers = Steady(), Steady()
    make_dispatcher(*controllers).set_slo(0.02)
    assert [controller.budget_s for controller in controllers] == [0.02 * BATCH_SHARE_OF_SLO] * 2


FAST, SLOW = (0.0005, 20e-6), (0.0025, 100e-6)


@pytest.mark.parametrize("policy", ["aimd", "quantile"])
def test_unequal_replicas_are_each_used_to_the_full(policy: str) -> None:
    """One of two replicas is five times slower; together they do what each does alone."""
    apart = sum(Load(policy, [speed], clients=100).goodput() for speed in (FAST, SLOW))
    assert Load(policy, [FAST, SLOW], clients=200).goodput() >= 0.9 * apart


@pytest.mark.parametrize("policy", ["aimd", "quantile"])
@pytest.mark.parametrize("speeds", [[FAST], [SLOW], [FAST, SLOW]])
def test_more_load_than_the_replicas_can_take_still_leaves_them_useful(
    policy: str, speeds: list[tuple[float, float]]
) -> None:
    """At twice the rate, replicas answer in time nearly as many as they evaluate, not what is too late by then."""
    load = Load(policy, speeds, rate=2 * sum(1 / (per_row_s + fixed_s / 60) for fixed_s, per_row_s in speeds))
    assert load.goodput() >= 0.9 * load.throughput()


class Load:
    """An SLO of 20 ms in virtual time: clients that each ask again once answered, or queries at a rate.

    A replica of speed (fixed, per row) evaluates one batch after another, with noise.
    """

    SLO_S, UNTIL_S, TURN = 0.02, 2.0, 32

    def __init__(self, policy: str, speeds: list[tuple[float, float]], clients: int = 0, rate: float = 0.0) -> None:
        self.dispatcher = Dispatcher(10_000, 1 << 20, 0.0)
        for number in range(len(speeds)):
            controller = make_controller(Batching(policy), self.SLO_S * BATCH_SHARE_OF_SLO)  # type: ignore[arg-type]
            self.dispatcher.add_replica(str(number), controller)
        self.speeds = speeds
        self.free_s = [0.0] * len(speeds)
        self.random = Random(1)
        self.events: list[tuple[float, int, str]] = []
        self.evaluated = self.in_time = 0
        self._run(clients, rate)

    def throughput(self) -> float:
        return self.evaluated / (self.UNTIL_S / 2)

    def goodput(self) -> float:
        """Queries a second that were answered in time, once the limits had settled."""
        return self.in_time / (self.UNTIL_S / 2)

    def _run(self, clients: int, rate: float) -> None:
        now_s = 0.0
        self._ask(clients, now_s)
        if rate:
            heapq.heappush(self.events, (0.0, 0, ""))
        while now_s < self.UNTIL_S:
            turn = self.dispatcher.next_turn(now_s)
            for replica, batch in turn.assignments:
                self._evaluate(replica, batch, now_s)
            if clients:
                self._ask(len(turn.late), now_s)
            now_s, batch_id, replica_id = heapq.heappop(self.events)
            if not replica_id:
                self._ask(self.TURN, now_s)
                heapq.heappush(self.events, (now_s + self.TURN / rate, 0, ""))
                continue
            works = self._finish(replica_id, batch_id, now_s)
            if clients:
                self._ask(len(works), now_s)

    def _ask(self, count: int, now_s: float) -> None:
        for _ in range(count):
            self.dispatcher.push(make_work(b"", now_s, self.SLO_S), now_s)

    def _evaluate(self, replica: ReplicaState, batch: Batch, now_s: float) -> None:
        number = int(replica.id)
        fixed_s, per_row_s = self.speeds[number]
        service_s = (fixed_s + per_row_s * len(batch.works)) * self.random.lognormvariate(0.0, 0.02)
        self.free_s[number] = max(self.free_s[number], now_s) + service_s
        heapq.heappush(self.events, (self.free_s[number], batch.id, replica.id))

    def _finish(self, replica_id: str, batch_id: int, now_s: float) -> list[Work]:
        finished = self.dispatcher.finished(self.dispatcher.replicas[replica_id], batch_id, now_s)
        assert finished is not None
        works = finished[0].works
        if now_s > self.UNTIL_S / 2:
            self.evaluated += len(works)
            self.in_time += sum(work.deadline_s >= now_s for work in works)
        return works


class Costing(Steady):
    """Expects a fixed time and a time per row."""

    def __init__(self, fixed_s: float, per_row_s: float, limit: int = 1000) -> None:
        super().__init__(limit)
        self.fixed_s, self.per_row_s = fixed_s, per_row_s

    def predict_s(self, size: int) -> float:
        return self.fixed_s + self.per_row_s * size


def after_a_batch(controller: Costing, size: int, waiting: int) -> Turn:
    """The turn at 1 s, when a batch of ``size`` has just come back and so many are waiting."""
    dispatcher = make_dispatcher(controller)
    push(dispatcher, size)
    ((replica, batch),) = dispatcher.next_turn(0.0).assignments
    push(dispatcher, waiting, 0.9)
    assert dispatcher.finished(replica, batch.id, 1.0) is not None
    return dispatcher.next_turn(1.0)


def test_a_replica_waits_for_those_it_has_just_answered_where_batches_cost_much_whatever_their_size() -> None:
    turn = after_a_batch(Costing(0.004, 0.00002), size=64, waiting=64)

    assert sizes(turn) == []
    assert turn.wake_s == pytest.approx(1.0 + 0.002)


def test_what_is_gathered_goes_when_the_rest_come_too_slowly_or_all_are_back() -> None:
    dispatcher = make_dispatcher(Costing(0.004, 0.00002))
    push(dispatcher, 64)
    ((replica, batch),) = dispatcher.next_turn(0.0).assignments
    push(dispatcher, 10, 0.9)
    dispatcher.finished(replica, batch.id, 1.0)
    push(dispatcher, 40, 1.0)
    assert sizes(dispatcher.next_turn(1.0)) == []
    assert sizes(dispatcher.next_turn(1.003)) == []
    assert sizes(dispatcher.next_turn(1.0035)) == [("0", 50)]
    dispatcher.finished(replica, 2, 1.1)
    push(dispatcher, 49, 1.1)
    assert sizes(dispatcher.next_turn(1.1)) == []
    push(dispatcher, 1, 1.1)

    assert sizes(dispatcher.next_turn(1.1)) == [("0", 50)]


def test_the_fastest_idle_replica_comes_first_and_one_that_is_not_known_before_it() -> None:
    dispatcher = make_dispatcher(Steady(service_s=SLOW_S), Steady(service_s=SLOW_S / 5))
    push(dispatcher, 1)
    assert sizes(dispatcher.next_turn(0.0)) == [("1", 1)]
    dispatcher.add_replica("new", Steady())
    push(dispatcher, 5)

    assert sizes(dispatcher.next_turn(0.0)) == [("new", 4), ("0", 1)]


def test_of_replicas_that_wait_the_first_that_is_due_decides_when_to_look_again() -> None:
    dispatcher = make_dispatcher(Costing(0.004, 0.00002, limit=32), Costing(0.008, 0.00002, limit=32))
    push(dispatcher, 65)
    for replica, batch in dispatcher.next_turn(0.0).assignments:
        dispatcher.finished(replica, batch.id, 1.0)

    assert dispatcher.next_turn(1.0).wake_s == pytest.approx(1.0 + 0.002)


@pytest.mark.parametrize(
    ("controller", "size", "waiting"),
    [
        (Costing(0.004, 0.00002), 1, 1),  # few clients: each would only wait
        (Costing(0.00005, 0.000001), 64, 64),  # nothing to save
        (Costing(0.004, 0.002), 64, 64),  # most of the time is per row
        (Costing(0.004, 0.00002), 16, 600),  # so many wait that a few more do not matter
    ],
)
def test_a_replica_does_not_wait_where_that_would_answer_no_more(controller: Costing, size: int, waiting: int) -> None:
    turn = after_a_batch(controller, size, waiting)

    assert sizes(turn) == [("0", waiting)]
    assert turn.wake_s is None
