"""From how sure an answer seems to how often such answers are right.

A confidence is called **raw** as a model or a vote gives it. It is put into one of some dozens of bins, and feedback
adds to the bin's sums: how many answers, the sum of their raw confidences, and of how right they were. As all sums of a
state they are added to by any number of workers, and fade by its half-life. From the sums a curve is fitted, in two
steps, so that it serves with ten pieces of feedback as with a thousand:

1. Platt scaling of the raw confidence's log-odds z: ``q = 1 / (1 + exp(-(a z + b)))`` (Platt, "Probabilistic Outputs
   for Support Vector Machines", 1999; on log-odds it is beta calibration with equal exponents: Kull, Silva Filho and
   Flach, "Beta calibration", AISTATS 2017). a and b have normal priors around 1 and 0, the identity, and are the most
   probable a posteriori, by Newton's method.
2. Isotonic regression over the bins by pooling adjacent violators (Zadrozny and Elkan, "Transforming Classifier Scores
   into Accurate Multiclass Probability Estimates", KDD 2002), where each bin has ``PRIOR_ANSWERS`` answers more that
   were as right as q says. It needs more data than Platt scaling and then is better (Niculescu-Mizil and Caruana,
   "Predicting Good Probabilities with Supervised Learning", ICML 2005), and the prior makes it the better one's.

Between bins the curve is straight in q, and goes through (0, 0) and (1, 1). Without feedback it is the identity.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clipper.selection.learning.totals import CALIBRATION, Numbers

# What a raw confidence is: the share of the models that agree, or the probability that the answer itself states.
Basis = Literal["agreement", "probability"]
BASES: tuple[Basis, ...] = ("agreement", "probability")
# By what answers are put into bins: their raw confidence, or the one that was answered in its place.
By = Literal["raw", "answered"]

# Bins are of one width in log-odds, as most probabilities of a model that is too sure lie between 0.99 and 1. The first
# begins at 0.05, the last that is bounded ends at 0.999994; beyond these lie one each.
_FIRST, _LAST, _WIDTH = -3.0, 12.0, 0.5
BINS = round((_LAST - _FIRST) / _WIDTH) + 2

# The spread of a's and b's priors: how far from the truth models are before anything is known of one.
_SPREAD_A, _SPREAD_B = 0.5, 0.5
# Below it the curve would be flat, and what it was fitted to could not be told from it.
_LEAST_A = 0.02
# Newton's steps: five do, of some that are halved.
_STEPS = 25
_ENOUGH = 1e-6
# What a bin has beside its feedback.
PRIOR_ANSWERS = 6.0
# A bin with less is what fading or inheriting left of one.
_LEAST_ANSWERS = 1e-3


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about one confidence; all numbers count what is old for less.

    Attributes:
        answers: how many there was feedback on.
        confidence: their mean.
        right: the share of them that was right; under a loss in between, 1 minus the mean loss.
    """

    answers: float
    confidence: float
    right: float


def bin_of(confidence: float) -> int:
    """From 0 to ``BINS - 1``; it grows with the confidence."""
    return int(min(max((_log_odds(confidence) - _FIRST) // _WIDTH + 1, 0), BINS - 1))


def lesson(model: str, basis: Basis, raw: float, answered: float, right: float) -> dict[tuple[str, str], float]:
    """What feedback on an answer adds to a state, by model and name.

    Args:
        model: whose answer it was; "" for one of several.
        raw, answered: its confidence, and the calibrated one, both from 0 to 1.
        right: how right it was, from 0 to 1.
    """
    sums: dict[tuple[str, str], float] = {}
    by: tuple[tuple[By, float], ...] = (("raw", raw), ("answered", answered))
    for each, confidence in by:
        answers, confidences, rights = _NAMES[basis, each][bin_of(confidence)]
        sums[model, answers] = 1.0
        sums[model, confidences] = confidence
        if right:
            sums[model, rights] = right
    return sums


def bins(numbers: Numbers, model: str, basis: Basis, by: By = "raw") -> list[Bin]:
    """Those in which there was feedback, by confidence."""
    found = []
    for answers_name, confidences, rights in _NAMES[basis, by]:
        answers = numbers.get((model, answers_name), 0.0)
        if answers >= _LEAST_ANSWERS:
            confidence = numbers.get((model, confidences), 0.0) / answers
            right = numbers.get((model, rights), 0.0) / answers
            # Rounding may leave them a little outside.
            found.append(Bin(answers, min(max(confidence, 0.0), 1.0), min(max(right, 0.0), 1.0)))
    return found


def expected_error(found: Sequence[Bin]) -> float:
    """The expected calibration error: the mean difference between confidence and share of right answers of a bin,
    each counted by its answers (Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015).

    Args:
        found: at least one.
    """
    answers = math.fsum(each.answers for each in found)
    return math.fsum(each.answers * abs(each.confidence - each.right) for each in found) / answers


class Curve:
    """What a raw confidence means; monotone.

    Attributes:
        answers: what it was fitted to.
    """

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
        """The share of right answers among those of such a raw confidence."""
        if not self.answers:
            return confidence
        return _interpolated(self._platt(_log_odds(confidence)), self._from, self._to)

    def least_raw(self, threshold: float) -> float:
        """From which raw confidence on the calibrated one is at least ``threshold``, to within rounding; infinity if
        none is."""
        if not self.answers:
            return threshold
        if self.calibrated(0.0) >= threshold:
            return 0.0
        if self.calibrated(1.0) < threshold:
            return math.inf
        # The least where the curve is flat at the threshold: from there on it is as high.
        place = next(index for index, to in enumerate(self._to) if to >= threshold)
        low, high = self._to[place - 1], self._to[place]
        share = (threshold - low) / (high - low) if high > low else 0.0
        q = self._from[place - 1] + share * (self._from[place] - self._from[place - 1])
        return _probability((_log_odds(q) - self._b) / self._a)

    def _platt(self, log_odds: float) -> float:
        return _probability(self._a * log_odds + self._b)


def _log_odds(confidence: float) -> float:
    """Kept within what the bins tell apart, and so finite."""
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
    """How names begin."""
    return ("raw", f"{CALIBRATION}{basis}."), ("answered", f"{CALIBRATION}{basis}.answered.")


_LEAST, _MOST = _probability(_FIRST - _WIDTH), _probability(_LAST + _WIDTH)

# Of each bin: how many answers, the sum of their confidences, and that of how right they were.
_NAMES: Mapping[tuple[Basis, By], Sequence[tuple[str, str, str]]] = {
    (basis, by): [
        (f"{start}{number}.answers", f"{start}{number}.confidence", f"{start}{number}.right") for number in range(BINS)
    ]
    for basis in BASES
    for by, start in _starts(basis)
}


def _platt(odds: Sequence[float], found: Sequence[Bin]) -> tuple[float, float]:
    """The most probable a and b of ``right ~ Bernoulli(1 / (1 + exp(-(a z + b))))``."""
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
        # The cost is convex, but where the curve saturates a whole step may lead away.
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
    """Minus the logarithm of the posterior."""
    cost = ((a - 1.0) / _SPREAD_A) ** 2 / 2 + (b / _SPREAD_B) ** 2 / 2
    for z, each in zip(odds, found):
        x = a * z + b
        # ln(1 + exp(x)), of which exp must not overflow.
        cost += each.answers * (max(x, 0.0) + math.log1p(math.exp(-abs(x))) - each.right * x)
    return cost


def _pooled(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence with the least sum of weighted squares of differences."""
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
    """``xs`` do not decrease, from 0 to 1; nor do ``ys``."""
    place = min(max(bisect_right(xs, at), 1), len(xs) - 1)
    low, high = xs[place - 1], xs[place]
    if high <= low:
        return ys[place]
    return ys[place - 1] + (ys[place] - ys[place - 1]) * (at - low) / (high - low)
