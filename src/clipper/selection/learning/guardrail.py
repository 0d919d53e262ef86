"""Whether a newcomer does harm: a test that may be looked at after every piece of feedback, and seldom errs.

While a newcomer is ramped, chance alone decides which queries are its own, so that the losses of their answers, beside
those of the other answers in the same time, tell what it changes. Both are summed, and nothing else is kept: sums
commute, so several workers add to one state.

**The test.** Of answers whose losses ``x_i`` in [0, 1] have the conditional means ``m_i``, let ``x'_i`` be a
forecast made before ``x_i`` was seen (here the mean of those before), and ``V = sum (x_i - x'_i)^2``, the spread. For
every l in (0, 1), with ``psi(l) = -ln(1 - l) - l``,

    exp(l sum (x_i - m_i) - psi(l) V)

is a supermartingale (Howard, Ramdas, McAuliffe, Sekhon: "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 2021, Theorem 4), and so is a mixture of them over a grid of l. By Ville's inequality
it ever reaches 1/a with a probability of at most a. So with ``bound(V, a)`` the sum at which the mixture is 1/a,

    sum (x_i - m_i) < bound(V, a)   at all times at once, but for a probability of a,

and the same of ``sum (m_i - x_i)``. A newcomer is stopped once its mean loss less its bound exceeds that of the rest
plus theirs by more than is allowed; and by the same it is through once that cannot be. Losses need not be independent,
nor as large at noon as at night: what is compared is the means over the same time. ``confidence_sequences`` know more
from less, of models whose mean losses stay as they are; while a newcomer is ramped nobody can promise that.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from clipper.selection.learning.ledger import Epoch, fading
from clipper.selection.learning.totals import Totals

# By then a mean loss is known to 0.035, which is as well as a policy knows any: a state of the default half-life knows
# them to 0.03, and would learn no more of the newcomer than that.
ENOUGH_FEEDBACK = 200
# How likely it is, at most, that a newcomer is ever stopped which is not worse by more than is allowed.
FALSE_ALARMS = 0.05
# The part of it for the newcomer's own mean. The rest has most of the feedback, so that its bound is narrow anyway.
_NEWCOMERS_PART = 0.8

# Of every l half as much as the one before, down to what is best for millions of answers; weights sum to less than 1.
_GRID = tuple((0.9 * 2.0**-k, 1.0 / ((k + 1) * (k + 2))) for k in range(16))
_TERMS = tuple((rate, math.log(weight), -math.log1p(-rate) - rate) for rate, weight in _GRID)

# Of Newton's method, which takes six or so.
_MOST_STEPS = 50

Verdict = Literal["through", "stopped"]


@dataclass(frozen=True, slots=True)
class Losses:
    """Of answers with feedback: how many, the sum of their losses, and their spread."""

    count: float
    loss: float
    spread: float

    @property
    def mean(self) -> float:
        return self.loss / self.count if self.count else 0.0

    def margin(self, false_alarms: float) -> float:
        """By how much the mean may be off, to one side, at any time."""
        return bound(self.spread, false_alarms) / self.count if self.count else math.inf


NO_LOSSES = Losses(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class RampLosses:
    """What a ramp has shown up to now: of the answers that the newcomer had a part in, and of all others."""

    newcomer: Losses
    rest: Losses


def ramp_losses(totals: Totals, name: str, ramp: int) -> RampLosses:
    """
    Args:
        name: what the totals call the newcomer.
        ramp: the ramp's number, which tells it from earlier ones of the same version.
    """
    return RampLosses(_losses(totals, name, ramp, "own"), _losses(totals, name, ramp, "rest"))


class Forecasts:
    """What the next losses are expected to be: the means of those that one worker has seen.

    Each worker goes by its own, which is known at once; the state, which has all workers', is known only after it was
    written, and many answers may get their feedback meanwhile. Any forecast made before will do for the test.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, bool], tuple[float, float]] = {}

    def keep(self, ramps: Collection[int]) -> None:
        """Forget what is of other ramps than these."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in ramps}

    def observed(
        self, name: str, ramp: int, loss: float, *, is_own: bool, times: int = 1
    ) -> dict[tuple[str, str], float]:
        """Return what an answer with feedback adds to the evidence on one newcomer.

        Args:
            loss: of the answer, whichever model's or the default.
            is_own: whether the newcomer had a part in it.
            times: how many such answers there were.
        """
        count, sum_ = self._seen.get((ramp, is_own), (0.0, 0.0))
        spread = 0.0
        for _ in range(times):
            spread += (loss - (sum_ + 0.5) / (count + 1.0)) ** 2
            count, sum_ = count + 1.0, sum_ + loss
        self._seen[ramp, is_own] = count, sum_
        of_count, of_loss, of_spread = _names(ramp, "own" if is_own else "rest")
        return {(name, of_count): float(times), (name, of_loss): times * loss, (name, of_spread): spread}


def keys_of(name: str, ramp: int) -> list[str]:
    """Of the evidence on a newcomer, as it lies in a store: to be deleted once the ramp is over, for it never fades.

    Args:
        name: what the state calls the newcomer.
    """
    return [f"{Epoch.at(0.0, None)}/{name}/{number}" for whose in ("own", "rest") for number in _names(ramp, whose)]


def judge(evidence: RampLosses, max_loss_increase: float | None) -> Verdict | None:
    """What is to become of a newcomer; None while it goes on being ramped.

    It is through once it has enough feedback and its loss is not above what is allowed, or earlier if that is certain:
    what is deployed to mend a broken model is not held up. One whose loss is above it, but not for certain, waits.

    Args:
        max_loss_increase: by how much its mean loss may exceed that of the rest; None is any.
    """
    newcomer, rest = evidence.newcomer, evidence.rest
    has_enough = newcomer.count >= ENOUGH_FEEDBACK
    if max_loss_increase is None or not newcomer.count or not rest.count:
        return "through" if has_enough else None
    beyond = newcomer.mean - rest.mean - max_loss_increase
    margin = newcomer.margin(FALSE_ALARMS * _NEWCOMERS_PART) + rest.margin(FALSE_ALARMS * (1 - _NEWCOMERS_PART))
    if beyond > margin:
        return "stopped"
    return "through" if beyond < -margin or (has_enough and beyond <= 0) else None


def bound(spread: float, false_alarms: float) -> float:
    """The sum of deviations that is ever reached with a probability of ``false_alarms`` at most: see above."""
    wanted = -math.log(false_alarms)
    # Where one term alone is as much as is wanted. The root is below, and since the mixture's logarithm is convex
    # Newton's method comes down to it and never passes it.
    reached = min((wanted - log_weight + psi * spread) / rate for rate, log_weight, psi in _TERMS)
    for _ in range(_MOST_STEPS):
        exponents = [log_weight + rate * reached - psi * spread for rate, log_weight, psi in _TERMS]
        most = max(exponents)
        terms = [math.exp(each - most) for each in exponents]
        slope = sum(term * rate for term, (rate, _, _) in zip(terms, _TERMS)) / sum(terms)
        step = (most + math.log(sum(terms)) - wanted) / slope
        reached -= step
        if step < 1e-9 * reached:
            break
    return reached


def _losses(totals: Totals, name: str, ramp: int, whose: str) -> Losses:
    count, loss, spread = (totals.number(name, number) for number in _names(ramp, whose))
    return Losses(count, loss, spread)


def _names(ramp: int, whose: str) -> tuple[str, str, str]:
    """Those of the sums, which never fade."""
    return (
        fading(f"ramp{ramp}_{whose}_count", None),
        fading(f"ramp{ramp}_{whose}_loss", None),
        fading(f"ramp{ramp}_{whose}_spread", None),
    )
