"""Decides which models a query may ask at the present prices, and learns the prices.

Three goals form one linear program over future queries: the least loss within a mean cost (``--max-cost-per-query``),
the least cost within a mean loss (``--min-quality``), and the least loss if a model cannot answer all queries. With l a
model's expected loss on a query and c its cost, the solution asks for each query the model with the least

    l + rate * c + scarcity

where ``rate`` is the loss that a cost of 1 is worth, one number for all queries, and ``scarcity`` is the price of a
place in a full model's queue, or of the time that a row takes on a device which several models share: 0 where there is
room. So money, places and time go to the queries that gain most by them, and a busy device is left to the models that
gain most in its time. All are dual variables of bounds that are learned online, by multiplicative steps:

    price *= exp(step * (excess + debt / repay)),   debt += excess

The excess of a query is its use of the bounded good, less the use that is allowed on average:

| price | a step for each | excess |
|---|---|---|
| rate, by cost | query | (cost - largest mean cost) / largest cost |
| rate, by quality | answer with feedback | largest mean loss - loss |
| of a model | query | 1 if it asked the model, less the rows that the model answers in the time between queries |
| of a device | query | its row's time if all models had room, less the time between queries, in longest rows |

The sum of all excesses is the logarithm of the price's change over ``step``, so their mean goes to 0; and what a change
has cost is made good within some ``repay`` queries.

A device's price grows with what waits there, from 0: the learned one is for a device that is half full, which means
that half of the time until the query's deadline is taken. So the first queries of a burst have a price before it is
learned, and a query that finds nothing waiting gets the best model. In the Markov decision process of
``benchmarks.learning.load_cells --online`` the best such price loses at most 0.1 % at each load, and the best constant
one up to 1.8 %.

Sources: primal-dual learning with multiplicative prices, choosing by the most optimistic value less the price
(Badanidiyuru, Kleinberg, Slivkins: "Bandits with Knapsacks", FOCS 2013); bounds on mean rewards by the same means
(Agrawal, Devanur: "Bandits with concave rewards and convex knapsacks", EC 2014); adaptive pacing of a budget, which
holds when the stream changes (Balseiro, Gur: "Learning in Repeated Auctions with Budgets", Management Science 2019).
"""

from collections.abc import Mapping, Sequence
from copy import copy
from math import exp, inf

import msgspec

from clipper.learning.mathematics.costs import NO_COSTS, Costs
from clipper.learning.policies.policy import SURE

# A price changes by this share if a query's excess is 1.
STEP = 0.05
# The number of queries within which a debt of money is paid, and of answers with feedback within which one of quality
# is: a loss of 0 or 1 varies more than a cost.
REPAY_QUERIES, REPAY_ANSWERS = 300.0, 1000.0
# A price is at least this share of the highest one that makes a difference, so that it can rise again within a few
# hundred queries.
LEAST_SHARE = 0.001
# A model may be better than is known by so many standard errors of its loss: more under a budget, which may keep all
# queries from a model, than if it is full, when the queries that gain most go on asking it.
OPTIMISM_OF_MONEY, OPTIMISM_OF_PLACES = 2.0, 1.0
# A least quality begins with this share of the highest rate: with good models.
FIRST_SHARE = 0.1
# Unused entitlement is saved up to this share of a debt's bound: some queries' worth, so that savings are not spent at
# once.
SAVED_SHARE = 0.1
# The highest rate that makes a difference is that of the latest hundred queries or so.
FADE = 0.99
# Bounds the rate if costs hardly differ, so that the product of rate and cost stays finite.
MAX_RATE = 1e12
# The lowest scarcity; a model with it is not scarce.
LEAST_SCARCITY = 0.001
# The same for the time of the slowest model's row on a device that is half full. It reserves a full device for queries
# that gain more than twice of it. From a lower start, the price would reach that of a busy device only after a burst is
# over.
LEAST_OF_DEVICE = 0.06
# How full a device is if its price is the learned one.
HALF = 0.5
# A batch that is late on a device makes others' late as well, so models on it must be surer than others.
SURE_ON_DEVICE = 0.99


class Resource(msgspec.Struct, frozen=True, gc=False):
    """Something that can be full: a model, or a device on which several models compute.

    Attributes:
        per_s: how many units of it become free a second.
        uses: how many units a row takes, by model.
    """

    per_s: float
    uses: Mapping[str, float]


class Price:
    """A dual variable.

    Args:
        value: at least 0.
        repay: the number of steps within which a debt is paid, and its bound.
        is_unused_positive: whether a positive excess means that there is something to spare.

    Attributes:
        debt: the sum of excesses that is still to be made good, or that was saved.
    """

    __slots__ = ("_least_debt", "_most_debt", "_repay", "debt", "value")

    def __init__(self, value: float, repay: float = inf, *, is_unused_positive: bool = False) -> None:
        self.value, self.debt, self._repay = value, 0.0, repay
        saved = SAVED_SHARE * repay
        self._least_debt, self._most_debt = (-repay, saved) if is_unused_positive else (-saved, repay)

    def learn(self, excess: float, least: float, most: float) -> None:
        """Learn from what a query has used beyond what it may use on average, within these bounds of the price.

        At a bound the excess makes no debt: the price cannot change it.
        """
        debt = min(max(self.debt + excess, self._least_debt), self._most_debt)
        value = self.value * exp(STEP * (excess + debt / self._repay))
        is_stuck = (value > most and excess > 0.0) or (value < least and excess < 0.0)
        self.debt = self.debt if is_stuck else debt
        self.value = min(max(value, least), most)


class Prices:
    """The prices of an application's models in a worker.

    Attributes:
        costs: what it costs to ask each model.
        max_cost, min_quality: the budget; at most one of them is set.
        is_active: whether any model may have a price, so that ``among`` must be asked.
        rate: the loss that a cost of 1 is worth; 0 before there was a choice between a cheaper and a better model.
        scarcity: the prices of full models and devices, by unit, by their names.
        filled: which share of the time until the query's deadline is taken, by device.
    """

    def __init__(self) -> None:
        self.costs = NO_COSTS
        self.max_cost: float | None = None
        self.min_quality: float | None = None
        self.is_active = False
        self.scarcity: dict[str, Price] = {}
        self.filled: Mapping[str, float] = {}
        self._rate: Price | None = None
        # The highest rate that made a difference to recent queries, and the most that scarce models gained.
        self._high = 0.0
        self._gains: dict[str, float] = {}
        self._uses: dict[str, Mapping[str, float]] = {}
        self._wanted: str | None = None
        self._rationed_s = 0.0

    def follow(self, costs: Costs, max_cost: float | None, min_quality: float | None) -> None:
        """Use these costs, and this budget. A new budget begins anew: with cheap models, or with good ones."""
        self.costs = costs
        if (max_cost, min_quality) != (self.max_cost, self.min_quality):
            self.max_cost, self.min_quality = max_cost, min_quality
            self._rate, self._high = None, 0.0
        self.is_active = self.has_budget or bool(self.scarcity)

    @property
    def has_budget(self) -> bool:
        return self.max_cost is not None or self.min_quality is not None

    @property
    def rate(self) -> float:
        return 0.0 if self._rate is None else self._rate.value

    def among(
        self,
        models: Sequence[str],
        chances: Sequence[float],
        losses: Sequence[float],
        errors: Sequence[float],
        expected: Sequence[float],
        slack: float,
    ) -> tuple[str, ...]:
        """Return the models that a query may ask, at least one: those that may be the best at the present prices.

        That a model may be better than is known, by some standard errors of its loss, lets it be tried. A model that
        surely answers in time and has no price is left to the policy, as without prices. On a full device there is one
        model, the most optimistic one: the policy knows no prices, and would ask the best of several.

        Args:
            models: the models, of which at least one has a chance.
            chances: how likely each is to answer in time.
            losses, errors: each model's expected loss if it answers in time, and the standard error of that.
            expected: the loss that the user may expect, if the model is not in time included.
            slack: the difference of expected losses that is not significant, for models that are not sure to be in
                time.
        """
        is_by_device = not all(map(self._is_place, self.scarcity))
        optimism = OPTIMISM_OF_MONEY if self.has_budget else OPTIMISM_OF_PLACES
        errors = [optimism * error for error in errors]
        hopes = [loss - error for loss, error in zip(losses, errors)]
        costs = [self.costs.of(model) for model in models]
        cheapest = min(costs)
        if self.has_budget:
            self._see(costs, losses, errors)
        # At its lowest, a price says that there is enough for all.
        rate = self.rate if self.rate > self._bounds[0] else 0.0
        prices = [rate * (cost - cheapest) for cost in costs]
        for name, price in self.scarcity.items():
            uses = [self._uses[name].get(model, 0.0) for model in models]
            self._gains[name] = max(_gain(uses, hopes), FADE * self._gains.get(name, 0.0))
            if not self._is_place(name) or price.value > LEAST_SCARCITY:
                unit = self._of_unit(name)
                prices = [paid + unit * used for paid, used in zip(prices, uses)]
        totals = [loss + price for loss, price in zip(expected, prices)]
        if is_by_device:
            # The demand for a device is what queries would ask if all had time: those that do ask fit by themselves.
            wishes = [loss + price - error for loss, price, error in zip(losses, prices, errors)]
            self._wanted = min(zip(wishes, models))[1]
            enough = min(SURE_ON_DEVICE, max(chances))
            hopes = [total - error for total, error in zip(totals, errors)]
            least = min(hope for hope, chance in zip(hopes, chances) if chance >= enough)
            return tuple(
                model for model, chance, hope in zip(models, chances, hopes) if chance >= enough and hope <= least
            )
        least = min(total for total, chance in zip(totals, chances) if chance > 0.0)
        return tuple(
            model
            for model, chance, price, total, error in zip(models, chances, prices, totals, errors)
            if (chance >= SURE and price <= 0.0)
            or (chance > 0.0 and total - (error if chance >= SURE else max(error, slack)) <= least)
        )

    def lightest(self, models: tuple[str, ...]) -> tuple[str, ...]:
        """Return the model that takes least of a full device, since late rows delay others; else all models."""
        for name in self.scarcity:
            if not self._is_place(name) and (known := [model for model in models if model in self._uses[name]]):
                return (min(known, key=self._uses[name].__getitem__),)
        return models

    def of_money(self) -> "Prices":
        """Return the prices without scarcity. They learn nothing."""
        prices = copy(self)
        prices.scarcity = {}
        return prices

    def asked(self, models: Sequence[str], *, is_first: bool = True) -> None:
        """Learn what a query costs. ``is_first``: these are its first models, and not others that it asks later."""
        if self.max_cost is not None and self._rate is not None:
            cost = sum(map(self.costs.of, models))
            largest = max(self.costs.by_model.values(), default=0.0)
            excess = (cost - (self.max_cost if is_first else 0.0)) / max(largest, self.max_cost)
            self._rate.learn(min(excess, 1.0), *self._bounds)

    def scored(self, loss: float) -> None:
        """Learn from the loss of an answer, in [0, 1]."""
        if self.min_quality is not None and self._rate is not None:
            self._rate.learn(1.0 - self.min_quality - loss, *self._bounds)

    def foresee(self, chances: Mapping[str, float], devices: Mapping[str, Resource]) -> None:
        """Give the devices that are getting full a price, before a query risks to be late there: others would be, too.

        Args:
            chances, devices: as in ``ration``.
        """
        for name, device in devices.items():
            is_short = any(chances.get(model, 1.0) < SURE_ON_DEVICE for model in device.uses)
            if is_short and device.per_s > 0.0 and name not in self.scarcity:
                self.scarcity[name], self._uses[name] = Price(LEAST_OF_DEVICE), device.uses
        self.is_active = self.has_budget or bool(self.scarcity)

    def ration(self, asked: str, chances: Mapping[str, float], resources: Mapping[str, Resource], now_s: float) -> None:
        """Learn what is scarce, after a query has asked ``asked``.

        A resource becomes scarce when a model that uses it is not sure to answer in time. While it is full, none of it
        counts as free, so that neither an overestimated capacity nor other users of the resource matter.

        Args:
            chances: how likely each model is to answer in time; models that are not in it surely do.
            resources: all that may be scarce, by name.
        """
        passed_s, self._rationed_s = now_s - self._rationed_s, now_s
        for name in self.scarcity.keys() - resources.keys():
            del self.scarcity[name]
        for name, resource in resources.items():
            self._uses[name] = uses = resource.uses
            is_short = any(chances.get(model, 1.0) < SURE for model in uses)
            least = LEAST_SCARCITY if len(uses) == 1 else LEAST_OF_DEVICE
            price = self.scarcity.get(name)
            if price is None:
                if is_short and resource.per_s > 0.0:
                    self.scarcity[name] = Price(least)
                continue
            demanded = asked if len(uses) == 1 or self._wanted is None else self._wanted
            is_full = chances.get(demanded, 1.0) < SURE if demanded in uses else is_short
            free = 0.0 if is_full else resource.per_s * passed_s
            price.learn(uses.get(demanded, 0.0) - free, least, max(self._gains.get(name, 0.0), least))
            if price.value <= least and not is_short and not self.filled.get(name):
                del self.scarcity[name]
        self._wanted = None
        for known in (self._gains, self._uses):
            for name in known.keys() - self.scarcity.keys() - resources.keys():
                del known[name]
        self.is_active = self.has_budget or bool(self.scarcity)

    def in_words(self, models: Sequence[str]) -> list[str]:
        """Return what the present prices do, a sentence for each; nothing without prices."""
        found = []
        costs = {model: self.costs.of(model) for model in models}
        cheapest = min(costs, key=lambda model: costs[model], default="")
        dearer = {model: self.rate * (cost - costs[cheapest]) for model, cost in costs.items()}
        if self.has_budget and any(dearer.values()):
            gains = _listed({model: price for model, price in dearer.items() if price > 0.0})
            found.append(f"at the budget's present rate a query asks a model if it loses less than {cheapest}: {gains}")
        for name, price in self.scarcity.items():
            unit = self._of_unit(name)
            uses = {model: unit * used for model, used in self._uses.get(name, {}).items() if model in costs}
            if price.value > LEAST_OF_DEVICE and uses:
                full = f"{name} is full" if name in costs else f"{name} has no time for all"
                found.append(f"{full}: a query asks a model if it loses less than the others: {_listed(uses)}")
        return found

    def _of_unit(self, name: str) -> float:
        """Return the present price of a unit."""
        return self.scarcity[name].value * self.filled.get(name, HALF) / HALF

    def _is_place(self, name: str) -> bool:
        """Whether a scarce thing is a place in the queue of a model, and not the time of a device."""
        return len(self._uses[name]) == 1

    @property
    def _bounds(self) -> tuple[float, float]:
        return LEAST_SHARE * self._high, 2.0 * self._high

    def _see(self, costs: Sequence[float], losses: Sequence[float], errors: Sequence[float]) -> None:
        """Note the rate above which a query goes to the cheapest model, however uncertain the others' losses are."""
        cheapest, loss, error = min(zip(costs, losses, errors))
        high = max(
            (
                (loss + error - other_loss + other_error) / (cost - cheapest)
                for cost, other_loss, other_error in zip(costs, losses, errors)
                if cost > cheapest
            ),
            default=0.0,
        )
        high = min(high, MAX_RATE)
        self._high = max(high, FADE * self._high)
        if self._rate is None and high > 0.0:
            self._rate = (
                Price(high, REPAY_QUERIES)
                if self.max_cost is not None
                else Price(FIRST_SHARE * high, REPAY_ANSWERS, is_unused_positive=True)
            )


def _gain(uses: Sequence[float], losses: Sequence[float]) -> float:
    """Return the most that a model gains over another one for each unit that it uses more."""
    pairs = list(zip(uses, losses))
    return max(
        ((less - loss) / (used - least) for used, loss in pairs for least, less in pairs if used > least), default=0.0
    )


def _listed(prices: Mapping[str, float]) -> str:
    return ", ".join(f"{model} by at least {price:.2g}" for model, price in prices.items())
