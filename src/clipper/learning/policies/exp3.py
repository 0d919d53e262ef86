"""``exp3``: the best single model, learned from feedback on the model that was asked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.policies.drawn import Drawn
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Totals

# The excess of each model's losses over the usual loss: the sum in the exponential weights.
EXCESS_LOSS = "excess_loss"

# A loss is divided by its probability plus this: implicit exploration. It has the least regret over the streams of
# docs/regret.md: less than half of the regret without it.
CAUTION = 0.05
# The least share of all models but the best together, in the prior of a context.
LEAST_PRIOR = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class Exp3(Drawn):
    """Exponential weights on importance-weighted losses: Auer, Cesa-Bianchi, Freund, Schapire: "The Nonstochastic
    Multiarmed Bandit Problem" (2002). With k models, chosen with probability p_i:

        p_i = (1 - gamma) * exp(-eta * L_i) / sum_j exp(-eta * L_j) + gamma / k
        L_i += (loss - b) / (p_i + 0.05)              for the model that was asked

    It assumes nothing about how losses arise. Dividing by p_i would make L_i unbiased although only one model is
    observed, but a single loss of a model that is hardly asked would then count for hundreds of queries. With a little
    more than p_i L_i is drawn towards the usual loss and varies far less: Exp3-IX (Neu: "Explore no more: Improved
    high-probability regret bounds for non-stochastic bandits", 2015).

    b is the application's mean loss so far. In expectation the weights are those of the formula without it, since a
    constant in all L_i has no effect. But L_i varies less, and a model that is linked later begins at 0, as an average
    model, instead of far ahead of all models that have losses.

    **Failing and recovering.** The floor ``gamma / k`` keeps every model tried, at the cost of ``gamma`` times the
    models' mean excess loss for every query. With a half-life, what a model did in a bad time fades, so it is found
    again within some half-lives of its recovery.

    Args:
        eta: how fast it reacts; above 0, at most 1.
        gamma: the share of queries that is spread over all models; above 0, at most 1.
    """

    default_half_life = 700
    has_budget = True

    eta: float = 0.3
    gamma: float = 0.01

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0, 1, above=True)
        check_number("gamma", self.gamma, 0, 1, above=True)

    def probabilities(self, models: tuple[str, ...], totals: Totals) -> list[float]:
        floor = self.gamma / len(models)
        return [(1 - self.gamma) * weight + floor for weight in exponential_weights(models, totals, self.eta)]

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Return ``excess_loss`` of the asked model; nothing for a model whose output is not known."""
        if len(choice.models) == 1 and choice.shares[0] >= 1.0:
            # No other model could answer in time, so its loss compares it with none. Learning would blame or praise the
            # model for the queries of busy times.
            return {}
        # If an earlier policy asked several models, each of them was observed for certain.
        seen = choice.shares[0] if len(choice.models) == 1 else 1.0
        if totals.own is not None:
            # A context reacts fast, so that one lucky answer of a rarely asked model would decide.
            seen += own_rate(totals, self.eta) / 2
        elif len(choice.models) == 1:
            seen += CAUTION
        usual = totals.mean_loss
        return {(model, EXCESS_LOSS): (losses[model] - usual) / seen for model in choice.models if model in losses}


def exponential_weights(models: Sequence[str], totals: Totals, eta: float) -> list[float]:
    """Return ``exp(-eta * excess_loss)`` of each model, scaled to a sum of 1.

    In a context the application's weights are the prior, which counts less as the context's own feedback comes, and the
    context's own losses change them by ``own_rate``. In the prior all models but the best have at least
    ``LEAST_PRIOR`` together: otherwise a user would need as many observations as the application to leave it.
    """
    own, application = totals.own, totals.application or totals
    excess = [application.number(model, EXCESS_LOSS) for model in models]
    least = min(excess)
    behind = [eta * (loss - least) for loss in excess]
    if own is not None:
        furthest, rate = math.log(len(models) / LEAST_PRIOR), own_rate(totals, eta)
        kept = totals.prior_most / (totals.prior_most + own.observations)
        behind = [
            kept * min(prior, furthest) + rate * own.number(model, EXCESS_LOSS) for model, prior in zip(models, behind)
        ]
    # Only differences matter: taken from the least, no exponential overflows, and their sum is at least 1.
    least = min(behind)
    weights = [math.exp(least - exponent) for exponent in behind]
    total = sum(weights)
    return [weight / total for weight in weights]


def own_rate(totals: Totals, eta: float) -> float:
    """Return how fast a context reacts to its own losses after n of them, from ``eta`` to 1.

    It is ``sqrt(2 ln(1 / LEAST_PRIOR) / (n + prior_weight))``, the best rate to reach a model with so small a prior.
    """
    assert totals.own is not None
    observations = totals.own.observations + totals.prior_weight
    return max(eta, min(1.0, math.sqrt(2 * math.log(1 / LEAST_PRIOR) / observations)))
