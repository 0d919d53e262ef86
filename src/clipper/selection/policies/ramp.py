"""A share of the queries for newcomers, and no more, until feedback has told of them: whatever the policy is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from clipper.selection.policies.policy import Choice


@dataclass(frozen=True, slots=True)
class Ramp:
    """Splits queries, by chance alone, into the newcomers' and those for which the policy selects without them.

    With k newcomers and the share r, each gets r / k of the queries. The others, 1 - r, are as if there were no
    newcomers, so that an application loses by them at most r times what they are worse by. And since chance alone
    splits, who compares the losses of both compares what the newcomer changes, and nothing else.

    **Probabilities.** Where one model answers, a newcomer's share is r / k, and any other's is 1 - r times the policy's
    own probability; so it is where that is told by beliefs, which are then of the models without the newcomers.

    **Several that answer together.** Of its queries a newcomer gets no answer of its own: it is one of those that
    the policy asks, in the place of the version that it came after, if there is one, with the weight that the policy
    gives it. Of all other queries it has no part.

    Args:
        newcomers: by name, the name of the link in whose place each is asked; None if it has a place of its own.
        share: of all queries, for all newcomers together; above 0, below 1.
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
            models: those that are no newcomers; at least one.
            select: has the policy choose among the models that it is given.
            is_joint: whether the policy has all its models scored, and so makes answers of several.
        """
        drawn = random.random()
        if drawn >= self.share:
            return _scaled(select(models), 1.0 - self.share)
        each = self.share / len(self.newcomers)
        name = tuple(self.newcomers)[min(int(drawn / each), len(self.newcomers) - 1)]
        if is_joint:
            place = self.newcomers[name]
            # In its place also in the order, by which ties are decided.
            among = tuple(name if model == place else model for model in models)
            choice = select(among if name in among else (*models, name))
            if len(choice.models) > 1:
                return choice
        return Choice((name,), (each,))


def _scaled(choice: Choice, probability: float) -> Choice:
    """The choice, made with that probability; of several, the weights in the answer stay."""
    if len(choice.models) > 1:
        return choice
    return Choice(choice.models, (probability * choice.shares[0],), choice.beliefs, choice.among)
