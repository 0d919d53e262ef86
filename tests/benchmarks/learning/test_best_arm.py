"""The table of `make best-arm`: its lower bound, and a test played to its end."""

import pytest

from benchmarks.learning.best_arm import Game, divergence, ever_misses, lower_bound, play


def test_the_lower_bound_of_two_models_is_that_of_the_best_split() -> None:
    gains = []
    for step in range(1, 2000):
        share = step / 2000
        middle = share * 0.1 + (1 - share) * 0.2
        gains.append(share * divergence(0.1, middle) + (1 - share) * divergence(0.2, middle))
    assert lower_bound((0.1, 0.2), 0.95) == pytest.approx(divergence(0.05, 0.95) / max(gains), rel=1e-4)


def test_models_that_are_clearly_worse_add_little_to_it() -> None:
    two, three = lower_bound((0.1, 0.2), 0.95), lower_bound((0.1, 0.2, 0.9), 0.95)
    assert two < three < 1.1 * two


@pytest.mark.parametrize("shares", ["best_arm", "equal"])
def test_a_test_is_played_to_its_end(shares: str) -> None:
    result = play(Game("easy", (0.0, 1.0), delay=5), shares, 1)
    assert not result.is_wrong and 0 < result.feedback <= 60 and result.feedback % 5 == 0


def test_a_sequence_that_is_asked_for_more_than_can_be_misses() -> None:
    assert sum(ever_misses(0.3, 0.0, 0.95, seed) for seed in range(5)) > 0
