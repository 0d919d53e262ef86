"""Queries of several groups, under a budget; and what a linear program that knows all would reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from clipper.learning.mathematics.costs import Costs
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import default_half_life, make_policy
from clipper.learning.policies.candidates import candidates
from clipper.learning.policies.policy import Choice, JudgedQuery, QueryView
from clipper.learning.policies.prices import Prices
from clipper.worker.selection.feedback.scoring import lesson

MODELS = ("dear", "middling", "cheap")


@dataclass(frozen=True)
class World:
    """Which groups come, by their shares; the loss of each model, (groups, models); the cost of each model."""

    shares: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    costs: tuple[float, ...]

    def least(self, mean_cost: float, *, knows_groups: bool = True) -> float:
        """Return the least mean loss at this mean cost: the linear program's dual, a concave function of the rate."""
        losses, costs = np.array(self.losses), np.array(self.costs)
        shares = np.array(self.shares)
        if not knows_groups:
            losses, shares = (shares @ losses)[None], np.ones(1)
        rates = np.linspace(0.0, 100.0, 100_001)
        priced = losses[None] + rates[:, None, None] * (costs[None, None] - mean_cost)
        return float((priced.min(axis=2) @ shares).max())

    def cheapest(self, mean_loss: float) -> float:
        """Return the least mean cost at this mean loss."""
        low, high = min(self.costs), max(self.costs)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.least(middle) > mean_loss else (low, middle)
        return high


@dataclass(frozen=True)
class Spell:
    """The results of queries in a world: means over the queries, of true losses."""

    loss: float
    cost: float


class Operator:
    """An application under a budget, which learns from each answer."""

    def __init__(
        self, policy: str, max_cost: float | None = None, min_quality: float | None = None, seed: int = 1
    ) -> None:
        self.policy, self.random = make_policy(policy), Random(seed)
        self.ledger = Ledger(default_half_life(policy))
        self.prices, self.budget = Prices(), (max_cost, min_quality)

    def live(self, world: World, queries: int, models: Sequence[str] = MODELS) -> Spell:
        policy, random, names = self.policy, self.random, tuple(models)
        costs, groups = Costs(dict(zip(names, world.costs))), range(len(world.shares))
        features = [row.tobytes() for row in np.eye(len(groups))]
        self.prices.follow(costs, *self.budget)
        lost = spent = 0.0
        for _ in range(queries):
            group = random.choices(groups, world.shares)[0]
            totals = self.ledger.totals()
            view = QueryView(packed_features=features[group] if policy.needs_features else None)
            among = candidates(policy, names, totals, view, 1.0, prices=self.prices)
            choice = policy.select(among, totals, view, random)
            self.prices.asked(choice.models)
            place = names.index(choice.models[0])
            loss = float(random.random() < world.losses[group][place])
            lost, spent = lost + world.losses[group][place], spent + world.costs[place]
            self.teach(view, choice, loss)
            self.prices.scored(loss)
        return Spell(lost / queries, spent / queries)

    def teach(self, query: QueryView, choice: Choice, loss: float) -> None:
        judged = JudgedQuery(packed_features=query.packed_features)
        losses = {choice.models[0]: loss}
        self.ledger.add(self.ledger.entries(lesson(self.policy, choice, losses, self.ledger.totals(), judged, {})))
        self.ledger.drop_stale()
