"""The split of a query's deadline among steps, by what they have taken lately."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.selection.pipeline.times import (
    ANSWERS,
    FRESH_S,
    LATELY_S,
    LEAST_ANSWERS,
    PROBE_EVERY,
    StepTimes,
)
from tests.example_counts import share_of

CHAIN = [[1], [2], []]


def known(followers: list[list[int]], took_s: list[float], now_s: float = 0.0) -> StepTimes:
    times = StepTimes(followers)
    for place, took in enumerate(took_s):
        for _ in range(10):
            times.took(place, now_s, took)
    return times


def test_without_knowledge_each_step_gets_an_equal_part() -> None:
    times = StepTimes(CHAIN)
    assert times.deadline_s(0, 10.0, 10.1) == pytest.approx(10.033)
    # One that was late with its part gets all the next time: those after it may be quick.
    times.took(0, 10.033, 0.033)
    assert times.deadline_s(0, 11.0, 11.1) == pytest.approx(11.099)
    assert times.deadline_s(2, 11.0, 11.1) == pytest.approx(11.099)


def test_a_step_leaves_the_time_of_the_longest_path_that_follows() -> None:
    times = known(CHAIN, [0.01, 0.02, 0.03])
    assert times.deadline_s(0, 1.0, 1.1) == pytest.approx(1.1 - 0.001 - 0.05)
    assert times.deadline_s(1, 1.0, 1.1) == pytest.approx(1.1 - 0.001 - 0.03)
    assert times.deadline_s(2, 1.0, 1.1) == pytest.approx(1.1 - 0.001)
    forked = known([[1, 2], [], []], [0.01, 0.02, 0.05])
    assert forked.deadline_s(0, 1.0, 1.1) == pytest.approx(1.1 - 0.001 - 0.05)


def test_too_little_time_is_shared_in_proportion() -> None:
    times = StepTimes([[1], []])
    for place, slow_s in ((0, 0.02), (1, 0.08)):
        for number in range(ANSWERS):
            times.took(place, 0.0, slow_s if number % 10 == 0 else slow_s / 10)
    # Each has its fastest time, 2 and 8 ms, and of the 39 ms that are left the first has a fifth.
    assert times.deadline_s(0, 0.0, 0.05) == pytest.approx(0.002 + 0.039 * 0.2)


@given(st.lists(st.floats(1e-4, 10.0), min_size=2, max_size=5), st.floats(1e-3, 1.0))
def test_part_of_a_step_is_never_less_than_its_fastest_time(slow_s: list[float], left_s: float) -> None:
    times = StepTimes([*([place + 1] for place in range(len(slow_s) - 1)), []])
    for place, each_s in enumerate(slow_s):
        for took_s in [each_s / 100, *[each_s] * 20]:
            times.took(place, 0.0, took_s)
    found = times.deadline_s(0, 0.0, left_s)
    assert found is None or found >= slow_s[0] / 100 * (1 - 1e-9)


def test_query_without_hope_is_dropped_but_probes_are_asked() -> None:
    times = known(CHAIN, [0.01, 0.02, 0.03])
    assert times.deadline_s(0, 1.0, 1.05) is None
    probes = [times.begin() for _ in range(2 * PROBE_EVERY)]
    assert sum(probes) == 2
    assert times.deadline_s(0, 1.0, 1.05, is_probe=True) == pytest.approx(1.049)
    assert times.deadline_s(2, 1.0, 1.02, is_probe=True) == pytest.approx(1.0196)
    assert times.deadline_s(0, 1.0, 0.9, is_probe=True) is None


def test_one_quick_answer_shows_that_there_is_hope_again() -> None:
    times = known([[1], []], [0.01, 5.0])
    assert times.deadline_s(0, 1.0, 1.1) is None
    now_s = 1.0 + LATELY_S
    # An answer that came too late says only that it took longer.
    times.took(1, now_s, 0.001, is_late=True)
    assert times.deadline_s(0, now_s, now_s + 0.1) is None
    times.took(1, now_s, 0.02)
    assert times.deadline_s(0, now_s + FRESH_S, now_s + FRESH_S + 0.1) is not None
    for _ in range(LEAST_ANSWERS):
        times.took(1, now_s, 0.02)
    now_s += 2 * FRESH_S
    assert times.deadline_s(0, now_s, now_s + 0.1) == pytest.approx(now_s + 0.079)


def test_what_is_known_of_a_step_that_nothing_reaches_is_forgotten() -> None:
    times = known([[1], []], [0.01, 5.0])
    for _ in range(PROBE_EVERY):
        times.begin()
    assert times.deadline_s(0, LATELY_S, LATELY_S + 0.1) is None
    times.took(0, LATELY_S, 0.01)
    now_s = LATELY_S + 2 * FRESH_S
    assert times.deadline_s(0, now_s, now_s + 0.1) == pytest.approx(now_s + 0.099)


def test_step_that_is_asked_once_a_minute_is_known() -> None:
    times = StepTimes([[1], []])
    for minute in range(PROBE_EVERY // 2):
        times.begin()
        times.took(0, 60.0 * minute, 0.03)
        times.took(1, 60.0 * minute, 0.05)
    assert times.deadline_s(0, 700.0, 700.1) == pytest.approx(700.049)


@given(st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=share_of(200))
def test_deadlines_are_after_now_and_before_the_querys(count: int, seed: int) -> None:
    random = Random(seed)
    followers = [[other for other in range(place + 1, count) if random.random() < 0.6] for place in range(count)]
    times, now_s = StepTimes(followers), 0.0
    for _ in range(200):
        now_s += random.random() * FRESH_S * 2
        left_s = random.random() * 0.2
        found = times.deadline_s(random.randrange(count), now_s, now_s + left_s)
        assert found is None or now_s < found < now_s + left_s
        times.took(random.randrange(count), now_s, random.random() * random.choice([0.01, 0.1, 1.0]))
    # Whatever was learned, some queries are asked at each step.
    probes = [times.begin() for _ in range(PROBE_EVERY)]
    assert sum(probes) == 1
    assert all(times.deadline_s(place, now_s, now_s + 0.1, is_probe=True) for place in range(count))
