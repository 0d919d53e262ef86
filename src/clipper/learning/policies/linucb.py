"""``linucb``: asks the model that may be the best for a query like this one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.policies.distribution import Distribution, uniform_over_best
from clipper.learning.policies.linear import beliefs, expected_losses, lessons
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView, Totals


@dataclass(frozen=True, slots=True, eq=False)
class LinUcb(Policy):
    """Asks the model whose loss on a query with these features may be the least, within its confidence bounds.

        argmin_m  theta_m' x - exploration * s * sqrt(x' inv(A_m) x)

    Disjoint LinUCB (Li, Chu, Langford, Schapire, 2010, Algorithm 1), for losses and with forgetting. See ``linear`` for
    A, theta and s. Of equals, such as all models before the first feedback, one is chosen at random.

    Apart from that, the state alone decides, and the share is 1. So until feedback comes all equal queries go to one
    model, and the decision log cannot tell what another policy would have lost. ``linear_thompson`` has neither fault.

    Args:
        exploration: how far below its mean a loss is assumed to be possible, in standard errors; above 0, at most 10.
    """

    needs_features = True
    has_budget = True
    goes_by = "query"

    exploration: float = 0.5

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, 0, 10, above=True)

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        return Distribution(models, self.probabilities(models, totals, query)).draw(random)

    def probabilities(self, models: Sequence[str], totals: Totals, query: QueryView) -> list[float]:
        """Return 1 for the best model, or equal parts if several are."""
        believed = beliefs(self, tuple(models), totals, query)
        return uniform_over_best((self.exploration * believed.errors - believed.means).tolist())

    def expected_losses(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        return expected_losses(self, models, totals, query)

    def loss_errors(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        return beliefs(self, models, totals, query).errors.tolist()  # type: ignore[no-any-return]

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        return lessons(losses, query)
