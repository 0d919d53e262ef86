"""Estimates the mean loss of another policy, or of a single model, on a log's queries."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from clipper.errors import InvalidArgument, NotFound
from clipper.learning.decisions.evaluation.beliefs import win_probabilities
from clipper.learning.decisions.evaluation.estimators import (
    Array,
    Estimate,
    are_alike,
    dr,
    effective_sample_size,
    ips,
    on_policy,
    snips,
)
from clipper.learning.decisions.evaluation.samples import Sample, samples_of
from clipper.learning.decisions.joining import Joined
from clipper.learning.mathematics.ledger import Ledger
from clipper.learning.mathematics.totals import DEFAULT_PRIOR_WEIGHT, Amount, Key, tally
from clipper.learning.policies.by_name import POLICIES, default_half_life, make_policy
from clipper.learning.policies.policy import Choice, JudgedQuery, Policy, QueryView, Totals

# With fewer effective queries than this, normal approximations of intervals are too narrow.
LEAST_EFFECTIVE = 100
# Share of a target's choices that may lack support in the log before a warning.
MAX_UNSUPPORTED = 0.01
# Draws for each query if a policy does not state its probabilities. Estimates are linear in the probabilities, so this
# adds to their variance, but no bias.
DRAWS = 20
# With more models than this, integrating takes longer than drawing, since beliefs change with each query.
MOST_INTEGRATED = 8
# Contexts with a state of their own; queries of further contexts use the application's.
MAX_CONTEXTS = 100_000
# With this many queries, the direct model trusts a context's own mean as much as the model's overall mean.
DIRECT_PRIOR = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The estimated loss of a target policy.

    Attributes:
        ips, snips, dr: the estimates; None if the log cannot tell.
        shares: how often the target chooses each model.
        warnings: reasons not to trust the estimates.
    """

    target: str
    ips: Estimate | None
    snips: Estimate | None
    dr: Estimate | None
    effective_queries: float
    shares: Mapping[str, float]
    warnings: tuple[str, ...]


class Target:
    """A policy under evaluation: gives probabilities of each query's candidates, and learns from feedback."""

    def __init__(self, name: str) -> None:
        self.name = name

    def probabilities(self, sample: Sample) -> Mapping[str, float]:
        """Return the probability of each model; they add up to 1. Empty if none of the candidates may be chosen."""
        raise NotImplementedError

    def learn(self, sample: Sample) -> None:
        """Learn from the feedback on a query of the log."""


class OneModel(Target):
    """The same model for all queries."""

    def __init__(self, model: str) -> None:
        super().__init__(f"always {model}")
        self._model = model

    def probabilities(self, sample: Sample) -> Mapping[str, float]:
        return {self._model: 1.0} if self._model in sample.candidates else {}


class Learner(Target):
    """A policy that starts without knowledge and learns from the log's feedback in the order of its arrival.

    At each query it knows the feedback so far on earlier queries, whichever policy chose their models. Each choice
    comes with its probability in the log, by which policies weight losses.

    Args:
        models: the models among which it chooses; None for all that the log's policy could choose.

    Raises:
        InvalidArgument: it asks models one after another.
    """

    def __init__(
        self,
        name: str,
        policy: Policy,
        random: Random,
        half_life: int | None,
        prior_weight: float,
        models: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name)
        if type(policy).next is not Policy.next:
            raise InvalidArgument(
                f"{name} asks one model after another, but for most queries the log has only the first one's output: "
                "whatif takes policies that choose one model"
            )
        self._policy = policy
        self._random = random
        self._half_life = half_life
        self._prior_weight = prior_weight
        self._models = None if models is None else set(models)
        self._everyone = Ledger(half_life)
        self._contexts: dict[str, Ledger] = {}

    def probabilities(self, sample: Sample) -> Mapping[str, float]:
        models = self._among(sample)
        if not models:
            return {}
        totals = self._totals(sample.context)
        query = QueryView(sample.context, sample.features)
        counts: dict[str, float] = {}
        for draws in range(DRAWS):
            choice = self._policy.select(models, totals, query, self._random)
            if len(choice.models) > 1:
                raise InvalidArgument(
                    f"{self.name} answers with several models together, whose joint loss is not in the log: "
                    "whatif takes policies that choose one model"
                )
            if draws == 0:
                beliefs = choice.beliefs if len(models) <= MOST_INTEGRATED else None
                wins = None if beliefs is None else win_probabilities(beliefs)
                if wins is not None:
                    return dict(zip(models, wins))
                exact: Callable[..., Sequence[float]] | None = getattr(self._policy, "probabilities", None)
                if exact is not None:
                    return dict(zip(models, exact(models, totals, *((query,) if self._policy.needs_features else ()))))
                if not self._policy.learns and choice.shares[0] >= 1.0:
                    return {choice.models[0]: 1.0}
            counts[choice.models[0]] = counts.get(choice.models[0], 0.0) + 1.0 / DRAWS
        return counts

    def learn(self, sample: Sample) -> None:
        among = self._among(sample)
        # It only learns about the models that it may choose.
        if sample.model not in among:
            return
        choice = Choice((sample.model,), (sample.propensity,), among=among)
        losses = {sample.model: sample.loss}
        context = sample.context
        query = JudgedQuery(context, sample.features)
        if context is not None and context not in self._contexts and len(self._contexts) < MAX_CONTEXTS:
            self._contexts[context] = Ledger(self._half_life)
        for ledger, totals in (
            (self._everyone, self._everyone.totals()),
            *([(self._contexts[context], self._totals(context))] if context in self._contexts else []),
        ):
            increments: dict[Key, Amount] = {**tally(choice.models, losses)}
            for key, amount in self._policy.observe(choice, losses, totals, query).items():
                # As in ``Contexts``, only the application's state has arrays.
                if ledger is self._everyone or not isinstance(amount, np.ndarray):
                    increments[key] = increments.get(key, 0.0) + amount
            ledger.add(ledger.entries(increments))
            ledger.drop_stale()

    def _among(self, sample: Sample) -> tuple[str, ...]:
        return tuple(model for model in sample.candidates if self._models is None or model in self._models)

    def _totals(self, context: str | None) -> Totals:
        prior = self._everyone.totals()
        own = None if context is None else self._contexts.get(context)
        return prior if own is None else own.totals().with_prior(prior, self._prior_weight)


class DirectModel:
    """The mean loss of each model; in a context it is that of the context's own queries, as far as there are any."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str | None], tuple[float, float]] = {}

    def expected(self, model: str, context: str | None) -> float:
        loss, count = self._sums.get((model, None), (0.0, 0.0))
        # A model starts as if it had been right once and wrong once.
        mean = (loss + 1.0) / (count + 2.0)
        if context is None:
            return mean
        loss, count = self._sums.get((model, context), (0.0, 0.0))
        return (loss + DIRECT_PRIOR * mean) / (count + DIRECT_PRIOR)

    def learn(self, model: str, context: str | None, loss: float) -> None:
        for key in {(model, None), (model, context)}:
            total, count = self._sums.get(key, (0.0, 0.0))
            self._sums[key] = total + loss, count + 1.0


def logged(samples: Sequence[Sample]) -> Estimate:
    """Estimate the mean loss of the policy in force."""
    return on_policy(np.array([sample.loss for sample in samples]))


def evaluate(samples: Sequence[Sample], target: Target) -> Answer:
    """Replay the queries in the order of their time; the target and the direct model learn from feedback as it came.

    At each query they only know other queries, so every term is unbiased given the past, and so is their mean:
    progressive validation (Blum, Kalai, Langford: "Beating the Hold-Out", 1999). Raises InvalidArgument if the target
    chooses several models together.
    """
    direct, pending, order = DirectModel(), list[tuple[float, int, Sample]](), itertools.count()
    losses, weights, expected_chosen, expected_target = [], [], [], []
    chosen = {sample.model for sample in samples}
    shares: dict[str, float] = {}
    unsupported: dict[str, float] = {}
    for sample in samples:
        while pending and pending[0][0] <= sample.time_s:
            _, _, known = heapq.heappop(pending)
            target.learn(known)
            direct.learn(known.model, known.context, known.loss)
        probabilities = target.probabilities(sample)
        if probabilities:
            for model, probability in probabilities.items():
                shares[model] = shares.get(model, 0.0) + probability
                if model not in chosen and probability > 0:
                    unsupported[model] = unsupported.get(model, 0.0) + probability
            losses.append(sample.loss)
            weights.append(probabilities.get(sample.model, 0.0) / sample.propensity)
            expected_chosen.append(direct.expected(sample.model, sample.context))
            expected_target.append(
                sum(chance * direct.expected(model, sample.context) for model, chance in probabilities.items())
            )
        heapq.heappush(pending, (sample.feedback_time_s, next(order), sample))
    return _answer(
        target.name,
        np.array(losses),
        np.array(weights),
        np.array(expected_chosen),
        np.array(expected_target),
        shares,
        unsupported,
    )


def _answer(
    name: str,
    losses: Array,
    weights: Array,
    expected_chosen: Array,
    expected_target: Array,
    shares: Mapping[str, float],
    unsupported: Mapping[str, float],
) -> Answer:
    count = len(losses)
    effective = effective_sample_size(weights)
    normal = {model: share / count for model, share in sorted(shares.items())}
    warnings = []
    missing = sum(unsupported.values()) / count if count else 1.0
    if missing > MAX_UNSUPPORTED:
        names = ", ".join(sorted(unsupported)) or "any of these models"
        warnings.append(
            f"the log has no answer for {missing:.0%} of its choices, since it never chose {names}: use a policy that "
            "explores"
        )
    if effective < LEAST_EFFECTIVE:
        warnings.append(
            f"it rests on {effective:.0f} queries' worth of evidence: expected at least {LEAST_EFFECTIVE}, so the "
            "intervals are too narrow; log more, or use a policy that explores more"
        )
    value = snips(losses, weights)
    if effective >= LEAST_EFFECTIVE and are_alike(value.value, effective):
        warnings.append(
            "nearly all queries that it rests on had the same loss, so the intervals of IPS and DR may be too narrow"
        )
    if count and not warnings:
        mean = on_policy(weights, 0.999)
        if not mean.low <= 1.0 <= mean.high:
            warnings.append(
                f"its weights have a mean of {mean.value:.2f}, which should be 1: the log hardly ever chose what it "
                "would choose, or the logged probabilities are not those by which models were chosen"
            )
    if effective <= 0 or missing >= 1.0 - MAX_UNSUPPORTED:
        return Answer(name, None, None, None, effective, normal, tuple(warnings))
    return Answer(
        name,
        ips(losses, weights),
        value,
        dr(losses, weights, expected_chosen, expected_target),
        effective,
        normal,
        tuple(warnings),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """The report on a question.

    Attributes:
        queries: the number of queries with a known loss; ``left_out``: the number of others, by reason.
        as_it_was: the mean loss of the policy in force on them.
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
    """Evaluate ``policy``, choosing among ``models`` or all; without a policy, evaluate each model by itself. Raises
    NotFound if the log has no query with feedback, or a model was not linked in it; InvalidArgument if the policy is
    not Clipper's, does not take the parameters, asks several models together, or needs features that the log does not
    have.
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
