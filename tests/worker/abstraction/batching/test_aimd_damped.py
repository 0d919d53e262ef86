import pytest

from clipper.worker.abstraction.batching.aimd_damped import DampedAimd

BUDGET_S = 0.006
FIT_S = 0.005  # within the budget, over half of it
MISS_S = 0.0063
FAR_S = 0.060


def at_limit(limit: int, max_batch: int = 1024) -> DampedAimd:
    """A controller that has doubled to ``limit``, a power of two, with batches that took no more time than a call."""
    controller = DampedAimd(BUDGET_S, max_batch)
    while controller.limit < limit:
        controller.record(controller.limit, 20e-6 * controller.limit, True)
    assert controller.limit == limit
    return controller


def test_it_doubles_while_a_full_batch_takes_at_most_half_the_budget() -> None:
    controller = DampedAimd(BUDGET_S, 1024)
    limits = []
    for service_s in (0.0001, 0.001, 0.003, 0.0031, 0.0001):
        controller.record(controller.limit, service_s, True)
        limits.append(controller.limit)
    assert limits == [2, 4, 8, 8, 16]


def test_it_stops_at_max_batch() -> None:
    controller = DampedAimd(BUDGET_S, 100)
    for _ in range(50):
        controller.record(controller.limit, 0.0001, True)
    assert controller.limit == 100


def test_it_grows_by_a_sixteenth_after_eight_full_batches_with_room() -> None:
    controller = at_limit(128)
    for _ in range(7):
        controller.record(128, FIT_S, True)
    assert controller.limit == 128
    controller.record(128, FIT_S, True)
    assert controller.limit == 136


def test_it_holds_if_the_slowest_of_the_eight_leaves_no_room() -> None:
    controller = at_limit(128)
    for service_s in (*[FIT_S] * 7, 0.00599):
        controller.record(128, service_s, True)
    assert controller.limit == 128


def test_a_batch_smaller_than_the_limit_says_nothing_of_larger_ones() -> None:
    controller = at_limit(128)
    for _ in range(100):
        controller.record(64, 0.0001, True)
    assert controller.limit == 128


@pytest.mark.parametrize(
    ("services_s", "limit"),
    [
        ([MISS_S], 128),
        ([FAR_S], 128),
        ([MISS_S, MISS_S], 115),
        ([FAR_S, FAR_S], 64),
        ([FAR_S, MISS_S], 115),
        ([MISS_S, FAR_S], 115),
        ([0.008, 0.008], 96),
        ([FAR_S, FIT_S, FIT_S, FAR_S], 64),
        ([FAR_S, FIT_S, FIT_S, FIT_S, FAR_S], 128),
        ([FAR_S, FAR_S, FAR_S], 64),
    ],
)
def test_it_backs_off_by_the_lesser_of_two_misses_among_four(services_s: list[float], limit: int) -> None:
    controller = at_limit(128)
    for service_s in services_s:
        controller.record(controller.limit, service_s, False)
    assert controller.limit == limit


def test_a_batch_sent_before_a_back_off_does_not_count_again() -> None:
    controller = at_limit(128)
    for _ in range(2):
        controller.record(128, FAR_S, True)
    for size in (128, 128, 64):
        controller.record(size, FAR_S, True)
    assert controller.limit == 64
    controller.record(64, FAR_S, True)
    assert controller.limit == 32


def test_a_tenfold_slowdown_takes_a_dozen_batches() -> None:
    controller = at_limit(256)
    batches, spent_s = 0, 0.0
    while (service_s := 0.002 + 200e-6 * controller.limit) > BUDGET_S:
        controller.record(controller.limit, service_s, True)
        batches, spent_s = batches + 1, spent_s + service_s
        assert batches <= 14
    assert spent_s < 0.5


def test_an_expectation_that_was_wrong_is_tried_again() -> None:
    """Noise may make a flat model look as if each row cost much; the limit must not stay small for good."""
    controller = DampedAimd(BUDGET_S, 1024)
    for size, service_s in ((1, 0.003), (2, 0.0055), (1, 0.003), (2, 0.0055), (1, 0.003), (2, 0.0055)) * 10:
        controller.record(size, service_s, size == controller.limit)
    assert controller.limit <= 2
    for _ in range(3000):
        controller.record(controller.limit, FIT_S, True)
    assert controller.limit > 64


def test_two_misses_at_a_limit_of_two_lead_back_to_one() -> None:
    controller = at_limit(2)
    for _ in range(2):
        controller.record(2, MISS_S, True)
    assert controller.limit == 1


def test_a_slow_batch_counts_in_its_own_window_alone() -> None:
    controller = at_limit(128)
    for service_s in (*[FIT_S] * 7, 0.00599):
        controller.record(128, service_s, True)
    assert controller.limit == 128
    for _ in range(8):
        controller.record(128, FIT_S, True)
    assert controller.limit == 136


def test_at_an_always_missed_limit_of_one_two_are_tried_now_and_then() -> None:
    """The model may have become such that most of its time is fixed; only two rows show that."""
    controller = DampedAimd(BUDGET_S, 1024)
    tried = 0
    for _ in range(1000):
        tried += controller.limit > 1
        controller.record(controller.limit, 0.0005 + 0.0058 * controller.limit, True)
    assert 10 <= tried <= 100


def test_at_a_limit_of_1_it_tries_2_again_now_and_then() -> None:
    """Of a model whose every row takes too long; one day that may have changed."""
    controller, limits = DampedAimd(0.02, 64), []
    for _ in range(1000):
        controller.record(controller.limit, 0.1 * controller.limit, True)
        limits.append(controller.limit)
    assert limits.count(1) > 900 and 2 in limits[-300:]
