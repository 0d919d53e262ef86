"""``weighted``: a traffic split, such as 95 to 5 for a canary."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.parameters import check_number
from clipper.learning.policies.distribution import Distribution
from clipper.learning.policies.drawn import Drawn
from clipper.learning.policies.policy import Choice, QueryView, Totals


@dataclass(frozen=True, slots=True, eq=False)
class Weighted(Drawn):
    """Asks a model, in proportion to the weights. Queries of the same context always get the same model.

    Contexts are placed by **weighted rendezvous hashing**: each model draws ``-ln(u) / weight``, with u in (0, 1) the
    hash of model and context, and the smallest draw wins; so a model wins with its share of the weights. A changed
    weight moves no context between two other models. So adding or removing a model, or changing a split of two models,
    moves as few contexts as possible: 5 % from 95/5 to 90/10. If several of three or more weights change at once, at
    most 2d / (1 + d) move, with d the least possible; no rule without memory can promise better (Bavarian et al., "The
    Optimality of Correlated Sampling", 2016). Cumulative weights over one hash point would move twice d when models in
    the middle shift. The models' order does not matter.

    Queries without a context are split at random. It learns nothing.

    Args:
        weights: by model, at least 0, not all 0; None for equal weights. A model that is not in it gets no queries.
    """

    learns = False

    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        if not isinstance(self.weights, Mapping):
            raise InvalidArgument(f"weights is {self.weights!r}: expected a weight by model, such as a: 95, b: 5")
        for model, weight in self.weights.items():
            check_number(f"weight of {model}", weight, 0)
        if not any(self.weights.values()):
            raise InvalidArgument("weights are all 0: expected at least one above 0")

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        distribution: Distribution = totals.memo.get((self, models)) or self.distribution(models, totals)
        context = query.context
        if context is None:
            return distribution.draw(random)
        return min(distribution.choices, key=lambda choice: _draw(choice, context))

    def probabilities(self, models: tuple[str, ...], totals: Totals) -> list[float]:
        """Return equal weights if none of the application's models has any: an answer is better than none."""
        given = self.weights or {}
        weights = [float(given.get(model, 0.0)) for model in models]
        return weights if any(weights) else [1.0] * len(models)


# A digest is an integer below this.
_DIGESTS = 1 << 64


def _draw(choice: Choice, context: str) -> float:
    """Return an exponential draw with the model's share as its rate; it never changes for one model and context."""
    share = choice.shares[0]
    if share <= 0:
        return math.inf
    digest = blake2b(f"{choice.models[0]}\0{context}".encode(), digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 0.5) / _DIGESTS) / share
