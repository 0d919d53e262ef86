"""Confidence sequences: intervals for mean losses in [0, 1] that stay valid however often one looks.

A usual confidence interval holds at one moment that was chosen in advance. An observer who looks at it each day, and
stops when it suits, is wrong far more often. A **confidence sequence** holds at all times at once with its stated
probability.

For each value m of the mean there is a **capital** K(m), of a bet against m that is fair or worse if m is the true
mean. So it starts at 1, is a supermartingale, and ever exceeds 1 / error with at most the probability ``error``
(Ville's inequality). A value m whose bet has won that much is not the mean. K is a mixture of bets:

- **Bernoulli** likelihoods (Robbins: "Statistical Methods Related to the Law of the Iterated Logarithm", 1970), with
  Jeffreys' prior: ``B(S + 1/2, n - S + 1/2) / B(1/2, 1/2) / (m^S (1 - m)^(n - S))``, with n losses and S their sum.
  Since ``a^x b^(1-x)`` is convex in x, this is no better than fair for any losses in [0, 1] with mean m.
- **Variance**: ``exp(l (S - n m) - (-ln(1 - l) - l) V(m))``, with V(m) the sum of ``(loss - m)^2``, for several l in
  (0, 1/2], and the same for one minus the losses and one minus m (Fan, Grama, Liu: "Exponential Inequalities for
  Martingales with Applications", 2015; as in Howard, Ramdas, McAuliffe, Sekhon: "Time-uniform, Nonparametric,
  Nonasymptotic Confidence Sequences", 2021). It is sharper if losses differ by little.

So three sums are enough, and any number of workers may add to them in any order. Each loss may come from a query that
was chosen depending on earlier queries, as all policies do: given the past, its mean is the model's.

For two models K_1(m_1) K_2(m_2) is such a capital, too, if each query tells about one of them. If queries tell about
both, as with ensembles and shadows, losses may depend on each other, and the product may grow although both bets are
fair: with two equal models of which exactly one errs in each query, a false statement became 95 % sure in 21 of 300
runs of 1,000 queries. Then **(K_1(m_1) + K_2(m_2)) / 2** is the capital: half of it is bet on each, and a mean of
supermartingales is one whatever their dependence (Vovk, Wang: "E-values: Calibration, Combination and Applications",
2021: no symmetric way that is always valid does essentially better). It takes about twice the feedback. A difference d
of the means is refuted if the pair's capital exceeds 1 / error for all m_1 - m_2 = d (Kaufmann, Koolen: "Mixture
Martingales Revisited", 2021).

Conditions: a model's mean loss does not change, and whether feedback comes does not depend on the loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

# Shares of the capital for the Bernoulli bet and the two variance bets, above and below m. Most losses are 0 or 1,
# where the first is best: sharing costs it 0.3 of a logarithm of some 3 to 8.
_BERNOULLI, _VARIANCE = math.log(0.75), math.log(0.125)
_HALF = math.log(0.5)
# Each bet is half the bet before, down to the finest that 10^9 losses can distinguish. All are at most 1/2, so that
# capital falls as m comes nearer to the observed mean (true up to 0.58).
_BETS = tuple(0.5 / 2**step for step in range(14))
_COSTS = tuple(-math.log1p(-bet) - bet for bet in _BETS)
# Weights of the bets: few losses differ by so little that the smallest bets are needed.
_PARTS = tuple(1 / (step + 1) for step in range(len(_BETS)))
_LOG_PARTS = tuple(_VARIANCE + math.log(part / sum(_PARTS)) for part in _PARTS)
_LOG_BETA_HALF = math.log(math.pi)  # of B(1/2, 1/2)
# Bounds are exact to 2^-16 of the range of losses; a pair's least capital, by golden section, to some 10^-5.
_HALVINGS = 16
_SECTIONS = 16
# Bound of Newton's steps; about five are needed.
_MOST_STEPS = 60
# The square of a smaller mean is 0.
_LEAST = 1e-150
_GOLDEN = (math.sqrt(5) - 1) / 2
# Bets on sums of amounts that are at most 1 below their forecasts, and the logarithms of the bets' shares. Each bet is
# half the bet before, down to the best for millions of amounts; the shares sum to less than 1.
_RATES = tuple((0.9 * 2.0**-step, 1.0 / ((step + 1) * (step + 2))) for step in range(16))
MIXTURE = tuple((rate, math.log(share), -math.log1p(-rate) - rate) for rate, share in _RATES)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A model's losses in [0, 1], as sums that can be added.

    Attributes:
        count: number of losses.
        loss: their sum.
        spread: sum of ``loss * (1 - loss)``; 0 if each loss was 0 or 1.
    """

    count: float
    loss: float
    spread: float = 0.0

    @property
    def mean(self) -> float:
        """The mean loss; 1/2 if there is none."""
        # Rounding may push a sum slightly out of its range.
        return min(max(self.loss / self.count, 0.0), 1.0) if self.count > 0 else 0.5

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(self.count + other.count, self.loss + other.loss, self.spread + other.spread)


NO_EVIDENCE = Evidence(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


def mean_interval(evidence: Evidence, error: float) -> Interval:
    """Return an interval that contains the mean loss, at all times at once, with probability 1 - ``error``."""
    limit, mean = -math.log(error), evidence.mean
    low = bound_by_halving(0.0, mean, lambda m: log_capital_above(evidence, m) < limit)
    high = bound_by_halving(1.0, mean, lambda m: log_capital_below(evidence, m) < limit)
    return Interval(low, high)


def difference_interval(first: Evidence, second: Evidence, error: float, *, are_together: bool = False) -> Interval:
    """Return an interval of the first's mean loss minus the second's, as valid as ``mean_interval``."""
    limit, between = -math.log(error), first.mean - second.mean

    def is_open(one: Evidence, other: Evidence, margin: float) -> bool:
        return log_capital_less(one, other, margin, are_together=are_together) < limit

    high = bound_by_halving(1.0, between, lambda margin: is_open(first, second, margin))
    low = bound_by_halving(1.0, -between, lambda margin: is_open(second, first, margin))
    return Interval(-low, high)


def log_capital_less(first: Evidence, second: Evidence, margin: float = 0.0, *, are_together: bool = False) -> float:
    """Return the least capital against all pairs of means with the first at least the second plus ``margin``.

    All capitals are logarithms. If the true means are such a pair, this ever exceeds ``-ln(error)`` with a probability
    of at most ``error``. ``are_together``: whether a query may have scored both models.
    """

    def of_pair(first_mean: float, second_mean: float) -> float:
        below, above = log_capital_below(first, first_mean), log_capital_above(second, second_mean)
        return _log_sum([below + _HALF, above + _HALF]) if are_together else below + above

    if first.mean - second.mean >= margin:
        return of_pair(first.mean, second.mean)
    if margin > 1.0:
        return math.inf  # no losses differ by more than 1
    # As both assumed means grow, the first's capital grows and the second's falls; outside these bounds one of them
    # does not change.
    low, high = max(first.mean - margin, 0.0), min(second.mean, 1.0 - margin)

    def capital(mean: float) -> float:
        return of_pair(mean + margin, mean)

    if are_together or first.spread > 0 or second.spread > 0:
        return _least(low, high, capital)
    return capital(_likeliest(first, second, margin, low, high))


def nearest_means(first: Evidence, second: Evidence, margin: float = 0.0) -> tuple[float, float]:
    """Return the likeliest means, for losses of 0 and 1, with the first at least the second plus ``margin`` <= 1."""
    if first.mean - second.mean >= margin:
        return first.mean, second.mean
    low, high = max(first.mean - margin, 0.0), min(second.mean, 1.0 - margin)
    mean = _likeliest(first, second, margin, low, high)
    return mean + margin, mean


def log_capital_above(evidence: Evidence, mean: float) -> float:
    """Return the logarithm of the capital against all means up to ``mean``: evidence that the mean is above."""
    count, total, observed = evidence.count, evidence.loss, evidence.mean
    mean = min(mean, observed)
    logs = [_BERNOULLI + _bernoulli(count, total, mean)]
    if evidence.spread > 0:
        below = count * (observed - mean)
        # Sum of squares around the observed mean, and the difference to that around ``mean``.
        squares = max(total * (1 - observed) - evidence.spread, 0.0) + below * (observed - mean)
        logs += [part + bet * below - cost * squares for part, bet, cost in zip(_LOG_PARTS, _BETS, _COSTS)]
    return _log_sum(logs)


def log_capital_below(evidence: Evidence, mean: float) -> float:
    """Return the logarithm of the capital against all means from ``mean`` on: evidence that the mean is below."""
    gains = max(evidence.count - evidence.loss, 0.0)
    return log_capital_above(Evidence(evidence.count, gains, evidence.spread), 1.0 - mean)


def log_mixture(excess: float, squares: float) -> float:
    """Return the logarithm of the mixed capital ``exp(l excess - (-ln(1 - l) - l) squares)`` over the bets l.

    Args:
        excess: sum of amounts minus their assumed means.
        squares: sum of ``(amount - forecast)^2``, with amounts never more than 1 below their forecasts, which were made
            before them.
    """
    return _log_sum([share + rate * excess - cost * squares for rate, share, cost in MIXTURE])


def _bernoulli(count: float, total: float, mean: float) -> float:
    total = min(max(total, 0.0), count)
    rest = count - total
    if (mean <= 0.0 < total) or (mean >= 1.0 and rest > 0):
        return math.inf
    ones = total * math.log(mean) if total > 0 else 0.0
    return _mixed(total, rest) - ones - (rest * math.log1p(-mean) if rest > 0 else 0.0)


# Used for a pair's models while their least capital is searched.
@lru_cache(maxsize=64)
def _mixed(ones: float, zeros: float) -> float:
    return math.lgamma(ones + 0.5) + math.lgamma(zeros + 0.5) - math.lgamma(ones + zeros + 1.0) - _LOG_BETA_HALF


def _log_sum(logs: list[float]) -> float:
    most = max(logs)
    if len(logs) == 1 or math.isinf(most):
        return most
    return most + math.log(math.fsum(math.exp(each - most) for each in logs))


def _likeliest(first: Evidence, second: Evidence, margin: float, low: float, high: float) -> float:
    """Return the second's mean at which both models' losses are likeliest, with the first's larger by ``margin``.

    Minus the log-likelihood is convex: Newton's method on its slope, within bounds that close in.
    """
    ones, zeros = max(first.loss, 0.0), max(first.count - first.loss, 0.0)
    more_ones, more_zeros = max(second.loss, 0.0), max(second.count - second.loss, 0.0)
    total = first.count + second.count
    mean = ((first.mean - margin) * first.count + second.mean * second.count) / total if total > 0 else low
    for _ in range(_MOST_STEPS):
        if not low < mean < high:
            mean = (low + high) / 2
        other = mean + margin
        if not (low < mean < high and _LEAST < mean < 1 and _LEAST < other < 1):  # no float is left between the bounds
            break
        slope = zeros / (1 - other) - ones / other + more_zeros / (1 - mean) - more_ones / mean
        if slope > 0:
            high = mean
        else:
            low = mean
        bend = zeros / (1 - other) ** 2 + ones / other**2 + more_zeros / (1 - mean) ** 2 + more_ones / mean**2
        if not bend or abs(slope) <= 1e-9 * bend:
            break
        mean -= slope / bend
    return mean


def bound_by_halving(outside: float, inside: float, holds: Callable[[float], bool]) -> float:
    """Return the end towards ``outside`` of the range where ``holds`` is true, rounded outwards."""
    if holds(outside):
        return outside
    for _ in range(_HALVINGS):
        between = (outside + inside) / 2
        if holds(between):
            inside = between
        else:
            outside = between
    return outside


def _least(low: float, high: float, function: Callable[[float], float]) -> float:
    """Return the least value by golden section, for a function that falls and then rises."""
    third = high - low
    left, right = high - _GOLDEN * third, low + _GOLDEN * third
    at_left, at_right = function(left), function(right)
    for _ in range(_SECTIONS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return min(at_left, at_right, function(low), function(high))
