"""``adaptive``: the best single model, with a memory whose length is learned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipper.learning.mathematics.ledger import fading
from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.totals import LOSS, SCORED
from clipper.learning.policies.drawn import Drawn
from clipper.learning.policies.policy import Choice, Increments, JudgedQuery, Totals

# Each half-life is about a quarter of the one before. Twice as many are no better; three lose 5 to 8 %
# (docs/regret.md). The longest comes first: it is used if no other has predicted losses better.
HALF_LIVES = (None, 2000, 500, 120, 30)
# The half-life of a memory's record: long beside the half-lives that it compares, and at least as long as the longest.
RECORD_HALF_LIFE = 2000

SCORED_BY = {half_life: fading(SCORED, half_life) for half_life in HALF_LIVES}
LOSS_BY = {half_life: fading(LOSS, half_life) for half_life in HALF_LIVES}
# How much better a memory predicted losses than the mean of all memories: a logarithm of probabilities.
FORETOLD_BY = {
    half_life: fading(f"foretold_by_{'all' if half_life is None else half_life}", RECORD_HALF_LIFE)
    for half_life in HALF_LIVES
}

# A half-normal distribution, cut at twice its deviation, in eight steps: (share of the full width, probability).
_STEPS = 8
_WIDTHS = [step / (_STEPS - 1) for step in range(_STEPS)]
_DENSITIES = [math.exp(-2 * width**2) for width in _WIDTHS]
WIDTHS = tuple((width, density / sum(_DENSITIES)) for width, density in zip(_WIDTHS, _DENSITIES))

# A smaller discounted count says nothing, and dividing by it amplifies rounding errors.
_LEAST_COUNT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Adaptive(Drawn):
    """Keeps each model's losses under several half-lives, uses the half-life that predicted losses best, and asks the
    model whose loss may be the least.

    **How long to remember.** Every half-life h predicts each observed loss x of a model, with the probability ``p_h =
    (loss_h + 1) / (scored_h + 2)`` and its logarithm ``x ln(p_h) + (1 - x) ln(1 - p_h)``. These are summed with
    forgetting, and the half-life with the largest sum is used: model selection by forgetting (Raftery, Karny, Ettler:
    "Online Prediction Under Model Uncertainty via Dynamic Model Averaging", 2010). While nothing changes, long memories
    predict slightly better. After a change they are wrong at each query, and within some tens of queries a short memory
    is used. It knows nothing of models that were not asked lately, so all are tried again, as after a restart; then
    longer memories of the time since then take over. So a change is found by its effect, without a threshold.

    **Which model.** For each model, the lower confidence bound of its loss is used (Wilson: "Probable Inference, the
    Law of Succession, and Statistical Inference", 1927), which is narrow where losses are rare:

        bound(z) = (m + z^2 / 2n - z sqrt(m (1 - m) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    with m the mean loss and n how often the model was scored. z is drawn from a half-normal distribution on eight
    points from 0 to ``exploration``, the same for all models: RandUCB (Vaswani, Mehrabian, Durand, Kveton: "Old Dog
    Learns New Tricks: Randomized UCB for Bandit Problems", 2020). Drawing it spreads queries while feedback is on its
    way. With eight points, the probability of each choice is known exactly, and is its share.

    As long as there is no feedback, the model that was linked first is asked, as by ``single``.

    The state's own half-life plays no part in this; it only affects what is displayed.

    Args:
        exploration: the largest z; above 0, at most 10.
    """

    has_budget = True

    exploration: float = 1.0

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, 0, 10, above=True)

    def probabilities(self, models: Sequence[str], totals: Totals) -> list[float]:
        known_of = [evidence(model, totals) for model in models]
        counts, losses = [count for count, _ in known_of], [loss for _, loss in known_of]
        known = sum(counts)
        if known <= _LEAST_COUNT:
            return [1.0, *(0.0 for _ in models[1:])]
        usual = sum(losses) / known
        means = [
            min(max(loss / count, 0.0), 1.0) if count > _LEAST_COUNT else usual for loss, count in zip(losses, counts)
        ]
        probabilities = [0.0] * len(models)
        for width, probability in WIDTHS:
            z = width * self.exploration
            bounds = [lower_bound(mean, count, z) for mean, count in zip(means, counts)]
            least = min(bounds)
            share = probability / bounds.count(least)
            for index, bound in enumerate(bounds):
                if bound == least:
                    probabilities[index] += share
        return probabilities

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Return each scored model's counts under every half-life, and how well these had predicted its loss."""
        if not losses:
            return {}
        increments: dict[tuple[str, str], float] = {}
        foretold = dict.fromkeys(HALF_LIVES, 0.0)
        for model, loss in losses.items():
            for half_life in HALF_LIVES:
                expected = (totals.number(model, LOSS_BY[half_life]) + 1) / (
                    totals.number(model, SCORED_BY[half_life]) + 2
                )
                # Rounding may push a sum of discounted losses slightly out of its range.
                expected = min(max(expected, 1e-9), 1 - 1e-9)
                foretold[half_life] += loss * math.log(expected) + (1 - loss) * math.log(1 - expected)
                if half_life is not None:  # every policy keeps counts that never fade
                    increments[model, SCORED_BY[half_life]] = 1.0
                    increments[model, LOSS_BY[half_life]] = loss
        # Only differences matter; without the common part, the sums stay small.
        usual = sum(foretold.values()) / len(foretold)
        increments.update((("", FORETOLD_BY[half_life]), amount - usual) for half_life, amount in foretold.items())
        return increments


def best_half_life(totals: Totals) -> int | None:
    """Return the half-life that has recently predicted losses best."""
    return max(HALF_LIVES, key=lambda half_life: totals.number("", FORETOLD_BY[half_life]))


def evidence(model: str, totals: Totals) -> tuple[float, float]:
    """Return how often a model was scored, and its losses, under the half-life that predicts best.

    In a context, the application's part uses the application's half-life, and the rest uses the context's own. A
    context whose losses differ from most others' is no sign that the models have changed.
    """
    own, application = totals.own or totals, totals.application
    half_life = best_half_life(own)
    count, loss = own.number(model, SCORED_BY[half_life]), own.number(model, LOSS_BY[half_life])
    if application is not None:
        half_life = best_half_life(application)
        share = application.share_of((model, SCORED_BY[half_life]), totals.prior_most)
        count += share * application.number(model, SCORED_BY[half_life])
        loss += share * application.number(model, LOSS_BY[half_life])
    return count, loss


def lower_bound(mean: float, count: float, z: float) -> float:
    """Return Wilson's lower bound, ``z`` standard errors below the mean of ``count`` losses."""
    if z <= 0:
        return mean
    if count <= _LEAST_COUNT:
        return 0.0
    part = z * z / (2 * count)
    spread = math.sqrt(2 * part * mean * (1 - mean) + part * part)
    return max((mean + part - spread) / (1 + 2 * part), 0.0)
