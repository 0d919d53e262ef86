"""``thompson``: asks each model with the probability that it is the best."""

from dataclasses import dataclass
from random import Random

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.totals import LOSS, SCORED
from clipper.learning.policies.policy import Choice, Policy, QueryView, Totals


@dataclass(frozen=True, slots=True, eq=False)
class Thompson(Policy):
    """Draws each model's mean reward from its posterior, and asks the model with the highest draw.

    The posterior is ``Beta(prior + n_i - loss_i, prior + loss_i)``, with n_i the times that model i was scored:
    Thompson sampling for rewards of 0 and 1 (Agrawal and Goyal: "Analysis of Thompson Sampling for the Multi-armed
    Bandit Problem", 2012); a loss between counts in part as each. With a half-life both are discounted, so a model that
    is no longer asked becomes uncertain again, and is tried.

    The probability of a choice has no closed form: its share is 1, and it holds the beliefs, which determine it.

    Args:
        prior: successes, and failures, that every model begins with; above 0, at most 1,000.
    """

    default_half_life = 200
    has_budget = True

    prior: float = 4.0

    def __post_init__(self) -> None:
        check_number("prior", self.prior, 0, 1000, above=True)

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        beliefs: list[tuple[Choice, float, float]] | None = totals.memo.get((self, models))
        if beliefs is None:
            beliefs = totals.memo[self, models] = self.beliefs(models, totals)
        drawn = [random.betavariate(successes, failures) for _, successes, failures in beliefs]
        return beliefs[drawn.index(max(drawn))][0]

    def beliefs(self, models: tuple[str, ...], totals: Totals) -> list[tuple[Choice, float, float]]:
        """Return for each model its choice and the two parameters of its Beta distribution."""
        beliefs = []
        for model in models:
            failures = totals.number(model, LOSS)
            # Rounding may push a sum of discounted losses slightly above their count.
            successes = max(totals.number(model, SCORED) - failures, 0.0)
            beliefs.append((self.prior + successes, self.prior + failures))
        held = tuple(beliefs)
        return [(Choice((model,), (1.0,), held, models), *belief) for model, belief in zip(models, held)]
