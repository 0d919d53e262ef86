"""A policy of one's own: the cheapest model that is good enough."""

from random import Random

from clipper.policies import Choice, Policy, QueryView, Totals


class Cheapest(Policy):
    """Asks the first model, in the order of linking, with a mean loss of at most ``max_loss``; the last if none has."""

    def __init__(self, max_loss: float = 0.1) -> None:
        self.max_loss = max_loss

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        for model in models:
            # A model that was never scored has a mean loss of 0: it is tried.
            if totals.number(model, "loss") <= self.max_loss * totals.number(model, "scored"):
                return Choice((model,), (1.0,))
        return Choice(models[-1:], (1.0,))
