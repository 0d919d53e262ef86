import random

import numpy as np
import pytest

from clipper.worker.abstraction.batching.quantile_refit import RefittedQuantile, fit_slope

BUDGET_S = 0.006


def test_sizes_that_are_all_alike_keep_the_known_intercept() -> None:
    sizes = np.full(50, 100.0)
    services_s = np.full(50, 0.005)
    assert fit_slope(sizes, services_s, 0.002) == pytest.approx((0.002, 30e-6))
    assert fit_slope(sizes, services_s, 0.009) == pytest.approx((0.005, 0.0))


def test_a_tenfold_slowdown_takes_two_dozen_batches() -> None:
    controller = RefittedQuantile(BUDGET_S, 1024)
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
    controller = RefittedQuantile(BUDGET_S, 1024)
    for _ in range(500):
        controller.record(controller.limit, 0.002 + 200e-6 * controller.limit, True)
    assert controller.limit <= 22
    batches = 0
    while controller.limit < 250:
        controller.record(controller.limit, 0.0002 + 20e-6 * controller.limit, True)
        batches += 1
        assert batches <= 48


def test_growth_beyond_the_sizes_seen_is_at_most_twofold() -> None:
    controller = RefittedQuantile(BUDGET_S, 1024)
    largest = 1
    for _ in range(300):
        largest = max(largest, controller.limit)
        controller.record(controller.limit, 0.0035, True)
        assert controller.limit <= 2 * largest
    assert controller.limit > 100


def test_a_slowdown_is_seen_also_where_all_batches_are_of_one_size() -> None:
    controller = RefittedQuantile(BUDGET_S, 8)
    # So many that none of the first, smaller ones is left among the samples.
    for _ in range(1100):
        controller.record(controller.limit, 0.0006 * controller.limit, True)
    assert controller.limit == 8
    for _ in range(6):
        controller.record(controller.limit, 0.003 * controller.limit, True)
    assert controller.limit == 2


@pytest.mark.parametrize(("service_s", "limit"), [(0.5 * BUDGET_S, 2), (0.51 * BUDGET_S, 1), (1.01 * BUDGET_S, 1)])
def test_at_first_the_limit_doubles_with_a_batch_of_half_the_budget(service_s: float, limit: int) -> None:
    controller = RefittedQuantile(BUDGET_S, 1024)
    controller.record(1, service_s, True)
    assert controller.limit == limit


def test_answers_in_no_time_let_the_limit_grow() -> None:
    """A coarse clock may say so of most batches."""
    controller = RefittedQuantile(BUDGET_S, 1024)
    controller.record(1, 0.6 * BUDGET_S, True)
    for _ in range(1000):
        controller.record(controller.limit, 0.0, True)
    assert controller.limit == 1024


def test_batches_that_the_clock_shows_no_time_for_are_the_largest() -> None:
    controller = RefittedQuantile(BUDGET_S, 64)
    controller.record(1, 2 * BUDGET_S, True)  # from now on it fits lines
    for _ in range(2000):
        controller.record(controller.limit, 0.0, True)
    assert controller.limit == 64
