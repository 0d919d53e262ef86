"""``ucb1``: asks the model that may be the best, since little is known about some models."""

import math
from dataclasses import dataclass

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.totals import LOSS, SCORED
from clipper.learning.policies.distribution import uniform_over_best
from clipper.learning.policies.drawn import Drawn
from clipper.learning.policies.policy import Totals


@dataclass(frozen=True, slots=True, eq=False)
class Ucb1(Drawn):
    """Asks the model with the highest upper confidence bound on its mean reward (1 - loss).

        index = mean reward + exploration * sqrt(2 ln(n) / n_i)

    with n_i the times that model i was scored, n their sum. Without forgetting it is Auer, Cesa-Bianchi, Fischer:
    "Finite-time Analysis of the Multiarmed Bandit Problem" (2002). With a half-life both counts are discounted, which
    is D-UCB with xi = 1/2 (Garivier and Moulines: "On Upper-Confidence Bound Policies for Non-Stationary Bandit
    Problems", 2008). Models that were never scored come first; of equals, one at random.

    Feedback alone decides: until it comes, all queries go to one model. If feedback is late, ``thompson`` or ``exp3``
    spread queries.

    Args:
        exploration: above 0, at most 10. The regret bound holds at 1; less explores less than the bound demands.
    """

    default_half_life = 500
    has_budget = True

    exploration: float = 0.07

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, 0, 10, above=True)

    def probabilities(self, models: tuple[str, ...], totals: Totals) -> list[float]:
        return uniform_over_best(self.indices(models, totals))

    def indices(self, models: tuple[str, ...], totals: Totals) -> list[float]:
        """Return the index of each model, (models,)."""
        scored = [totals.number(model, SCORED) for model in models]
        # Discounted counts may be below 1, where a logarithm is no width.
        log_scored = math.log(max(sum(scored), 1.0))
        return [
            1.0 - totals.number(model, LOSS) / times + self.exploration * math.sqrt(2 * log_scored / times)
            if times > 0
            else math.inf
            for model, times in zip(models, scored)
        ]
