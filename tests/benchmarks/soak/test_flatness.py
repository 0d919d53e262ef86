"""At which rate a soak asks, and what it takes for growth."""

from collections.abc import Callable
from random import Random

import pytest

from benchmarks.soak.flatness import Trend, place_of_least, rate_per_s, trend

HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("saturation_per_s", "asked_per_s", "expected_per_s"),
    [
        (3000.0, None, 1500.0),
        (3000.0, 40.0, 40.0),
        (3000.0, 9000.0, 9000.0),
        (90_000.0, None, 5000.0),
        (0.0, None, 0.0),
    ],
)
def test_rate_is_half_of_saturation_unless_somebody_says_so(
    saturation_per_s: float, asked_per_s: float | None, expected_per_s: float
) -> None:
    assert rate_per_s(saturation_per_s, asked_per_s) == expected_per_s


def hour(value_at: Callable[[float], float], from_s: float = 0.0, until_s: float = HOUR_S) -> list[tuple[float, float]]:
    return [(at_s, value_at(at_s)) for at_s in range(int(from_s), int(until_s), 10)]


def judged(points: list[tuple[float, float]], run_s: float = HOUR_S) -> Trend:
    found = trend(points, run_s)
    assert found is not None
    return found


def test_what_grows_in_its_warm_up_alone_is_flat() -> None:
    found = judged(hour(lambda at_s: min(at_s, 600.0)))
    assert (found.level, found.growth, found.per_hour) == (600.0, 0.0, 0.0)
    assert found.is_flat()


def test_warm_up_is_of_each_life_and_not_of_the_run() -> None:
    late = hour(lambda at_s: min(at_s, 1200.0 + 1200.0), from_s=1200.0)
    assert judged(late).is_flat()


def test_growth_is_told_for_what_was_judged_and_for_an_hour() -> None:
    found = judged(hour(lambda at_s: 100.0 + at_s / HOUR_S))
    assert found.per_hour == pytest.approx(1.0)
    assert found.growth == pytest.approx(2390 / HOUR_S)
    assert found.is_flat()


@pytest.mark.parametrize(("per_hour", "is_flat"), [(1.0, True), (1.6, False), (-50.0, True)])
def test_more_than_one_per_cent_is_growth(per_hour: float, is_flat: bool) -> None:
    random = Random(1)
    noisy = hour(lambda at_s: 100.0 + per_hour * at_s / HOUR_S + random.gauss(0, 0.05))
    assert judged(noisy).is_flat() is is_flat


def test_a_few_samples_far_off_are_no_trend() -> None:
    random = Random(2)
    peaks = hour(lambda at_s: 150.0 if random.random() < 0.1 and at_s > 1800 else 100.0)
    assert judged(peaks).is_flat()


def test_what_grows_by_steps_to_the_end_grows() -> None:
    assert not judged(hour(lambda at_s: 100.0 + at_s // 600)).is_flat()


def test_a_life_that_is_too_short_is_not_judged() -> None:
    assert trend([], HOUR_S) is None
    assert trend(hour(lambda at_s: 1.0, until_s=2110.0), HOUR_S) is not None
    assert trend(hour(lambda at_s: 1.0, until_s=2100.0), HOUR_S) is None
    # Long enough, but hardly looked at.
    assert trend([(at_s, 1.0) for at_s in range(0, 3600, 200)], HOUR_S) is None


def test_so_much_more_is_allowed_whatever_the_level() -> None:
    assert Trend(3.0, growth=1.0, per_hour=1.0, least_growth=1.0).is_flat(at_least=1.0)
    assert not Trend(3.0, growth=1.1, per_hour=1.0, least_growth=1.1).is_flat(at_least=1.0)
    assert Trend(100.0, growth=4.9, per_hour=1.0, least_growth=4.9).is_flat(0.05)


def memory(seed: int, hours: float, leak_per_hour: float = 0.0) -> Trend:
    """A worker's resident memory as two runs of an hour showed it: 120 MB, and a heap that moves by 2.3 MB, with a
    correlation of .45 between samples 10 s apart."""
    random, moved, correlation = Random(seed), 0.0, 0.45
    points = []
    for at_s in range(0, int(hours * HOUR_S), 10):
        moved = correlation * moved + (1 - correlation**2) ** 0.5 * random.gauss(0, 2.3e6)
        points.append((at_s, 120e6 * (1 + leak_per_hour * at_s / HOUR_S) + moved))
    return judged(points, hours * HOUR_S)


def has_grown(found: Trend) -> bool:
    return not found.is_flat() and not found.is_within_scatter


SEEDS = range(100)


def test_a_leak_of_two_per_cent_an_hour_is_found_in_two_hours() -> None:
    assert [seed for seed in SEEDS if not has_grown(memory(seed, 2.0, 0.02))] == []


@pytest.mark.parametrize("hours", [0.25, 1.0, 2.0])
def test_a_heap_that_only_moves_up_and_down_does_not_grow(hours: float) -> None:
    # By chance at most one in a hundred does; beyond 4 of them chance has a part in two hundred.
    assert sum(has_grown(memory(seed, hours)) for seed in SEEDS) <= 4


def test_one_per_cent_alone_finds_growth_where_there_is_none() -> None:
    """The rule of one per cent alone is not enough: it found growth in every fourth series of an hour that has none."""
    assert sum(not memory(seed, 1.0).is_flat() for seed in SEEDS) > 4


@pytest.mark.parametrize("parts", [10, 11, 40, 80, 960])
def test_the_least_growth_is_nearer_to_the_trend_the_more_parts_there_are(parts: int) -> None:
    slopes = parts * (parts - 1) // 2
    assert 0 <= place_of_least(parts) < slopes / 2
    assert place_of_least(parts) / slopes > place_of_least(parts - 1) / ((parts - 1) * (parts - 2) // 2)


def test_what_only_grows_has_certainly_grown() -> None:
    found = judged(hour(lambda at_s: 100.0 + at_s))
    assert found.least_growth == pytest.approx(found.growth)
