"""Guardrail: decides whether a newcomer does harm. It may be asked after every piece of feedback, and seldom errs.

While a newcomer is ramped, chance alone assigns queries to it. So a comparison of the losses of its answers with those
of other answers at the same time shows its effect. Only sums are kept: sums commute, so several workers can add to one
state.

**The test.** Let answers have losses ``x_i`` in [0, 1] with conditional means ``m_i``. Let ``x'_i`` be a forecast made
before ``x_i`` was seen (here the mean of earlier losses), and ``V = sum (x_i - x'_i)^2``, the spread. For every l in
(0, 1), with ``psi(l) = -ln(1 - l) - l``,

    exp(l sum (x_i - m_i) - psi(l) V)

is a supermartingale (Howard, Ramdas, McAuliffe, Sekhon: "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 2021, Theorem 4), and so is a mixture of these over a grid of l. By Ville's inequality
it ever reaches 1/a with a probability of at most a. So with ``bound(V, a)`` the sum at which the mixture is 1/a,

    sum (x_i - m_i) < bound(V, a)   at all times at once, except with a probability of a,

and the same holds for ``sum (m_i - x_i)``. A newcomer is stopped once its mean loss minus its bound exceeds the mean
loss of the others plus their bound by more than allowed. It passes once that has become impossible. Losses need not be
independent, nor equally large at noon and at night: the means of the same time are compared. ``confidence_sequences``
are sharper for models with constant mean losses, which nobody can promise while a newcomer is ramped.

**By context.** A policy that chooses by context will ask a newcomer only where it is good, so the mean of its losses
everywhere says little about its effect. So answers are distinguished by whether the newcomer **matters** to their
query: whether the policy, by what it had learned before, would ask it there once it is through, or asks the version
before it. That does not depend on the group into which chance puts the query, so it may decide which answers are
compared. The newcomer is stopped if it certainly does harm where it matters. It is also stopped if it certainly does
harm everywhere and is not even ahead where it matters: otherwise a newcomer that is bad for all would be ramped for
ever, since it soon matters nowhere. Each of the two tests has half of the false alarms from the first answer on: until
there is a query to which the newcomer does not matter, both are the same.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from clipper.learning.mathematics.confidence_sequences import MIXTURE
from clipper.learning.mathematics.ledger import Epoch, fading
from clipper.learning.mathematics.totals import Key, Totals

# After this much feedback a mean loss is known to 0.035. No policy knows it much better: a state with the default
# half-life knows it to 0.03.
ENOUGH_FEEDBACK = 200
# Bound of the probability that a newcomer is ever stopped although it is not worse than allowed.
FALSE_ALARMS = 0.05
# If a newcomer is good in one of several contexts, the policy has to learn where, before the newcomer is stopped for
# being bad on average: this many of its answers are enough for contexts with a fifth of the queries, which take some
# eight each.
FAIR_TRIAL = 60
# It counts as ahead where it matters only if that is at least this share of its answers: policies explore for ever, and
# it also matters where they do.
_LEAST_SHARE = 0.05
# The newcomer's part of that probability. The others have most of the feedback, so their bound is narrow anyway.
NEWCOMERS_PART = 0.8

# Bound of Newton's steps; about six are needed.
_MOST_STEPS = 50

Verdict = Literal["through", "stopped"]

# Names of the sums of a ramp's evidence, in the order of ``RampLosses``.
_GROUPS = ("own", "rest", "own_aside", "rest_aside")


@dataclass(frozen=True, slots=True)
class Losses:
    """Answers with feedback: their number, the sum of their losses, and the spread."""

    count: float
    loss: float
    spread: float

    @property
    def mean(self) -> float:
        return self.loss / self.count if self.count else 0.0

    def margin(self, false_alarms: float) -> float:
        """Return the largest error of the mean to one side, at any time."""
        return bound(self.spread, false_alarms) / self.count if self.count else math.inf

    def after(self, loss: float) -> "Losses":
        """Return the sums after a further answer, whose loss was forecast by the earlier answers."""
        forecast = (self.loss + 0.5) / (self.count + 1.0)
        return Losses(self.count + 1.0, self.loss + loss, self.spread + (loss - forecast) ** 2)

    def __add__(self, other: "Losses") -> "Losses":
        return Losses(self.count + other.count, self.loss + other.loss, self.spread + other.spread)


NO_LOSSES = Losses(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class RampLosses:
    """The evidence of a ramp so far.

    Attributes:
        newcomer, rest: answers in which the newcomer had a part, and all others, to queries to which it matters.
        newcomer_aside, rest_aside: the same for other queries.
    """

    newcomer: Losses
    rest: Losses
    newcomer_aside: Losses = NO_LOSSES
    rest_aside: Losses = NO_LOSSES

    @property
    def is_by_context(self) -> bool:
        """Whether there were queries to which the newcomer does not matter."""
        return bool(self.newcomer_aside.count or self.rest_aside.count)

    @property
    def matters_to_some(self) -> bool:
        """Whether there are answers of both groups to queries to which it matters."""
        return bool(self.newcomer.count and self.rest.count)

    @property
    def everywhere(self) -> "RampLosses":
        return RampLosses(self.newcomer + self.newcomer_aside, self.rest + self.rest_aside)

    @property
    def compared(self) -> "RampLosses":
        """The answers whose means are compared: answers to queries to which it matters, or all if there are none."""
        return RampLosses(self.newcomer, self.rest) if self.matters_to_some else self.everywhere


def ramp_losses(totals: Totals, name: str, ramp: int) -> RampLosses:
    """Return the evidence of a ramp.

    Args:
        name: the totals' name for the newcomer.
        ramp: the ramp's number, which distinguishes it from earlier ramps of the same version.
    """
    return RampLosses(*(Losses(*(totals.number(name, of) for of in _names(ramp, whose))) for whose in _GROUPS))


class Forecasts:
    """Forecasts of the next losses: the means of the losses that this worker has seen.

    Each worker uses its own losses, which it knows at once. The state has all workers' losses, but only once they were
    written, and many answers may get feedback meanwhile. The test accepts any forecast that was made before.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], Losses] = {}

    def keep(self, ramps: Collection[int]) -> None:
        """Forget all other ramps."""
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in ramps}

    def observed(
        self, name: str, ramp: int, loss: float, *, is_own: bool, times: int = 1, matters: bool = True
    ) -> dict[Key, float]:
        """Return the amounts that an answer with feedback adds to the evidence on a newcomer.

        Args:
            loss: loss of the answer, whether a model's or the default.
            is_own: whether the newcomer had a part in the answer.
            matters: whether the newcomer matters to their query, as defined above.
        """
        whose = ("own" if is_own else "rest") + ("" if matters else "_aside")
        before = seen = self._seen.get((ramp, whose), NO_LOSSES)
        for _ in range(times):
            seen = seen.after(loss)
        self._seen[ramp, whose] = seen
        spread = seen.spread - before.spread
        of_count, of_loss, of_spread = _names(ramp, whose)
        return {(name, of_count): float(times), (name, of_loss): times * loss, (name, of_spread): spread}


def keys_of(name: str, ramp: int) -> list[str]:
    """Return the store's keys of the evidence of a ramp, to be deleted after it, since evidence never fades."""
    return [f"{Epoch.at(0.0, None)}/{name}/{number}" for whose in _GROUPS for number in _names(ramp, whose)]


def judge(evidence: RampLosses, max_loss_increase: float | None, *, by_context: bool) -> Verdict | None:
    """Return the verdict on a newcomer; None while its ramp goes on.

    It passes once it has enough feedback and its loss is within what is allowed, or earlier if that is certain: a fix
    for a broken model is not held up. A newcomer whose loss is above, but not certainly, waits. If the policy chooses
    by context, this is about the queries to which the newcomer matters, as defined above.

    Args:
        max_loss_increase: how much its mean loss may exceed that of the rest; None for any.
        by_context: whether the policy may choose by what comes with a query; the same in all looks at a ramp.
    """
    everywhere, compared = evidence.everywhere, evidence.compared
    has_enough = everywhere.newcomer.count >= ENOUGH_FEEDBACK
    if not by_context:
        return _judged(everywhere, max_loss_increase, FALSE_ALARMS, has_enough=has_enough)
    part = FALSE_ALARMS / 2
    if everywhere.newcomer.count >= FAIR_TRIAL and _judged(everywhere, max_loss_increase, part) == "stopped":
        is_seen = compared.newcomer.count >= _LEAST_SHARE * everywhere.newcomer.count
        if not is_seen or compared.newcomer.mean >= compared.rest.mean:
            return "stopped"
    verdict = _judged(compared, max_loss_increase, part, has_enough=has_enough)
    return None if verdict == "stopped" and not evidence.matters_to_some else verdict


def _judged(
    evidence: RampLosses, max_loss_increase: float | None, false_alarms: float, *, has_enough: bool = False
) -> Verdict | None:
    """Return the verdict by the answers to queries to which the newcomer matters."""
    newcomer, rest = evidence.newcomer, evidence.rest
    if max_loss_increase is None or not newcomer.count or not rest.count:
        return "through" if has_enough else None
    beyond = newcomer.mean - rest.mean - max_loss_increase
    margin = newcomer.margin(false_alarms * NEWCOMERS_PART) + rest.margin(false_alarms * (1 - NEWCOMERS_PART))
    if beyond > margin:
        return "stopped"
    return "through" if beyond < -margin or (has_enough and beyond <= 0) else None


def bound(spread: float, false_alarms: float) -> float:
    """Return ``bound(V, a)`` of above, with ``false_alarms`` as a."""
    wanted = -math.log(false_alarms)
    # Start where one term alone is enough. The root is below that, and since the mixture's logarithm is convex,
    # Newton's method comes down to the root without passing it.
    reached = min((wanted - log_weight + psi * spread) / rate for rate, log_weight, psi in MIXTURE)
    for _ in range(_MOST_STEPS):
        exponents = [log_weight + rate * reached - psi * spread for rate, log_weight, psi in MIXTURE]
        most = max(exponents)
        terms = [math.exp(each - most) for each in exponents]
        slope = sum(term * rate for term, (rate, _, _) in zip(terms, MIXTURE)) / sum(terms)
        step = (most + math.log(sum(terms)) - wanted) / slope
        reached -= step
        if step < 1e-9 * reached:
            break
    return reached


def _names(ramp: int, whose: str) -> list[str]:
    """Return the names of the sums of ``Losses``, which never fade."""
    return [fading(f"ramp{ramp}_{whose}_{sum_}", None) for sum_ in ("count", "loss", "spread")]
