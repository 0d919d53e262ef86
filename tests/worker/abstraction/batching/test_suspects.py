"""Applications whose inputs fail, apart from the others on the same version."""

import heapq
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.worker.abstraction.batching.flow import Batch, Flow
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.batching.suspects import DEADLY, LEAST_CLEAN, MOST_ROWS, UNCLEAR, Suspects
from tests.example_counts import share_of
from tests.works import Waiting, make_work


def make_suspects(*names: str, max_length: int = 1000) -> Suspects:
    suspects = Suspects(DeadlineQueue(max_length, 1 << 20), max_length, 1 << 20)
    for name in names:
        assert not suspects.meet(name)
    return suspects


def answer(suspects: Suspects, source: str, rows: int, *failed: int) -> None:
    suspects.judge([make_work(b"", source=source) for _ in range(rows)], failed)


def test_an_application_alone_is_never_apart() -> None:
    suspects = make_suspects("x")
    answer(suspects, "x", 8, 0, 1)
    assert not suspects.meet("x")


def test_a_suspects_work_leaves_the_queue_and_comes_back_with_trust() -> None:
    trusted = DeadlineQueue(1000, 1 << 20)
    suspects = Suspects(trusted, 1000, 1 << 20)
    for source in ("x", "y", "x"):
        suspects.meet(source)
        trusted.push(make_work(b"row", source=source))
    answer(suspects, "x", 8, 3)
    assert suspects.meet("x") and not suspects.meet("y")
    assert (trusted.length, suspects.length, suspects.size_bytes) == (1, 2, 6)
    answer(suspects, "x", LEAST_CLEAN - 1)
    assert suspects.meet("x")
    answer(suspects, "x", 1)
    assert not suspects.meet("x") and (trusted.length, suspects.length) == (3, 0)


def test_each_relapse_takes_twice_as_many_clean_rows() -> None:
    suspects = make_suspects("x", "y")
    for needed in (LEAST_CLEAN, 2 * LEAST_CLEAN, 4 * LEAST_CLEAN):
        answer(suspects, "x", 1, 0)
        answer(suspects, "x", needed - 1)
        assert suspects.meet("x")
        answer(suspects, "x", 1)
        assert not suspects.meet("x")


def test_clean_batches_grow_and_begin_at_one_row_after_a_failure() -> None:
    suspects = make_suspects("x", "y")
    answer(suspects, "x", 4, 1)
    sizes = []
    for _ in range(6):
        for _ in range(30 - suspects.length):
            suspects.push(make_work(b"", source="x"))
        batch = suspects.take(0.0001, 1.0, 0.0).batch
        sizes.append(len(batch))
        suspects.judge(batch, [])
    assert sizes == [1, 2, 4, 8, MOST_ROWS, MOST_ROWS]
    answer(suspects, "x", MOST_ROWS, 5)
    assert len(suspects.take(0.0001, 1.0, 0.0).batch) == 1


@pytest.mark.parametrize(("one_row_s", "rows"), [(0.0, 1), (0.1, 1), (0.01, 3), (0.004, 6), (0.0001, MOST_ROWS)])
def test_finding_all_bad_rows_of_a_batch_takes_a_quarter_of_the_slo(one_row_s: float, rows: int) -> None:
    suspects = make_suspects("x", "y")
    answer(suspects, "x", 1, 0)
    answer(suspects, "x", 1), answer(suspects, "x", 2), answer(suspects, "x", 4), answer(suspects, "x", 8)
    for _ in range(30):
        suspects.push(make_work(b"", source="x"))
    taken = len(suspects.take(one_row_s, 0.2, 0.0).batch)
    assert taken == rows and (rows == 1 or (2 * taken - 1) * one_row_s <= 0.2 / 4)


def test_the_backlog_of_all_suspects_together_is_bounded() -> None:
    suspects = make_suspects("x", "y", "z", max_length=10)
    answer(suspects, "x", 1, 0)
    answer(suspects, "y", 1, 0)
    # One may queue a large batch, as long as others leave room for it.
    accepted = [suspects.push(make_work(b"", source="x")) for _ in range(8)]
    accepted += [suspects.push(make_work(b"", source="y")) for _ in range(3)]
    assert accepted == [True] * 10 + [False]
    suspects.give_up(is_starting=False)
    large = bytes(1 << 19)
    assert [suspects.push(make_work(large, source="x")) for _ in range(3)] == [True, True, False]


@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from("xyz"),
            st.sampled_from(["", UNCLEAR, DEADLY]),
            st.lists(st.booleans(), min_size=1, max_size=3),
            st.booleans(),
        ),
        max_size=30,
    ),
    is_starting=st.booleans(),
)
@settings(max_examples=share_of(300), deadline=None)
def test_without_a_replica_only_what_waits_for_one_that_starts_is_kept(
    pieces: list[tuple[str, str, list[bool], bool]], is_starting: bool
) -> None:
    trusted = DeadlineQueue(1000, 1 << 20)
    suspects = Suspects(trusted, 1000, 1 << 20)
    for name in "xyz":
        suspects.meet(name)
    answer(suspects, "x", 1, 0)
    works = []
    for number, (source, group, waits, is_background) in enumerate(pieces):
        work = make_work(b"%d" % number, source=source)
        work.waiters = [Waiting(may_wait=one) for one in waits]
        work.group = group
        if suspects.name_of(work) or group:
            suspects.push(work)
        elif is_background:
            trusted.push_background(work)
        else:
            trusted.push(work)
        works.append(work)
    given_up = suspects.give_up(is_starting=is_starting)
    assert sorted(work.row for work in given_up) == sorted(
        work.row for work in works if not (is_starting and any(waiter.may_wait for waiter in work.waiters))
    )
    assert trusted.length + trusted.background + suspects.length == len(works) - len(given_up)
    assert all(bool(work.lane) != (work in given_up) for work in works)


def test_an_application_is_held_for_a_bounded_time_however_often() -> None:
    suspects = make_suspects("x", "y")
    held_s = []
    for _ in range(2000):
        assert suspects.hold("x", 10.0, 5.0, 300.0)
        held_s.append(suspects.by_name["x"].held_until_s - 10.0)
    assert held_s[:7] == [5, 10, 20, 40, 80, 160, 300] and set(held_s[7:]) == {300}
    assert not make_suspects("x").hold("x", 10.0, 5.0, 300.0)


@pytest.mark.parametrize(("bad_at_once", "every_s"), [(10, 0.05), (1, 0.005), (100, 0.1), (200, 1.0)])
@pytest.mark.parametrize("slo_s", [0.05, 0.1])
def test_an_application_of_bad_inputs_delays_anothers_query_by_one_batch(
    bad_at_once: int, every_s: float, slo_s: float
) -> None:
    """A model of 4 ms, with halved batches. y asks 50 times a second beside 200 to 1,000 of x."""
    row_s, until_s = 0.004, 20.0
    scheduler = Scheduler(16_384, 1 << 30, 0.0, Flow())
    scheduler.set_slo(slo_s)
    replica = scheduler.add_replica("0", 1024)
    for name in ("x", "y"):
        scheduler.suspects.meet(name)
    events: list[tuple[float, int, str, Batch | None]] = [(0.0, 0, "x", None), (0.003, 1, "y", None)]
    order, asked, in_time, spent_s = 2, 0, 0, {"x": 0.0, "y": 0.0}
    wake_s = inf
    while min(events[0][0], wake_s) < until_s:
        if wake_s < events[0][0]:
            now_s, name, batch = wake_s, "", None
        else:
            now_s, _, name, batch = heapq.heappop(events)
        if batch is not None:
            failed = [row for row, work in enumerate(batch.works) if work.source == "x"]
            assert scheduler.finished(replica, batch.id, now_s, failed) is not None
            in_time += sum(work.source == "y" and now_s <= work.due_s for work in batch.works)
        elif name:
            count, gap_s = (bad_at_once, every_s) if name == "x" else (1, 0.02)
            for _ in range(count):
                work = make_work(b"", now_s, slo_s, name)
                asked += name == "y"
                scheduler.push(work, now_s)
            heapq.heappush(events, (now_s + gap_s, order, name, None))
            order += 1
        decision = scheduler.decide(now_s)
        wake_s = inf if decision.wake_s is None else decision.wake_s
        for _, sent in decision.batches:
            bad = sum(work.source == "x" for work in sent.works)
            calls = 1 if len(sent.works) == 1 or not bad else min(2 * len(sent.works) - 1, 62)
            spent_s["x" if bad else "y"] += calls * row_s
            heapq.heappush(events, (now_s + calls * row_s, order, "", sent))
            order += 1
    assert in_time >= 0.97 * asked
