"""Compares models: which is the best, how certain that is, and how much feedback certainty still takes."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from clipper.learning.mathematics.confidence_sequences import (
    Evidence,
    Interval,
    difference_interval,
    log_capital_less,
    mean_interval,
)
from clipper.learning.mathematics.weighing import WeighedEvidence

# ``best``: the model certainly has the least mean loss. ``as_good``: certainly no model is better by more than the
# tolerance. ``open``: neither is known. ``alone``: there is no other model.
Verdict = Literal["best", "as_good", "open", "alone", "no_feedback"]

# More than a million times the feedback so far is not worth waiting for.
_MOST_DOUBLINGS = 20
_HALVINGS = 12


@dataclass(frozen=True, slots=True)
class PooledEvidence:
    """All losses of each model as one sequence: see ``confidence_sequences``.

    This is valid if choices depend on nothing that came with the query. The losses of several models on the same query
    may depend on each other: verdicts are valid then, too, but take more feedback.

    Attributes:
        by_model: the losses.
        feedback: the number of pieces of feedback in them, over all models.
        are_together: whether a piece of feedback may have scored several models.
    """

    by_model: Mapping[str, Evidence]
    feedback: float
    are_together: bool = False

    def statements(self, models: int) -> int:
        """Return the number of statements on pairs among which a verdict on this many models divides its error. It is
        K - 1: means are constant, so a wrong verdict contradicts the one model that is truly the best.
        """
        return models - 1

    def count(self, model: str) -> float:
        return self.by_model[model].count

    def mean(self, model: str) -> float:
        return self.by_model[model].mean

    def mean_interval(self, model: str, error: float) -> Interval:
        return mean_interval(self.by_model[model], error)

    def difference_interval(self, first: str, second: str, error: float) -> Interval:
        return difference_interval(self.by_model[first], self.by_model[second], error, are_together=self.are_together)

    def log_capital_less(self, first: str, second: str, margin: float = 0.0) -> float:
        return log_capital_less(self.by_model[first], self.by_model[second], margin, are_together=self.are_together)

    def times(self, factor: float) -> "PooledEvidence":
        grown = {
            model: Evidence(each.count * factor, each.loss * factor, each.spread * factor)
            for model, each in self.by_model.items()
        }
        return PooledEvidence(grown, self.feedback * factor, self.are_together)


ModelEvidence: TypeAlias = PooledEvidence | WeighedEvidence


@dataclass(frozen=True, slots=True)
class Compared:
    """A model in a comparison; the fields are as in ``ReportedModel`` of the API."""

    mean: float | None
    interval: Interval
    worse_by: Interval | None = None
    sureness: float | None = None
    more_feedback: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of several models: ``best`` has the least mean loss. The rest is as in ``ReportGroup``."""

    models: Mapping[str, Compared]
    verdict: Verdict
    best: str | None
    sureness: float
    more_feedback: float | None


def compare(models: Collection[str], evidence: ModelEvidence, confidence: float, tolerance: float) -> Comparison:
    """Compare models by all of their feedback. This may be done as often as one likes.

    All verdicts hold together, at all times, with probability ``confidence``: for a wrong verdict, a false bet has to
    win in one of the pairs that it is about. So do all intervals of differences. The interval of each mean holds with
    ``confidence`` by itself.

    Args:
        confidence: above 0, below 1.
        tolerance: difference of mean losses up to which models are as good as each other; at least 0.
    """
    error = 1 - confidence
    intervals = {model: evidence.mean_interval(model, error) for model in models}
    known = [model for model in models if evidence.count(model) > 0]
    if not known:
        return Comparison({m: Compared(None, intervals[m]) for m in models}, "no_feedback", None, 0.0, None)
    best = min(known, key=evidence.mean)
    others = [model for model in models if model != best]
    found = {best: Compared(evidence.mean(best), intervals[best])}
    if not others:
        return Comparison(found, "alone", best, 1.0, 0.0)
    statements = evidence.statements(len(models))
    of_pair = error / (len(models) * (len(models) - 1) / 2)
    for model in others:
        if not evidence.count(model):
            found[model] = Compared(None, intervals[model], sureness=0.0)
            continue
        found[model] = Compared(
            evidence.mean(model),
            intervals[model],
            evidence.difference_interval(model, best, of_pair),
            max(1 - statements * math.exp(-evidence.log_capital_less(best, model)), 0.0),
            _more_feedback(best, model, evidence, tolerance, math.log(statements / error)),
        )
    needed = [found[model].more_feedback for model in others]
    sureness = min(found[model].sureness or 0.0 for model in others)
    more = None if None in needed else max(each for each in needed if each is not None)
    verdict: Verdict = "best" if sureness >= confidence else "as_good" if more == 0 else "open"
    return Comparison({model: found[model] for model in models}, verdict, best, sureness, more)


def _more_feedback(better: str, other: str, evidence: ModelEvidence, tolerance: float, wanted: float) -> float | None:
    """Return the feedback until the pair's capital is large enough, if further feedback is like the previous."""

    def is_enough(times: float) -> bool:
        return evidence.times(times).log_capital_less(better, other, tolerance) >= wanted

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
    return math.ceil((high - 1) * evidence.feedback)
