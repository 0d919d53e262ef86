"""``single``: the application's first model answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from clipper.learning.policies.policy import Choice, Policy, QueryView, Totals

# How much worse than the first link the second is assumed to be, in loss: so the first one is asked down to a chance of
# about a fifth. Of those behind it each is a little worse, which keeps their order.
LATER_LOSS, NEXT_LOSS = 0.2, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Single(Policy):
    """Asks the model that was linked first. It learns nothing; the usual counts show how good the model is.

    While that model cannot answer in time, the next one that can is asked, in the order of the links.
    """

    learns = False
    goes_by = "nothing"

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        choice: Choice | None = totals.memo.get((self, models))
        if choice is None:
            choice = totals.memo[self, models] = Choice(models[:1], (1.0,))
        return choice

    def expected_losses(self, models: tuple[str, ...], totals: Totals, query: QueryView) -> Sequence[float]:
        """Return losses in the order of the links, of which nothing else is known."""
        return [0.0, *(LATER_LOSS + NEXT_LOSS * place for place in range(len(models) - 1))]
