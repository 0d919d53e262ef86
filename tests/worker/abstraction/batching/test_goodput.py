"""The choice of the next batch, against all there are."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.deadline_queue import DeadlineQueue
from clipper.worker.abstraction.batching.goodput import (
    IN_TIME,
    KEEPS_UP,
    PLACES,
    Choice,
    Outlook,
    choose,
    cut_short,
)
from clipper.worker.abstraction.batching.service_times import ServiceTimes
from tests.example_counts import share_of
from tests.works import make_work

FIXED_S, PER_ROW_S = 0.01, 0.001
FOREVER = 1000


def make_times(noise: float = 0.0, per_byte_s: float = 0.0) -> ServiceTimes:
    times, rng = ServiceTimes(), random.Random(1)
    for _ in range(20):
        for rows in (1, 3, 6, 12, 24, 60):
            size_bytes = rows * rng.choice((1, 100))
            service_s = FIXED_S + PER_ROW_S * rows + per_byte_s * size_bytes
            times.record(rows, size_bytes, service_s * rng.lognormvariate(0.0, noise))
    return times


def outlook(*slos_s: float, size: int = 1) -> Outlook:
    queue = DeadlineQueue(100_000, 1 << 30)
    for slo_s in slos_s:
        queue.push(make_work(bytes(size), 0.0, slo_s))
    return Outlook.over(queue.lanes())


def evaluate(
    due_s: list[float], drop: int, take: int, times: ServiceTimes, wait_s: float, now_s: float
) -> tuple[float, float]:
    """How many of a batch are expected to be in time, and how many a second."""
    took_s = [wait_s + times.mean_s(take, take) * ratio for ratio in times.ratios(take)]
    in_time = sum(sum(due >= now_s + took for due in due_s[drop : drop + take]) for took in took_s) / len(took_s)
    return in_time, in_time / (sum(took_s) / len(took_s))


@given(
    slos_s=st.lists(st.floats(0.001, 0.2), min_size=1, max_size=12),
    wait_s=st.sampled_from([0.0, 0.005]),
    now_s=st.floats(0.0, 0.1),
    needed_per_s=st.sampled_from([0.0, 100.0, 300.0, 1e6]),
    limit=st.integers(1, 14),
    noise=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=share_of(150), deadline=None)
def test_it_is_the_best_of_all(
    slos_s: list[float], wait_s: float, now_s: float, needed_per_s: float, limit: int, noise: float
) -> None:
    times = make_times(noise)
    due_s = sorted(slos_s)
    choice = choose(outlook(*slos_s), times, wait_s, now_s, needed_per_s, limit)
    assert choice.take <= limit and choice.drop + choice.take <= len(due_s)

    found = {
        (drop, take): evaluate(due_s, drop, take, times, wait_s, now_s)
        for drop in range(len(due_s))
        for take in range(1, min(limit, len(due_s) - drop) + 1)
    }
    keeps_up = {
        (drop, take)
        for (drop, take), (in_time, per_s) in found.items()
        if in_time >= IN_TIME * take and (drop + take == len(due_s) or per_s >= KEEPS_UP * needed_per_s)
    }
    assert choice.in_time == pytest.approx(found[choice.drop, choice.take][0])
    best_per_s = max(per_s for _, per_s in found.values())
    fewest = min((drop for drop, _ in keeps_up), default=len(due_s))
    if choice.keeps_up:
        # The fewest drops with which a batch keeps up, and the fastest of those batches.
        assert choice.drop == fewest
        alike = [found[each][1] for each in keeps_up if each[0] == fewest]
        assert choice.per_s == pytest.approx(max(alike))
    else:
        # As many a second as any, and none that keeps up would have dropped less.
        assert choice.per_s >= 0.98 * best_per_s
        assert choice.drop <= fewest


@given(
    groups=st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=12),
    take=st.integers(1, 60),
    limit=st.integers(1, 40),
    query=st.integers(0, 12),
    left_s=st.floats(0.0, 0.2),
)
@settings(max_examples=share_of(150), deadline=None)
def test_rows_of_a_query_are_divided_only_where_that_is_better(
    groups: list[tuple[int, bool]], take: int, limit: int, query: int, left_s: float
) -> None:
    queue, times, start_s = DeadlineQueue(1000, 1 << 20), make_times(), query + 1.0 - left_s
    for number, (rows, are_alike) in enumerate(groups):
        for row in range(rows):  # in one lane, or in two
            assert queue.push(make_work(bytes(1 if are_alike or row % 2 else 1000), float(number)))
    sent, works = 0, queue.length
    while queue.length:
        lanes = queue.lanes()
        batch = queue.take(min(take, limit), lanes).batch
        taken = list(batch)
        cut = cut_short(batch, lanes, times, start_s, limit)
        assert [*batch, *cut] == taken and batch, "each batch has rows, so all rows leave"
        due_s = taken[-1].due_s
        waiting = [work for lane in lanes for work in lane.works if work.due_s == due_s]
        of_query = [*(work for work in taken if work.due_s == due_s), *waiting]
        size = len(taken) + len(waiting) - len(of_query)
        is_worse = not size or len(of_query) > limit or start_s + 2 * times.mean_s(len(taken)) <= due_s
        assert len(cut) == (0 if is_worse or not waiting else len(taken) - size)
        queue.push_back(cut)
        sent += len(batch)
    assert sent == works


@given(
    groups=st.lists(st.tuples(st.integers(1, 60), st.floats(0.001, 0.05)), min_size=1, max_size=60),
    now_s=st.floats(0.0, 0.5),
    limit=st.sampled_from([8, 64, FOREVER]),
    noise=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=share_of(100), deadline=None)
def test_rows_with_one_deadline_are_dropped_together(
    groups: list[tuple[int, float]], now_s: float, limit: int, noise: float
) -> None:
    """However coarse the places are that are looked at."""
    times, queue, due_s = make_times(noise), DeadlineQueue(100_000, 1 << 30), 0.0
    for rows, gap_s in groups:
        due_s += gap_s
        for _ in range(rows):
            queue.push(make_work(b"", due_s))
    lanes = queue.lanes()
    dues_s = sorted(work.due_s for lane in lanes for work in lane.works)
    now_s += 1.0
    choice = choose(Outlook.over(lanes), times, 0.0, now_s, 1e6, limit)
    taken = queue.take(choice.take, lanes, choice.from_s)
    kept_s = {work.due_s for lane in lanes for work in lane.works} | {work.due_s for work in taken.batch}
    assert not kept_s & {work.due_s for work in taken.dropped}
    if choice.drop:
        # As many as were chosen, but for the rows with the deadline at which the batch begins.
        edge_s = dues_s[choice.drop]
        assert len(taken.dropped) in (sum(each < edge_s for each in dues_s), sum(each <= edge_s for each in dues_s))
        is_late = now_s + times.mean_s(choice.take) * times.ratios(choice.take)[2] > edge_s
        assert is_late == (edge_s in {work.due_s for work in taken.dropped})
    else:
        assert not taken.dropped


def test_one_piece() -> None:
    assert choose(outlook(1.0), make_times(), 0.0, 0.0, 0.0, FOREVER) == Choice(
        0, 0.0, 1, 1.0, pytest.approx(1 / (FIXED_S + PER_ROW_S)), True
    )
    assert choose(outlook(0.005), make_times(), 0.0, 0.0, 0.0, FOREVER).in_time == 0.0


def test_many_pieces_of_one_deadline() -> None:
    """Ten thousand, of which fewer can be met: no batch is larger than what can be, but for its coarse places."""
    slos_s = [0.5] * 10_000
    choice = choose(outlook(*slos_s), make_times(), 0.0, 0.0, 1e6, FOREVER)
    assert choice.in_time == choice.take
    assert 490 - 10_000 / PLACES <= choice.take <= 490


def test_the_limit_holds_however_many_wait() -> None:
    for count in (1, 5, PLACES, PLACES + 1, 1000, 16_384):
        for limit in (1, 2, 8, 64):
            choice = choose(outlook(*[10.0] * count), make_times(), 0.0, 0.0, 0.0, limit)
            assert 1 <= choice.take <= min(limit, count)


def test_nothing_is_dropped_for_one_row_more() -> None:
    assert choose(outlook(*[0.5] * 10_000), make_times(), 0.0, 0.0, 1e6, FOREVER).drop == 0


@pytest.mark.parametrize("count", [1000, 1100])
def test_the_limit_is_made_use_of(count: int) -> None:
    choice = choose(outlook(*[10.0] * count), make_times(), 0.0, 0.0, 0.0, 64)
    assert choice.take == 64


@pytest.mark.parametrize("limit", [8, 64])
def test_the_limit_is_made_use_of_beside_a_few_of_another_slo(limit: int) -> None:
    queue = DeadlineQueue(100_000, 1 << 30)
    for number in range(4000):
        queue.push(make_work(b"", number * 1e-5, 20.0))
    for _ in range(2):
        queue.push(make_work(b"", 0.04, 1.0))
    choice = choose(Outlook.over(queue.lanes()), make_times(), 0.0, 0.05, 1e6, limit)
    assert choice.take == limit


def test_few_of_many_go_where_a_row_takes_long() -> None:
    times = ServiceTimes()
    for rows in (1, 2, 4, 8) * 5:
        times.record(rows, 0, 0.00165 * rows)
    choice = choose(outlook(*[0.02] * 512), times, 0.0, 0.0, 600.0, FOREVER)
    assert choice.in_time > 0


def test_the_rest_of_a_batch_that_runs_counts() -> None:
    assert choose(outlook(0.02), make_times(), 0.0, 0.0, 0.0, FOREVER).in_time == 1.0
    assert choose(outlook(0.02), make_times(), 0.015, 0.0, 0.0, FOREVER).in_time == 0.0


def test_behind_a_batch_that_runs_go_as_many_as_are_in_time_after_it() -> None:
    """Of ten thousand of one deadline: fewer than there are between two of the places that are looked at."""
    choice = choose(outlook(*[0.5] * 10_000), make_times(), 0.2, 0.0, 1e6, FOREVER)
    assert choice.in_time == choice.take == pytest.approx(290, abs=2)


def test_bytes_count() -> None:
    """Of two rows of the same deadline, long ones take longer."""
    times = make_times(per_byte_s=1e-5)
    assert choose(outlook(0.05, 0.05, size=100), times, 0.0, 0.0, 0.0, FOREVER).in_time == pytest.approx(2.0)
    assert choose(outlook(0.05, 0.05, size=5000), times, 0.0, 0.0, 0.0, FOREVER).in_time == 0.0


@given(counts=st.dictionaries(st.floats(0.01, 2.0), st.integers(1, 400), min_size=1, max_size=6))
@settings(max_examples=share_of(60), deadline=None)
def test_an_outlook_holds_all_that_waits_in_the_order_of_deadlines(counts: dict[float, int]) -> None:
    queue = DeadlineQueue(100_000, 1 << 30)
    for slo_s, count in counts.items():
        for number in range(count):
            queue.push(make_work(b"xyz", 0.001 * number, slo_s))
    seen = Outlook.over(queue.lanes())
    assert np.all(np.diff(seen.due_s) >= 0) and np.all(np.diff(seen.rows) >= 0)
    assert len(seen.rows) == len(seen.size_bytes) == len(seen.due_s) + 1
    assert len(seen.due_s) <= max(PLACES, 2 * len(queue.lanes()))
    assert (seen.rows[0], seen.rows[-1]) == (0, queue.length)
    assert seen.size_bytes[-1] == pytest.approx(queue.size_bytes)
    if queue.length <= PLACES and len(queue.lanes()) == 1:
        assert list(seen.rows) == list(range(queue.length + 1))


def test_under_overload_it_takes_what_it_can_answer_in_time_once_idle() -> None:
    """Within a crowd that is due at once, no two of which it tells apart."""
    choice = choose(outlook(*[0.1] * 1000), make_times(), 0.05, 0.0, 1e6, FOREVER)
    assert choice.take == pytest.approx((0.1 - 0.05 - FIXED_S) / PER_ROW_S, abs=3)


def test_a_choice_imports_nothing() -> None:
    """numpy imports some of its parts when they are first used, which held the loop for 20 ms at the first batches."""
    program = """
import sys

from tests.worker.abstraction.batching.test_goodput import choose, make_times, outlook

# Whoever prepares the test has imported more than a worker does.
for name in [name for name in sys.modules if name.startswith("numpy.ma")]:
    del sys.modules[name]
times, waiting, before = make_times(), outlook(*(0.1 + number / 100 for number in range(50))), set(sys.modules)
choose(waiting, times, 0.0, 0.0, 300.0, 64)
print(sorted(set(sys.modules) - before))
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]", told
