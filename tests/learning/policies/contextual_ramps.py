"""Newcomers under a policy that chooses by context, in simulation: all chance from a seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.guardrail import Forecasts, RampLosses, Verdict, judge, ramp_losses
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.policies.by_name import default_half_life, is_by_context, make_policy
from clipper.learning.policies.policy import Choice, JudgedQuery, QueryView
from clipper.learning.policies.ramp import Ramp
from clipper.settings.application import Selection
from clipper.worker.selection.feedback.scoring import lesson, shown_of_newcomers

NEW = "n:1"
# Queries before the newcomer comes.
BEFORE = 600


@dataclass(frozen=True)
class Outcome:
    """The newcomer's fate, and the answers that decided it."""

    verdict: Verdict | None
    evidence: RampLosses


def play(
    policy_name: str,
    errors: Mapping[str, Mapping[str, float]],
    seed: int,
    *,
    before: str | None = None,
    share: float = 0.1,
    queries: int = 6000,
) -> Outcome:
    """Ask queries of each context in turn by chance, with feedback at once, until there is a verdict.

    Args:
        errors: how often each model errs, by context and model; the newcomer is ``NEW``.
        before: the model in whose place the newcomer comes.
    """
    policy, chance, forecasts = make_policy(policy_name), Random(seed), Forecasts()
    models = tuple(model for model in next(iter(errors.values())) if model != NEW)
    half_life = default_half_life(policy_name)
    everyone, contexts = Ledger(half_life), {context: Ledger(half_life) for context in errors}
    by_context = is_by_context(policy_name, Selection().prior_weight)
    ramp, arms = Ramp({NEW: before}, share), Arms({}, ramps={NEW: 1})
    for step in range(BEFORE + queries):
        context = chance.choice(tuple(errors))
        prior = everyone.totals()
        totals = contexts[context].totals().with_prior(prior)

        def select(among: tuple[str, ...], totals: object = totals, context: str = context) -> Choice:
            return policy.select(among, totals, QueryView(context), chance)  # type: ignore[arg-type]

        is_ramped = step >= BEFORE
        choice = ramp.select(models, select, chance, is_joint=False) if is_ramped else select(models)
        model = choice.models[0]
        losses = {model: float(chance.random() < errors[context][model])}
        taught = dict(lesson(policy, choice, losses, prior, JudgedQuery(context), is_picked=True))
        if is_ramped:
            taught |= shown_of_newcomers(
                arms,
                arms,
                forecasts,
                choice.models,
                losses[model],
                matters=lambda name, select=select: ramp.matters(models, name, select),  # type: ignore[misc]
            )
        own = contexts[context]
        own.add(own.entries(lesson(policy, choice, losses, totals, JudgedQuery(context))))
        everyone.add(everyone.entries(taught))
        for ledger in (own, everyone):
            ledger.drop_stale()
        if is_ramped:
            evidence = ramp_losses(everyone.totals(), NEW, 1)
            if (verdict := judge(evidence, 0.05, by_context=by_context)) is not None:
                return Outcome(verdict, evidence)
    return Outcome(None, evidence)
