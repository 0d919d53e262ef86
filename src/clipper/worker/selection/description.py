"""Describes for people what an application has learned."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from random import Random

from msgspec.structs import replace

from clipper.control.descriptions import ModelDescription, Standing
from clipper.control.messages import PolicyDescription
from clipper.control.statistics import ApplicationStatistics
from clipper.errors import PolicyFailed
from clipper.learning.mathematics.totals import LOSS, PLAIN_LOSS, PLAIN_SCORED, PULLS, SCORED, Totals
from clipper.learning.policies.by_name import POLICIES
from clipper.learning.policies.cascade import Cascade, by_cost
from clipper.learning.policies.policy import QueryView
from clipper.worker.selection.application import Application

# Shares are measured by letting the policy select this often, which works for every policy, including a user's own.
# This number of draws is exact to within 2 %.
DRAWS = 1000
# Draws in one turn of the loop: queries are answered in between.
DRAWS_AT_ONCE = 50
_SEED = 0
# After so many queries without feedback, there is probably none.
ENOUGH_QUERIES = 100


async def describe(application: Application, context: str | None) -> PolicyDescription:
    """Describe what the policy knows and would do now: in a context, or for None in the application as a whole."""
    if not application.contexts.is_loaded:
        await application.load(None)
    totals = application.contexts.totals(context)
    if totals is None:
        await application.load(context)
        totals = application.contexts.totals(context) or application.contexts.prior()
    problem = application.counts.last_policy_error or _budget_problem(application, totals)
    try:
        shares = await _shares(application, totals, context)
    except PolicyFailed as error:
        shares, problem = {}, str(error)
    terms = application.terms
    asked = terms.models + terms.newcomers + terms.shadows
    return PolicyDescription(
        True,
        totals.observations,
        tuple(_model(application, model, totals, shares.get(model, 0.0)) for model in asked),
        problem,
        () if terms.confidences is None else terms.confidences.reliability(terms.models),
        _test(application),
        tuple(application.prices.in_words(terms.models)),
    )


def _budget_problem(application: Application, totals: Totals) -> str | None:
    """Return why the application's budget cannot be kept, if it is certain."""
    prices = application.prices
    if not prices.has_budget:
        return None
    if not any(map(prices.costs.of, application.terms.models)):
        return (
            "the application's budget limits what its models cost, but none of its models has a cost: set each one's, "
            "to a number or auto"
        )
    if prices.min_quality is not None and application.counts.queries >= ENOUGH_QUERIES and not totals.observations:
        return (
            f"no feedback has come, so nobody knows whether answers keep a quality of {prices.min_quality:g}, and the "
            "first models are asked: send labels or rewards to /observe, or set max_cost_per_query instead"
        )
    return None


async def _shares(application: Application, totals: Totals, context: str | None) -> Mapping[str, float]:
    """Return each model's influence: the share of queries that ask it, weighted by its weight in the answer."""
    if not application.terms.models:
        return {}
    has_prices = application.prices.has_budget
    if (application.terms.selector.goes_on or has_prices) and totals.observations > 0:
        # Which models a query ends up asking depends on outputs, or on prices that change with each query. So count
        # what queries with feedback have asked.
        return {
            model: min(totals.number(model, PULLS) / totals.observations, 1.0) for model in application.terms.models
        }
    random = Random(_SEED)
    weights: dict[str, float] = defaultdict(float)  # also of models that come meanwhile
    for draw in range(DRAWS):
        if draw % DRAWS_AT_ONCE == 0:
            await asyncio.sleep(0)
        choice = application.select(totals, QueryView(context), random)
        for model, share in zip(choice.models, choice.shares):
            weights[model] += share if len(choice.models) > 1 else 1.0
    return {model: weight / DRAWS for model, weight in weights.items()}


def count(application: Application, *, has_details: bool = False) -> ApplicationStatistics:
    """Return the application's statistics, with the state of its test; with its explanations and trials if asked."""
    counted = replace(application.statistics(), test=_test(application), mark=mark(application))
    if not has_details:
        return counted
    explanations, trials = application.counts.told_explanations(), application.trials.readings()
    return replace(counted, explanations=explanations, trials=trials)


def mark(application: Application) -> int:
    """Return a number that changes with all that ``count`` tells, apart from its details.

    It is a hash of numbers alone, so that workers that have counted the same have the same mark.
    """
    test, error, costs = _test(application), application.calibration_error(), application.terms.arms.costs.by_model
    standing = () if test is None else (test.winner is not None, test.confidence, test.observations)
    present = (len(application.contexts), -1.0 if error is None else error)
    return hash((application.counts.counted(), *present, *costs.values(), *standing))


def _test(application: Application) -> Standing | None:
    totals = application.contexts.totals(None)
    # Only for Clipper's own policies: a user's need not be a subclass, and may lack the method.
    if totals is None or application.snapshot.selection.policy not in POLICIES:
        return None
    return application.terms.selector.policy.standing(application.terms.models, totals)


def _model(application: Application, model: str, totals: Totals, share: float) -> ModelDescription:
    terms, scored = application.terms, totals.number(model, SCORED)
    mean_loss = totals.number(model, LOSS) / scored if scored > 0 else None
    plain_scored = totals.number(model, PLAIN_SCORED)
    if totals.costs.weight and plain_scored > 0:
        mean_loss = totals.number(model, PLAIN_LOSS) / plain_scored
    policy = terms.selector.policy
    dearest = terms.models and by_cost(terms.models, totals.costs)[-1]
    threshold = None
    if isinstance(policy, Cascade) and model not in (*terms.shadows, dearest):
        threshold = min(policy.limit(model, totals), 1.0)
    key = terms.arms.key(model)
    in_time = application.outcomes.recent_share(key) if application.outcomes.knows(key) else None
    return ModelDescription(
        model,
        share,
        mean_loss,
        totals.number(model, PULLS),
        scored,
        model in terms.shadows,
        key.partition(":")[2] or None,
        totals.costs.by_model.get(model),
        threshold,
        in_time,
        application.chance(model),
    )
