"""``best_arm``: a test that ends by itself. It asks the most informative models, and then only the best model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clipper.control.descriptions import Standing
from clipper.errors import InvalidArgument
from clipper.learning.mathematics.confidence_sequences import Evidence, log_capital_less, nearest_means
from clipper.learning.mathematics.parameters import check_number
from clipper.learning.policies.distribution import Distribution
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Policy, QueryView, Totals

# A state's numbers for a test: how often a model had won or lost when that was not recorded yet, and the amount of
# feedback during the test.
WON = "won~never"
LOST = "lost~never"
TESTED = "tested~never"

# Share of the queries that is spread over all models in the test. It costs a tenth where early losses mislead or
# feedback is late.
SPREAD_SHARE = 0.1
# The sharper test for losses between 0 and 1, and not only at the ends, takes a hundred times as long. So it runs once
# in this many observations. The test is valid at any time.
LOOK_EVERY = 64


@dataclass(frozen=True, slots=True)
class _Test:
    """A test's state.

    Attributes:
        contenders: the models in the test, in the application's order; only the winner once it has ended.
        incumbent: the earlier winner, if newcomers have reopened the test.
        is_recorded: whether the end is recorded in the state; if not, the state's evidence shows it.
    """

    contenders: tuple[str, ...]
    incumbent: str | None
    is_recorded: bool


@dataclass(frozen=True, slots=True, eq=False)
class BestArm(Policy):
    """Finds the model with the least mean loss, with a given confidence and as little feedback as possible, and asks
    only that model from then on: best-arm identification with fixed confidence.

    **When it ends.** ``m_a < m_b + margin`` is established once the capital of the bets against all means for which it
    is false has grown to ``(K - 1) / (1 - confidence)``, with K models: see ``confidence_sequences``. The test ends
    when this is established for one model a and all others b, with ``tolerance`` as the margin, so that it also ends
    for equal models. That is the generalized likelihood ratio rule of track-and-stop (Garivier, Kaufmann: "Optimal Best
    Arm Identification with Fixed Confidence", 2016), with a mixture instead of the largest likelihood, which needs no
    approximate threshold (Kaufmann, Koolen: "Mixture Martingales Revisited", 2021). A verdict that is off by more than
    ``tolerance`` requires that a false bet wins in one of the K - 1 pairs with the true best. So it happens with a
    probability of at most 1 - ``confidence``, whatever losses in [0, 1] are, and however often the test is looked at,
    under the conditions of ``confidence_sequences``.

    **Which models it asks.** The optimal shares of track-and-stop have no closed form, and take a search at each query.
    Top-two sampling comes near them from the present sums (Jourdan, Degenne, Baudry, de Heide, Kaufmann: "Top Two
    Algorithms Revisited", 2022; with a tolerance: Jourdan, Degenne, Kaufmann: "An epsilon-Best-Arm Identification
    Algorithm for Fixed-Confidence and Beyond", 2023). It asks the leader, which has the least mean loss, and the
    challenger c with the least ``capital + 3/2 ln(n_c)``, which is the least certain to be worse; with the capital's
    own part of the counts this is the 1 of TCI. Each of the two gets a share in proportion to what it adds to the
    capital (You, Qin, Wang, Yang: "Information-Directed Selection for Top-Two Algorithms", 2023), ``n_i kl(mean_i,
    x_i)`` with x the likeliest means of which the leader's is the challenger's plus ``tolerance``. A tenth is spread
    over all models in the test. The probability of each choice is known exactly, and is its share.

    **Newcomers.** A model or version that comes after the end has not lost, so the test is reopened between it and the
    winner. The winner stays unless the newcomer is better with a margin of 0: if each newcomer within the tolerance
    replaced it, tolerances would add up. If a winner is no longer linked, all others are tested again. Earlier feedback
    on a version, while it was a shadow, counts.

    The test is the application's in all contexts, unless ``prior_weight`` is 0. Nothing is forgotten, since the
    guarantee holds for constant mean losses; if they may change, use ``adaptive``.

    Args:
        confidence: probability that the winner is the best model; above 0.5, below 1.
        tolerance: how much the winner's mean loss may exceed the best model's; from 0 to 0.5. With 0, a test of equal
            models never ends. The default is one loss in a hundred queries; half of it takes four times the feedback if
            models are equal.
    """

    default_half_life = None
    goes_by = "nothing"

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
        choice = distribution.draw(random)
        if query.in_time is not None and len(query.in_time) > len(models):
            # Other models are too full for this query. A test among the remaining models must not end the test of all.
            return Choice(choice.models, choice.shares)
        return choice

    def probabilities(self, models: Sequence[str], totals: Totals) -> list[float]:
        """Return the probability of each model, (models,)."""
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
        """Count the feedback until the test has ended; then return that it has."""
        # The test needs two models, and is the application's: a context's state has no part in it.
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
        """Return the test's state; computed once for each state of the totals."""
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
        # One pass over the pairs: whether the leader, or the incumbent, has won against all others.
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
    """Return the recorded end of a test. It is in numbers of the versions themselves, which no version inherits."""
    balance = {model: known.of_version(model, WON) - known.of_version(model, LOST) for model in models}
    winners = [model for model in models if balance[model] > 0]
    if not winners:
        return _Test(models, None, is_recorded=len(models) == 1)
    contenders = tuple(model for model in models if balance[model] > 0 or not known.of_version(model, LOST))
    # Two separate winners have not won against each other.
    return _Test(contenders, winners[0] if len(winners) == 1 else None, is_recorded=len(contenders) == 1)


def _share(leader: Evidence, challenger: Evidence, margin: float) -> float:
    """Return the leader's part of the share that the leader and its challenger get together."""
    if not leader.count or not challenger.count:
        return 0.5
    nearest = nearest_means(leader, challenger, margin)
    parts = [each.count * _divergence(each.mean, mean) for each, mean in zip((leader, challenger), nearest)]
    return parts[0] / sum(parts) if sum(parts) > 0 else 0.5


def _divergence(mean: float, other: float) -> float:
    """Return ``kl(mean, other)``: the Kullback-Leibler divergence of two Bernoulli distributions with these means."""
    other = min(max(other, 1e-12), 1 - 1e-12)  # rounding may have brought it to an end of its range
    ones = mean * math.log(mean / other) if mean > 0 else 0.0
    return ones + ((1 - mean) * math.log((1 - mean) / (1 - other)) if mean < 1 else 0.0)


def _of_zeros_and_ones(evidence: Evidence) -> Evidence:
    """Return the evidence as if losses were 0 or 1: faster to use, and it never claims more than is known."""
    return Evidence(evidence.count, evidence.loss)
