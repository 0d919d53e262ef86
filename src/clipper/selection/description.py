"""What an application has learned, for people to see."""

import asyncio
from collections.abc import Mapping
from random import Random

from msgspec.structs import replace

from clipper.control.messages import ModelDescription, PolicyDescription
from clipper.control.statistics import ApplicationStatistics, StandingStatistics
from clipper.errors import PolicyFailed
from clipper.selection.application import Application
from clipper.selection.learning.totals import LOSS, PLAIN_LOSS, PLAIN_SCORED, PULLS, SCORED, Totals
from clipper.selection.policies.cascade import Cascade, by_cost
from clipper.selection.policies.policy import QueryView
from clipper.selection.policies.registry import POLICIES

# Shares are found by having the policy select this often, which holds for every policy, the user's own too. So many
# draws tell a share to within 2 %.
DRAWS = 1000
# Draws in one go: queries are answered in between.
DRAWS_AT_ONCE = 50
_SEED = 0


async def describe(application: Application, context: str | None) -> PolicyDescription:
    """What the policy knows and would do now: in a context, or (None) over all."""
    if not application.contexts.is_loaded:
        await application.load(None)
    totals = application.contexts.totals(context)
    if totals is None:
        await application.load(context)
        totals = application.contexts.totals(context) or application.contexts.prior()
    problem = application.counts.last_policy_error
    try:
        shares = await _shares(application, totals, context)
    except PolicyFailed as error:
        shares, problem = {}, str(error)
    answering = application.models + application.newcomers
    models = [_model(application, model, totals, shares.get(model, 0.0)) for model in answering]
    models += [_model(application, model, totals, 0.0, shadow=True) for model in application.shadows]
    confidences = application.confidences
    calibration = () if confidences is None else confidences.reliability(application.models)
    return PolicyDescription(True, totals.observations, tuple(models), problem, calibration, _test(application, totals))


async def _shares(application: Application, totals: Totals, context: str | None) -> Mapping[str, float]:
    """How much each model has to say: the share of queries that ask it, each counted by its weight in the answer."""
    if not application.models:
        return {}
    if application.stages is not None and totals.observations > 0:
        # What a query comes to ask depends on outputs: what queries with feedback have asked tells it.
        return {model: min(totals.number(model, PULLS) / totals.observations, 1.0) for model in application.models}
    random = Random(_SEED)
    weights = dict.fromkeys(application.models + application.newcomers, 0.0)
    for draw in range(DRAWS):
        if draw % DRAWS_AT_ONCE == 0:
            await asyncio.sleep(0)
        choice = application.select(totals, QueryView(context), random)
        for model, share in zip(choice.models, choice.shares):
            weights[model] += share if len(choice.models) > 1 else 1.0
    return {model: weight / DRAWS for model, weight in weights.items()}


def count(application: Application) -> ApplicationStatistics:
    """What it has counted, and how its test stands."""
    totals = application.contexts.totals(None)
    test = None if totals is None else _test(application, totals)
    return replace(application.statistics(), test=test)


def _test(application: Application, totals: Totals) -> StandingStatistics | None:
    # Of Clipper's own: a user's need not be a subclass, which has it.
    if application.snapshot.selection.policy not in POLICIES:
        return None
    standing = application.selector.policy.standing(application.models, totals)
    if standing is None:
        return None
    return StandingStatistics(standing.winner, standing.confidence, standing.tolerance, standing.observations)


def _model(
    application: Application, model: str, totals: Totals, share: float, *, shadow: bool = False
) -> ModelDescription:
    scored = totals.number(model, SCORED)
    mean_loss = totals.number(model, LOSS) / scored if scored > 0 else None
    plain_scored = totals.number(model, PLAIN_SCORED)
    if totals.costs.weight and plain_scored > 0:
        mean_loss = totals.number(model, PLAIN_LOSS) / plain_scored
    policy = application.selector.policy
    dearest = application.models and by_cost(application.models, totals.costs)[-1]
    threshold = None
    if isinstance(policy, Cascade) and not shadow and model != dearest:
        threshold = min(policy.limit(model, totals), 1.0)
    return ModelDescription(
        model,
        share,
        mean_loss,
        totals.number(model, PULLS),
        scored,
        shadow,
        application.arms.key(model).partition(":")[2] or None,
        totals.costs.by_model.get(model),
        threshold,
    )
