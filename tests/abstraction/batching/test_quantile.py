import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.abstraction.batching.quantile import Array, Quantile, fit_line, fit_slope

BUDGET_S = 0.006


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


@given(points=st.lists(st.tuples(st.integers(1, 300), st.floats(0.0001, 0.1)), min_size=6, max_size=14))
@settings(max_examples=100, deadline=None)
def test_no_other_line_has_a_smaller_pinball_loss(points: list[tuple[int, float]]) -> None:
    sizes, services_s = (np.array(column, dtype=np.float64) for column in zip(*points))
    # A tenth, and what chance explains: 2 of 6, 3 of 10, 4 of 14.
    above = int(len(points) / 10 + 1.5 * (len(points) / 10) ** 0.5 + 0.5)
    quantile = 1 - above / len(points)
    steepest_s = float(np.sort(services_s / sizes)[-1 - above])
    others = [line for line in lines_through_points(sizes, services_s) if line[1] <= steepest_s]
    found = fit_line(sizes, services_s)
    assert min(found) >= 0
    resolution = steepest_s / 2**14 * float(sizes.sum())
    loss = pinball_loss(sizes, services_s, found, quantile)
    assert all(loss <= pinball_loss(sizes, services_s, line, quantile) + resolution for line in others)


@pytest.mark.parametrize(("fixed_s", "per_row_s"), [(0.0, 0.00165), (0.0033, 27e-6), (0.001, 10e-6), (0.005, 0.0)])
def test_the_line_of_noiseless_samples_is_exact(fixed_s: float, per_row_s: float) -> None:
    sizes = np.arange(1.0, 101.0)
    intercept_s, slope_s = fit_line(sizes, fixed_s + per_row_s * sizes)
    assert intercept_s == pytest.approx(fixed_s, abs=2e-5)
    assert slope_s == pytest.approx(per_row_s, abs=1e-6)


def test_about_a_tenth_of_the_samples_lie_above_the_line_at_any_size() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 200, 1024).astype(np.float64)
    services_s = (0.002 + 20e-6 * sizes) * rng.lognormal(0.0, 0.3, 1024)
    intercept_s, slope_s = fit_line(sizes, services_s)
    above = services_s > intercept_s + slope_s * sizes
    assert 0.08 <= above[sizes < 100].mean() <= 0.16
    assert 0.08 <= above[sizes >= 100].mean() <= 0.16


def test_sizes_that_are_all_alike_keep_the_known_intercept() -> None:
    sizes = np.full(50, 100.0)
    services_s = np.full(50, 0.005)
    assert fit_slope(sizes, services_s, 0.002) == pytest.approx((0.002, 30e-6))
    assert fit_slope(sizes, services_s, 0.009) == pytest.approx((0.005, 0.0))


def test_a_tenfold_slowdown_takes_two_dozen_batches() -> None:
    controller = Quantile(BUDGET_S, 1024)
    rng = random.Random(1)
    for _ in range(2000):
        size = rng.randint(controller.limit // 2 + 1, controller.limit)
        controller.record(size, 0.0002 + 20e-6 * size, size == controller.limit)
    assert controller.limit >= 250
    batches = 0
    while (service_s := 0.002 + 200e-6 * controller.limit) > 1.1 * BUDGET_S:
        controller.record(controller.limit, service_s, True)
        batches += 1
        assert batches <= 24


def test_a_tenfold_speed_up_takes_two_dozen_batches() -> None:
    controller = Quantile(BUDGET_S, 1024)
    for _ in range(500):
        controller.record(controller.limit, 0.002 + 200e-6 * controller.limit, True)
    assert controller.limit <= 22
    batches = 0
    while controller.limit < 250:
        controller.record(controller.limit, 0.0002 + 20e-6 * controller.limit, True)
        batches += 1
        assert batches <= 48


def test_growth_beyond_the_sizes_seen_is_at_most_twofold() -> None:
    controller = Quantile(BUDGET_S, 1024)
    largest = 1
    for _ in range(300):
        largest = max(largest, controller.limit)
        controller.record(controller.limit, 0.0035, True)
        assert controller.limit <= 2 * largest
    assert controller.limit > 100


def test_a_slowdown_is_seen_also_where_all_batches_are_of_one_size() -> None:
    controller = Quantile(BUDGET_S, 8)
    # So many that none of the first, smaller ones is left among the samples.
    for _ in range(1100):
        controller.record(controller.limit, 0.0006 * controller.limit, True)
    assert controller.limit == 8
    for _ in range(6):
        controller.record(controller.limit, 0.003 * controller.limit, True)
    assert controller.limit == 2


@pytest.mark.parametrize(("service_s", "limit"), [(0.5 * BUDGET_S, 2), (0.51 * BUDGET_S, 1), (1.01 * BUDGET_S, 1)])
def test_at_first_the_limit_doubles_with_a_batch_of_half_the_budget(service_s: float, limit: int) -> None:
    controller = Quantile(BUDGET_S, 1024)
    controller.record(1, service_s, True)
    assert controller.limit == limit


def test_answers_in_no_time_let_the_limit_grow() -> None:
    """A coarse clock may say so of most batches."""
    controller = Quantile(BUDGET_S, 1024)
    controller.record(1, 0.6 * BUDGET_S, True)
    for _ in range(1000):
        controller.record(controller.limit, 0.0, True)
    assert controller.limit == 1024


def test_batches_that_the_clock_shows_no_time_for_are_the_largest() -> None:
    controller = Quantile(BUDGET_S, 64)
    controller.record(1, 2 * BUDGET_S, True)  # from now on it fits lines
    for _ in range(2000):
        controller.record(controller.limit, 0.0, True)
    assert controller.limit == 64
