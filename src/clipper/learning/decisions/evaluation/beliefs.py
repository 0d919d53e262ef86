"""The probability of each model to be chosen if a number is drawn for each model and the highest wins."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

# The number of steps within this many standard deviations to both sides of each distribution's mean, and overall.
_OWN_STEPS = 160
_DEVIATIONS = 8.0
_COMMON_STEPS = 400
# Below this a density is unbounded, and integration by steps fails.
_LEAST = 0.5


@lru_cache(maxsize=4096)
def win_probabilities(beliefs: tuple[tuple[float, float], ...]) -> tuple[float, ...] | None:
    """Return ``P(X_i = max_j X_j)`` of independent ``X_i ~ Beta(a_i, b_i)``: the integral of ``f_i prod_{j != i} F_j``.

    It is exact to some 1e-4 for any counts. The result is None if a parameter is below 0.5.

    The integral is over ``t = arcsin(sqrt(x))``, where ``f`` is ``sin^(2a-1)(t) cos^(2b-1)(t)`` up to a factor, and
    about ``1 / (2 sqrt(a + b))`` wide wherever its mean is.
    """
    if min(min(belief) for belief in beliefs) < _LEAST:
        return None
    if len(beliefs) == 1:
        return (1.0,)
    edges = [np.linspace(0.0, math.pi / 2, _COMMON_STEPS + 1)]
    for a, b in beliefs:
        middle, reach = math.asin(math.sqrt(a / (a + b))), _DEVIATIONS / (2 * math.sqrt(a + b))
        own = np.linspace(middle - reach, middle + reach, _OWN_STEPS + 1)
        edges.append(own[(own > 0) & (own < math.pi / 2)])
    grid = np.unique(np.concatenate(edges))
    middles, widths = (grid[1:] + grid[:-1]) / 2, np.diff(grid)
    log_sin, log_cos = np.log(np.sin(middles)), np.log(np.cos(middles))
    masses = []
    for a, b in beliefs:
        log_density = (2 * a - 1) * log_sin + (2 * b - 1) * log_cos
        mass = np.exp(log_density - log_density.max()) * widths
        masses.append(mass / mass.sum())
    # Up to the middle of each step.
    below = np.array([np.cumsum(mass) - mass / 2 for mass in masses])
    wins = [float((mass * np.prod(np.delete(below, index, axis=0), axis=0)).sum()) for index, mass in enumerate(masses)]
    total = sum(wins)
    return tuple(win / total for win in wins)


def propensity(
    model: str, candidates: Sequence[str], share: float, beliefs: tuple[tuple[float, float], ...] | None
) -> float:
    """Return the probability with which a model was chosen; 0 if the log does not tell.

    Args:
        candidates: the models of the beliefs, and then newcomers, which are not chosen by beliefs.
        share: with beliefs, the probability that the choice was made by them: below 1 if there were newcomers.
    """
    if beliefs is None:
        return share
    believed = list(candidates[: len(beliefs)])
    is_of_all = len(beliefs) == len(candidates)
    if model not in believed or len(beliefs) > len(candidates) or (share >= 1.0 and not is_of_all):
        return 0.0
    wins = win_probabilities(beliefs)
    return 0.0 if wins is None else share * wins[believed.index(model)]
