import pytest
from dispatching import SLOW_S, Steady, make_dispatcher, push, sizes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clipper.abstraction.batching.dispatcher import (
    BATCH_SHARE_OF_SLO,
    MAX_IN_FLIGHT,
    PREFETCH_S,
    Batch,
    Dispatcher,
    Turn,
)
from clipper.abstraction.work import Work
from works import make_work


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


def test_the_fastest_idle_replica_comes_first_and_one_that_is_not_known_before_it() -> None:
    dispatcher = make_dispatcher(Steady(service_s=SLOW_S), Steady(service_s=SLOW_S / 5))
    push(dispatcher, 1)
    assert sizes(dispatcher.next_turn(0.0)) == [("1", 1)]
    dispatcher.add_replica("new", Steady())
    push(dispatcher, 5)

    assert sizes(dispatcher.next_turn(0.0)) == [("new", 4), ("0", 1)]


def test_queries_that_come_one_at_a_time_are_known_by_the_batch_before() -> None:
    dispatcher = make_dispatcher(Steady())
    push(dispatcher, 1)
    assert not dispatcher.is_quiet(), "nothing is known yet"
    ((replica, batch),) = dispatcher.next_turn(0.0).assignments
    push(dispatcher, 1)
    assert not dispatcher.is_quiet(), "one is out"
    dispatcher.next_turn(0.0)
    for batch_id in list(replica.in_flight):
        dispatcher.finished(replica, batch_id, 0.1)
    push(dispatcher, 1)
    assert dispatcher.is_quiet()
    push(dispatcher, 1)
    assert not dispatcher.is_quiet(), "two wait"
    ((replica, batch),) = dispatcher.next_turn(0.2).assignments
    dispatcher.finished(replica, batch.id, 0.3)
    push(dispatcher, 1)
    assert not dispatcher.is_quiet(), "the batch before had two"


def test_where_batches_take_long_a_query_waits_for_those_that_come_with_it() -> None:
    dispatcher = make_dispatcher(Steady(service_s=SLOW_S))
    push(dispatcher, 1)
    ((replica, batch),) = dispatcher.next_turn(0.0).assignments
    dispatcher.finished(replica, batch.id, 0.1)
    push(dispatcher, 1)
    assert not dispatcher.is_quiet()
