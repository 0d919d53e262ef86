"""Draws in proportion to weights."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.policies.distribution import Distribution, uniform_over_best

weights = st.lists(st.floats(0, 1e6), min_size=1, max_size=8).filter(lambda found: sum(found) > 1e-3)


class Fixed(Random):
    """A source of chance that always says the same."""

    value = 0.0

    def random(self) -> float:
        return self.value


@given(weights)
def test_shares_add_up_to_one(weights: list[float]) -> None:
    models = [f"m{index}" for index in range(len(weights))]
    choices = Distribution(models, weights).choices
    assert sum(choice.shares[0] for choice in choices) == pytest.approx(1.0)
    assert [choice.models for choice in choices] == [(model,) for model in models]


@given(weights, st.sampled_from([0.0, 0.5, 1 - 2**-53]))
def test_a_model_without_weight_is_never_drawn(weights: list[float], value: float) -> None:
    models = [f"m{index}" for index in range(len(weights))]
    random = Fixed()
    random.value = value
    drawn = Distribution(models, weights).draw(random)
    assert weights[models.index(drawn.models[0])] > 0


def test_draws_follow_the_weights() -> None:
    distribution, random = Distribution("abc", [1, 0, 3]), Random(0)
    drawn = [distribution.draw(random).models[0] for _ in range(4000)]
    # The standard deviation of a count of 1,000 in 4,000 is 27.
    assert abs(drawn.count("a") - 1000) < 4 * 27
    assert drawn.count("b") == 0


def test_equals_share() -> None:
    assert uniform_over_best([1.0, 3.0, 3.0]) == [0.0, 0.5, 0.5]
