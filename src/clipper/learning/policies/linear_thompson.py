"""``linear_thompson``: asks each model as often as it is likely to be the best for a query like this one."""

from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from clipper.learning.mathematics.parameters import check_number
from clipper.learning.policies.linear import Beliefs, Floats, Linear

# The standard normal distribution from -6 to 6, beyond which it is 0 or 1. The nearest point is used, with an error of
# at most 1e-4.
_PER_UNIT = 2000
_CUMULATIVE = np.array(
    [0.5 * (1.0 + erf(step / _PER_UNIT / sqrt(2.0))) for step in range(-6 * _PER_UNIT, 6 * _PER_UNIT + 1)]
)
# Ends of the steps in which each model's draws are compared with the others'; within a step all count as equal.
_STEPS = np.concatenate(([-6.0], np.linspace(-3.6, 3.6, 25), [6.0]))
# A less likely model is not asked at all, instead of by chance with a share that is only a rounding error.
_LEAST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class LinearThompson(Linear):
    """Asks each model with the probability that its loss on a query with these features is the least.

    Thompson sampling for linear payoffs (Agrawal and Goyal: "Thompson Sampling for Contextual Bandits with Linear
    Payoffs", ICML 2013) draws ``theta_m ~ N(theta_m, v^2 inv(A_m))`` and asks the model with the best ``theta_m' x``.
    So a model's draw is from ``N(theta_m' x, v^2 x' inv(A_m) x)``, independent of the others', with ``v = exploration *
    s``. See ``linear`` for A, theta and s.

    Instead of these draws, the probability that each model's draw is the least is computed, and one model is drawn by
    that. It is the same policy, and the share in the decision log is the exact probability of the choice.

    Args:
        exploration: spread of the draws in standard errors; above 0, at most 10.
    """

    exploration: float = 0.3

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, 0, 10, above=True)

    def shares(self, believed: Beliefs) -> list[float]:
        return least_of(believed.means, self.exploration * believed.errors)


def least_of(means: Floats, errors: Floats) -> list[float]:
    """Return the probability that the draw of each of these independent normal distributions is the least.

        P_i = sum over steps of P(i in the step) * prod_{j != i} P(j not below the step's middle)

    The ends of the steps are points of all distributions, so they are fine wherever one of them is.
    """
    if len(means) == 1:
        return [1.0]
    spread = np.maximum(errors, 1e-9)
    ends = (means[:, None] + spread[:, None] * _STEPS).ravel()
    ends.sort()
    # Beyond the end of a distribution, its draw is certainly below.
    ends = ends[ends <= (means + 6.0 * spread).min()]
    places = (ends - means[:, None]) * (_PER_UNIT / spread[:, None]) + (6 * _PER_UNIT + 0.5)
    below = _CUMULATIVE.take(np.clip(places, 0.0, len(_CUMULATIVE) - 1.0).astype(np.intp))
    inside = np.diff(below, axis=1)
    above = np.maximum(1.0 - 0.5 * (below[:, 1:] + below[:, :-1]), 1e-300)
    logs = np.log(above)
    shares = (inside * np.exp(logs.sum(axis=0) - logs)).sum(axis=1)
    shares[shares < _LEAST * shares.sum()] = 0.0
    return (shares / shares.sum()).tolist()  # type: ignore[no-any-return]
