"""``single``: the application's first model answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from clipper.learning.policies.policy import LATER_LOSS, Choice, Policy, QueryView, Totals

# The loss of the last of many links. Each is as much worse than the one before, so that the time of a shared device
# goes to a middle link if each takes half as long as the one before, and not in halves to the first and the last.
MOST_LOSS = 0.5


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
        step = min(LATER_LOSS, MOST_LOSS / max(len(models) - 1, 1))
        return [step * place for place in range(len(models))]
