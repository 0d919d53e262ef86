"""Compares models: which is the best, how certain that is, and how much feedback certainty still takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clipper.selection.learning.confidence_sequences import (
    Evidence,
    Interval,
    difference_interval,
    log_capital_less,
    mean_interval,
)

# ``best``: certainly has the least mean loss. ``as_good``: certainly no model is better by more than the tolerance.
# ``open``: neither is known. ``alone``: there is no other model.
Verdict = Literal["best", "as_good", "open", "alone", "no_feedback"]

# More than a million times the feedback so far is not worth waiting for.
_MOST_DOUBLINGS = 20
_HALVINGS = 12
# Of sums of many numbers.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Compared:
    """One model in a comparison.

    Attributes:
        mean: its mean loss; None without feedback.
        interval: confidence interval of its mean loss.
        worse_by: interval of its mean loss less the best model's; None for the best model, or without feedback.
        sureness: certainty that the best model is better; None as above.
        more_feedback: feedback until it is known whether it is worse than the best model or as good; 0 if it is known;
            None if that cannot be told, and for the best model.
    """

    mean: float | None
    interval: Interval
    worse_by: Interval | None = None
    sureness: float | None = None
    more_feedback: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Attributes:
        best: the model with the least mean loss; None without feedback.
        sureness: certainty that it is the best.
        more_feedback: feedback until there is a verdict, if mean losses and the mix of feedback stay as they are; None
            if that cannot be told.
    """

    models: Mapping[str, Compared]
    verdict: Verdict
    best: str | None
    sureness: float
    more_feedback: float | None


def compare(evidence: Mapping[str, Evidence], feedback: float, confidence: float, tolerance: float) -> Comparison:
    """Compare models by all of their feedback, as often as wanted: see ``confidence_sequences``.

    All verdicts hold together, at all times, with probability ``confidence``: a wrong one requires that a false bet
    wins in one of the K - 1 pairs with the true best. So do all intervals of differences, since each of the K (K - 1) /
    2 pairs has its part of the error. The interval of each mean holds with ``confidence`` by itself.

    If there are more losses than pieces of feedback, queries told about several models at once, whose losses may depend
    on each other: verdicts hold then as well, but take more feedback.

    Args:
        evidence: by model.
        feedback: number of pieces of feedback in it, over all models.
        confidence: above 0, below 1.
        tolerance: difference of mean losses up to which models are as good as each other; at least 0.
    """
    error = 1 - confidence
    intervals = {model: mean_interval(each, error) for model, each in evidence.items()}
    known = [model for model, each in evidence.items() if each.count > 0]
    if not known:
        return Comparison({m: Compared(None, intervals[m]) for m in evidence}, "no_feedback", None, 0.0, None)
    best = min(known, key=lambda model: evidence[model].mean)
    others = [model for model in evidence if model != best]
    models = {best: Compared(evidence[best].mean, intervals[best])}
    if not others:
        return Comparison(models, "alone", best, 1.0, 0.0)
    wanted = math.log(len(others) / error)
    of_pair = error / (len(others) * (len(others) + 1) / 2)
    are_together = sum(each.count for each in evidence.values()) > feedback * (1 + _ROUNDING)
    for model in others:
        if not evidence[model].count:
            models[model] = Compared(None, intervals[model], sureness=0.0)
            continue
        pair = evidence[best], evidence[model]
        models[model] = Compared(
            evidence[model].mean,
            intervals[model],
            difference_interval(evidence[model], evidence[best], of_pair, are_together=are_together),
            max(1 - len(others) * math.exp(-log_capital_less(*pair, are_together=are_together)), 0.0),
            _more_feedback(*pair, feedback, tolerance, wanted, are_together=are_together),
        )
    needed = [models[model].more_feedback for model in others]
    sureness = min(models[model].sureness or 0.0 for model in others)
    more = None if None in needed else max(each for each in needed if each is not None)
    verdict: Verdict = "best" if sureness >= confidence else "as_good" if more == 0 else "open"
    return Comparison({model: models[model] for model in evidence}, verdict, best, sureness, more)


def _more_feedback(
    better: Evidence, other: Evidence, feedback: float, tolerance: float, wanted: float, *, are_together: bool
) -> float | None:
    """Return the feedback until the pair's capital is as wanted, if further feedback is like the previous."""

    def is_enough(times: float) -> bool:
        pair = _times(better, times), _times(other, times)
        return log_capital_less(*pair, tolerance, are_together=are_together) >= wanted

    if is_enough(1.0):
        return 0.0
    low, high = 1.0, 2.0
    while not is_enough(high):
        low, high = high, 2 * high
        if high > 2.0**_MOST_DOUBLINGS:
            return None
    for _ in range(_HALVINGS):
        between = (low + high) / 2
        low, high = (low, between) if is_enough(between) else (between, high)
    return math.ceil((high - 1) * feedback)


def _times(evidence: Evidence, times: float) -> Evidence:
    return Evidence(evidence.count * times, evidence.loss * times, evidence.spread * times)
