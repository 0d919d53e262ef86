"""``best_arm``: a test that ends itself. It asks what tells most, and then the best model alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clipper.errors import InvalidArgument
from clipper.selection.learning.confidence_sequences import Evidence, log_capital_less, nearest_means
from clipper.selection.learning.parameters import check_number
from clipper.selection.policies.distribution import Distribution
from clipper.selection.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView, Standing, Totals

# What a state holds of a test: how often a model had won, or lost, where that was not known yet; and how much feedback
# came while it was open.
WON = "won~never"
LOST = "lost~never"
TESTED = "tested~never"

# Share of the queries that goes to all that are in the test alike. It bounds what is lost where first losses mislead,
# or feedback is late, at a tenth.
SPREAD_SHARE = 0.1
# What losses between 0 and 1 tell more than those of 0 and 1 do takes a hundred times as long to work out: it is looked
# at once in so many observations. A test may be looked at whenever one likes.
LOOK_EVERY = 64


@dataclass(frozen=True, slots=True)
class _Test:
    """What a state says of a test.

    Attributes:
        contenders: the models that are in it, in the application's order; the winner alone once it is over.
        incumbent: the model that won before others came.
        is_recorded: whether that it is over is part of the state; else the state's evidence says so.
    """

    contenders: tuple[str, ...]
    incumbent: str | None
    is_recorded: bool


@dataclass(frozen=True, slots=True, eq=False)
class BestArm(Policy):
    """Finds the model with the least mean loss, with a given confidence from as little feedback as it can, and asks
    that one alone from then on: best-arm identification with fixed confidence.

    **When it ends.** That ``m_a < m_b + margin`` is found once the capital that bets against all means for which it is
    not so has grown to ``(K - 1) / (1 - confidence)``, with K the number of models: see ``confidence_sequences``. The
    test ends when it is found of one model a and all others b, with ``tolerance`` as the margin, so that it ends for
    equal models, too. That is the generalized likelihood ratio rule of track-and-stop
    (Garivier, Kaufmann: "Optimal Best Arm Identification with Fixed Confidence", 2016), with a mixture in place of the
    largest likelihood, which needs no threshold found by approximation (Kaufmann, Koolen: "Mixture Martingales
    Revisited", 2021). A verdict that is off by more than ``tolerance`` takes a capital of one of the K - 1 pairs with
    the true best that is wrong, so it ever comes with a probability of at most 1 - ``confidence``, whatever losses in
    [0, 1] are and however often they are looked at.

    **Whom it asks.** The optimal shares of track-and-stop have no closed form, and take a search at each query. Top-two
    sampling comes near them by a look at the present sums (Jourdan, Degenne, Baudry, de Heide, Kaufmann: "Top Two
    Algorithms Revisited", 2022; for a tolerance: Jourdan, Degenne, Kaufmann: "An epsilon-Best-Arm Identification
    Algorithm for Fixed-Confidence and Beyond", 2023): the model with the least mean loss, and the challenger c with the
    least ``capital + 3/2 ln(n_c)``, which is the least certain to be worse; the capital's own part of the counts makes
    it the 1 of TCI. How both share: as much as each adds to the capital (You, Qin, Wang, Yang: "Information-Directed
    Selection for Top-Two Algorithms", 2023), ``n_i kl(mean_i, x_i)`` with x the nearest means at which they are equal.
    A tenth is spread over all that are in the test. Each choice's probability is exact, and its share.

    **Newcomers.** A model or version that comes after the end has not lost, so the test is open again between it and
    the winner, which stays unless the newcomer is better by a margin of 0: were it replaced by each that is within the
    tolerance, these would add up. Where a winner is no longer linked, all others are tested again. What was learned of
    a version before, from feedback on it as a shadow, counts.

    It is the application's test in all contexts, unless ``prior_weight`` is 0. Nothing is forgotten, for what it
    promises holds where mean losses stay: where they may change, ``adaptive`` is the policy.

    Args:
        confidence: that the winner is the best one; above 0.5, below 1.
        tolerance: by how much its mean loss may exceed the best one's; from 0 to 0.5. With 0 equal models are tested
            for ever. The default is one loss in a hundred queries; half of it takes four times the feedback where
            models are equal.

    Raises:
        InvalidArgument: a parameter is outside its range.
    """

    default_half_life = None

    confidence: float = 0.95
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_number("confidence", self.confidence, 0.5, 1, above=True)
        if self.confidence >= 1:
            raise InvalidArgument(f"confidence is {self.confidence:g}: expected a number below 1, such as 0.95")
        check_number("tolerance", self.tolerance, 0, 0.5)

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        distribution: Distribution | None = totals.memo.get((self, models))
        if distribution is None:
            distribution = Distribution(models, self.probabilities(models, totals), among=models)
            totals.memo[self, models] = distribution
        return distribution.draw(random)

    def probabilities(self, models: Sequence[str], totals: Totals) -> list[float]:
        """One a model."""
        known = totals.application or totals
        contenders = self._test(tuple(models), known).contenders
        if len(contenders) == 1:
            return [float(model == contenders[0]) for model in models]
        evidence = {model: _of_zeros_and_ones(known.evidence(model)) for model in contenders}
        leader = min(contenders, key=lambda model: evidence[model].mean)
        challenger = min(
            (model for model in contenders if model != leader),
            key=lambda model: (
                log_capital_less(evidence[leader], evidence[model], self.tolerance)
                + 1.5 * math.log1p(evidence[model].count)
            ),
        )
        part = _share(evidence[leader], evidence[challenger], self.tolerance)
        probabilities = dict.fromkeys(contenders, SPREAD_SHARE / len(contenders))
        probabilities[leader] += (1 - SPREAD_SHARE) * part
        probabilities[challenger] += (1 - SPREAD_SHARE) * (1 - part)
        return [probabilities.get(model, 0.0) for model in models]

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """That the test is over, once it is; until then, how much feedback it takes."""
        # A test of two at least, and of the application: a context's state has no part in it.
        if not losses or choice.among is None or len(choice.among) < 2 or totals.application is not None:
            return {}
        test = self._test(choice.among, totals)
        if len(test.contenders) > 1:
            return {("", TESTED): 1.0}
        if test.is_recorded:
            return {}
        (winner,) = test.contenders
        return {(model, WON if model == winner else LOST): 1.0 for model in choice.among}

    def standing(self, models: tuple[str, ...], totals: Totals) -> Standing | None:
        known = totals.application or totals
        contenders = self._test(models, known).contenders
        winner = contenders[0] if len(contenders) == 1 else None
        return Standing(winner, self.confidence, self.tolerance, known.number("", TESTED))

    def _test(self, models: tuple[str, ...], known: Totals) -> _Test:
        """How it stands; worked out once for a state."""
        test: _Test | None = known.memo.get((self, "test", models))
        if test is None:
            test = known.memo[self, "test", models] = self._judged(_recorded(models, known), len(models), known)
        return test

    def _judged(self, test: _Test, models: int, known: Totals) -> _Test:
        if len(test.contenders) == 1:
            return test
        evidence = {model: known.evidence(model) for model in test.contenders}
        looks_closely = int(sum(each.count for each in evidence.values())) % LOOK_EVERY == 0
        if not looks_closely:
            evidence = {model: _of_zeros_and_ones(each) for model, each in evidence.items()}
        wanted = math.log((models - 1) / (1 - self.confidence))
        leader = min(test.contenders, key=lambda model: evidence[model].mean)
        # In one pass over the pairs: whether the leader, or the incumbent, has won over all others.
        for model in dict.fromkeys((leader, test.incumbent or leader)):
            if all(
                log_capital_less(
                    evidence[model],
                    evidence[other],
                    0.0 if other == test.incumbent else self.tolerance,
                )
                >= wanted
                for other in test.contenders
                if other != model
            ):
                return _Test((model,), test.incumbent, is_recorded=False)
        return test


def _recorded(models: tuple[str, ...], known: Totals) -> _Test:
    """What of a test's end is part of the state: by numbers of the versions themselves, which nobody inherits."""
    balance = {model: known.of_version(model, WON) - known.of_version(model, LOST) for model in models}
    winners = [model for model in models if balance[model] > 0]
    if not winners:
        return _Test(models, None, is_recorded=len(models) == 1)
    contenders = tuple(model for model in models if balance[model] > 0 or not known.of_version(model, LOST))
    # Two that have won apart from each other are as two that have not.
    return _Test(contenders, winners[0] if len(winners) == 1 else None, is_recorded=len(contenders) == 1)


def _share(leader: Evidence, challenger: Evidence, margin: float) -> float:
    """How much of what the leader and its challenger get together the leader gets."""
    if not leader.count or not challenger.count:
        return 0.5
    nearest = nearest_means(leader, challenger, margin)
    parts = [each.count * _divergence(each.mean, mean) for each, mean in zip((leader, challenger), nearest)]
    return parts[0] / sum(parts) if sum(parts) > 0 else 0.5


def _divergence(mean: float, other: float) -> float:
    """Kullback and Leibler's of losses of 0 and 1, of another mean than theirs."""
    other = min(max(other, 1e-12), 1 - 1e-12)  # rounding may have brought it to an end of its range
    ones = mean * math.log(mean / other) if mean > 0 else 0.0
    return ones + ((1 - mean) * math.log((1 - mean) / (1 - other)) if mean < 1 else 0.0)


def _of_zeros_and_ones(evidence: Evidence) -> Evidence:
    """The same as if losses had been 0 and 1, which takes less time, and claims no more than is known."""
    return Evidence(evidence.count, evidence.loss)
