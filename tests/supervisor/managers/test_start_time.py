"""How long a start may take."""

import pytest

from clipper.supervisor.managers.reconcile.plan import LEAST_SHARE, LOOK_S, StartTime


def over_at_s(shares: list[float | None], timeout_s: float = 60.0) -> float:
    """When a start that begins at 1,000 s is over, from its beginning, if it computes such a share of each look."""
    time, now_s, computed_s = StartTime(1000.0, timeout_s), 1000.0, 0.0
    looks = 0
    while True:
        now_s += 0.02
        if not time.has_to_look(now_s):
            assert not time.is_over(now_s, None)
            continue
        share = shares[min(looks, len(shares) - 1)]
        looks += 1
        computed_s += (share or 0.0) * LOOK_S
        if time.is_over(now_s, None if share is None else computed_s):
            return now_s - 1000.0


@pytest.mark.parametrize("shares", [[0.0], [None], [5.0, 0.0], [LEAST_SHARE * 0.9]])
def test_one_that_waits_is_over_in_its_time(shares: list[float | None]) -> None:
    assert over_at_s(shares) == pytest.approx(60.0, abs=0.05)


def test_one_that_computes_has_twice_its_time_and_no_more() -> None:
    assert over_at_s([1.0]) == pytest.approx(120.0, abs=5.1)
    assert over_at_s([LEAST_SHARE * 1.1]) == pytest.approx(120.0, abs=5.1)
    assert over_at_s([1.0], timeout_s=0.1) == pytest.approx(0.2, abs=0.05)


def test_one_that_stops_computing_is_over_a_look_later() -> None:
    # It computed in the looks before 60, 65 and 70 s.
    assert over_at_s([1.0, 1.0, 1.0, 1.0, 0.0]) == pytest.approx(75.0, abs=0.2)


def test_a_first_look_after_the_deadline_is_the_last() -> None:
    time = StartTime(0.0, 60.0)
    assert time.is_over(61.0, 50.0) and not time.is_extended


def test_whether_it_went_on_is_known() -> None:
    time = StartTime(0.0, 60.0)
    assert not time.is_over(55.0, 10.0) and not time.is_extended
    assert not time.is_over(60.0, 14.0) and time.is_extended
    assert time.is_over(65.0, 14.0) and time.is_extended
