"""Compares models that were picked by what came with the query: divides each loss by the probability of the choice.

If a policy asks model a where queries are hard, and b where they are easy, then b has the smaller mean of the losses
that were seen, although a may be better on every query (Simpson's paradox). This module compares instead the mean
losses that the models would have had on **all** queries with feedback. With p the probability with which a model was
chosen, given all that the choice depended on, and x its loss in [0, 1], the expectation of

    lost = [it was chosen] x / p        won = [it was chosen] (1 - x) / p

given the past and the query is x and 1 - x (Horvitz, Thompson: "A Generalization of Sampling Without Replacement from a
Finite Universe", 1952). If a weight is below 1 / p, both expectations are smaller: so weights are bounded, a
probability that is not known counts as 1, and a model that had no chance on a query counts as 0, twice.

**The interval.** For models a and b let ``z = lost_b + won_a``, over the n queries on which both had their chance as
members of one lineup. Since z >= 0, for each l in (0, 1) and with ``psi(l) = -ln(1 - l) - l``,

    exp(l (sum z - n - sum d) - psi(l) V),    V = sum (z - 1)^2,

is a supermartingale, where d is at least the expectation of z - 1, such as b's expected loss less a's (Howard, Ramdas,
McAuliffe, Sekhon: "Time-uniform, nonparametric, nonasymptotic confidence sequences", 2021, Theorem 4; for the values of
policies: Karampatziakis, Mineiro, Ramdas: "Off-policy Confidence Sequences", 2021; Waudby-Smith, Wu, Ramdas,
Karampatziakis, Mineiro: "Anytime-valid off-policy inference for contextual bandits", 2024). A mixture of these over
several l is one, too, and exceeds 1 / error with at most the probability ``error``, ever. It bounds ``sum d`` from
below. Only the range of z downwards enters, which is 1 whatever the weights are: rare choices widen the interval, but
never make it wrong.

So nothing is assumed about mean losses, which may differ by context and change, nor about the mix of contexts: the
statement is about the queries that came. It costs feedback: the variance of z is some ``x / p``, where a comparison by
plain means (``confidence_sequences``) has ``x (1 - x) / p``. So plain means are used where choices depend on nothing
that came with the query.

Conditions: whether and when feedback comes may depend on the query and its context, but neither on the loss nor on the
model that answered.

If several models were asked for a query, lost and won of a pair may be above 0 together. Their product is bounded by
the inequality of Cauchy and Schwarz, so that sums of each model's squares are enough.

Sums are kept by lineup, the versions that could be asked: a pair of models is compared on the queries of their common
lineups, so a model that comes later is not compared on queries before it.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from clipper.learning.mathematics.confidence_sequences import Interval, bound_by_halving, log_mixture
from clipper.learning.mathematics.totals import WEIGHED, Key, Numbers, Totals

# Bound of weights. Rarer choices, one in a thousand, count for less than they should, which is on the safe side.
MAX_WEIGHT = 1000.0
# Lineups whose sums are kept: those with the most feedback. Each deployment makes one or two.
MAX_LINEUPS = 8

# Downward ranges of a loss or gain, which bound its mean: small ranges give sharper bounds for small means.
_RANGES = (1.0, 0.25, 0.0625)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A model's sums in a lineup: of ``lost`` and ``won``, and of their squares."""

    lost: float = 0.0
    won: float = 0.0
    lost_squares: float = 0.0
    won_squares: float = 0.0

    def __add__(self, other: "Weighed") -> "Weighed":
        return Weighed(
            self.lost + other.lost,
            self.won + other.won,
            self.lost_squares + other.lost_squares,
            self.won_squares + other.won_squares,
        )

    def times(self, factor: float) -> "Weighed":
        return Weighed(self.lost * factor, self.won * factor, self.lost_squares * factor, self.won_squares * factor)


@dataclass(frozen=True, slots=True)
class Lineup:
    """A lineup's sums: its pieces of feedback, how many of them scored several models, and its members' sums."""

    count: float
    together: float
    models: Mapping[str, Weighed]


_NONE = Weighed()


class WeighedEvidence:
    """The evidence on models by weighed losses, with the methods of ``comparison.PooledEvidence``."""

    def __init__(self, lineups: Iterable[Lineup]) -> None:
        self._lineups = tuple(lineups)

    @property
    def feedback(self) -> float:
        return sum(each.count for each in self._lineups)

    def statements(self, models: int) -> int:
        """Return K (K - 1): losses may change, so each model may be the best at some time."""
        return models * (models - 1)

    def count(self, model: str) -> float:
        """Return the number of pieces of feedback on queries for which the model had its chance; 0 if it never came."""
        lineups = self._of(model)
        return sum(each.count for each in lineups) if any(each.models[model] != _NONE for each in lineups) else 0.0

    def mean(self, model: str) -> float:
        """Return the estimate of its mean loss on all queries, in [0, 1]; 1/2 if it was never chosen."""
        sums = sum((each.models[model] for each in self._of(model)), _NONE)
        total = sums.lost + sums.won
        return sums.lost / total if total > 0 else 0.5

    def mean_interval(self, model: str, error: float) -> Interval:
        """Return an interval that contains the mean loss, at all times at once, with probability 1 - ``error``."""
        sums, count = sum((each.models[model] for each in self._of(model)), _NONE), self.count(model)
        if not count:
            return Interval(0.0, 1.0)
        limit = math.log(2 / error)
        low = _least_mean(sums.lost, sums.lost_squares, count, limit)
        high = 1.0 - _least_mean(sums.won, sums.won_squares, count, limit)
        return Interval(low, max(high, low))

    def difference_interval(self, first: str, second: str, error: float) -> Interval:
        """Return an interval of the first's mean loss minus the second's."""
        limit = -math.log(error / 2)

        def is_open(one: str, other: str, margin: float) -> bool:
            return self.log_capital_less(one, other, margin) < limit

        high = bound_by_halving(1.0, -1.0, lambda margin: is_open(first, second, margin))
        low = bound_by_halving(1.0, -1.0, lambda margin: is_open(second, first, margin))
        return Interval(min(-low, high), high)

    def log_capital_less(self, first: str, second: str, margin: float = 0.0) -> float:
        """Return the logarithm of the capital against the first's mean loss at least the second's plus ``margin``."""
        total = squares = count = 0.0
        for each in self._lineups:
            if first not in each.models or second not in each.models:
                continue
            won, lost = each.models[first], each.models[second]
            both = lost.lost + won.won
            total, count = total + both, count + each.count
            squares += lost.lost_squares + won.won_squares - 2 * both + each.count
            if each.together:
                squares += 2 * math.sqrt(lost.lost_squares * won.won_squares)
        return log_mixture(total - count * (1 - margin), max(squares, 0.0)) if count else 0.0

    def times(self, factor: float) -> "WeighedEvidence":
        """Return the evidence of the same feedback, repeated this many times."""
        return WeighedEvidence(
            Lineup(
                each.count * factor,
                each.together * factor,
                {model: sums.times(factor) for model, sums in each.models.items()},
            )
            for each in self._lineups
        )

    def _of(self, model: str) -> list[Lineup]:
        return [each for each in self._lineups if model in each.models]


def _least_mean(total: float, squares: float, count: float, limit: float) -> float:
    """Return the lower bound of a mean of ``count`` amounts of at least 0."""

    def is_open(mean: float) -> bool:
        capitals = [
            log_mixture(
                (total - count * mean) / reach, max(squares - 2 * reach * total + count * reach**2, 0.0) / reach**2
            )
            for reach in _RANGES
        ]
        return max(capitals) - math.log(len(_RANGES)) < limit

    return bound_by_halving(0.0, 1.0, is_open)


def lineup_id(members: Collection[str]) -> str:
    """Return the name of a lineup in a state, by its members' names there."""
    return blake2b("\0".join(sorted(members)).encode(), digest_size=6).hexdigest()


def has_begun(totals: Totals, lineup: str) -> bool:
    """Return whether a lineup has sums already."""
    return totals.number("", _name(lineup, "count")) > 0


def weighed(
    losses: Mapping[str, float], weights: Mapping[str, float], lineup: str, members: Collection[str], totals: Totals
) -> dict[Key, float]:
    """Return the amounts that a piece of feedback adds to a lineup's sums.

    Args:
        losses: losses by model, without costs.
        weights: by model, at most one over the probability of its choice; losses of other models do not count.
        members: the models that could be chosen, and shadows.
    """
    sums: dict[Key, float] = {("", _name(lineup, "count")): 1.0}
    scored = [model for model in losses if model in weights]
    if len(scored) > 1:
        sums["", _name(lineup, "together")] = 1.0
    for model in scored:
        weight = min(weights[model], MAX_WEIGHT)
        lost, won = losses[model] * weight, (1.0 - losses[model]) * weight
        if lost > 0:
            sums[model, _name(lineup, "lost")] = lost
            sums[model, _name(lineup, "lost_squares")] = lost * lost
        if won > 0:
            sums[model, _name(lineup, "won")] = won
            sums[model, _name(lineup, "won_squares")] = won * won
    member = _name(lineup, "member")
    for model in members:
        # This marks the model as a member, even if it is never chosen.
        if not totals.number(model, member):
            sums[model, member] = 1.0
    return sums


def evidence_of(numbers: Numbers, names: Mapping[str, str]) -> WeighedEvidence:
    """Read the evidence from a state's numbers. ``names``: the models of the result, and the state's names for their
    versions; other versions are left out.
    """
    called: dict[str, list[str]] = {}
    for model, key in names.items():
        called.setdefault(key, []).append(model)
    app: dict[str, dict[str, float]] = {}
    models: dict[str, dict[str, dict[str, float]]] = {}
    for (key, number), amount in numbers.items():
        if not number.startswith(WEIGHED):
            continue
        _, lineup, name = number.partition("~")[0].split(".")
        if not key:
            app.setdefault(lineup, {})[name] = amount
        for model in called.get(key, ()):
            models.setdefault(lineup, {}).setdefault(model, {})[name] = amount
    return WeighedEvidence(
        Lineup(
            counts.get("count", 0.0),
            counts.get("together", 0.0),
            {
                model: Weighed(*(sums.get(name, 0.0) for name in ("lost", "won", "lost_squares", "won_squares")))
                for model, sums in models.get(lineup, {}).items()
            },
        )
        for lineup, counts in app.items()
        if len(models.get(lineup, {})) > 1
    )


def surplus(numbers: Numbers, lineup: str) -> set[str]:
    """Return the lineups to forget: those with least feedback beyond ``MAX_LINEUPS``, and never the present one."""
    counts: dict[str, float] = {}
    for _, number in numbers:
        if number.startswith(WEIGHED):
            counts.setdefault(number.split(".")[1], 0.0)
    if len(counts) <= MAX_LINEUPS:
        return set()
    counts = {each: numbers.get(("", _name(each, "count")), 0.0) for each in counts if each != lineup}
    return set(sorted(counts, key=lambda each: -counts[each])[MAX_LINEUPS - 1 :])


def prefix_of(lineup: str) -> str:
    """Return the beginning of the names of a lineup's numbers."""
    return f"{WEIGHED}{lineup}."


# Each piece of feedback needs some six of a lineup's seven names; an application has one lineup at a time.
@lru_cache(maxsize=256)  # the cache is enough for fifty applications
def _name(lineup: str, name: str) -> str:
    return f"{prefix_of(lineup)}{name}~never"
