"""``linucb``: asks the model that may be the best for a query like this one."""

from dataclasses import dataclass

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.policies.distribution import uniform_over_best
from clipper.learning.policies.linear import Beliefs, Linear


@dataclass(frozen=True, slots=True, eq=False)
class LinUcb(Linear):
    """Asks the model whose loss on a query with these features may be the least, within its confidence bounds.

        argmin_m  theta_m' x - exploration * s * sqrt(x' inv(A_m) x)

    Disjoint LinUCB (Li, Chu, Langford, Schapire, 2010, Algorithm 1), for losses and with forgetting. See ``linear`` for
    A, theta and s. Of equals, such as all models before the first feedback, one is chosen at random.

    Apart from that, the state alone decides, and the share is 1. So until feedback comes all equal queries go to one
    model, and the decision log cannot tell what another policy would have lost. ``linear_thompson`` has neither fault.

    Args:
        exploration: how far below its mean a loss is assumed to be possible, in standard errors; above 0, at most 10.
    """

    exploration: float = 0.5

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, 0, 10, above=True)

    def shares(self, believed: Beliefs) -> list[float]:
        """Return 1 for the best model, or equal parts if several are."""
        return uniform_over_best((self.exploration * believed.errors - believed.means).tolist())
