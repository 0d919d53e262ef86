"""``linear_thompson``: each model as often as it is likely to be the best for a query like this one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, sqrt
from random import Random

import numpy as np

from clipper.selection.learning.parameters import check_number
from clipper.selection.policies.distribution import Distribution
from clipper.selection.policies.linear import Floats, beliefs, lessons
from clipper.selection.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView, Totals

# The standard normal distribution from -6 to 6, beyond which it is 0 or 1: looked up at the nearest of these points,
# with an error of at most 1e-4.
_PER_UNIT = 2000
_CUMULATIVE = np.array(
    [0.5 * (1.0 + erf(step / _PER_UNIT / sqrt(2.0))) for step in range(-6 * _PER_UNIT, 6 * _PER_UNIT + 1)]
)
# Where each model's draws are told apart from the others': within each step between them all are taken as equal.
_STEPS = np.concatenate(([-6.0], np.linspace(-3.6, 3.6, 25), [6.0]))
# A model that is so unlikely is not asked at all, rather than by chance with a share that is mere rounding.
_LEAST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class LinearThompson(Policy):
    """Asks each model with the probability that its loss on a query of these features is the least.

    Thompson sampling for linear payoffs (Agrawal and Goyal: "Thompson Sampling for Contextual Bandits with Linear
    Payoffs", ICML 2013), which draws ``theta_m ~ N(theta_m, v^2 inv(A_m))`` and asks the model with the best
    ``theta_m' x``: so a model's draw is of ``N(theta_m' x, v^2 x' inv(A_m) x)``, independent of others', with ``v =
    exploration * s``. ``linear`` says what A, theta and s are.

    Instead of these draws, the probability that each model's is the least is worked out, and one model drawn by that.
    It is the same policy, and the share in the decision log is the very probability of the choice.

    Args:
        exploration: by how many standard errors the draws are spread; above 0, at most 10.

    Raises:
        InvalidArgument: a parameter is outside its range.
    """

    needs_features = True

    exploration: float = 0.5

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, 0, 10, above=True)

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        return Distribution(models, self.probabilities(models, totals, query)).draw(random)

    def probabilities(self, models: Sequence[str], totals: Totals, query: QueryView) -> list[float]:
        """One a model."""
        believed = beliefs(self, tuple(models), totals, query)
        return least_of(believed.means, self.exploration * believed.errors)

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        return lessons(losses, query)


def least_of(means: Floats, errors: Floats) -> list[float]:
    """The probability that the draw of each of these normal distributions is the least; they are independent.

        P_i = sum over steps of P(i in the step) * prod_{j != i} P(j not below the step's middle)

    The steps' ends are the union of points of all of them, so they are fine wherever one is.
    """
    if len(means) == 1:
        return [1.0]
    spread = np.maximum(errors, 1e-9)
    ends = (means[:, None] + spread[:, None] * _STEPS).ravel()
    ends.sort()
    # Beyond the end of any of them its draw is below.
    ends = ends[ends <= (means + 6.0 * spread).min()]
    places = (ends - means[:, None]) * (_PER_UNIT / spread[:, None]) + (6 * _PER_UNIT + 0.5)
    below = _CUMULATIVE.take(np.clip(places, 0.0, len(_CUMULATIVE) - 1.0).astype(np.intp))
    inside = np.diff(below, axis=1)
    above = np.maximum(1.0 - 0.5 * (below[:, 1:] + below[:, :-1]), 1e-300)
    logs = np.log(above)
    shares = (inside * np.exp(logs.sum(axis=0) - logs)).sum(axis=1)
    shares[shares < _LEAST * shares.sum()] = 0.0
    return (shares / shares.sum()).tolist()  # type: ignore[no-any-return]
