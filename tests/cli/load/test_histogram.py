"""The histogram of latencies beside the values themselves."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.cli.load.histogram import Histogram
from tests.example_counts import share_of

HIGHEST_US = 200_000_000
# From less than a microsecond to more than the histogram holds.
SECONDS = st.lists(st.floats(0, 300) | st.floats(0, 0.01), min_size=1, max_size=100)


def made(seconds: list[float]) -> Histogram:
    histogram = Histogram(HIGHEST_US)
    for each in seconds:
        histogram.record(each)
    return histogram


def values_ms(seconds: list[float]) -> list[float]:
    return sorted(min(int(each * 1e6) + 1, HIGHEST_US) / 1e3 for each in seconds)


@settings(max_examples=share_of(200))
@given(SECONDS, st.floats(0, 100))
def test_a_percentile_is_a_value_to_a_thousandth(seconds: list[float], percent: float) -> None:
    exact = values_ms(seconds)[max(round(percent / 100 * len(seconds)), 1) - 1]
    assert exact <= made(seconds).percentile_ms(percent) < exact * (1 + 1 / 1024) + 1e-9


@settings(max_examples=share_of(100))
@given(SECONDS, st.integers(1, 10))
def test_a_curve_rises_to_the_highest_value(seconds: list[float], ticks: int) -> None:
    histogram, exact = made(seconds), values_ms(seconds)
    curve = list(histogram.curve(ticks))
    assert curve == sorted(curve) and curve[-1] == (100.0, histogram.percentile_ms(100))
    for percent, ms in curve:
        assert sum(value <= ms for value in exact) >= percent / 100 * len(exact) - 1e-9
        assert exact[max(math.ceil(percent / 100 * len(exact) - 1e-9), 1) - 1] <= ms


@given(SECONDS, SECONDS)
@settings(max_examples=share_of(50))
def test_added_histograms_are_that_of_all_values(some: list[float], others: list[float]) -> None:
    both, together = made(some), made(some + others)
    both.add(made(others))
    assert both.count == together.count and list(both.curve(4)) == list(together.curve(4))


def test_of_no_values_there_is_no_curve() -> None:
    assert list(Histogram(HIGHEST_US).curve(4)) == [] and Histogram(HIGHEST_US).percentile_ms(50) == 0


@pytest.mark.parametrize(("microseconds", "bucket_ms"), [(2047, 2.047), (2048, 2.049), (2049, 2.049), (4096, 4.099)])
def test_buckets_are_those_of_hdrhistogram(microseconds: int, bucket_ms: float) -> None:
    assert made([(microseconds - 0.5) / 1e6]).percentile_ms(50) == bucket_ms
