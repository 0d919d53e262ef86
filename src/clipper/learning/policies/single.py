"""``single``: the application's first model answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from clipper.learning.policies.policy import Choice, Policy, QueryView, Totals, in_order_of_links


@dataclass(frozen=True, slots=True, eq=False)
class Single(Policy):
    """Asks the model that was linked first. It learns nothing; the usual counts show how good the model is.

    While that model cannot answer in time, the next one that can is asked, in the order of the links.
    """

    learns = False
    has_budget = True
    goes_by = "nothing"

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        choice: Choice | None = totals.memo.get((self, models))
        if choice is None:
            choice = totals.memo[self, models] = Choice(models[:1], (1.0,))
        return choice

    def expected_losses(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        """Return losses in the order of the links, of which nothing else is known."""
        return in_order_of_links(len(models))
