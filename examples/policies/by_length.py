"""A policy of one's own that goes by the query: for short texts another model may be right than for long ones."""

from collections.abc import Mapping
from random import Random

from clipper.policies import Choice, Increments, JudgedQuery, Policy, QueryView, Totals


class ByLength(Policy):
    """Asks the model that has lost least on texts of about this length; now and then another, by chance."""

    keeps_input = True  # for observe

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        others = 0.05 / len(models)
        if random.random() < 0.05:
            return Choice((random.choice(models),), (others,))
        size = size_of(query)
        mean_losses = [
            totals.number(model, f"{size} loss") / max(totals.number(model, f"{size} scored"), 1.0) for model in models
        ]
        return Choice((models[mean_losses.index(min(mean_losses))],), (0.95 + others,))

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        size = size_of(query)
        scored = {(model, f"{size} scored"): 1.0 for model in losses}
        return scored | {(model, f"{size} loss"): loss for model, loss in losses.items()}


def size_of(query: QueryView) -> str:
    return "short" if len(str(query.input)) < 80 else "long"
