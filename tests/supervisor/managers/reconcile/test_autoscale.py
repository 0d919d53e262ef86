"""The planner in simulated time, as ``scaling_simulation`` makes it, and its rules one by one."""

import functools
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from clipper.supervisor.managers.reconcile.autoscale import (
    BUSY_SHARE_DOWN,
    DOWN_AFTER_S,
    DOWN_EVERY_S,
    MIN_STEP_UP,
    MOST_WAKING_S,
    Autoscaler,
    Load,
    Target,
    expected_per_s,
)
from tests.example_counts import share_of
from tests.scaling_simulation import LOOK_EVERY_S, Run, Simulation, Version

CAPACITY_PER_S = 100.0
SEEDS = (1, 2, 3)


def needed(rate_per_s: float) -> int:
    """The most that a steady rate may come to, but for chance."""
    return math.ceil(rate_per_s / (CAPACITY_PER_S * BUSY_SHARE_DOWN))


@functools.cache
def ramp(start_s: float, seed: int, told: float = 1.0) -> Run:
    """From a fifth of what a replica answers to three replicas' worth, in 20 s."""
    version = Version(CAPACITY_PER_S, start_s, told=told)
    return Simulation(version, lambda s: 20 + 280 * min(max((s - 20) / 20, 0), 1), seed=seed).until(90)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("start_s", [0.5, 2.0, 3.0])
def test_replicas_are_there_before_a_ramp_needs_them(start_s: float, seed: int) -> None:
    run = ramp(start_s, seed)
    assert run.late_share < 0.002
    assert run.turns == 0
    assert run.most <= needed(300)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("told", [0.5, 2.0])
def test_a_capacity_told_wrongly_is_made_up_for_by_what_queries_wait(told: float, seed: int) -> None:
    run = ramp(2.0, seed, told)
    assert run.late_share < 0.02
    assert 4 <= run.last <= 8


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate_per_s", [150.0, 300.0, 400.0])
def test_a_step_is_followed_within_seconds_and_not_overshot(rate_per_s: float, seed: int) -> None:
    run = Simulation(Version(start_s=2.0), lambda s: 20.0 if s < 20 else rate_per_s, seed=seed).until(80)
    assert run.late_share_from(20 + 2.5 * 2.0 + 1) == 0
    assert run.turns == 0
    assert run.most <= needed(rate_per_s) + 1  # by chance


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_peak_replicas_go_one_by_one_and_none_is_missed(seed: int) -> None:
    run = Simulation(Version(), lambda s: 300.0 if s < 60 else 20.0, seed=seed).until(200)
    falls_s = [at_s for at_s, _ in run.wishes if at_s > 60]
    assert run.last == 1 and run.turns == 1
    assert min(falls_s) > 60 + DOWN_AFTER_S - 5
    assert all(later - earlier >= DOWN_EVERY_S for earlier, later in itertools.pairwise(falls_s))
    assert run.late_share_from(60) == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate_per_s", [50.0, 70.0, 110.0, 140.0, 250.0])
def test_chance_does_not_flap_a_steady_load(rate_per_s: float, seed: int) -> None:
    run = Simulation(Version(), lambda _: rate_per_s, seed=seed).until(300)
    assert run.turns <= 2
    assert run.most <= needed(rate_per_s) + 1


def test_chance_does_not_flap_a_model_of_few_queries() -> None:
    run = Simulation(Version(capacity_per_s=2.0, slo_s=3.0), lambda _: 3.0, most=16).until(600)
    assert run.turns <= 2
    assert run.most <= 5


@pytest.mark.parametrize("period_s", [20.0, 60.0, 150.0])
def test_waves_are_ridden_out_or_followed_once_each(period_s: float) -> None:
    run = Simulation(Version(), lambda s: 150 - 130 * math.cos(2 * math.pi * s / period_s)).until(450)
    assert run.turns <= (2 * 450 / period_s if period_s > DOWN_AFTER_S else 1)
    assert run.late_share < 0.002


def test_a_capacity_that_is_far_off_does_not_flap() -> None:
    """Nothing but trouble tells that more are needed, and without them there is none."""
    run = Simulation(Version(told=5.0), lambda _: 250.0).until(300)
    assert run.last == 3 and run.turns == 0
    assert run.late_share_from(15) == 0


RATES = st.lists(st.tuples(st.floats(1, 60), st.floats(0, 1500)), min_size=1, max_size=5)


@examples(max_examples=share_of(25), deadline=None)
@given(RATES, st.integers(1, 3), st.integers(0, 5), st.floats(0, 12))
def test_whatever_the_load_the_bounds_hold(
    pieces: list[tuple[float, float]], least: int, more: int, start_s: float
) -> None:
    def rate_at(now_s: float) -> float:
        for length_s, rate_per_s in pieces:
            if now_s < length_s:
                return rate_per_s
            now_s -= length_s
        return 0.0

    run = Simulation(Version(start_s=start_s), rate_at, least, least + more).until(
        sum(length_s for length_s, _ in pieces) / 2
    )
    for (at_s, before), (later_s, after) in zip(run.wishes, run.wishes[1:]):
        assert least <= after <= least + more
        assert after <= before + max(before, MIN_STEP_UP)
        assert after > before or (after == before - 1 and later_s - at_s >= DOWN_EVERY_S)


def look(at_s: float, arrivals: int = 0, **fields: float) -> Load:
    given = {"late": 0, "wait_s": 0.0, "service_s": 0.01, "slo_s": 0.1, "capacity_per_s": 100.0, "ready": 1, **fields}
    return Load(at_s, LOOK_EVERY_S, arrivals, start_s=2.0, **given)  # type: ignore[arg-type]


def looked(autoscaler: Autoscaler, seconds: float, arrivals: int = 0, **fields: float) -> Target:
    """The wish after looks of that many seconds at the same."""
    for number in range(1, round(seconds / LOOK_EVERY_S) + 1):
        autoscaler.plan(look(number * LOOK_EVERY_S, arrivals, **fields))
    return autoscaler.target


def test_a_range_is_kept_from_the_start() -> None:
    assert Autoscaler(2, 4, 1, 0.0).target.replicas == 2
    assert Autoscaler(2, 4, 9, 0.0).target.replicas == 4


def test_reasons_name_numbers() -> None:
    assert looked(Autoscaler(1, 4, 1, 0.0), 2, 40).reason == "80 queries/s expected, each answers 100/s"
    assert looked(Autoscaler(1, 4, 1, 0.0), 5, 10, wait_s=0.06).reason == "queries wait 60 ms of their 100 ms"
    assert looked(Autoscaler(1, 4, 1, 0.0), 5, 10, late=1).reason == "1 of 10 queries were late"
    fell = looked(Autoscaler(1, 4, 2, 0.0), 61, 10, ready=2)
    assert fell == Target(1, "no more were needed for 60 s; 20 queries/s expected, each answers 100/s")


def test_trouble_waits_for_the_replicas_that_were_wished_for() -> None:
    autoscaler = Autoscaler(1, 8, 1, 0.0)
    assert looked(autoscaler, 5, 10, wait_s=0.09).replicas == 2  # the second is not ready, however long it takes


def test_trouble_starts_one_at_a_time() -> None:
    autoscaler, wishes = Autoscaler(1, 8, 1, 0.0), []
    for number in range(1, 25):
        ready = autoscaler.target.replicas
        wishes.append(autoscaler.plan(look(number / 2, 10, late=2, ready=ready)).replicas)
    assert wishes == sorted(wishes) and {2, 3, 4} < set(wishes) and wishes[-1] <= 6


def test_more_replicas_do_not_help_where_a_batch_outlasts_the_objective() -> None:
    assert looked(Autoscaler(1, 8, 1, 0.0), 30, 1, late=1, service_s=0.2, capacity_per_s=5.0).replicas == 1


def test_without_load_the_least_is_enough_whatever_is_not_known() -> None:
    assert looked(Autoscaler(1, 8, 1, 0.0), 30, 50, capacity_per_s=0.0).replicas == 1


IDLE_S = 20.0


def test_one_that_nobody_asks_falls_asleep_and_wakes_when_it_is_asked() -> None:
    autoscaler = Autoscaler(0, 4, 1, 0.0, IDLE_S)
    assert looked(autoscaler, IDLE_S).replicas == 1
    assert autoscaler.plan(look(IDLE_S + LOOK_EVERY_S)) == Target(
        0, "it is asleep until it is asked: no query came for 20 s"
    )
    assert autoscaler.is_asleep
    woken = autoscaler.wake(30.0)
    assert woken == Target(1, "it was asked while it was asleep")
    # A storm of queries wakes it once, and it has its time from then.
    assert autoscaler.wake(30.1) is woken
    assert autoscaler.plan(look(30.0 + IDLE_S, ready=0)).replicas == 1
    # From when it can answer.
    assert autoscaler.plan(look(60.0)).replicas == autoscaler.plan(look(59.5 + IDLE_S)).replicas == 1
    assert autoscaler.plan(look(60.0 + IDLE_S)).replicas == 0


def test_one_that_does_not_wake_is_given_up_in_the_end() -> None:
    autoscaler = Autoscaler(0, 4, 0, 0.0, IDLE_S)
    autoscaler.wake(10.0)
    assert autoscaler.plan(look(9.5 + IDLE_S + MOST_WAKING_S, ready=0)).replicas == 1
    assert autoscaler.plan(look(10.0 + IDLE_S + MOST_WAKING_S, ready=0)).replicas == 0


def test_one_that_slept_before_its_supervisor_sleeps_on() -> None:
    assert Autoscaler(0, 4, 0, 0.0, IDLE_S).is_asleep
    assert looked(Autoscaler(0, 4, 0, 0.0, IDLE_S), 10).replicas == 0
    # Arrivals that were counted while it slept wake it, too.
    assert looked(Autoscaler(0, 4, 0, 0.0, IDLE_S), 1, 3).replicas == 1
    # A fixed least is no reason to sleep.
    assert looked(Autoscaler(1, 4, 0, 0.0, IDLE_S), 100).replicas == 1


@examples(max_examples=share_of(100), deadline=None)
@given(
    st.lists(st.sampled_from(["asked", "quiet", "demand", "trouble"]), min_size=1, max_size=200),
    st.integers(0, 2),
    st.integers(0, 3),
)
def test_none_sleeps_that_was_asked_lately_and_all_others_do(story: list[str], least: int, replicas: int) -> None:
    autoscaler, asked_at_s, at_s, ready = Autoscaler(least, 4, replicas, 0.0, IDLE_S), 0.0, 0.0, 0
    for step in story:
        at_s += 1.0
        was_asleep = autoscaler.is_asleep
        if step == "demand":
            target = autoscaler.wake(at_s)
            asked_at_s = at_s if was_asleep else asked_at_s
        else:
            arrivals = 0 if step == "quiet" else 5
            was_ready, ready = ready, autoscaler.target.replicas
            asked_at_s = at_s if arrivals or ready > was_ready else asked_at_s
            late = 5 if step == "trouble" else 0
            target = autoscaler.plan(look(at_s, arrivals, late=late, ready=ready))
        assert target == autoscaler.target and target.replicas <= 4
        if least:
            assert target.replicas >= least
        elif was_asleep:
            assert target.replicas == (0 if step == "quiet" else 1)
        else:
            assert (target.replicas == 0) == (step == "quiet" and at_s - asked_at_s >= IDLE_S)


def test_a_step_is_no_ramp() -> None:
    before = [look(second / 2, 10) for second in range(1, 8)]
    stepped = [*before, look(4.0, 50)]
    assert expected_per_s(before, 3.0) == 20
    assert expected_per_s(stepped, 3.0) == 60  # the mean of the latest second, and no more
    rising = [look(second / 2, 10 + 5 * second) for second in range(1, 9)]
    assert expected_per_s(rising, 3.0) == pytest.approx(95 + 3 * 20)
