"""``ensemble``: all models answer; together they are right more often than the best model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from clipper.learning.mathematics.ledger import fading
from clipper.learning.mathematics.parameters import check_choice, check_number
from clipper.learning.mathematics.totals import LOSS, SCORED
from clipper.learning.policies.combine import (
    DEFAULT_CLASSES,
    DEFAULT_TOLERANCE,
    Combiner,
    blocs,
    guessed_loss,
    make_combiner,
)
from clipper.learning.policies.joint import Joint
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Totals

WEIGHTINGS = ("accuracy", "equal")

# Exponents of the log odds, by which votes are weighted. The first is used if no other has answered better.
SHARPNESSES = (1, 2, 4, 8, 16)
# The half-life of each exponent's record: long beside the half-life of the models' counts, since it covers all their
# changes.
RECORD_HALF_LIFE = 2000
# The excess of each exponent's losses over the mean of all exponents.
EXCESS_BY = {sharpness: fading(f"excess_by_{sharpness}", RECORD_HALF_LIFE) for sharpness in SHARPNESSES}

# For each model: how often a reward was for another model's output, and the loss that was assumed for it then.
GUESSED = "guessed"
GUESSED_LOSS = "guessed_loss"

# The weight of a model that is no better than guessing; a model that is right nine times in ten, of two classes, has
# 2.2.
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble(Joint):
    """Asks all models and answers with the majority vote, the mean or the median.

    A vote has the weight ``ln((classes - 1) * (1 - e) / e) ** sharpness``, with e the model's mean loss. With a
    sharpness of 1 that gives the likeliest label if models err independently, and equally often to each wrong label
    (Nitzan and Paroush, "Optimal Decision Rules in Uncertain Dichotomous Choice Situations", 1982, for two classes); a
    model no better than guessing has next to no weight. Models that err together can outvote a better one. So it is
    learned how sharply better models are preferred: all of ``SHARPNESSES`` vote on each query with feedback, and the
    one whose answers have recently lost least is used (model selection by forgetting, as in ``adaptive``).

    In a mean or median a model has the weight ``1 / e``, which under the ``squared`` loss is inverse-variance
    weighting. e is smoothed by one success and one failure, so that without feedback all models count alike. Late
    outputs are learned from like others; a weight is scaled by the share of queries that the model was in time for, so
    that a model which hardly ever is takes little of an answer's confidence.

    Unlike ``exp4``, which moves to the best model, this keeps all useful models.

    Args:
        answer: ``vote``, ``mean`` or ``median``.
        weighting: ``accuracy``, or ``equal``, which learns nothing.
        tolerance: for ``mean`` and ``median``: how near an output must be to the answer to agree with it; at least 0.
        classes: for a vote weighted by accuracy: the number of labels, at least 2. With too few the best model drowns
            out the others; with too many all count nearly alike, so the default errs on that side.
    """

    default_half_life = 50

    answer: str = "vote"
    weighting: str = "accuracy"
    tolerance: float = DEFAULT_TOLERANCE
    classes: int = DEFAULT_CLASSES
    _combiner: Combiner = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("weighting", self.weighting, WEIGHTINGS)
        check_number("classes", self.classes, 2)
        object.__setattr__(self, "_combiner", make_combiner(self.answer, self.tolerance))

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Return how much more the answer by each sharpness lost than their mean."""
        if self.weighting == "equal" or self.answer != "vote":
            return {}
        scored = [model for model in choice.models if model in losses and model in query.outputs]
        rivals = blocs(scored, query.outputs)
        if len(rivals) < 2:
            return {}
        weights = {model: self._vote(model, totals) for model in scored}
        lost = []
        for sharpness in SHARPNESSES:
            behind = [sum(_sharpened(*weights[model], sharpness) for model in rival) for rival in rivals]
            lost.append(losses[rivals[behind.index(max(behind))][0]])
        usual = sum(lost) / len(lost)
        if min(lost) == max(lost):
            return {}
        return {("", EXCESS_BY[sharpness]): loss - usual for sharpness, loss in zip(SHARPNESSES, lost)}

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        """Guess the loss of models that gave another output: see ``guessed_loss``."""
        if not losses:
            return {}
        guess = guessed_loss(min(losses.values()), self.classes)
        others = dict.fromkeys((model for model in choice.models if model not in losses), guess)
        counts = {(model, GUESSED): 1.0 for model in others}
        guessed = {(model, GUESSED_LOSS): guess for model in others}
        return {**counts, **guessed, **self.observe(choice, {**losses, **others}, totals, query)}

    def shares(self, models: tuple[str, ...], totals: Totals) -> tuple[float, ...]:
        if self.weighting == "equal":
            weights = [1.0] * len(models)
        elif self.answer == "vote":
            sharpness = best_sharpness(totals)
            weights = [_sharpened(*self._vote(model, totals), sharpness) for model in models]
        else:
            weights = [totals.in_time(model) / _error(model, totals) for model in models]
        total = sum(weights)
        return tuple(weight / total for weight in weights)

    def _vote(self, model: str, totals: Totals) -> tuple[float, float]:
        """Return a model's log odds, and the share of queries that it was in time for."""
        error = _error(model, totals)
        odds = max(math.log((self.classes - 1) * (1 - error) / error), _LEAST_WEIGHT)
        return odds, totals.in_time(model)


def best_sharpness(totals: Totals) -> int:
    """Return the sharpness whose answers have recently lost least."""
    return min(SHARPNESSES, key=lambda sharpness: totals.number("", EXCESS_BY[sharpness]))


def _sharpened(odds: float, in_time: float, sharpness: int) -> float:
    return float(odds**sharpness * in_time)


def _error(model: str, totals: Totals) -> float:
    """Return the mean loss, smoothed to lie within (0, 1)."""
    scored = totals.number(model, SCORED) + totals.number(model, GUESSED)
    loss = totals.number(model, LOSS) + totals.number(model, GUESSED_LOSS)
    return (min(loss, scored) + 1) / (scored + 2)  # rounding may leave the loss a little above the count
