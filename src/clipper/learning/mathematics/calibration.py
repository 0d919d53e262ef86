"""Calibration: maps how confident an answer seems to how often such answers are right.

A model or a vote gives a **raw** confidence. It is put into one of some dozens of bins, and feedback adds to
the bin's sums: the number of answers, the sum of their raw confidences, and of how right they were. Like all sums of a
state they are added to by any number of workers, and fade by its half-life. A curve is fitted to the sums in two steps,
so that it serves with ten pieces of feedback as well as with a thousand:

1. Platt scaling of the raw confidence's log-odds ``z = ln(c / (1 - c))``: ``q = 1 / (1 + exp(-(a z + b)))`` (Platt,
   "Probabilistic Outputs for Support Vector Machines", 1999; on log-odds it is beta calibration with equal exponents:
   Kull, Silva Filho and Flach, "Beta calibration", AISTATS 2017). a and b have normal priors around 1 and 0, the
   identity. The most probable a and b a posteriori are found by Newton's method.
2. Isotonic regression over the bins by pooling adjacent violators (Zadrozny and Elkan, "Transforming Classifier Scores
   into Accurate Multiclass Probability Estimates", KDD 2002), where each bin has ``PRIOR_ANSWERS`` extra answers that
   are as right as q says. It needs more data than Platt scaling and is then better (Niculescu-Mizil and Caruana,
   "Predicting Good Probabilities with Supervised Learning", ICML 2005); the prior makes the better one prevail.

As a function of q, the curve is straight between bins, and goes from (0, 0) to (1, 1). Without feedback it is the
identity.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clipper.learning.mathematics.totals import CALIBRATION, Key, Numbers

# The source of a raw confidence: the share of agreeing models, or the probability that the answer itself states.
Basis = Literal["agreement", "probability"]
BASES: tuple[Basis, ...] = ("agreement", "probability")
# The confidence by which answers are put into bins: the raw one, or the one that was answered.
By = Literal["raw", "answered"]

# Bins have one width in log-odds, since most probabilities of an overconfident model lie between 0.99 and 1. The first
# begins at 0.05 and the last bounded one ends at 0.999994; beyond these there is one bin each.
_FIRST, _LAST, _WIDTH = -3.0, 12.0, 0.5
BINS = round((_LAST - _FIRST) / _WIDTH) + 2

# Standard deviations of the priors of a and b: the expected distance of models from the truth before any feedback.
_SPREAD_A, _SPREAD_B = 0.5, 0.5
# With a smaller a the curve would be flat, so that it could not be inverted.
_LEAST_A = 0.02
# Bound of Newton's steps: about five are needed, some of them halved.
_STEPS = 25
_ENOUGH = 1e-6

# Extra answers in each bin, which are as right as Platt scaling says.
PRIOR_ANSWERS = 6.0
# A bin with fewer answers is a remainder of fading or inheriting.
_LEAST_ANSWERS = 1e-3


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers with about one confidence; in all numbers older answers count for less.

    Attributes:
        answers: number of answers with feedback.
        confidence: their mean confidence.
        right: the share of right answers; 1 minus the mean loss in general.
    """

    answers: float
    confidence: float
    right: float


def bin_of(confidence: float) -> int:
    """Return the bin of a confidence, from 0 to ``BINS - 1``; it grows with the confidence."""
    return int(min(max((_log_odds(confidence) - _FIRST) // _WIDTH + 1, 0), BINS - 1))


def lesson(model: str, basis: Basis, raw: float, answered: float, right: float) -> dict[Key, float]:
    """Return the amounts that feedback on an answer adds to a state, by model and name.

    Args:
        model: the model whose answer it was; "" if several models made it.
        raw, answered: the raw confidence, and the calibrated one, both from 0 to 1.
        right: how right the answer was, from 0 to 1.
    """
    sums: dict[Key, float] = {}
    by: tuple[tuple[By, float], ...] = (("raw", raw), ("answered", answered))
    for each, confidence in by:
        answers, confidences, rights = _NAMES[basis, each][bin_of(confidence)]
        sums[model, answers] = 1.0
        sums[model, confidences] = confidence
        if right:
            sums[model, rights] = right
    return sums


def bins(numbers: Numbers, model: str, basis: Basis, by: By = "raw") -> list[Bin]:
    """Return the bins with feedback, by confidence."""
    found = []
    for answers_name, confidences, rights in _NAMES[basis, by]:
        answers = numbers.get((model, answers_name), 0.0)
        if answers >= _LEAST_ANSWERS:
            confidence = numbers.get((model, confidences), 0.0) / answers
            right = numbers.get((model, rights), 0.0) / answers
            # Rounding may push the numbers slightly out of range.
            found.append(Bin(answers, min(max(confidence, 0.0), 1.0), min(max(right, 0.0), 1.0)))
    return found


def expected_error(found: Sequence[Bin]) -> float:
    """Return the expected calibration error.

    It is the mean over bins, weighted by answers, of the absolute difference between confidence and share of right
    answers (Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI
    2015). ``found``: at least one bin.
    """
    answers = math.fsum(each.answers for each in found)
    return math.fsum(each.answers * abs(each.confidence - each.right) for each in found) / answers


class Curve:
    """A calibration curve; monotone. ``answers``: number of answers that it was fitted to."""

    __slots__ = ("_a", "_b", "_from", "_to", "answers")

    def __init__(self, found: Sequence[Bin]) -> None:
        self.answers = math.fsum(each.answers for each in found)
        odds = [_log_odds(each.confidence) for each in found]
        self._a, self._b = _platt(odds, found)
        expected = [self._platt(each) for each in odds]
        pooled = _pooled(
            [(each.right * each.answers + PRIOR_ANSWERS * q) / (each.answers + PRIOR_ANSWERS)
             for each, q in zip(found, expected)],
            [each.answers + PRIOR_ANSWERS for each in found],
        )  # fmt: skip
        self._from = [0.0, *expected, 1.0]
        self._to = [0.0, *pooled, 1.0]

    def calibrated(self, confidence: float) -> float:
        """Return the share of right answers among those with this raw confidence."""
        if not self.answers:
            return confidence
        return _interpolated(self._platt(_log_odds(confidence)), self._from, self._to)

    def least_raw(self, threshold: float) -> float:
        """Return the least raw confidence whose calibrated one is at least ``threshold``; infinity without one."""
        if not self.answers:
            return threshold
        if self.calibrated(0.0) >= threshold:
            return 0.0
        if self.calibrated(1.0) < threshold:
            return math.inf
        # Where the curve is flat at the threshold, take the least: the curve is as high from there on.
        place = next(index for index, to in enumerate(self._to) if to >= threshold)
        low, high = self._to[place - 1], self._to[place]
        share = (threshold - low) / (high - low)
        q = self._from[place - 1] + share * (self._from[place] - self._from[place - 1])
        # Not _log_odds: q may be beyond the range of the bins.
        odds = math.log(q / (1.0 - q)) if q < 1.0 else _CERTAIN
        return _probability((odds - self._b) / self._a)

    def _platt(self, log_odds: float) -> float:
        return _probability(self._a * log_odds + self._b)


def _log_odds(confidence: float) -> float:
    """Return log-odds, limited to the range of the bins and so finite."""
    if confidence <= _LEAST:
        return _FIRST - _WIDTH
    if confidence >= _MOST:
        return _LAST + _WIDTH
    return math.log(confidence / (1.0 - confidence))


def _probability(log_odds: float) -> float:
    if log_odds >= 0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    power = math.exp(max(log_odds, -700.0))
    return power / (1.0 + power)


def _starts(basis: Basis) -> tuple[tuple[By, str], tuple[By, str]]:
    """Return the beginnings of the names of the sums."""
    return ("raw", f"{CALIBRATION}{basis}."), ("answered", f"{CALIBRATION}{basis}.answered.")


# From these log-odds on a probability is 1 when rounded.
_CERTAIN = 53 * math.log(2.0)
_LEAST, _MOST = _probability(_FIRST - _WIDTH), _probability(_LAST + _WIDTH)

# Names of each bin's sums: number of answers, their confidences, and how right they were.
_NAMES: Mapping[tuple[Basis, By], Sequence[tuple[str, str, str]]] = {
    (basis, by): [
        (f"{start}{number}.answers", f"{start}{number}.confidence", f"{start}{number}.right") for number in range(BINS)
    ]
    for basis in BASES
    for by, start in _starts(basis)
}


def _platt(odds: Sequence[float], found: Sequence[Bin]) -> tuple[float, float]:
    """Return the a and b that are most probable a posteriori, with ``right ~ Bernoulli(1 / (1 + exp(-(a z + b))))``."""
    a, b = 1.0, 0.0
    cost = _cost(a, b, odds, found)
    for _ in range(_STEPS):
        # Gradient and Hessian of the cost.
        by_a, by_b = (a - 1.0) / _SPREAD_A**2, b / _SPREAD_B**2
        by_aa, by_ab, by_bb = 1.0 / _SPREAD_A**2, 0.0, 1.0 / _SPREAD_B**2
        for z, each in zip(odds, found):
            q = _probability(a * z + b)
            off, weight = each.answers * (q - each.right), each.answers * q * (1.0 - q)
            by_a += off * z
            by_b += off
            by_aa += weight * z * z
            by_ab += weight * z
            by_bb += weight
        scale = by_aa * by_bb - by_ab * by_ab
        step_a = (by_bb * by_a - by_ab * by_b) / scale
        step_b = (by_aa * by_b - by_ab * by_a) / scale
        # The cost is convex, but a whole step may overshoot where the curve saturates.
        while True:
            next_a, next_b = max(a - step_a, _LEAST_A), b - step_b
            next_cost = _cost(next_a, next_b, odds, found)
            if next_cost <= cost or abs(step_a) + abs(step_b) < _ENOUGH:
                break
            step_a, step_b = step_a / 2, step_b / 2
        gained = cost - next_cost
        a, b, cost = next_a, next_b, next_cost
        if gained < _ENOUGH:
            break
    return a, b


def _cost(a: float, b: float, odds: Sequence[float], found: Sequence[Bin]) -> float:
    """Return minus the logarithm of the posterior of a and b, less a constant."""
    cost = ((a - 1.0) / _SPREAD_A) ** 2 / 2 + (b / _SPREAD_B) ** 2 / 2
    for z, each in zip(odds, found):
        x = a * z + b
        # ln(1 + exp(x)) without overflow.
        cost += each.answers * (max(x, 0.0) + math.log1p(math.exp(-abs(x))) - each.right * x)
    return cost


def _pooled(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence with the least weighted sum of squared differences."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights):
        block = value, weight, 1
        while blocks and blocks[-1][0] >= block[0]:
            before, after = blocks.pop(), block
            together = before[1] + after[1]
            block = (before[0] * before[1] + after[0] * after[1]) / together, together, before[2] + after[2]
        blocks.append(block)
    return [value for value, _, length in blocks for _ in range(length)]


def _interpolated(at: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Interpolate linearly. ``xs`` do not decrease, from 0 to 1; nor do ``ys``."""
    place = min(max(bisect_right(xs, at), 1), len(xs) - 1)
    low, high = xs[place - 1], xs[place]
    if high <= low:
        return ys[place]
    return ys[place - 1] + (ys[place] - ys[place - 1]) * (at - low) / (high - low)
