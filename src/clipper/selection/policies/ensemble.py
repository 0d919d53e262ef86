"""``ensemble``: all models answer; several together are right more often than the best of them."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from random import Random

from clipper.selection.learning.ledger import fading
from clipper.selection.learning.parameters import check_choice, check_number
from clipper.selection.learning.totals import LOSS, SCORED
from clipper.selection.policies.combine import (
    DEFAULT_CLASSES,
    DEFAULT_TOLERANCE,
    Combined,
    Combiner,
    blocs,
    guessed_loss,
    make_combiner,
    vote_is_settled,
)
from clipper.selection.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView, Totals

WEIGHTINGS = ("accuracy", "equal")

# Powers of the log odds, by which votes may weigh. The first is taken where none has answered better than the others.
SHARPNESSES = (1, 2, 4, 8, 16)
# How long the record of each counts: long beside the half-life of models' counts, since it tells of all that these
# have gone through.
RECORD_HALF_LIFE = 2000
# By how much the answers of each have lost more than the mean of all.
EXCESS_BY = {sharpness: fading(f"excess_by_{sharpness}", RECORD_HALF_LIFE) for sharpness in SHARPNESSES}

# Of each model: how often a reward was for another output than its own, and what it is then taken to have lost.
GUESSED = "guessed"
GUESSED_LOSS = "guessed_loss"

# What a model no better than guessing counts, where one that is right nine times in ten of two classes counts 2.2.
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble(Policy):
    """Asks all models and answers with the majority's vote, the mean or the median.

    A vote weighs ``ln((classes - 1) * (1 - e) / e) ** sharpness``, e the model's mean loss. With a sharpness of 1 that
    gives the likeliest label where models err independently, and to any wrong label alike (Nitzan and Paroush, "Optimal
    Decision Rules in Uncertain Dichotomous Choice Situations", 1982, for two classes); a model no better than
    guessing counts next to nothing. Models that err together outvote a better one by that, so how sharply better ones
    are preferred is learned: all of ``SHARPNESSES`` vote on each query that there is feedback on, and the one whose
    answers have lost least of late decides (model selection by forgetting, as in ``adaptive``).

    In a mean or median a model counts ``1 / e``, which under the ``squared`` loss is inverse-variance weighting. e is
    smoothed by one success and one failure, so that without feedback all count alike. Of late outputs it is learned as
    of others; a weight is scaled by the share of queries that the model was in time for, so that one which hardly ever
    is takes little of an answer's confidence.

    Unlike ``exp4``, which moves to the best model, this keeps all that are any good.

    Args:
        answer: ``vote``, ``mean`` or ``median``.
        weighting: ``accuracy``, or ``equal``: then nothing is learned.
        tolerance: of ``mean`` and ``median``: how near an output must be to the answer to agree with it; at least 0.
        classes: of a vote weighted by accuracy: how many labels there are, at least 2. With too few the best model
            drowns the others out; with too many all count nearly alike, so the default errs to that side.

    Raises:
        InvalidArgument: a parameter is outside its range.
    """

    feedback = "all"
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

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        choice: Choice | None = totals.memo.get((self, models))
        if choice is None:
            choice = totals.memo[self, models] = Choice(models, self._shares(models, totals))
        return choice

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        return self._combiner(choice.models, choice.shares, outputs)

    def is_settled(self, choice: Choice, outputs: Mapping[str, bytes], lost: Collection[str], threshold: float) -> bool:
        # Any output moves a mean.
        votes = self.answer == "vote"
        return votes and vote_is_settled(choice.models, choice.shares, outputs, lost, threshold)

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """What the answer by each sharpness lost more than their mean."""
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
        """A guess for the models that gave another output: see ``guessed_loss``."""
        if not losses:
            return {}
        guess = guessed_loss(min(losses.values()), self.classes)
        others = dict.fromkeys((model for model in choice.models if model not in losses), guess)
        counts = {(model, GUESSED): 1.0 for model in others}
        guessed = {(model, GUESSED_LOSS): guess for model in others}
        return {**counts, **guessed, **self.observe(choice, {**losses, **others}, totals, query)}

    def _shares(self, models: tuple[str, ...], totals: Totals) -> tuple[float, ...]:
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
        """A model's log odds, and the share of queries that it was in time for."""
        error = _error(model, totals)
        odds = max(math.log((self.classes - 1) * (1 - error) / error), _LEAST_WEIGHT)
        return odds, totals.in_time(model)


def best_sharpness(totals: Totals) -> int:
    """The one whose answers have lost least of late."""
    return min(SHARPNESSES, key=lambda sharpness: totals.number("", EXCESS_BY[sharpness]))


def _sharpened(odds: float, in_time: float, sharpness: int) -> float:
    return float(odds**sharpness * in_time)


def _error(model: str, totals: Totals) -> float:
    """Mean loss, smoothed to lie within (0, 1)."""
    scored = totals.number(model, SCORED) + totals.number(model, GUESSED)
    loss = min(
        totals.number(model, LOSS) + totals.number(model, GUESSED_LOSS), scored
    )  # rounding may leave it a little above
    return (loss + 1) / (scored + 2)
