"""Policies that draw one model for each query, by probabilities that the state alone determines."""

from abc import abstractmethod
from random import Random

from clipper.learning.policies.distribution import Distribution
from clipper.learning.policies.policy import Choice, Policy, QueryView, Totals


class Drawn(Policy):
    """Draws a model by probabilities that are computed once for a state."""

    @abstractmethod
    def probabilities(self, models: tuple[str, ...], totals: Totals) -> list[float]:
        """Return the probability of each model, or a weight in proportion to it, (models,)."""
        ...

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        distribution: Distribution = totals.memo.get((self, models)) or self.distribution(models, totals)
        return distribution.draw(random)

    def distribution(self, models: tuple[str, ...], totals: Totals) -> Distribution:
        """Return the models' distribution, and keep it with the state."""
        distribution = totals.memo[self, models] = Distribution(models, self.probabilities(models, totals))
        return distribution
