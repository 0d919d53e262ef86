"""Tells whether a query's own data picked its models, and returns the weights of their losses.

The losses of models that were picked in this way compare models only by weights: see ``learning.mathematics.weighing``.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from clipper.learning.mathematics.totals import EVER_LOSS, EVER_SCORED, Totals
from clipper.learning.policies.policy import Choice

# The draws of a model's wins, whose mean number of tries is its weight; and the bound on tries for a draw: a
# millisecond.
_DRAWS = 2
_MOST_TRIES = 200

GoesBy = Literal["nothing", "context", "query"]


@dataclass(frozen=True, slots=True)
class Picked:
    """
    Attributes:
        among_all: whether the losses of the query's models, without weights, do not compare them over all queries.
        in_context: the same within the query's context.
        is_weighed: whether weighed losses compare them over all queries.
    """

    among_all: bool
    in_context: bool
    is_weighed: bool

    @property
    def is_by_context(self) -> bool:
        """Whether the policy has picked by the query's context, and by nothing else of the query."""
        return self.is_weighed and not self.in_context


_BY_NOTHING = Picked(among_all=False, in_context=False, is_weighed=False)
_BY_OTHERS = Picked(among_all=True, in_context=True, is_weighed=False)


def how_picked(
    goes_by: GoesBy, *, learns: bool, is_pinned: bool, has_context: bool, knows_context: bool, is_partial: bool
) -> Picked:
    """Return how the models of a query with feedback were picked.

    Args:
        goes_by: see ``Policy.goes_by``; ``query`` for a user's own policy, which can see the whole query.
        learns: see ``Policy.learns``. A policy that chooses by context without it gives each context one model.
        is_pinned: whether the query named a version, so that the client has picked it.
        knows_context: whether there was feedback on that context before.
        is_partial: whether the feedback tells only about those of several models that gave the answer.
    """
    if is_pinned:
        return _BY_OTHERS
    if goes_by == "query" or is_partial:
        return Picked(among_all=True, in_context=True, is_weighed=True)
    if goes_by == "nothing" or not has_context:
        return _BY_NOTHING
    if learns:
        return Picked(among_all=True, in_context=False, is_weighed=True)
    # Chance has given the context its model once, however often the context comes.
    return Picked(among_all=knows_context, in_context=False, is_weighed=False)


def least_loss_increase(totals: Totals, prior: Totals, losses: Mapping[str, float], models: Collection[str]) -> float:
    """Return how much feedback adds to what the best model of its context would have lost on all queries of it.

    That is the least mean loss of a model in the context, times the number of losses there. Increases add up to it for
    one worker after another; where several learn in a context at once, nearly so.

    Args:
        totals: the totals of the context before the feedback.
    """
    own = None if totals is prior else totals.own or totals
    known = {
        model: (0.0, 0.0) if own is None else (own.of_version(model, EVER_SCORED), own.of_version(model, EVER_LOSS))
        for model in models
    }
    before = _least_loss(known.values())
    for model in losses.keys() & known.keys():
        scored, loss = known[model]
        known[model] = scored + 1.0, loss + losses[model]
    return _least_loss(known.values()) - before


def _least_loss(known: Collection[tuple[float, float]]) -> float:
    means = [loss / scored for scored, loss in known if scored > 0]
    return sum(scored for scored, _ in known) * min(means) if means else 0.0


def weights_of(choice: Choice, shadows: Collection[str], random: Random) -> Mapping[str, float]:
    """Return the weights of models' losses: in expectation at most one over the probability that a query asked them.

    It is exact if one model was chosen, with a known share; for models that ``next`` added, from the steps' shares.
    Where a probability is not known it counts as 1. Shadows are asked for every query.

    If Beta draws decided, the weight is the mean number of tries until the same model wins again, whose expectation is
    one over its probability (Neu, Bartok: "An Efficient Algorithm for Learning with Semi-bandit Feedback", 2013). That
    takes as many tries as there are models, on average, where an integral takes a millisecond.
    """
    weights = dict.fromkeys(shadows, 1.0)
    if len(choice.models) > 1:
        further, probability = {step.asked: step.probability for step in choice.steps}, 1.0
        for place, model in enumerate(choice.models):
            probability *= further.get(place, 1.0)
            weights[model] = 1.0 / probability if probability > 0 else 1.0
        return weights
    (model,), (share,) = choice.models, choice.shares
    tries = 1.0
    if choice.beliefs is not None and choice.among is not None and model in choice.among:
        tries = _tries(choice.beliefs, choice.among.index(model), random)
    weights[model] = tries / share if share > 0 else 1.0
    return weights


def _tries(beliefs: tuple[tuple[float, float], ...], index: int, random: Random) -> float:
    tries = 0
    for _ in range(_DRAWS):
        for _ in range(_MOST_TRIES):
            tries += 1
            drawn = [random.betavariate(successes, failures) for successes, failures in beliefs]
            if drawn.index(max(drawn)) == index:
                break
    return tries / _DRAWS
