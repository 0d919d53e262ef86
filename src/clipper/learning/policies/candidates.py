"""Decides among which models a policy selects for a query, by their chances to answer in time and their prices."""

from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.policy import LEAST_CHANCE, SURE, Policy, QueryView
from clipper.learning.policies.prices import Prices

# The assumed share of queries that another model answers in time if the first one fails or sheds them. It is above 0.99
# in the simulation. The lower value makes queries avoid models that would probably keep their users waiting in vain.
RESCUED = 0.9
# The policy also gets models whose expected loss exceeds the least by at most this: chances are no more precise.
HARDLY = 0.03


def candidates(
    policy: Policy,
    models: tuple[str, ...],
    totals: Totals,
    query: QueryView,
    default_loss: float,
    rescued: float = RESCUED,
    prices: Prices | None = None,
) -> tuple[str, ...]:
    """Return the models that a query may ask, at least one, in their order.

    A policy that asks a single model gets the models that surely answer in time, and those with the least expected loss
    for the user, or hardly more. With P a model's chance and l its expected loss, the user's expected loss is

        alone = P * l + (1 - P) * default_loss
        loss  = P * l + (1 - P) * ((1 - R) * default_loss + R * (the least of the others' alone))

    since another model is asked in place of a model that fails or sheds the query, and is in time with a probability of
    R = 0.9. So a full model that is much better is still asked while its chance is fair; among unknown models, those
    with the best chance are asked. The policy then explores and exploits among these as usual: a sleeping bandit
    (Kleinberg, Niculescu-Mizil, Sharma: "Regret Bounds for Sleeping Experts and Bandits", 2010), whose probabilities
    are those of the actual choice. A policy that asks all models gets those that are not awaited in vain.

    Args:
        default_loss: the loss of what the user gets if no model answers, 0 to 1.
        rescued: R; 0 if there is no time for another model after this one.
        prices: the prices of asking; None if no model has one.
    """
    chances = [query.chance(model) for model in models]
    most = max(chances)
    if policy.weighs_time:
        return models
    if most <= 0.0:
        return models if prices is None or policy.feedback == "all" else prices.lightest(models)
    if policy.feedback == "all":
        least = min(LEAST_CHANCE, most)
        return tuple(model for model, chance in zip(models, chances) if chance >= least)
    losses = policy.expected_losses(models, totals, query)
    alone = [chance * loss + (1.0 - chance) * default_loss for chance, loss in zip(chances, losses)]
    first, second = [*sorted(alone), default_loss][:2]
    expected = []
    for chance, loss, own in zip(chances, losses, alone):
        stands_in = second if own == first else first
        expected.append(chance * loss + (1.0 - chance) * ((1.0 - rescued) * default_loss + rescued * stands_in))
    if prices is not None:
        errors = policy.loss_errors(models, totals, query)
        return prices.among(models, chances, losses, errors, expected, HARDLY)
    most_loss = min(expected) + HARDLY
    return tuple(
        model
        for model, chance, loss in zip(models, chances, expected)
        if chance >= SURE or (chance > 0.0 and loss <= most_loss)
    )
