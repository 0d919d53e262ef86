"""``ensemble``: all models answer; several together are right more often than the best of them."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from random import Random

from clipper.selection.learning.parameters import check_choice, check_number
from clipper.selection.learning.totals import LOSS, SCORED
from clipper.selection.policies.combine import (
    DEFAULT_CLASSES,
    DEFAULT_TOLERANCE,
    Combined,
    Combiner,
    guessed_loss,
    make_combiner,
    vote_is_settled,
)
from clipper.selection.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView, Totals

WEIGHTINGS = ("equal", "accuracy")

# Of each model: how often a reward was for another output than its own, and what it is then taken to have lost.
GUESSED = "guessed"
GUESSED_LOSS = "guessed_loss"

# What a model no better than guessing counts, where one that is right nine times in ten of two classes counts 2.2.
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble(Policy):
    """Asks all models and answers with the majority's vote, the mean or the median.

    Weighted by ``accuracy``, a vote counts ``ln((classes - 1) * (1 - e) / e)``, e the model's mean loss. That gives the
    likeliest label where models err independently, and to any wrong label alike (Nitzan and Paroush, "Optimal
    Decision Rules in Uncertain Dichotomous Choice Situations", 1982, for two classes); a model no better than
    guessing counts next to nothing. In a mean or median a model counts ``1 / e``, which under the ``squared`` loss is
    inverse-variance weighting. e is smoothed by one success and one failure, so that without feedback all count alike.
    Of late outputs it is learned as of others; a weight is scaled by the share of queries that the model was in time
    for, so that one which hardly ever is takes little of an answer's confidence.

    Unlike ``exp4``, which moves to the best model, this keeps all that are any good.

    Args:
        answer: ``vote``, ``mean`` or ``median``.
        weighting: ``equal`` or ``accuracy``.
        tolerance: of ``mean`` and ``median``: how near an output must be to the answer to agree with it; at least 0.
        classes: of a weighted vote: how many labels there are, at least 2. With too few the best model drowns the
            others out; with too many all count nearly alike, so the default errs to that side.

    Raises:
        InvalidArgument: a parameter is outside its range.
    """

    feedback = "all"
    default_half_life = 100

    answer: str = "vote"
    weighting: str = "equal"
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

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        """A guess for the models that gave another output: see ``guessed_loss``."""
        if not losses:
            return {}
        guess = guessed_loss(min(losses.values()), self.classes)
        others = [model for model in choice.models if model not in losses]
        counts = {(model, GUESSED): 1.0 for model in others}
        return {**counts, **{(model, GUESSED_LOSS): guess for model in others}}

    def _shares(self, models: tuple[str, ...], totals: Totals) -> tuple[float, ...]:
        weights = [self._weight(model, totals) for model in models]
        total = sum(weights)
        return tuple(weight / total for weight in weights)

    def _weight(self, model: str, totals: Totals) -> float:
        if self.weighting == "equal":
            return 1.0
        error = _error(model, totals)
        if self.answer == "vote":
            by_error = max(math.log((self.classes - 1) * (1 - error) / error), _LEAST_WEIGHT)
        else:
            by_error = 1 / error
        return by_error * totals.in_time(model)


def _error(model: str, totals: Totals) -> float:
    """Mean loss, smoothed to lie within (0, 1)."""
    scored = totals.number(model, SCORED) + totals.number(model, GUESSED)
    loss = min(
        totals.number(model, LOSS) + totals.number(model, GUESSED_LOSS), scored
    )  # rounding may leave it a little above
    return (loss + 1) / (scored + 2)
