"""Win probabilities of Beta draws, against closed forms and against draws."""

import numpy as np
import pytest

from clipper.learning.decisions.evaluation.beliefs import propensity, win_probabilities


def test_two_of_known_probabilities() -> None:
    # P(X > Y) for X ~ Beta(a, 1), Y ~ Beta(b, 1) is a / (a + b).
    assert win_probabilities(((3.0, 1.0), (1.0, 1.0))) == pytest.approx((0.75, 0.25), rel=1e-4)
    assert win_probabilities(((1.0, 1.0),) * 5) == pytest.approx((0.2,) * 5)
    assert win_probabilities(((7.0, 3.0),)) == (1.0,)
    # 1 - (1 - x)^b the other way about.
    assert win_probabilities(((1.0, 5.0), (1.0, 1.0))) == pytest.approx((1 / 6, 5 / 6), rel=1e-4)


@pytest.mark.parametrize(
    "beliefs",
    [
        ((10.0, 20.0), (12.0, 18.0), (3.0, 9.0)),
        ((900.0, 100.0), (910.0, 95.0), (50.0, 9.0)),
        ((0.5, 0.5), (1.0, 1.0), (2.0, 2.0)),
        ((1400.0, 2.0), (1380.0, 3.0), (1.0, 1.0)),
        ((1.0, 3000.0), (2.0, 3000.0), (1.0, 1500.0)),
        ((100_000.0, 100_000.0), (99_900.0, 100_100.0), (1.0, 1.0)),
        ((1e6, 1.0), (0.5, 0.5), (30.0, 1.0)),
    ],
)
def test_as_often_as_in_draws(beliefs: tuple[tuple[float, float], ...]) -> None:
    random, draws = np.random.default_rng(3), 200_000
    drawn = np.array([random.beta(a, b, draws) for a, b in beliefs])
    won = np.bincount(drawn.argmax(axis=0), minlength=len(beliefs)) / draws
    found = np.array(win_probabilities(beliefs))
    assert found.shape == won.shape
    assert found.sum() == pytest.approx(1.0)
    assert np.abs(found - won).max() < 4 * 0.5 / np.sqrt(draws) + 1e-3


def test_a_share_goes_as_it_is_and_beliefs_that_do_not_fit_tell_nothing() -> None:
    assert propensity("a", ("a", "b"), 0.3, None) == 0.3
    assert propensity("b", ("a", "b"), 1.0, ((1.0, 1.0), (3.0, 1.0))) == pytest.approx(0.75, rel=1e-4)
    assert propensity("c", ("a", "b"), 1.0, ((1.0, 1.0), (3.0, 1.0))) == 0.0
    assert propensity("a", ("a", "b"), 1.0, ((1.0, 1.0),)) == 0.0
    # A belief whose density is not bounded is not integrated.
    assert propensity("a", ("a", "b"), 1.0, ((0.4, 1.0), (1.0, 1.0))) == 0.0
