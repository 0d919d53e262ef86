"""Draws a model by probabilities that are prepared for a draw at each query."""

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from clipper.learning.policies.policy import Choice


class Distribution:
    """Draws a model in proportion to its weight.

    Args:
        weights: a weight of at least 0 for each model, with a sum above 0. A model with weight 0 is never drawn.
        among: the value of ``among`` in the choices.

    Attributes:
        choices: a choice for each model, with the model's probability as its share.
    """

    __slots__ = ("_bounds", "choices")

    def __init__(self, models: Sequence[str], weights: Sequence[float], among: tuple[str, ...] | None = None) -> None:
        sums = list(accumulate(weights))
        total = sums[-1]
        self._bounds = [below / total for below in sums]  # the last bound is exactly 1, above any random()
        self.choices = tuple(Choice((model,), (weight / total,), among=among) for model, weight in zip(models, weights))

    def draw(self, random: Random) -> Choice:
        return self.choices[bisect(self._bounds, random.random())]


def uniform_over_best(scores: Sequence[float]) -> list[float]:
    """Return equal probabilities for all models with the highest score, and 0 for the others."""
    best = max(scores)
    count = scores.count(best)
    return [1.0 / count if score == best else 0.0 for score in scores]
