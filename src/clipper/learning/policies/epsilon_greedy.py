"""``epsilon_greedy``: asks the best model nearly always, and a random model now and then."""

from dataclasses import dataclass
from random import Random

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.totals import LOSS, SCORED
from clipper.learning.policies.distribution import Distribution, uniform_over_best
from clipper.learning.policies.policy import Choice, Policy, QueryView, Totals


@dataclass(frozen=True, slots=True, eq=False)
class EpsilonGreedy(Policy):
    """Asks a random model with probability ``epsilon``, else the one with the least mean loss (Sutton and Barto, 2.2).

    A model that was never scored counts as average. So a new model is tried by chance, and does not get all queries
    until its first feedback comes.

    Exploration costs ``epsilon`` times the models' mean excess loss, for every query for ever.

    Args:
        epsilon: probability of a random model, from 0 to 1.
    """

    default_half_life = 100
    has_budget = True

    epsilon: float = 0.02

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon, 0, 1)

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        distribution: Distribution | None = totals.memo.get((self, models))
        if distribution is None:
            distribution = totals.memo[self, models] = Distribution(models, self.probabilities(models, totals))
        return distribution.draw(random)

    def probabilities(self, models: tuple[str, ...], totals: Totals) -> list[float]:
        """Return the probability of each model, (models,)."""
        rewards = [-_mean_loss(model, totals) for model in models]
        greedy = uniform_over_best(rewards)
        return [(1 - self.epsilon) * share + self.epsilon / len(models) for share in greedy]


def _mean_loss(model: str, totals: Totals) -> float:
    scored = totals.number(model, SCORED)
    return totals.number(model, LOSS) / scored if scored > 0 else totals.mean_loss
