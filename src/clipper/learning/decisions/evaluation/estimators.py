"""Off-policy estimators: the mean loss that a target policy would have had on queries that another policy decided.

Each takes arrays with an element for each query i: its loss ``l_i`` under the chosen model ``a_i``, and its weight
``w_i = pi(a_i) / p_i``, where ``p_i > 0`` is the probability with which the log's policy chose ``a_i``, and ``pi`` the
target's. They require that ``p_i`` is right, and above 0 wherever ``pi`` is (support).

Intervals are normal approximations, from the mean's standard error or by the delta method. They hold for effective
sample sizes in the hundreds, and are too narrow if few queries carry most of the weight.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

# By a rule of thumb, the normal approximation of a share holds from this many of either kind on.
LEAST_OF_EACH = 5

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean loss, and the interval that contains it with the requested confidence."""

    value: float
    low: float
    high: float


def on_policy(losses: Array, confidence: float = 0.95) -> Estimate:
    """Estimate the mean loss of the log's own policy: ``mean(l_i)``."""
    return _of_terms(losses, confidence)


def ips(losses: Array, weights: Array, confidence: float = 0.95) -> Estimate:
    """Inverse propensity scores: ``mean(w_i l_i)`` (Horvitz and Thompson, 1952); unbiased, varies with the weights."""
    return _of_terms(weights * losses, confidence)


def snips(losses: Array, weights: Array, confidence: float = 0.95) -> Estimate:
    """Estimate by self-normalised weights: ``sum(w_i l_i) / sum(w_i)``.

    It stays within the range of losses, and mostly varies far less than ``ips``; its bias is of order 1/n (Swaminathan
    and Joachims, "The Self-Normalized Estimator for Counterfactual Learning", 2015). NaN if all weights are 0.

    Its standard error is ``sqrt(sum(w_i^2 (l_i - v)^2)) / sum(w_i)``, by the delta method. That is too small if nearly
    all losses are 0, or nearly all 1. Then the error is at least that of a share of the effective queries, with two
    more queries of either kind (Agresti and Coull, 1998).
    """
    total = float(weights.sum())
    if total <= 0:
        return Estimate(math.nan, math.nan, math.nan)
    value = float((weights * losses).sum()) / total
    error = math.sqrt(float((weights**2 * (losses - value) ** 2).sum())) / total
    count = effective_sample_size(weights)
    if are_alike(value, count):
        share = (value * count + 2) / (count + 4)
        error = max(error, math.sqrt(share * (1 - share) / count))
    return _interval(value, error, confidence)


def dr(
    losses: Array, weights: Array, expected_chosen: Array, expected_target: Array, confidence: float = 0.95
) -> Estimate:
    """Estimate doubly robustly: ``mean(m_i + w_i (l_i - q_i))``.

    It is unbiased if the propensities are right, for any direct model; a better model makes it vary less (Dudik,
    Langford, Li: "Doubly Robust Policy Evaluation and Learning", 2011).

    Args:
        expected_chosen: ``q_i``, the direct model's expected loss of the chosen model, from other queries alone.
        expected_target: ``m_i = sum_a pi(a) q_i(a)``, its expected loss of the target.
    """
    return _of_terms(expected_target + weights * (losses - expected_chosen), confidence)


def effective_sample_size(weights: Array) -> float:
    """Return how many of the target's own queries would tell as much: ``sum(w_i)^2 / sum(w_i^2)`` (Kish, 1965)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def are_alike(value: float, count: float) -> bool:
    """Whether ``count`` losses in [0, 1] with this mean are nearly all 0, or nearly all 1."""
    return count * min(value, 1 - value) < LEAST_OF_EACH


def _of_terms(terms: Array, confidence: float) -> Estimate:
    count = len(terms)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan)
    # One query shows nothing about the variance.
    error = float(terms.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return _interval(float(terms.mean()), error, confidence)


def _interval(value: float, error: float, confidence: float) -> Estimate:
    width = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Estimate(value, value - width, value + width)
