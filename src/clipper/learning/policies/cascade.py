"""``cascade``: asks the cheapest model first, and a dearer one only if the answer is unsure and time allows."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clipper.learning.mathematics.costs import Costs
from clipper.learning.mathematics.json_values import is_same
from clipper.learning.mathematics.parameters import check_number
from clipper.learning.mathematics.probabilities import read_claim
from clipper.learning.policies.distribution import Distribution
from clipper.learning.policies.policy import (
    LEAST_CHANCE,
    SURE,
    Choice,
    Combined,
    Increments,
    JudgedQuery,
    Outlook,
    Policy,
    QueryView,
    Step,
    Totals,
)

# Ends of the ranges of confidence: closer together near 1, where most confidences are.
EDGES = (
    0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.9995,
)  # fmt: skip
# No confidence reaches this threshold: always go on.
ALWAYS = 1.01

# A model must be in time for this share of the queries.
HARDLY_IN_TIME = 0.1

# The cheapest model is asked first while the confidence of fewer queries is known, or if more of them stop and no costs
# are known.
LEAST_SEEN, HARDLY_STOPS = 1000, 0.05

# In each range, this many extra queries count for which going on saved an error. In simulations of 800 to 4,000 queries
# half a query does best: with fewer it stops too early for good, with more too late.
PRIOR = 0.5

# Numbers of the model that is not sure enough, by range of its confidence: queries with feedback, how many of them went
# on, and by how much more these lost and cost than if they had stopped.
SEEN = tuple(f"seen_{place}" for place in range(len(EDGES) + 1))
WENT_ON = tuple(f"went_on_{place}" for place in range(len(EDGES) + 1))
EXCESS = tuple(f"excess_{place}" for place in range(len(EDGES) + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Cascade(Policy):
    """Asks models in the order of their costs, or of their links if no costs are known, until one is sure enough.

    Asking a dearer model if the confidence is below a threshold is Chow's rule ("On optimum recognition error and
    reject tradeoff", 1970), with the dearer model instead of the reject. The best threshold is the confidence at which
    the error that it saves is worth its cost. FrugalML (Chen, Zaharia, Zou, 2020) and IDK cascades (Wang et al., 2018)
    fit such thresholds to a labelled set; here feedback fits them, for each model but the dearest.

    **Confidence** is the claim of the output itself (``read_claim``). For plain labels it is the share of the earlier
    models that gave the same label, and 0 for the first model: so two models are asked, and a third if they disagree.

    **The threshold**, if it is not given, is the one with the least ``loss + weight * cost`` over the queries with
    feedback. For a query that went on both outcomes are known: its loss and cost, and what they would have been if it
    had stopped. With x_i the sum of the differences over the w_i queries that went on, and n_i all queries, in range i:

        threshold = upper end of the range r with the least  sum_{i <= r} n_i * (x_i - k/S) / (w_i + k)

    or 0 if all sums are above 0. ``1/S`` is a loss of 1, scaled as priced losses are, and k = 1/2: half an extra query
    in each range, for which going on saved an error. So all queries go on at first, and fewer as that turns out not to
    pay. The means of ranges are weighted by their numbers of queries (the direct method) and not by one over each
    query's probability, which would vary 1 / ``explore`` times as much.

    A share ``explore`` of the queries that would stop goes on, to find out when going on begins to pay.

    While the dearest model has room, it is asked at once if that costs no more: if the cheap one's cost is at least the
    dear one's times the share of queries that would stop.

    A model that feedback shows to be in time for hardly any query is not asked first, except for a share ``explore`` of
    queries. A model without time to answer is skipped for the next dearer one with time. Only labels teach: a reward is
    for the answer, and does not say what another answer would have earned.

    Args:
        threshold: confidence below which the next model is asked, from 0 to 1; None learns it. At 1 all queries go on,
            except those with a confidence of 1.
        explore: share, from 0 to 1, of sure answers that go on nevertheless while the threshold is learned; also the
            share of queries that try a cheapest model which was hardly ever in time.
    """

    default_half_life = 5_000
    goes_by = "query"
    weighs_time = True

    threshold: float | None = None
    explore: float = 0.02

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_number("threshold", self.threshold, 0, 1)
        check_number("explore", self.explore, 0, 1)

    def select(self, models: tuple[str, ...], totals: Totals, query: QueryView, random: Random) -> Choice:
        # Which models are in time is one of a few combinations.
        late: tuple[str, ...] = ()
        is_dearest_sure = True
        if query.in_time is not None:
            late = tuple(model for model in models if query.chance(model) < LEAST_CHANCE)
            is_dearest_sure = query.chance(by_cost(models, totals.costs)[-1]) >= SURE
        first: Choice | Distribution | None = totals.memo.get((self, models, late, is_dearest_sure))
        if first is None:
            first = self._first(models, totals, late, is_dearest_sure=is_dearest_sure)
            totals.memo[self, models, late, is_dearest_sure] = first
        return first if isinstance(first, Choice) else first.draw(random)

    def next(
        self,
        choice: Choice,
        outputs: Mapping[str, bytes],
        totals: Totals,
        query: QueryView,
        outlook: Outlook,
        random: Random,
    ) -> Choice | None:
        others = by_cost(tuple(outlook.expected_s), totals.costs)
        in_time = [model for model in others if outlook.has_time_for(model)]
        # Models that are rarely in time come last, and are tried occasionally.
        in_time.sort(key=lambda model: not is_usually_there(model, totals))
        answered = [model for model in choice.models if model in outputs]
        if answered and choice.among is not None and answered[-1] == choice.among[-1]:
            return None  # the dearest was asked first, so no dearer one is left
        if not answered:
            # There is no confidence yet, and no threshold to learn.
            return self._with(choice, in_time[0], choice.steps) if in_time else None
        confidence = self._confidence(answered, outputs)
        if not in_time:
            probability = 0.0
        elif confidence < self.limit(answered[-1], totals):
            probability = 1.0
        else:
            probability = self.explore if self.threshold is None else 0.0
        if probability and not is_usually_there(in_time[0], totals):
            probability = self.explore
        steps = choice.steps
        if answered[-1] == choice.models[-1]:
            steps = (*steps, Step(len(choice.models), confidence, probability))
        if probability and random.random() < probability:
            return self._with(choice, in_time[0], steps)
        return Choice(choice.models, choice.shares, steps=steps)

    def combine(self, choice: Choice, outputs: Mapping[str, bytes], totals: Totals, query: QueryView) -> Combined:
        """Return the dearest output with its confidence; for plain labels that is the share of models that agree."""
        answered = [model for model in choice.models if model in outputs]
        output = outputs[answered[-1]]
        claim = read_claim(output)
        sure = (
            claim.probability
            if claim is not None
            else (sum(is_same(outputs[model], output) for model in answered) / len(choice.models))
        )
        return Combined(output, sure)

    def observe(self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery) -> Increments:
        """Count each step in the range of its confidence: ``seen``, and if it went on, ``went_on`` and ``excess``."""
        increments: dict[tuple[str, str], float] = {}
        final = choice.models[-1]
        if self.threshold is not None or final not in losses:
            return increments
        for step in choice.steps:
            model, place = choice.models[step.asked - 1], bisect_right(EDGES, step.confidence)
            if model not in losses:
                continue
            increments[model, SEEN[place]] = 1.0
            if step.asked < len(choice.models):
                further = choice.models[step.asked :]
                costs = totals.costs
                saved = losses[model] - costs.price(model) - (losses[final] - costs.price(final))
                increments[model, WENT_ON[place]] = 1.0
                increments[model, EXCESS[place]] = sum(map(costs.price, further)) - saved
        return increments

    def observe_reward(
        self, choice: Choice, losses: Mapping[str, float], totals: Totals, query: JudgedQuery
    ) -> Increments:
        return {}

    def limit(self, model: str, totals: Totals) -> float:
        """Return the confidence of ``model`` below which a dearer model is asked."""
        if self.threshold is not None:
            return self.threshold
        limit: float | None = totals.memo.get((self, model))
        if limit is None:
            limit = totals.memo[self, model] = learned_limit(model, totals)
        return limit

    def _first(
        self, models: tuple[str, ...], totals: Totals, late: Sequence[str] = (), *, is_dearest_sure: bool = True
    ) -> Choice | Distribution:
        """Return which model is asked first.

        Args:
            late: models that will hardly answer this query in time.
            is_dearest_sure: whether the dearest model surely will.
        """
        ordered = by_cost(models, totals.costs)
        first = next((model for model in ordered if model not in late and is_usually_there(model, totals)), ordered[0])
        dearest = ordered[-1]
        if first != dearest and is_dearest_sure and self._is_dearest_first(first, dearest, totals):
            return Distribution((dearest, first), (1.0 - self.explore, self.explore), among=tuple(ordered))
        if first == ordered[0] or not self.explore:
            return Choice((first,), (1.0,))
        # Now and then try the cheapest model, which may have become fast again.
        return Distribution((first, ordered[0]), (1.0 - self.explore, self.explore))

    def _is_dearest_first(self, first: str, dearest: str, totals: Totals) -> bool:
        """Return whether asking the dearest model at once costs no more than asking it for the answers that are unsure:
        whether ``cost(first) >= (share that stops) * cost(dearest)``, if costs are weighed. If none is known, whether
        hardly any stops.

        It is asked while it has room; and by the share ``explore`` the order is kept, to notice when that changes.
        """
        if self.threshold is not None or not is_usually_there(dearest, totals):
            return False
        known = totals.application or totals
        limit = self.limit(first, totals)
        seen = [known.number(first, name) for name in SEEN]
        if sum(seen) < LEAST_SEEN:
            return False
        stops = sum(seen[bisect_right(EDGES, limit) :]) / sum(seen) if limit < ALWAYS else 0.0
        costs = totals.costs
        if not costs.by_model:
            return stops <= HARDLY_STOPS
        return costs.weight > 0 and costs.of(first) >= stops * costs.of(dearest)

    def _confidence(self, answered: Sequence[str], outputs: Mapping[str, bytes]) -> float:
        output = outputs[answered[-1]]
        claim = read_claim(output)
        if claim is not None:
            return claim.probability
        if len(answered) == 1:
            return 0.0
        return sum(is_same(outputs[model], output) for model in answered[:-1]) / (len(answered) - 1)

    def _with(self, choice: Choice, model: str, steps: tuple[Step, ...]) -> Choice:
        # The last model that answers makes the answer.
        return Choice((*choice.models, model), (*(0.0 for _ in choice.models), 1.0), steps=steps)


def by_cost(models: tuple[str, ...], costs: Costs) -> Sequence[str]:
    """Return models by cost, the cheapest first; equals in the order of their links."""
    return sorted(models, key=costs.of) if costs.by_model else models


def is_usually_there(model: str, totals: Totals) -> bool:
    """Whether a model is in time for a fair share of queries. Otherwise it costs the other models their time."""
    return totals.in_time(model) >= HARDLY_IN_TIME


def learned_limit(model: str, totals: Totals) -> float:
    """Return the threshold with the least loss and cost: see ``Cascade``."""
    # A loss of 1 without its cost, on the scale of priced losses.
    error = totals.costs.priced(model, 1.0) - totals.costs.price(model)
    # A model's confidence depends more on the model than on the context, and one context has too few queries in each
    # range.
    totals = totals.application or totals
    limit = least = excess = 0.0
    for place, upper in enumerate((*EDGES, ALWAYS)):
        seen = totals.number(model, SEEN[place])
        mean = (totals.number(model, EXCESS[place]) - PRIOR * error) / (totals.number(model, WENT_ON[place]) + PRIOR)
        excess += seen * mean
        # Without evidence, go on.
        if excess <= least:
            least, limit = excess, upper
    return limit
