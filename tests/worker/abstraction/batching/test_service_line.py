import math
import random
import statistics

import pytest

from clipper.worker.abstraction.batching.service_line import ServiceLine


def line_of(samples: list[tuple[int, float]]) -> ServiceLine:
    line = ServiceLine()
    for size, service_s in samples:
        line.add(size, service_s)
    return line


MIXED = [1, 40, 10, 30, 5, 20, 50]


def test_it_tells_the_fixed_time_from_the_time_per_row() -> None:
    line = line_of([(size, 0.003 + 30e-6 * size) for size in MIXED])
    assert line.terms() == pytest.approx((0.003, 30e-6))
    assert line.is_known
    assert line.at(100) == pytest.approx(0.006)


def test_with_nothing_known_it_predicts_nothing() -> None:
    assert ServiceLine().at(100) == 0.0


def test_sizes_that_are_all_alike_count_as_time_per_row() -> None:
    line = line_of([(10, 0.005)] * 20)
    assert line.terms() == pytest.approx((0.0, 0.0005))
    assert not line.is_known


def test_the_fixed_time_that_was_known_outlives_the_spread() -> None:
    line = line_of([(size, 0.003 + 30e-6 * size) for size in MIXED])
    line.terms()
    for _ in range(1000):
        line.add(50, 0.0045)
    assert line.terms() == pytest.approx((0.003, 30e-6), rel=0.01)


def test_times_that_fall_with_the_size_count_as_fixed() -> None:
    fixed_s, per_row_s = line_of([(size, 0.005 - 10e-6 * size) for size in MIXED]).terms()
    assert per_row_s == 0.0
    assert fixed_s == pytest.approx(0.005, rel=0.1)


def test_it_follows_a_new_speed() -> None:
    line = line_of([(size, 0.001 + 10e-6 * size) for size in MIXED * 10])
    for size in MIXED * 60:
        line.add(size, 0.002 + 20e-6 * size)
    assert line.terms() == pytest.approx((0.002, 20e-6), rel=0.05)


def test_reset_forgets() -> None:
    line = line_of([(size, 0.003 + 30e-6 * size) for size in MIXED])
    line.reset()
    assert line.terms() == (0.0, 0.0)
    assert not line.is_known


@pytest.mark.parametrize(("fixed_s", "target_s"), [(0.001, 0.006), (0.004, 0.006), (0.008, 0.012)])
def test_the_target_is_the_budget_or_half_as_much_again_as_the_fixed_time(fixed_s: float, target_s: float) -> None:
    line = line_of([(size, fixed_s + 30e-6 * size) for size in MIXED])
    assert line.target_s(0.006) == pytest.approx(target_s)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
def test_nine_of_ten_batches_are_within_the_spread(noise: float) -> None:
    rng = random.Random(1)
    line = ServiceLine()
    spreads, above = [], 0
    for _ in range(4000):
        size = rng.randint(1, 100)
        service_s = (0.003 + 30e-6 * size) * rng.lognormvariate(0.0, noise)
        above += service_s > line.spread * line.at(size)
        line.compare(size, service_s)
        line.add(size, service_s)
        spreads.append(line.spread)
    assert statistics.mean(spreads[1000:]) == pytest.approx(math.exp(1.28 * noise), abs=0.04)
    assert noise == 0 or 0.05 < above / 4000 < 0.15


def test_the_target_grows_with_the_spread() -> None:
    line = line_of([(size, 0.004 + 30e-6 * size) for size in MIXED])
    assert line.target_s(0.001) == pytest.approx(0.006)
    line.spread = 1.2
    assert line.target_s(0.001) == pytest.approx(0.0072)


def test_the_terms_are_told_apart_from_the_sixth_batch_on() -> None:
    samples = [(size, 0.003 + 30e-6 * size) for size in MIXED[:6]]
    early = line_of(samples[:5])
    assert not early.is_known and early.terms()[0] == 0.0
    assert line_of(samples).is_known


def test_the_spread_moves_up_nine_times_as_far_as_down_and_is_bounded() -> None:
    line = line_of([(10, 0.005)])
    line.compare(10, 0.006)
    assert line.spread == pytest.approx(1.09)
    line.compare(10, 0.005)
    assert line.spread == pytest.approx(1.09 * 0.99)
    for _ in range(100):
        line.compare(10, 1.0)
    assert line.spread == 1.6
    for _ in range(1000):
        line.compare(10, 0.001)
    assert line.spread == 1.0
