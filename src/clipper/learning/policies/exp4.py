"""``exp4``: all models answer, weighted by their past losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.policies.combine import DEFAULT_TOLERANCE, Combiner, make_combiner
from clipper.learning.policies.exp3 import EXCESS_LOSS, exponential_weights
from clipper.learning.policies.joint import Joint
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Totals

# How far a model may fall behind the best one, as a logarithm of its weight: to a 55th of the best one's. A lower value
# gives a permanently bad model more weight; a higher one delays finding a recovered model.
FURTHEST = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Exp4(Joint):
    """Exponential weights on each model's own loss, and the answer by weighted vote (or mean, or median).

        w_i = exp(-eta * L_i) / sum_j exp(-eta * L_j)
        L_i += loss_i - sum_j w_j * loss_j, as long as L_i <= min_j L_j + FURTHEST / eta

    The name is the paper's. Exp4 proper draws one answer from the weighted votes and observes only that answer's loss.
    Here a label shows the loss of every model, so this is Hedge (Freund and Schapire, 1997), which needs no estimate
    and varies less. The subtracted mean changes no weight, since it is the same for all models. With it a model that
    was not scored this time, or was linked later, neither gains nor loses ("Using and combining predictors that
    specialize", Freund et al., 1997).

    No model falls further behind than ``FURTHEST``, so a recovered one is soon found again, however long it was bad.
    Fixed share does the same (Herbster and Warmuth: "Tracking the best expert", 1998) by keeping each weight above a
    share of all; here the sums are bounded, so that several workers can add to them.

    A late output's loss counts like any other's. The weight in the answer is w_i times the share of queries that the
    model was in time for.

    The mean loss of the weighted models exceeds the best model's by at most ``ln(k) / eta + eta * n / 8 + (k - 1) *
    exp(-FURTHEST) * n`` over n observations of k models, if none are forgotten. A failed model loses its say within
    about ``FURTHEST / eta`` queries on which it is worse, and regains it within as many on which it is better.

    Args:
        eta: how fast it reacts; above 0, at most 1. With less, all models have a say for longer, and several together
            are right more often than the best; with more, little feedback is enough, such as one user's. With the
            default half-life a model that errs 0.05 more than the best has a twelfth of its weight.
        answer: ``vote``, ``mean`` or ``median``.
        tolerance: for ``mean`` and ``median``: how near an output must be to the answer to agree with it; at least 0.
    """

    default_half_life = 100

    eta: float = 0.35
    answer: str = "vote"
    tolerance: float = DEFAULT_TOLERANCE
    _combiner: Combiner = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number("eta", self.eta, 0, 1, above=True)
        object.__setattr__(self, "_combiner", make_combiner(self.answer, self.tolerance))

    def shares(self, models: tuple[str, ...], totals: Totals) -> tuple[float, ...]:
        weights = exponential_weights(models, totals, self.eta)
        heard = [weight * totals.in_time(model) for model, weight in zip(models, weights)]
        total = sum(heard)
        return tuple(weight / total for weight in heard)

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Return ``excess_loss`` of each selected model that was scored."""
        weights = {model: share for model, share in zip(choice.models, choice.shares) if model in losses}
        total = sum(weights.values())
        if total <= 0:  # only models without any say were scored: compare them with each other
            weights = dict.fromkeys(weights, 1.0)
            total = float(len(weights))
        usual = sum(losses[model] * weight for model, weight in weights.items()) / total if weights else 0.0
        known = totals.own or totals
        excess = {model: known.number(model, EXCESS_LOSS) for model in weights}
        best = min((excess[model] + losses[model] - usual for model in weights), default=0.0)
        most = best + FURTHEST / self.eta
        # A model may be further behind, since workers learn at once. It follows the best, and is not moved nearer,
        # since each worker would move it.
        follows = min(best - min(excess.values(), default=0.0), 0.0)
        return {
            (model, EXCESS_LOSS): min(losses[model] - usual, max(most - excess[model], follows)) for model in weights
        }
