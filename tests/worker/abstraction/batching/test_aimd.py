"""The paper's rule, by its own sentence: a fixed step up until a batch exceeds the SLO, then a tenth down."""

import pytest

from clipper.worker.abstraction.batching.aimd import Aimd

SLO_S = 0.02


def test_it_grows_by_a_fixed_step_until_the_slo_then_backs_off_by_a_tenth() -> None:
    controller, limits = Aimd(SLO_S, 1024), []
    for _ in range(12):
        limits.append(controller.limit)
        controller.record(controller.limit, 0.001 * controller.limit, True)
    assert limits == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 18]


@pytest.mark.parametrize(
    ("size", "service_s", "was_full", "limit"),
    [
        (101, SLO_S, True, 103),  # the SLO itself is met
        (101, 0.0201, True, 90),
        (101, 60.0, True, 90),  # by how much it is missed does not matter
        (5, 0.0201, False, 90),  # nor how large the batch was
        (100, 0.001, False, 101),  # smaller than allowed: says nothing about larger ones
        (150, 0.0201, True, 101),  # sent before the last back-off
    ],
)
def test_one_batch(size: int, service_s: float, was_full: bool, limit: int) -> None:
    controller = Aimd(SLO_S, 1024)
    controller.limit = 101
    controller.record(size, service_s, was_full)
    assert controller.limit == limit


def test_it_never_leaves_1_to_max_batch() -> None:
    controller = Aimd(SLO_S, 4)
    for _ in range(5):
        controller.record(controller.limit, 0.001, True)
    assert controller.limit == 4
    for _ in range(20):
        controller.record(controller.limit, 1.0, True)
    assert controller.limit == 1
