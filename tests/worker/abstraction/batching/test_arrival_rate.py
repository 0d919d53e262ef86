"""The rate of queries, from a count that is looked at now and then."""

import math
import random

import pytest

from clipper.worker.abstraction.batching.arrival_rate import ArrivalRate

SLO_S = 0.1


def test_nothing_is_known_before_the_second_look() -> None:
    rate = ArrivalRate()
    assert rate.per_s == 0.0
    rate.look(1000, 5.0, SLO_S)
    assert rate.per_s == 0.0
    rate.look(1000, 5.0, SLO_S)
    assert rate.per_s == 0.0


@pytest.mark.parametrize("step_s", [0.0001, 0.01, 0.5])
def test_a_steady_rate_is_found_however_often_it_is_looked_at(step_s: float) -> None:
    rate = ArrivalRate()
    for step in range(200):
        rate.look(int(2000 * step * step_s), step * step_s, SLO_S)
    assert rate.per_s == pytest.approx(2000, rel=0.15)


def test_queries_that_come_by_chance_are_averaged() -> None:
    rate, rng, now_s, seen = ArrivalRate(), random.Random(1), 0.0, []
    for arrivals in range(5000):
        rate.look(arrivals, now_s, SLO_S)
        seen.append(rate.per_s)
        now_s += rng.expovariate(2000)
    settled = seen[1000:]
    assert sum(settled) / len(settled) == pytest.approx(2000, rel=0.05)
    assert min(settled) > 1400 and max(settled) < 2700


@pytest.mark.parametrize("factor", [4.0, 0.25, 0.0])
def test_a_new_rate_is_followed_within_three_objectives(factor: float) -> None:
    rate, arrivals, now_s = ArrivalRate(), 0.0, 0.0
    for step in range(100):
        now_s = 0.01 * step
        rate.look(int(arrivals), now_s, SLO_S)
        arrivals += 20.0
    for _ in range(round(3 * SLO_S / 0.01)):
        now_s += 0.01
        rate.look(int(arrivals), now_s, SLO_S)
        arrivals += 20.0 * factor
    assert rate.per_s == pytest.approx(2000 * factor, rel=0.2, abs=150)


def test_a_long_silence_is_forgotten_and_a_standing_clock_changes_nothing() -> None:
    rate = ArrivalRate()
    for step in range(100):
        rate.look(20 * step, 0.01 * step, SLO_S)
    before = rate.per_s
    rate.look(5000, 0.99, SLO_S)
    assert rate.per_s == before
    rate.look(5000, 1e6, SLO_S)
    assert 0.0 <= rate.per_s < 0.01


def test_the_rate_is_of_recent_arrivals_and_fades_by_the_objective() -> None:
    rate = ArrivalRate()
    rate.look(100, 0.0, 1.0)
    rate.look(110, 0.02, 1.0)
    assert rate.per_s == 0.0  # too soon
    rate.look(110, 0.05, 1.0)
    assert rate.per_s == pytest.approx(10 / 0.05)
    rate.look(110, 1.05, 1.0)
    kept = math.exp(-1.0)
    assert rate.per_s == pytest.approx(10 * kept / (0.05 * kept + 1.0))
