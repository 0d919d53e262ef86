"""The scheduler's drops and waits, by deadlines and known times; one replica unless it says so."""

from collections import Counter

import pytest

from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.goodput import IN_TIME
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.worker.abstraction.batching.scheduling import SLO_S, Speed, finish_all, make_scheduler, push, sizes
from tests.works import make_work

WIDE = Speed(0.1, 0.001, 256)


def offer(
    scheduler: Scheduler,
    speed: Speed,
    slo_s: float,
    rates: list[tuple[float, float]],
    count_from_s: float,
    *,
    answer_s: float = 0.0,
    is_told: bool = True,
) -> int:
    """Queries that come evenly in virtual time, at rates that hold until some time, to replicas as fast as ``speed``.

    Returns how many that came after ``count_from_s`` were answered in time.

    Args:
        answer_s: how long after its batch an answer leaves.
        is_told: whether the scheduler is told of that.
    """
    now_s, next_s, in_time, end_s = 0.0, 0.0, 0, rates[-1][1]
    running: list[tuple[float, str, Batch]] = []
    wake_s: float | None = None
    while True:
        now_s = min([next_s, *(end for end, _, _ in running), *([] if wake_s is None else [wake_s])])
        if now_s >= end_s:
            return in_time
        if now_s == next_s:
            scheduler.push(make_work(b"", now_s, slo_s), now_s)
            next_s += 1 / next(rate for rate, until_s in rates if now_s < until_s)
        for each in [each for each in running if each[0] <= now_s]:
            running.remove(each)
            assert scheduler.finished(scheduler.replicas[each[1]], each[2].id, now_s) is not None
            if is_told:
                scheduler.replicas[each[1]].answered(now_s + answer_s)
            in_time += sum(work.due_s >= now_s + answer_s and work.arrival_s >= count_from_s for work in each[2].works)
        decision = scheduler.decide(now_s)
        wake_s = decision.wake_s
        assert wake_s is None or wake_s > now_s
        for replica, batch in decision.batches:
            began_s = max([now_s, *(end for end, id_, _ in running if id_ == replica.id)])
            running.append((began_s + speed.service_s(len(batch.works)), replica.id, batch))


def settle(scheduler: Scheduler) -> None:
    """One query, long ago, alone: the rate is then known to be low."""
    push(scheduler, 1, 0.0, 100.0)
    scheduler.decide(0.0)
    finish_all(scheduler, WIDE.service_s(1))


def test_alone_a_query_leaves_at_once() -> None:
    scheduler = make_scheduler(WIDE)
    for now_s in (0.0, 3.0, 6.0, 9.0):
        push(scheduler, 1, now_s)
        decision = scheduler.decide(now_s)
        assert (sizes(decision), decision.wake_s) == ([("0", 1)], None)
        finish_all(scheduler, now_s + WIDE.service_s(1))


def come(scheduler: Scheduler, rate: float, seconds: float) -> float:
    """Queries have come at this rate from 0 s on, and all have left. Returns when."""
    step_s, now_s = 0.02, 0.0
    for step in range(int(seconds / step_s)):
        now_s = step * step_s
        push(scheduler, int((step + 1) * rate * step_s) - int(step * rate * step_s), now_s)
        scheduler._rate.look(scheduler.queue.arrivals, now_s, SLO_S)
        scheduler.queue.clear()
    return now_s


def test_what_cannot_be_met_is_late_and_what_makes_room_is_shed() -> None:
    """One is past its deadline, one could be met, but only by a batch that is too small for what comes."""
    scheduler = make_scheduler(WIDE)
    now_s = come(scheduler, 2 * scheduler.replicas["0"].rows_per_s(SLO_S), 3.0)
    gone, tight, fresh = (push(scheduler, count, now_s - ago_s) for count, ago_s in ((1, 1.1), (1, 0.89), (25, 0.2)))
    decision = scheduler.decide(now_s)
    assert (decision.late, decision.shed) == (gone, tight)
    assert [batch.works for _, batch in decision.batches] == [fresh]


def test_where_few_come_nobody_makes_room() -> None:
    """The same where there is time: the one that is tight goes first, with as many as it has time for."""
    scheduler = make_scheduler(WIDE)
    settle(scheduler)
    gone, tight, fresh = (push(scheduler, count, now_s) for count, now_s in ((1, 9.0), (1, 9.21), (20, 9.9)))
    decision = scheduler.decide(10.1)
    assert (decision.late, decision.shed) == (gone, [])
    ((_, batch),) = decision.batches
    assert batch.works == [*tight, *fresh[: len(batch.works) - 1]]
    assert 10.1 + WIDE.service_s(len(batch.works)) <= 10.21


def test_no_more_are_dropped_than_a_batch_that_keeps_up_calls_for() -> None:
    """Two of many are past meeting: the others, however urgent the first, all go."""
    scheduler = make_scheduler(WIDE)
    settle(scheduler)
    late, urgent, fresh = push(scheduler, 2, 9.1), push(scheduler, 3, 9.36), push(scheduler, 20, 9.9)
    decision = scheduler.decide(10.1)
    assert decision.late + decision.shed == late
    assert [batch.works for _, batch in decision.batches] == [urgent + fresh]


def test_when_nothing_can_be_met_all_is_late_at_once() -> None:
    scheduler = make_scheduler(WIDE)
    works = push(scheduler, 30, 0.0)
    decision = scheduler.decide(0.95)
    assert (decision.batches, decision.late, decision.shed) == ([], works, [])
    assert scheduler.queue.length == 0


@pytest.mark.parametrize(("load", "waits"), [(0.5, False), (0.97, True)])
def test_a_batch_waits_for_more_only_near_what_the_replica_can_do(load: float, waits: bool) -> None:
    """Its highest rate comes of batches that take half of the SLO."""
    scheduler = make_scheduler(WIDE)
    capacity = scheduler.replicas["0"].rows_per_s(SLO_S)
    assert capacity == pytest.approx(256 / WIDE.service_s(256), rel=0.01)
    now_s = come(scheduler, load * capacity, 2.0)
    push(scheduler, 10, now_s)
    decision = scheduler.decide(now_s)
    if waits:
        assert decision.batches == []
        assert decision.wake_s is not None and now_s < decision.wake_s < now_s + SLO_S - WIDE.service_s(10)
        assert sizes(scheduler.decide(decision.wake_s)) == [("0", 10)]
    else:
        assert (sizes(decision), decision.wake_s) == ([("0", 10)], None)


def test_a_waiting_clients_query_leaves_long_before_its_deadline() -> None:
    """Four slow batches in a row are another speed, by which one client's queries are more than the replica can do."""
    slo_s, now_s, waited_s = 20.0, 0.0, 0.0
    scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
    scheduler.add_replica("0", 1000)
    scheduler.set_slo(slo_s)
    for number in range(6_000):
        (work,) = push(scheduler, 1, now_s, slo_s)
        decision = scheduler.decide(now_s)
        while not decision.batches:
            assert decision.wake_s is not None
            now_s = decision.wake_s
            decision = scheduler.decide(now_s)
        waited_s = max(waited_s, now_s - work.arrival_s)
        now_s += 0.004 if number % 2_000 > 1_995 else 0.0003
        assert finish_all(scheduler, now_s) == 1
    assert 0 < waited_s < 0.01, "it never waited, so that this shows nothing; or for longer than a few batches"


FAST = Speed(0.002, 0.0001, 1000)
FAST_SLO_S = 0.1
# A replica answers this many rows a second in batches that take half of the SLO.
FAST_PER_S = 9600


@pytest.mark.parametrize(("load", "share"), [(0.5, 0.999), (0.9, 0.99), (1.5, 0.97), (3.0, 0.97)])
def test_overload_takes_nothing_from_those_that_can_be_met(load: float, share: float) -> None:
    scheduler = make_scheduler(FAST, slo_s=FAST_SLO_S)
    assert scheduler.replicas["0"].rows_per_s(FAST_SLO_S) == pytest.approx(FAST_PER_S, rel=0.001)
    in_time = offer(scheduler, FAST, FAST_SLO_S, [(load * FAST_PER_S, 1.5)], 0.2)
    # Those that came in the last SLO have not all been answered.
    assert in_time >= share * min(load, 1.0) * FAST_PER_S * 1.2


def test_defaults_end_soon_after_the_load_falls() -> None:
    scheduler = make_scheduler(FAST, slo_s=FAST_SLO_S)
    rates = [(3.0 * FAST_PER_S, 0.3), (0.5 * FAST_PER_S, 0.9)]
    assert offer(scheduler, FAST, FAST_SLO_S, rates, 0.4) >= 0.999 * 0.5 * FAST_PER_S * 0.4


def test_an_application_of_1_ms_does_not_shrink_batches_of_one_of_100_ms() -> None:
    """On a model that takes 20 ms and more nothing of the first can be met, and all of the second."""
    scheduler = make_scheduler(Speed(0.02, 0.0001, 1000), slo_s=0.001)
    settle(scheduler)
    urgent, patient = push(scheduler, 20, 10.0, 0.001), push(scheduler, 300, 10.0, 0.1)
    decision = scheduler.decide(10.0)
    ((_, batch),) = decision.batches
    assert batch.works[-300:] == patient
    # A few of those that cannot be met may be left in it.
    assert len(batch.works) * IN_TIME <= 300
    assert decision.late == urgent[: 320 - len(batch.works)]


def test_both_are_met_where_both_can_be() -> None:
    scheduler = make_scheduler(Speed(0.0002, 0.0001, 1000), slo_s=0.001)
    settle(scheduler)
    urgent, patient = push(scheduler, 3, 10.0, 0.001), push(scheduler, 300, 10.0, 0.1)
    first = scheduler.decide(10.0)
    assert first.batches[0][1].works[:3] == urgent
    assert first.late == first.shed == []
    assert 0.0002 + len(first.batches[0][1].works) * 0.0001 <= 0.001
    # The rest follow in one, behind a batch so short.
    assert sum(len(batch.works) for _, batch in first.batches) == 303 and patient[-1].lane == 0


@pytest.mark.parametrize("rate", [3_000, 5_000, 20_000])
def test_batches_come_back_so_early_that_their_answers_leave_in_time(rate: int) -> None:
    speed, slo_s, answer_s = Speed(0.004, 0.0002, 256), 0.02, 0.0015
    told, untold = (
        offer(make_scheduler(speed), speed, slo_s, [(rate, 0.6)], 0.2, answer_s=answer_s, is_told=is_told)
        for is_told in (True, False)
    )
    # The most that could be answered: no answer takes time, and each query's SLO is as much shorter.
    most = offer(make_scheduler(speed), speed, slo_s - answer_s, [(rate, 0.6)], 0.2)
    assert told >= 0.94 * most > untold


def test_a_query_that_leaves_no_time_for_its_answer_is_still_sent() -> None:
    """It may be in time after all, and a model whose every query is so late must not fall silent."""
    speed = Speed(0.0185, 0.00001)
    scheduler = make_scheduler(speed, slo_s=0.02)
    scheduler.replicas["0"].answer_s = 0.002
    push(scheduler, 1, 0.0, 0.019)
    assert sizes(scheduler.decide(0.0)) == [("0", 1)]


@pytest.mark.parametrize("limit", [16, 64, 256])
@pytest.mark.parametrize("rows", [3, 5, 16])
def test_rows_that_came_together_are_all_sent_or_all_dropped(rows: int, limit: int) -> None:
    """At twice what the replica can do: rows of a query that is not whole would be evaluated in vain."""
    speed, slo_s, end_s = Speed(0.02, 0.001, limit), 0.2, 2.0
    scheduler = make_scheduler(speed, slo_s=slo_s)
    most = min(limit, 80)  # in half of the SLO
    able_per_s = most / speed.service_s(most)
    sent, dropped, in_time = Counter[float](), Counter[float](), 0
    running: tuple[float, Batch] | None = None
    for number in range(int(2 * able_per_s * end_s / rows)):
        now_s = number * rows / (2 * able_per_s)
        works = [make_work(b"", now_s, slo_s) for _ in range(rows)]
        assert all(scheduler.push(work, now_s) == (True, []) for work in works)
        for at_s in ([] if running is None or running[0] > now_s else [running[0]]) + [now_s]:
            if running is not None and running[0] <= at_s:
                assert scheduler.finished(scheduler.replicas["0"], running[1].id, at_s) is not None
                in_time += sum(work.due_s >= at_s for work in running[1].works)
                running = None
            decision = scheduler.decide(at_s)
            dropped.update(work.arrival_s for work in (*decision.late, *decision.shed))
            for _, batch in decision.batches:
                assert running is None
                running = at_s + speed.service_s(len(batch.works)), batch
                sent.update(work.arrival_s for work in batch.works)
    assert not sent.keys() & dropped.keys()
    assert in_time >= 0.85 * able_per_s * end_s
