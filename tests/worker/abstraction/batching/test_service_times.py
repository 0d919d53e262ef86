"""A replica's times are learned from its batches, noisy as they are."""

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.service_times import (
    CHANGE_RUN,
    GUESSED_FIXED_SHARE,
    MAX_GROWTH,
    QUANTILES,
    RATIOS,
    ServiceTimes,
)
from tests.example_counts import share_of

FIXED_S, PER_ROW_S, PER_BYTE_S = 0.004, 50e-6, 1e-6
SIZES = (1, 40, 10, 64, 5, 20, 100)


def affine(rows: int, size_bytes: int = 0) -> float:
    return FIXED_S + PER_ROW_S * rows


def learned(
    sizes: Iterable[int], service_s: Callable[[int], float] = affine, noise: float = 0.0, seed: int = 1
) -> ServiceTimes:
    times, rng = ServiceTimes(), random.Random(seed)
    for rows in sizes:
        times.record(rows, 0, service_s(rows) * rng.lognormvariate(0.0, noise))
    return times


def test_with_nothing_known_it_expects_nothing() -> None:
    times = ServiceTimes()
    assert (times.is_known, times.mean_s(100), times.slow_s(100), times.one_row_s, times.largest) == (False, 0, 0, 0, 0)
    assert times.ratios(7) == (1.0,) * len(QUANTILES)


@pytest.mark.parametrize(("noise", "within"), [(0.0, 1e-6), (0.05, 0.06), (0.2, 0.2)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fixed_and_per_row_time_are_told_apart_through_noise(noise: float, within: float, seed: int) -> None:
    times = learned(SIZES * 20, noise=noise, seed=seed)
    for rows in (1, 20, 100, 200):
        assert times.mean_s(rows) == pytest.approx(affine(rows), rel=within)


def test_where_one_size_only_is_known_most_is_taken_to_be_fixed() -> None:
    times = learned([10] * 20)
    assert times.mean_s(10) == pytest.approx(affine(10))
    assert times.fixed_s == pytest.approx(GUESSED_FIXED_SHARE * affine(10))
    times.record(40, 0, affine(40))
    assert times.mean_s(100) == pytest.approx(affine(100), rel=0.05)


def test_what_was_told_apart_is_kept_while_one_size_only_comes() -> None:
    times = learned([*SIZES * 4, *[50] * 1000])
    assert (times.fixed_s, times.per_row_s) == pytest.approx((FIXED_S, PER_ROW_S), rel=0.05)


def test_times_that_fall_with_the_size_are_fixed() -> None:
    times = learned(SIZES * 10, lambda rows: 0.005 - 10e-6 * rows)
    assert times.per_row_s == 0.0
    assert times.fixed_s == pytest.approx(0.0046, rel=0.1)


def test_no_time_is_fixed_where_all_goes_by_the_row() -> None:
    times = learned(SIZES * 10, lambda rows: 0.001 * rows)
    assert times.fixed_s == pytest.approx(0.0, abs=3e-4)
    assert times.per_row_s == pytest.approx(0.001, rel=0.02)


def test_the_time_by_the_byte_is_told_from_that_by_the_row() -> None:
    times, rng = ServiceTimes(), random.Random(1)
    for _ in range(150):
        rows = rng.randint(1, 50)
        size_bytes = sum(rng.choice((10, 100, 5000)) for _ in range(rows))
        service_s = FIXED_S + PER_ROW_S * rows + PER_BYTE_S * size_bytes
        times.record(rows, size_bytes, service_s * rng.lognormvariate(0.0, 0.03))
    assert times.per_byte_s == pytest.approx(PER_BYTE_S, rel=0.1)
    assert times.mean_s(20, 100_000) == pytest.approx(FIXED_S + PER_ROW_S * 20 + 0.1, rel=0.1)
    assert times.mean_s(1, 10) == pytest.approx(FIXED_S, rel=0.3)


def test_rows_that_are_all_as_long_may_go_to_either() -> None:
    times = ServiceTimes()
    for rows in SIZES * 20:
        times.record(rows, rows * 100, FIXED_S + PER_ROW_S * rows)
    assert times.mean_s(50, 5000) == pytest.approx(affine(50), rel=0.02)
    assert min(times.fixed_s, times.per_row_s, times.per_byte_s) >= 0


@pytest.mark.parametrize("stall_s", [0.05, 1.0, 60.0])
def test_a_stall_hardly_moves_it(stall_s: float) -> None:
    times = learned(SIZES * 20)
    times.record(20, 0, stall_s)
    for rows in (1, 20, 100):
        assert times.mean_s(rows) == pytest.approx(affine(rows), rel=0.3)
    assert times.slow_s(20) < 2 * affine(20)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_tenfold_change_of_speed_is_followed_within_three_batches(factor: float) -> None:
    times = learned(SIZES * 20, noise=0.1)
    for rows in (20, 100, 40)[:CHANGE_RUN]:
        times.record(rows, 0, factor * affine(rows))
    for rows in (1, 20, 100):
        assert 0.5 <= times.mean_s(rows) / (factor * affine(rows)) <= 2.0
        assert times.slow_s(rows) < 2.5 * factor * affine(rows)
    for rows in SIZES:
        times.record(rows, 0, factor * affine(rows))
    for rows in (1, 20, 100):
        assert times.mean_s(rows) == pytest.approx(factor * affine(rows), rel=0.4)


def test_two_slow_batches_are_no_change() -> None:
    times = learned(SIZES * 20)
    for rows in (20, 20, 1, 20, 20):
        times.record(rows, 0, affine(rows) * (10.0 if rows == 20 else 1.0))
    assert times.mean_s(64) < 2 * affine(64)


def test_sizes_that_depart_from_the_line_have_a_spread_of_their_own() -> None:
    """A model that pads its batches to 32 rows takes as long for one as for 32."""
    times = learned((1, 8, 20, 30, 40, 60, 70) * 20, lambda rows: 0.001 + 0.0001 * -(-rows // 32) * 32)
    for rows in (1, 8, 30, 60, 70):
        expected_s = times.mean_s(rows) * times.ratios(rows)[2]
        assert expected_s == pytest.approx(0.001 + 0.0001 * -(-rows // 32) * 32, rel=0.25)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_about_nine_of_ten_batches_are_within_the_slow_time(noise: float) -> None:
    times, rng, above = learned(SIZES * 20, noise=noise), random.Random(2), 0
    for number in range(2000):
        rows = SIZES[number % len(SIZES)]
        service_s = affine(rows) * rng.lognormvariate(0.0, noise)
        above += service_s > times.slow_s(rows)
        times.record(rows, 0, service_s)
    assert 0.05 < above / 2000 < 0.2


def test_the_largest_batch_is_remembered() -> None:
    times = learned([3])
    times.record(1, 0, 0.001)
    assert times.largest == 3


def test_rows_within_a_budget() -> None:
    times = learned(SIZES * 10)
    assert times.rows_within(affine(30)) == pytest.approx(30, rel=0.01)
    assert times.rows_within(FIXED_S) == times.rows_within(-1.0) == 0.0
    assert times.rows_within(times.mean_s(1)) == pytest.approx(1.0)
    assert learned([4] * 3, lambda _: 0.0).rows_within(1.0) > 1e6


def test_a_budget_of_exactly_one_row_is_one_row() -> None:
    """However the two terms of its time are rounded."""
    rng = random.Random(1)
    for _ in range(500):
        times, service_s = ServiceTimes(), rng.uniform(0.001, 3.0)
        for _ in range(5):
            times.record(1, 0, service_s)
        assert times.rows_within(times.mean_s(1)) == pytest.approx(1.0)


def test_what_is_adopted_holds_until_its_own_batches_outweigh_it() -> None:
    times = ServiceTimes()
    times.adopt(learned(SIZES * 20))
    assert times.is_known and times.largest == 100
    assert times.mean_s(30) == pytest.approx(affine(30))
    for rows in SIZES * 3:
        times.record(rows, 0, 1.3 * affine(rows))
    assert times.mean_s(30) == pytest.approx(1.3 * affine(30), rel=0.1)


@given(
    batches=st.lists(
        st.tuples(
            st.integers(1, 20_000),
            st.integers(0, 1 << 28),
            st.one_of(st.floats(-1.0, 100.0), st.sampled_from([0.0, 1e-12, 0.005])),
        ),
        min_size=1,
        max_size=60,
    ),
    rescaled=st.floats(0.0, 100.0),
)
@settings(max_examples=share_of(100), deadline=None)
def test_whatever_a_clock_says_times_are_numbers_from_0_on(
    batches: list[tuple[int, int, float]], rescaled: float
) -> None:
    times = ServiceTimes()
    for number, (rows, size_bytes, took_s) in enumerate(batches):
        times.record(rows, size_bytes, took_s)
        if number == 30:
            times.rescale(rescaled)
        for seen in (times.fixed_s, times.per_row_s, times.per_byte_s):
            assert 0.0 <= seen < 1e6
        ratios = times.ratios(rows)
        assert list(ratios) == sorted(ratios) and ratios[0] >= 0
        assert times.mean_s(1) <= times.mean_s(2) <= times.mean_s(1000, 1000)
        assert 0.0 <= times.rows_within(0.01) <= 1e9
    assert times.largest == max(rows for rows, _, _ in batches)


def test_a_slow_batch_before_bytes_are_told_is_not_learned_as_empty() -> None:
    """It may mean another speed, and waits for the next to say so; that one is the first of unequal rows."""
    times = learned([8] * 20)
    times.record(8, 0, 100 * affine(8))
    for number in range(1, 5):
        times.record(8, 6_000 * number, 10 * affine(8) + 1e-6 * number)
    assert 0.0 < times.mean_s(8, 6_000) < 1.0


def test_inputs_without_a_byte_after_others_that_had_some() -> None:
    """As of empty texts: what was learned of bytes fades until nothing of it is left."""
    times = learned([8] * 20)
    times.record(8, 100, affine(8))
    for number in range(40_000):
        times.record(1 + number % 8, 0, affine(1 + number % 8))
    assert times.mean_s(8) == pytest.approx(affine(8), rel=0.05)


def test_batches_that_may_show_another_speed_wait_for_the_third() -> None:
    for factor in (10.0, 0.1):
        times = learned([10] * 20)
        before_s = times.mean_s(10)
        for _ in range(CHANGE_RUN - 1):
            times.record(10, 0, factor * affine(10))
            assert times.mean_s(10) == before_s
        times.record(10, 0, factor * affine(10))
        assert times.mean_s(10) == pytest.approx(factor * affine(10), rel=0.01)


@pytest.mark.parametrize("third", [1.0, 0.1])
def test_two_slow_batches_then_a_fast_one_are_learned_within_a_stall(third: float) -> None:
    times = learned([10] * 20)
    for factor in (10.0, 10.0, third):
        times.record(10, 0, factor * affine(10))
    assert affine(10) < times.mean_s(10) < 2 * affine(10)


@pytest.mark.parametrize(("factor", "is_learned"), [(1.9, True), (2.1, False), (0.55, True), (0.45, False)])
def test_a_batch_within_half_to_twice_the_time_is_learned_at_once(factor: float, is_learned: bool) -> None:
    times = learned([10] * 20)
    before_s = times.mean_s(10)
    times.record(10, 0, factor * affine(10))
    assert (times.mean_s(10) != before_s) is is_learned


def test_the_ratios_of_an_unknown_size_are_those_of_the_nearest() -> None:
    times = learned([8, 8, 8])
    assert times.ratios(8) == (1.0,) * len(QUANTILES)  # too few
    for factor in (1.2, 0.8, 1.3, 0.9, 1.0) * 4:
        times.record(8, 0, factor * affine(8))
    assert times.ratios(8)[0] < 0.95 < 1.05 < times.ratios(8)[-1]
    assert times.ratios(1) == times.ratios(1000) == times.ratios(8)
    for _ in range(RATIOS):
        times.record(8, 0, affine(8))
    assert times.ratios(8)[-1] - times.ratios(8)[0] < 0.2  # the wide ones have gone


def known(fixed_s: float, per_row_s: float, per_byte_s: float) -> ServiceTimes:
    times = ServiceTimes()
    times.fixed_s, times.per_row_s, times.per_byte_s, times.is_known = fixed_s, per_row_s, per_byte_s, True
    times.largest, times.largest_bytes = 10, 1000
    return times


def test_bytes_count_up_to_some_times_those_of_the_largest_batch() -> None:
    times = known(0.004, 0.001, 1e-6)
    assert times.mean_s(2, 3000) == pytest.approx(0.009)
    assert times.mean_s(2, 1e9) == pytest.approx(0.006 + 1e-6 * 1000 * MAX_GROWTH)
    assert known(0.004, 0.001, 0.0).mean_s(2, 3000) == pytest.approx(0.006)


def test_rows_of_many_bytes_are_fewer_within_a_budget() -> None:
    times = known(0.004, 0.001, 1e-6)
    assert times.rows_within(0.024, 1000) == pytest.approx(10)
    assert times.rows_within(0.024) == pytest.approx(20)
    assert times.rows_within(0.0049) == 0.0
    assert known(0.004, 0.0, 0.0).rows_within(0.004) == 1e9


def test_what_is_adopted_of_bytes_holds_as_well() -> None:
    other, rng = ServiceTimes(), random.Random(1)
    for _ in range(100):
        rows, row_bytes = rng.randint(1, 50), rng.choice((10, 1000))
        other.record(rows, rows * row_bytes, FIXED_S + PER_ROW_S * rows + PER_BYTE_S * rows * row_bytes)
    times = ServiceTimes()
    times.adopt(other)
    times.record(5, 50, FIXED_S + PER_ROW_S * 5 + PER_BYTE_S * 50)
    assert times.mean_s(20, 20_000) == pytest.approx(other.mean_s(20, 20_000), rel=0.05)
    assert (times.largest, times.largest_bytes) == (other.largest, other.largest_bytes)


@pytest.mark.parametrize("sizes", [(100, 1, 10), (1, 100, 10)])
@pytest.mark.parametrize("factor", [5.0, 0.1])
def test_another_speed_shows_in_batches_of_any_sizes(sizes: tuple[int, ...], factor: float) -> None:
    """Each is judged beside what its own size takes."""
    times = learned(SIZES * 20, lambda rows: 0.0001 + 0.001 * rows)
    for rows in sizes:
        times.record(rows, 0, factor * (0.0001 + 0.001 * rows))
    assert times.mean_s(10) == pytest.approx(factor * 0.0101, rel=0.05)


def test_a_slow_batch_just_before_the_speed_is_set_anew_is_forgotten() -> None:
    times = learned([10] * 20)
    times.record(10, 0, 10 * affine(10))
    times.rescale(0.1)
    times.record(10, 0, 0.1 * affine(10))
    assert times.mean_s(10) == pytest.approx(0.1 * affine(10), rel=0.01)


def test_batches_of_different_sizes_show_one_change_together() -> None:
    """Each is compared with what its own size takes: a fast batch of many rows takes longer than a slow one of few."""
    times = learned(SIZES * 20)
    for rows in (1, 100, 1):
        times.record(rows, 0, affine(rows) / 2.1)
    assert times.mean_s(10) == pytest.approx(affine(10) / 2.1, rel=0.05)


def test_what_came_before_a_new_speed_was_set_is_not_learned_after_it() -> None:
    times = learned(SIZES * 20)
    times.record(10, 0, 20 * affine(10))  # kept apart, as it may show a new speed
    times.rescale(3.0)
    times.record(10, 0, 3 * affine(10))
    assert times.mean_s(10) == pytest.approx(3 * affine(10), rel=1e-6)


def test_stalls_move_the_mean_and_not_the_median() -> None:
    """A third of the batches."""
    times = ServiceTimes()
    for number in range(300):
        times.record(1, 0, 0.004 if number % 3 == 2 else 0.0002)
    assert times.mean_s(1) > 0.001
    assert times.one_row_s == pytest.approx(0.0002, rel=0.2)
    assert times.one_row_s <= times.slow_s(1)
