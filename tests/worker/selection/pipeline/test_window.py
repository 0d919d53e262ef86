"""The bound on how many queries of a pipeline are under way."""

from heapq import heappop, heappush
from itertools import pairwise
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.selection.pipeline.times import StepTimes
from clipper.worker.selection.pipeline.window import (
    COUNTED,
    LEAST,
    LEAST_CLIMB,
    LEAST_CUT,
    LEAST_IN_VAIN,
    MOST_GROWTH,
    MOST_LATER,
    RISE,
    Window,
)
from tests.example_counts import share_of

SLO_S = 0.2


def begun(window: Window, now_s: float, queries: int) -> int:
    """Begin so many queries; return how many were let in."""
    return sum(window.begin(now_s, SLO_S) for _ in range(queries))


def end(
    window: Window, began_s: float, answered: int, *, later: int = 0, first: int = 0, took_s: float = 0.8 * SLO_S
) -> None:
    """End queries: so many are answered, and so many are in vain, after a later step had answered or after a first."""
    ended_s = began_s + took_s
    for _ in range(answered):
        window.ended(began_s, ended_s, is_answered=True, is_in_vain=False, is_later=True)
    for number in range(later + first):
        window.ended(began_s, ended_s, is_answered=False, is_in_vain=True, is_later=number < later)


def cut(later: int = 20) -> Window:
    """Return a window in which 200 queries began at 0, of which so many were in vain. It has looked at 0.2 s."""
    window = Window()
    assert begun(window, 0.0, 200) == 200
    end(window, 0.0, 200 - later, later=later)
    window.begin(SLO_S, SLO_S)
    end(window, SLO_S, 1)
    return window


def test_all_begin_until_too_many_are_in_vain() -> None:
    assert cut(later=LEAST_IN_VAIN - 1).bound == inf
    # The most that were under way, less twice the tenth that was in vain.
    assert cut(later=20).bound == pytest.approx(200 * 0.8)
    assert cut(later=LEAST_IN_VAIN).bound == pytest.approx(200 * LEAST_CUT)
    window = cut(later=20)
    assert begun(window, SLO_S, 500) == 160
    end(window, SLO_S, 3)
    assert begun(window, SLO_S, 500) == 3


def test_first_steps_may_compute_more_in_vain() -> None:
    window = Window()
    begun(window, 0.0, 100)
    end(window, 0.0, 85, first=15)
    begun(window, SLO_S, 100)
    assert window.bound == inf
    end(window, SLO_S, 60, first=40)
    begun(window, 2 * SLO_S, 1)
    # Of 200 queries 55 were in vain.
    assert window.bound == pytest.approx(100 * (1 - 55 / 200))


def test_step_that_hangs_is_no_reason_to_ask_for_fewer() -> None:
    assert cut(later=190).bound == inf
    assert cut(later=170).bound == 100


def test_queries_from_before_a_cut_say_nothing_about_it() -> None:
    window = Window()
    begun(window, 0.0, 400)
    end(window, 0.0, 180, later=20)
    begun(window, SLO_S, 1)
    bound = window.bound
    end(window, 0.0, 0, later=200)
    begun(window, 4 * SLO_S, 1)
    assert window.bound == bound < inf
    # Nor is there another cut before the queries that began after the first one have ended.
    begun(window, 4 * SLO_S, 100)
    end(window, 4 * SLO_S, 50, later=50)
    begun(window, 4.9 * SLO_S, 1)
    assert window.bound == bound
    begun(window, 5.1 * SLO_S, 1)
    assert window.bound < bound


@pytest.mark.parametrize(("later", "climb"), [(LEAST_IN_VAIN, LEAST_CLIMB), (20, 20 / MOST_LATER)])
def test_bound_rises_ever_faster_while_it_binds(later: int, climb: float) -> None:
    window = cut(later=later)
    first, bounds, now_s = int(window.bound), [], SLO_S
    for _ in range(4):
        now_s += 2 * SLO_S
        let_in = begun(window, now_s, 500)
        bounds.append(window.bound)
        end(window, now_s, let_in)
    # Nothing was refused before the first look. Each time all that began have ended, and a few more at last.
    assert bounds[0] == first
    once = 2 * RISE * first**2 / climb**2
    assert [after / before - 1 for before, after in pairwise(bounds)] == pytest.approx(
        [once * times for times in (1, 2, 3)], rel=0.05
    )
    for _ in range(3):
        now_s += 2 * SLO_S
        end(window, now_s, begun(window, now_s, 20))
    # It was reached once more before the first of these looks, and then no more.
    assert window.bound / bounds[-1] - 1 == pytest.approx(once * 4, rel=0.1)


def test_climb_is_as_long_as_the_cut_before_it_was_dear() -> None:
    """Also queries that began before the cut and failed after it were in vain."""

    def grown(stragglers: int) -> float:
        window = Window()
        begun(window, 0.0, 400)
        end(window, 0.0, 190, later=10)
        window.begin(SLO_S, SLO_S)
        end(window, 0.0, 200 - stragglers, later=stragglers)
        begun(window, SLO_S, 200)
        end(window, SLO_S, 190, later=10)
        window.begin(3 * SLO_S, SLO_S)
        bound, now_s = window.bound, 3 * SLO_S
        for _ in range(3):
            now_s += 2 * SLO_S
            end(window, now_s, begun(window, now_s, 500))
        return window.bound / bound - 1

    assert grown(0) == pytest.approx(4 * grown(10), rel=0.1) != 0


def test_bound_rises_at_once_while_answers_take_little_time() -> None:
    window, now_s = cut(later=20), SLO_S
    for _ in range(3):
        now_s += 2 * SLO_S
        end(window, now_s, begun(window, now_s, 500), took_s=0.4 * SLO_S)
    assert window.bound == pytest.approx(160 * (1 + MOST_GROWTH) ** 2)


@given(st.integers(0, 2**32), st.floats(0.0, 1.0))
@settings(max_examples=share_of(100))
def test_bound_holds_and_someone_may_always_begin(seed: int, share_in_vain: float) -> None:
    random, window, now_s = Random(seed), Window(), 0.0
    under_way: list[float] = []
    for _ in range(4 * COUNTED):
        now_s += random.expovariate(1.0) * SLO_S / 20
        if window.begin(now_s, SLO_S):
            assert len(under_way) < window.bound
            under_way.append(now_s)
        assert window.bound >= LEAST
        if random.random() < len(under_way) / 40:
            is_in_vain = random.random() < share_in_vain
            began_s = under_way.pop(0)
            window.ended(began_s, now_s, is_answered=not is_in_vain, is_in_vain=is_in_vain, is_later=True)
    for began_s in under_way:
        window.ended(began_s, now_s, is_answered=True, is_in_vain=False, is_later=True)
    assert begun(window, now_s, int(LEAST)) == LEAST


@pytest.mark.parametrize("load", [0.5, 0.9, 1.5, 2.0, 4.0])
def test_chain_of_queues_computes_little_in_vain(load: float) -> None:
    """Three steps with a queue each, which serve one query at a time: in 1, 2 and 4 ms.

    Each queue drops a query whose deadline there it cannot meet.
    """
    random = Random(7)
    slo_s, service_s = 0.05, (0.001, 0.002, 0.004)
    times, window, free_s = StepTimes([[1], [2], []]), Window(), [0.0, 0.0, 0.0]
    events: list[tuple[float, int, float]] = []
    now_s = 0.0
    for _ in range(10_000):
        now_s += random.expovariate(load / service_s[-1])
        heappush(events, (now_s, 0, now_s))
    end_s, answered, computed, in_vain = now_s, 0, 0, 0
    while events:
        now_s, place, arrival_s = heappop(events)
        if place == 3:
            answered += 1
            window.ended(arrival_s, now_s, is_answered=True, is_in_vain=False, is_later=True)
            continue
        if place == 0 and not window.begin(now_s, slo_s):
            continue
        due_s = times.deadline_s(place, now_s, arrival_s + slo_s)
        done_s = max(now_s, free_s[place]) + service_s[place]
        if due_s is None or done_s > due_s:
            in_vain += place == 2
            window.ended(arrival_s, now_s, is_answered=False, is_in_vain=place > 0, is_later=place > 1)
            continue
        computed += place == 1
        free_s[place] = done_s
        times.took(place, now_s, done_s - now_s)
        heappush(events, (done_s, place + 1, arrival_s))
    assert answered >= 0.97 * min(10_000, end_s / service_s[-1])
    # Some of them before the first look.
    assert in_vain <= 0.015 * computed
