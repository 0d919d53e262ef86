"""How likely a query that is put in now is answered in time: what must hold of it, and how true it comes."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.in_time import InTime, done_s, share_within
from clipper.worker.abstraction.batching.scheduler import Scheduler
from clipper.worker.abstraction.work import Work
from clipper.worker.selection.feedback.promises import Promises
from tests.worker.abstraction.batching.scheduling import LONG, Speed, finish_all, make_scheduler, push
from tests.works import make_work

SPEEDS = st.builds(Speed, st.floats(1e-5, 0.1), st.floats(1e-6, 0.02), st.integers(1, 64))


@given(SPEEDS, st.integers(0, 80), st.floats(0.001, 2.0), st.booleans())
def test_a_chance_falls_with_what_is_ahead_and_grows_with_time(
    speed: Speed, ahead: int, left_s: float, is_busy: bool
) -> None:
    scheduler = make_scheduler(speed)
    in_time = InTime(scheduler)
    if is_busy:
        push(scheduler, 1)
        scheduler.decide(0.0)
    before, room = in_time.outlook(0.0, left_s)
    assert in_time.outlook(0.0, left_s) == (before, room), "asking changes nothing"
    assert in_time.outlook(0.0, 1.5 * left_s)[0] >= before
    push(scheduler, ahead, slo_s=left_s)
    after, less = in_time.outlook(0.0, left_s)
    assert 0.0 <= after <= before <= 1.0
    if less >= 1.0:
        assert after == 1.0, "sure is sure"
    two = make_scheduler(speed, speed)
    push(two, ahead, slo_s=left_s)
    if not is_busy:
        assert InTime(two).outlook(0.0, left_s)[0] >= after - 1e-9, "another replica does no harm"


def test_without_a_replica_there_is_no_chance_and_a_new_one_is_believed() -> None:
    scheduler = make_scheduler()
    assert InTime(scheduler).outlook(0.0, 1.0) == (0.0, 0.0)
    scheduler.add_replica("new", 8)
    assert InTime(scheduler).outlook(0.0, 1.0)[0] == 1.0
    scheduler.drain_replica("new")
    assert InTime(scheduler).outlook(0.0, 1.0) == (0.0, 0.0)


def test_a_replica_that_hangs_loses_its_chance() -> None:
    scheduler = make_scheduler(LONG)
    in_time = InTime(scheduler)
    push(scheduler, 1)
    scheduler.decide(0.0)
    assert not in_time.is_idle
    chances = [in_time.outlook(passed_s, passed_s + 0.1)[0] for passed_s in (0.0, 0.1, 0.3, 1.0)]
    assert chances[0] == 1.0 and chances[-1] == 0.0
    assert chances == sorted(chances, reverse=True)
    finish_all(scheduler, 1.0)
    assert in_time.is_idle


def test_only_what_is_due_sooner_is_ahead() -> None:
    scheduler = make_scheduler(Speed(0.0, 0.01, 64))
    in_time = InTime(scheduler)
    push(scheduler, 30, slo_s=1.0)
    assert in_time.outlook(0.0, 0.1)[0] == 1.0
    assert in_time.outlook(0.0, 1.1)[0] == 1.0
    push(scheduler, 12, slo_s=0.09)
    assert in_time.outlook(0.0, 0.095)[0] == 0.0, "with it, those ahead would be late"


@given(st.floats(0, 100), st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 1000)), min_size=1, max_size=5))
def test_replicas_work_off_what_waits_each_from_when_it_is_free(
    rows: float, replicas: list[tuple[float, float]]
) -> None:
    at_s = done_s(rows, replicas)
    done = sum(max(0.0, at_s - rest_s) * per_s for rest_s, per_s in replicas)
    assert done == pytest.approx(rows, abs=1e-6) or at_s <= min(rest_s for rest_s, _ in replicas)


@given(st.lists(st.floats(0.2, 3.0), min_size=5, max_size=5), st.floats(1.0, 20.0))
def test_the_share_within_a_time_is_a_distribution(values: list[float], batches: float) -> None:
    ratios = tuple(sorted(values))
    shares = [share_within(0.02 * step, ratios, batches) for step in range(500)]
    assert shares == sorted(shares) and shares[0] >= 0.0 and shares[-1] == 1.0


def test_the_quantiles_of_one_batch_are_met() -> None:
    ratios = (0.8, 0.9, 1.0, 1.2, 1.5)
    assert [share_within(each, ratios, 1.0) for each in ratios] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert share_within(1.0, (1.0,) * 5, 1.0) == 1.0 and share_within(0.999, (1.0,) * 5, 1.0) == 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """Queries that come by chance, to replicas whose batches take ``fixed + per_row * rows``, with noise.

    Attributes:
        least: only queries with at least this chance are put in; others go elsewhere.
    """

    per_s: float
    fixed_s: float
    per_row_s: float
    noise: float
    replicas: int = 1
    least: float = 0.0
    slo_s: float = 0.1


def told_and_true(load: Load, queries: int, seed: int = 1) -> list[tuple[float, bool]]:
    """For each query that was put in: the chance that it was told, and whether it was answered in time."""
    rng, order = random.Random(seed), itertools.count()
    scheduler = Scheduler(10_000, 1 << 30, 0.0, Flow())
    scheduler.set_slo(load.slo_s)
    in_time = InTime(scheduler)
    for number in range(load.replicas):
        scheduler.add_replica(str(number), 256)
    told: dict[int, float] = {}
    found: list[tuple[float, bool]] = []
    events: list[tuple[float, int, Callable[[float], None]]] = []
    free_s = [0.0] * load.replicas

    def arrive(now_s: float) -> None:
        chance, _ = in_time.outlook(now_s, now_s + load.slo_s)
        if chance >= load.least:
            work = make_work(b"", now_s, load.slo_s)
            told[id(work)] = chance
            kept.append(work)
            scheduler.push(work, now_s)
        if next(left, None) is not None:
            heapq.heappush(events, (now_s + rng.expovariate(load.per_s), next(order), arrive))

    def end(works: list[Work], *, in_time: bool) -> None:
        found.extend((told.pop(id(work)), in_time) for work in works if id(work) in told)

    def come_back(replica_id: str, batch_id: int) -> Callable[[float], None]:
        def finish(now_s: float) -> None:
            finished = scheduler.finished(scheduler.replicas[replica_id], batch_id, now_s)
            assert finished is not None
            for work in finished[0].works:
                end([work], in_time=work.due_s >= now_s)

        return finish

    kept: list[Work] = []
    left = iter(range(queries))
    heapq.heappush(events, (0.0, next(order), arrive))
    while events:
        now_s, _, act = heapq.heappop(events)
        act(now_s)
        decision = scheduler.decide(now_s)
        end(decision.late + decision.shed, in_time=False)
        for replica, batch in decision.batches:
            number = int(replica.id)
            took_s = (load.fixed_s + load.per_row_s * len(batch.works)) * rng.lognormvariate(0.0, load.noise)
            free_s[number] = max(free_s[number], now_s) + took_s
            heapq.heappush(events, (free_s[number], next(order), come_back(replica.id, batch.id)))
        if decision.wake_s is not None:
            heapq.heappush(events, (max(decision.wake_s, now_s), next(order), lambda now_s: None))
    return found[len(found) // 5 :]


def calibration(found: list[tuple[float, bool]], bins: int = 5) -> list[tuple[float, float, int]]:
    """For each range of chances: the mean chance told, the share that was in time, and how many were told it."""
    rows = []
    for place in range(bins + 1):
        among = [each for each in found if min(int(each[0] * bins), bins) == place]
        if among:
            told, true = (sum(each[which] for each in among) / len(among) for which in (0, 1))
            rows.append((told, true, len(among)))
    return rows


SLOW = {"fixed_s": 0.0, "per_row_s": 0.01}
OWN = [
    Load(50, **SLOW, noise=0.2),
    Load(85, **SLOW, noise=0.05),
    Load(120, 0.004, 0.006, noise=0.1),
    Load(700, 0.02, 0.0005, noise=0.1),
    Load(250, **SLOW, noise=0.1, replicas=3),
]
STEERED = [
    Load(400, **SLOW, noise=0.05, least=0.95),
    Load(200, **SLOW, noise=0.2, least=0.95),
    Load(400, 0.004, 0.006, noise=0.1, least=0.95),
    Load(3000, 0.02, 0.0005, noise=0.1, least=0.95),
    Load(400, **SLOW, noise=0.1, replicas=3, least=0.95),
]


@pytest.mark.parametrize("load", [*OWN, *STEERED], ids=str)
def test_what_is_sure_is_in_time_and_no_more_is_promised_than_kept(load: Load) -> None:
    found = told_and_true(load, 4000)
    sure = [was_in_time for chance, was_in_time in found if chance >= 0.95]
    assert sum(sure) >= 0.9 * len(sure)
    told, true = (sum(each[which] for each in found) / len(found) for which in (0, 1))
    assert true >= told - 0.1, calibration(found)


@pytest.mark.parametrize("load", STEERED[:3], ids=str)
def test_a_full_model_that_is_passed_over_loses_no_throughput(load: Load) -> None:
    found = told_and_true(load, 8000)
    in_time_per_s = sum(was_in_time for _, was_in_time in found) / (0.8 * 8000 / load.per_s)
    batch = load.slo_s / 2
    assert in_time_per_s >= 0.93 * (batch - load.fixed_s) / load.per_row_s / batch


@pytest.mark.parametrize("load", [*OWN, *STEERED, Load(200, **SLOW, noise=0.05)], ids=str)
def test_a_corrected_chance_is_the_share_that_is_in_time(load: Load) -> None:
    promises, ranges = Promises(), [[0.0, 0.0, 0.0] for _ in range(5)]
    for number, (chance, was_in_time) in enumerate(told_and_true(load, 6000)):
        if number > 500:
            believed = promises.believed(chance)
            counted = ranges[min(int(5 * believed), 4)]
            counted[0], counted[1], counted[2] = counted[0] + 1, counted[1] + believed, counted[2] + was_in_time
        promises.ended(chance, was_in_time=was_in_time)
    for count, told, true in ranges:
        if count > 100:
            assert true / count == pytest.approx(told / count, abs=0.17), ranges
