"""A policy of one's own that asks a second model, once it has seen what the first has answered."""

from collections.abc import Mapping
from random import Random

from clipper.policies import Choice, Outlook, Policy, QueryView, Totals


class SecondOpinion(Policy):
    """Asks the first model, in the order of linking, and the second too where the first answers what is ``serious``.

    The answer is the second's. If there is no time for it, or it does not come in time, it is the first's.
    """

    def __init__(self, serious: str = "true") -> None:
        self.serious = serious.encode()

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        return Choice(models[:1], (1.0,))

    def next(
        self,
        choice: Choice,
        outputs: Mapping[str, bytes],
        totals: Totals,
        query: QueryView,
        outlook: Outlook,
        random: Random,
    ) -> Choice | None:
        (first, *others) = choice.models
        second = next(iter(outlook.expected_s), None)
        if others or second is None or outputs.get(first, self.serious) != self.serious:
            return None
        return Choice((first, second), (0.0, 1.0))
