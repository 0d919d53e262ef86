"""Ramps: newcomers get a fixed share of the queries until feedback has judged them, under any policy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from clipper.learning.policies.policy import Choice


@dataclass(frozen=True, slots=True)
class Ramp:
    """Splits queries at random into the newcomers' and those for which the policy selects without the newcomers.

    With k newcomers and the share r, each gets r / k of the queries. The others, 1 - r, are as if there were no
    newcomers, so an application loses at most r times what the newcomers are worse by. Since chance alone splits
    queries, comparing the losses of both groups compares the newcomer's effect, and nothing else.

    **Probabilities.** If one model answers, a newcomer's share is r / k, and any other's is 1 - r times the policy's
    own probability. The same holds if beliefs state that probability; these are of the models without newcomers.

    **Joint answers.** If several models answer together, a newcomer does not answer its queries alone: it is one of the
    models that the policy asks, in the place of the version that it came after, if there is one, with the weight that
    the policy gives it. It has no part in other queries.

    Args:
        newcomers: by name, the name of the link whose place the newcomer takes; None if it has a place of its own.
        share: the share of all queries for all newcomers together; above 0, below 1.
    """

    newcomers: Mapping[str, str | None]
    share: float

    def select(
        self,
        models: tuple[str, ...],
        select: Callable[[tuple[str, ...]], Choice],
        random: Random,
        *,
        is_joint: bool,
    ) -> Choice:
        """Return the choice of a query's models.

        Args:
            models: the models that are not newcomers; at least one.
            is_joint: whether the policy has all its models scored, and so makes joint answers.
        """
        drawn = random.random()
        if drawn >= self.share:
            choice = select(models)
            if len(choice.models) > 1:  # their shares are weights in the answer
                return choice
            probability = (1.0 - self.share) * choice.shares[0]
            return Choice(choice.models, (probability,), choice.beliefs, choice.among)
        each = self.share / len(self.newcomers)
        name = tuple(self.newcomers)[min(int(drawn / each), len(self.newcomers) - 1)]
        if is_joint:
            choice = select(self.after(models, name))
            if len(choice.models) > 1:
                return choice
        return Choice((name,), (each,))

    def after(self, models: tuple[str, ...], name: str) -> tuple[str, ...]:
        """Return the models once a newcomer is through. It also takes its place in the order, which decides ties."""
        place = self.newcomers[name]
        among = tuple(name if model == place else model for model in models)
        return among if name in among else (*models, name)

    def matters(self, models: tuple[str, ...], name: str, select: Callable[[tuple[str, ...]], Choice]) -> bool:
        """Return whether a newcomer matters to a query.

        It does if the policy would ask it once it is through, or asks the version that it comes after. ``models`` and
        ``select``: as in ``select``; the policy chooses by what it had learned before the query's feedback.
        """
        place = self.newcomers[name]
        if name in select(self.after(models, name)).models:
            return True
        return place in models and place in select(models).models
