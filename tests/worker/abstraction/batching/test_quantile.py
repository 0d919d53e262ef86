"""The regression and the paper's rule that is made of it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.aimd import Aimd
from clipper.worker.abstraction.batching.quantile import SAMPLES, Array, Quantile, fit_line
from tests.example_counts import share_of


def pinball_loss(sizes: Array, services_s: Array, line: tuple[float, float], quantile: float) -> float:
    rests_s = services_s - line[0] - line[1] * sizes
    return float(np.sum(np.where(rests_s > 0, quantile * rests_s, (quantile - 1) * rests_s)))


def lines_through_points(sizes: Array, services_s: Array) -> list[tuple[float, float]]:
    """Among these is the best line with both terms at least 0: through two points, or through one with a term of 0."""
    points = list(zip(sizes.tolist(), services_s.tolist()))
    lines = [(0.0, service_s / size) for size, service_s in points] + [(service_s, 0.0) for _, service_s in points]
    for (size, service_s), (other, other_s) in itertools.combinations(points, 2):
        if size != other:
            slope_s = (other_s - service_s) / (other - size)
            lines.append((service_s - slope_s * size, slope_s))
    return [line for line in lines if line[0] >= 0 and line[1] >= 0]


@given(
    points=st.lists(st.tuples(st.integers(1, 300), st.floats(0.0001, 0.1)), min_size=6, max_size=14),
    above=st.integers(0, 4),
)
@settings(max_examples=share_of(100), deadline=None)
def test_no_other_line_has_a_smaller_pinball_loss(points: list[tuple[int, float]], above: int) -> None:
    sizes, services_s = (np.array(column, dtype=np.float64) for column in zip(*points))
    quantile = 1 - above / len(points)
    steepest_s = float(np.sort(services_s / sizes)[-1 - above])
    others = [line for line in lines_through_points(sizes, services_s) if line[1] <= steepest_s]
    found = fit_line(sizes, services_s, above)
    assert min(found) >= 0
    resolution = steepest_s / 2**14 * float(sizes.sum())
    loss = pinball_loss(sizes, services_s, found, quantile)
    assert all(loss <= pinball_loss(sizes, services_s, line, quantile) + resolution for line in others)


@pytest.mark.parametrize(("fixed_s", "per_row_s"), [(0.0, 0.00165), (0.0033, 27e-6), (0.001, 10e-6), (0.005, 0.0)])
def test_the_line_of_noiseless_samples_is_exact(fixed_s: float, per_row_s: float) -> None:
    sizes = np.arange(1.0, 101.0)
    intercept_s, slope_s = fit_line(sizes, fixed_s + per_row_s * sizes, 1)
    assert intercept_s == pytest.approx(fixed_s, abs=2e-5)
    assert slope_s == pytest.approx(per_row_s, abs=1e-6)


def test_the_share_above_the_line_is_the_same_at_any_size() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 200, 1024).astype(np.float64)
    services_s = (0.002 + 20e-6 * sizes) * rng.lognormal(0.0, 0.3, 1024)
    intercept_s, slope_s = fit_line(sizes, services_s, 102)
    above = services_s > intercept_s + slope_s * sizes
    assert 0.06 <= above[sizes < 100].mean() <= 0.14
    assert 0.06 <= above[sizes >= 100].mean() <= 0.14


def batch_s(size: int) -> float:
    return 0.002 + 0.0001 * size


def test_until_there_are_samples_enough_it_is_aimd() -> None:
    controller, aimd = Quantile(0.02, 1024), Aimd(0.02, 1024)
    for _ in range(SAMPLES - 1):
        assert controller.limit == aimd.limit
        for each in (controller, aimd):
            each.record(aimd.limit, batch_s(aimd.limit), True)


def sampled(slo_s: float = 0.02, max_batch: int = 1024) -> Quantile:
    """A controller that has seen batches of 1 to 400 rows, of which one in 50 took twice the time."""
    controller = Quantile(slo_s, max_batch)
    controller.record(1, 60.0, True)  # the first batch pays for what is loaded, and does not count
    for number in range(SAMPLES - 1):
        size = 1 + number % 400
        controller.record(size, batch_s(size) * (2 if number % 50 == 0 else 1), False)
    return controller


def test_the_limit_is_where_the_99th_percentile_meets_the_slo() -> None:
    # Two in a hundred lie on a line of twice the time, and so does the 99th percentile: (20 - 4) / 0.2.
    assert sampled().limit == pytest.approx(80, abs=2)


def test_the_line_stays_whatever_comes_later() -> None:
    controller = sampled()
    limit = controller.limit
    for _ in range(2000):
        controller.record(limit, 1.0, True)
    assert controller.limit == limit
    controller.set_budget(0.04)
    assert controller.limit == pytest.approx(180, abs=3)


@pytest.mark.parametrize(("slo_s", "max_batch", "limit"), [(0.001, 64, 1), (10.0, 64, 64)])
def test_the_limit_is_at_least_1_and_at_most_the_largest_batch(slo_s: float, max_batch: int, limit: int) -> None:
    assert sampled(slo_s, max_batch).limit == limit


def test_a_clock_that_shows_no_time_allows_the_largest_batch() -> None:
    controller = Quantile(0.02, 64)
    for _ in range(SAMPLES):
        controller.record(controller.limit, 0.0, True)
    assert controller.limit == 64
