"""A worker's own node first, and another one where a deadline is at risk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.settings.version import Batching
from clipper.worker.abstraction.batching.controller import make_controller
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.replica_state import ReplicaState
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.worker.abstraction.batching.scheduling import (
    HOPELESS,
    LONG,
    SHORT,
    SLO_S,
    Speed,
    finish_all,
    is_empty,
    make_scheduler,
    push,
    sizes,
    teach,
)
from tests.works import make_work

# A batch of one takes 100 ms, of four 130 ms.
TENTH = Speed(0.09, 0.01)


def two_nodes(near: list[Speed], far: list[Speed], **options: float) -> Scheduler:
    """Near ones are called "0", "1" and so on, far ones go on from there."""
    scheduler = make_scheduler(*near, **options)  # type: ignore[arg-type]
    added = [
        scheduler.add_replica(str(number), speed.limit, is_fixed=True, is_far=True)
        for number, speed in enumerate(far, len(near))
    ]
    for replica, speed in zip(added, far):
        teach(replica, speed)
    return scheduler


def busy(scheduler: Scheduler, rows: int = 4, now_s: float = 0.0) -> None:
    """The near replica has a batch."""
    push(scheduler, rows, now_s, slo_s=SLO_S)
    assert sizes(scheduler.decide(now_s)) == [("0", rows)]


def test_idle_near_replicas_take_all_that_they_can_answer() -> None:
    scheduler = two_nodes([TENTH, TENTH], [TENTH])
    push(scheduler, 6)
    assert dict(sizes(scheduler.decide(0.0))).keys() == {"0", "1"}


def test_while_a_near_one_is_free_soon_what_comes_waits_for_it() -> None:
    scheduler = two_nodes([TENTH], [SHORT])
    busy(scheduler)
    push(scheduler, 2, 0.01)
    decision = scheduler.decide(0.01)
    # The batch is expected until 0.13, the queries are due at 1.01, and take 0.11: if nothing has come back by then,
    # half of what is left of the deadline may be gone in waiting at (1.01 + 2 × 0.13) / 3.
    assert not decision.batches
    assert decision.wake_s == pytest.approx((1.01 + 2 * 0.13) / 3, abs=0.01)
    finish_all(scheduler, 0.13)
    assert sizes(scheduler.decide(0.13)) == [("0", 2)]


def test_what_would_wait_for_half_of_its_deadline_goes_far() -> None:
    scheduler = two_nodes([TENTH], [SHORT])
    busy(scheduler)
    push(scheduler, 1, 0.01, slo_s=0.3)
    assert not scheduler.decide(0.01).batches  # it would wait for 0.12 of 0.3
    push(scheduler, 1, 0.01, slo_s=0.2)
    assert sizes(scheduler.decide(0.01)) == [("1", 2)]  # one would wait for 0.12 of 0.2, and both leave together


def test_what_a_near_one_would_answer_too_late_goes_far() -> None:
    scheduler = two_nodes([Speed(0.15, 0.01)], [SHORT])
    push(scheduler, 1, slo_s=0.1)
    assert sizes(scheduler.decide(0.0)) == [("1", 1)]
    scheduler = two_nodes([HOPELESS], [SHORT])
    push(scheduler, 4)
    assert sizes(scheduler.decide(0.0)) == [("1", 4)]


def test_a_near_one_that_hangs_keeps_nothing() -> None:
    scheduler = two_nodes([TENTH], [SHORT])
    busy(scheduler)
    push(scheduler, 1, 0.01)
    wake_s = scheduler.decide(0.01).wake_s
    assert wake_s is not None
    assert not scheduler.decide(wake_s - 0.01).batches
    assert sizes(scheduler.decide(wake_s)) == [("1", 1)]
    far = scheduler.replicas["1"]
    assert scheduler.finished(far, next(iter(far.in_flight)), wake_s + 0.001)
    push(scheduler, 1, wake_s + 0.3)
    assert sizes(scheduler.decide(wake_s + 0.3)) == [("1", 1)]


def test_more_than_near_ones_can_take_in_time_goes_far_at_once() -> None:
    scheduler = two_nodes([TENTH], [TENTH, TENTH])
    push(scheduler, 12, slo_s=0.2)
    assert sizes(scheduler.decide(0.0)) == [("0", 4), ("1", 4), ("2", 4)]


def test_among_near_ones_and_among_far_ones_the_fastest_is_first() -> None:
    scheduler = two_nodes([Speed(0.05, 0.01), Speed(0.04, 0.01)], [Speed(0.02, 0.01), SHORT])
    push(scheduler, 16, slo_s=0.09)
    assert [name for name, _ in sizes(scheduler.decide(0.0))][:4] == ["1", "0", "3", "2"]


@pytest.mark.parametrize("leaves", ["lost", "drained"])
def test_without_a_near_one_far_ones_are_used_as_any(leaves: str) -> None:
    scheduler = two_nodes([TENTH], [TENTH])
    if leaves == "lost":
        scheduler.lose_replica("0")
    else:
        scheduler.drain_replica("0")
    push(scheduler, 2)
    assert sizes(scheduler.decide(0.0)) == [("1", 2)]
    if leaves == "drained":
        scheduler.resume_replica("0")
        push(scheduler, 1)
        assert sizes(scheduler.decide(0.0)) == [("0", 1)]


def test_background_work_stays_near_where_it_can() -> None:
    scheduler = two_nodes([LONG], [LONG])
    scheduler.replicas["0"], scheduler.replicas["1"] = scheduler.replicas.pop("0"), scheduler.replicas.pop("1")
    for _ in range(2):
        assert scheduler.queue.push_background(make_work(b"", 0.0, SLO_S))
    assert sizes(scheduler.decide(0.0)) == [("0", 2)]


def test_a_far_one_does_not_make_a_single_query_wait_for_others() -> None:
    scheduler = two_nodes([SHORT], [LONG])
    for now_s in (0.0, 1.0):
        push(scheduler, 1, now_s)
        scheduler.decide(now_s)
        finish_all(scheduler, now_s + 0.0002)
    push(scheduler, 1, 2.0)
    assert scheduler.is_quiet()


def test_a_controller_prefers_it_too() -> None:
    scheduler = Scheduler(100, 1 << 20, 0.0, Flow())
    for name, is_far in (("far", True), ("near", False)):
        controller = make_controller(Batching("aimd", 4), SLO_S)
        teach(scheduler.add_replica(name, 4, controller, is_far=is_far), LONG)
    push(scheduler, 1)
    assert sizes(scheduler.decide(0.0)) == [("near", 1)]
    push(scheduler, 1)
    assert not scheduler.decide(0.001).batches


def test_a_replica_of_which_nothing_is_known_is_tried_near_first() -> None:
    scheduler = Scheduler(100, 1 << 20, 0.0, Flow())
    scheduler.add_replica("far", 4, is_far=True)
    scheduler.add_replica("near", 4)
    push(scheduler, 1)
    assert sizes(scheduler.decide(0.0)) == [("near", 1)]


speeds = st.builds(Speed, st.sampled_from([1e-4, 0.005, 0.02, 0.09, 0.4, 2.0]), st.sampled_from([1e-5, 1e-3, 0.01]))
steps = st.lists(
    st.tuples(
        st.integers(0, 6), st.sampled_from([0.02, 0.1, 0.2, 1.0]), st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.5]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


def is_enough(near: ReplicaState, rows: int, due_s: float, now_s: float) -> bool:
    """Whether the query that is due first waits there for at most half of what is left, and is answered in time."""
    wait_s = 0.0
    for number, running in enumerate(near.in_flight.values()):
        began_s = max(running.sent_s, near.last_done_s) if number == 0 else now_s
        wait_s += running.expected_s - (now_s - began_s)
    slow_s = near.times.slow_s(min(rows, near.limit))
    return abs(wait_s) <= (due_s - now_s) / 2 and now_s + abs(wait_s) + slow_s <= due_s


@given(near=st.lists(speeds, min_size=1, max_size=2), far=st.lists(speeds, min_size=1, max_size=2), steps=steps)
def test_no_far_replica_idles_while_a_deadline_is_at_risk(
    near: list[Speed], far: list[Speed], steps: list[tuple[int, float, float, bool]]
) -> None:
    scheduler, now_s = two_nodes(near, far), 10.0
    for count, slo_s, seconds, ends in steps:
        if ends:
            finish_all(scheduler, now_s)
        now_s += seconds
        push(scheduler, count, now_s, slo_s)
        decision = scheduler.decide(now_s)
        queue = scheduler.queue
        if not queue.length:
            continue
        idle = [each for each in scheduler.replicas.values() if each.is_far and not each.in_flight]
        due_s = min(lane.works[0].due_s for lane in queue.lanes())
        if not any(now_s + each.times.slow_s(1) <= due_s for each in idle):
            continue
        assert decision.wake_s is not None
        enough = [
            is_enough(each, queue.length, due_s, now_s) for each in scheduler.replicas.values() if not each.is_far
        ]
        # Or it waits for company, for no longer than a far one can afford.
        assert any(enough) or any(decision.wake_s + each.times.slow_s(1) <= due_s for each in idle)


@given(speeds=st.lists(speeds, min_size=1, max_size=3), steps=steps)
def test_where_all_are_on_one_node_nothing_is_preferred(
    speeds: list[Speed], steps: list[tuple[int, float, float, bool]]
) -> None:
    schedulers, now_s = [make_scheduler(*speeds), two_nodes([], speeds)], 10.0
    for count, slo_s, seconds, ends in steps:
        now_s += seconds
        decisions = []
        for scheduler in schedulers:
            if ends:
                finish_all(scheduler, now_s)
            push(scheduler, count, now_s, slo_s)
            decisions.append(scheduler.decide(now_s))
        one, other = decisions
        assert sizes(one) == sizes(other)
        assert (len(one.late), len(one.shed), one.wake_s) == (len(other.late), len(other.shed), other.wake_s)
        assert is_empty(one) == is_empty(other)
