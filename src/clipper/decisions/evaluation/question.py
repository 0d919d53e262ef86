"""A whole question: what would this policy, or each of these models, have lost on a log's queries?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from clipper.decisions.evaluation.estimators import Estimate
from clipper.decisions.evaluation.samples import samples_of
from clipper.decisions.evaluation.whatif import Answer, Learner, OneModel, Target, evaluate, logged
from clipper.decisions.joining import Joined
from clipper.errors import InvalidArgument, NotFound
from clipper.selection.learning.totals import DEFAULT_PRIOR_WEIGHT
from clipper.selection.policies.by_name import POLICIES, default_half_life, make_policy


@dataclass(frozen=True, slots=True)
class Report:
    """
    Attributes:
        queries: number of queries with a known loss; ``left_out``: the number of others, by reason.
        as_it_was: what the policy in force lost on them.
    """

    queries: int
    left_out: Mapping[str, int]
    as_it_was: Estimate
    answers: tuple[Answer, ...]


def ask(
    log: Iterable[Joined],
    policy: str | None,
    parameters: Mapping[str, Any],
    models: Sequence[str],
    random: Random,
) -> Report:
    """Evaluate ``policy``, choosing among ``models`` or all; without a policy, evaluate each model by itself.

    Raises:
        NotFound: the log has no query with feedback, or a model was not linked in it.
        InvalidArgument: the policy is not Clipper's, does not take the parameters, asks several models together, or
            needs features that the log does not have.
    """
    if policy is not None and policy not in POLICIES:
        raise InvalidArgument(f"{policy!r} is not a policy of Clipper's: expected one of {', '.join(POLICIES)}")
    made = None if policy is None else make_policy(policy, parameters)
    samples = samples_of(log)
    if not samples.taken:
        why = "; ".join(f"{count:,d}: {reason}" for reason, count in samples.left_out.items())
        raise NotFound(
            f"the decision log has no query of this application whose loss is known ({why or 'it has none'}): "
            "log decisions with clipper app update --log-decisions, and send feedback by query_id"
        )
    if made is not None and made.needs_features and not any(sample.features for sample in samples.taken):
        raise InvalidArgument(
            f"policy {policy} needs features, and the queries in the log have none: enable them with "
            "clipper app update --features, and log decisions with them first"
        )
    known = sorted({each for sample in samples.taken for each in sample.candidates})
    if unknown := sorted(set(models) - set(known)):
        raise NotFound(f"{', '.join(unknown)} could not be chosen in the log: expected some of {', '.join(known)}")
    targets: list[Target]
    if made is None:
        targets = [OneModel(model) for model in models or known]
    else:
        name = f"{policy} among {', '.join(models)}" if models else str(policy)
        # The defaults of an application that sets nothing else.
        half_life = default_half_life(str(policy))
        targets = [Learner(name, made, random, half_life, DEFAULT_PRIOR_WEIGHT, models or None)]
    answers = tuple(evaluate(samples.taken, target) for target in targets)
    return Report(len(samples.taken), dict(samples.left_out), logged(samples.taken), answers)
