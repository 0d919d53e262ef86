"""``epsilon_greedy``: asks the best model nearly always, and a random model now and then."""

from dataclasses import dataclass

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.totals import LOSS, SCORED
from clipper.learning.policies.distribution import uniform_over_best
from clipper.learning.policies.drawn import Drawn
from clipper.learning.policies.policy import Totals


@dataclass(frozen=True, slots=True, eq=False)
class EpsilonGreedy(Drawn):
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

    def probabilities(self, models: tuple[str, ...], totals: Totals) -> list[float]:
        scored = [totals.number(model, SCORED) for model in models]
        rewards = [
            -(totals.number(model, LOSS) / times if times > 0 else totals.mean_loss)
            for model, times in zip(models, scored)
        ]
        greedy = uniform_over_best(rewards)
        return [(1 - self.epsilon) * share + self.epsilon / len(models) for share in greedy]
