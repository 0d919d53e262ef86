import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.supervisor.managers.reconcile.plan import (
    CRASH_LOOP_DELAY_S,
    FIRST_DELAY_S,
    HEALTHY_AFTER_S,
    MAX_DELAY_S,
    History,
)


def test_one_that_never_died_may_start_at_any_time() -> None:
    assert History().restart_at_s == float("-inf")


def test_slow_deaths_double_the_delay_up_to_its_bound() -> None:
    history, now_s, delays = History(), 0.0, []
    for _ in range(12):
        now_s += 20.0  # slow enough to be no crash loop, too quick to be healthy
        history = history.died(now_s, uptime_s=20.0)
        delays.append(history.restart_at_s - now_s)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10, 10])
    assert not history.crash_loop


def test_five_deaths_in_a_minute_are_a_crash_loop_until_it_is_healthy() -> None:
    history = History()
    for now_s in (0, 15, 30, 45):
        history = history.died(now_s, 0)
    assert not history.crash_loop
    history = history.died(60, 0)
    assert history.crash_loop
    assert history.restart_at_s == 60 + CRASH_LOOP_DELAY_S
    history = history.died(500, 59)
    assert history.crash_loop
    history = history.died(1000, HEALTHY_AFTER_S)
    assert not history.crash_loop
    assert history.restart_at_s == 1000 + FIRST_DELAY_S


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100))))
def test_the_delay_is_always_bounded(steps: list[tuple[float, float]]) -> None:
    history, now_s = History(), 0.0
    for wait_s, uptime_s in steps:
        now_s += wait_s
        history = history.died(now_s, uptime_s)
        delay_s = history.restart_at_s - now_s
        assert FIRST_DELAY_S * 0.999 <= delay_s <= (CRASH_LOOP_DELAY_S if history.crash_loop else MAX_DELAY_S) * 1.001
        assert len(history.deaths_s) <= 5
