"""Schemas of a report that compares an application's models. Reports are made on request."""

from typing import Literal

from msgspec import Struct

from clipper.api.recent import LastMinute
from clipper.control.descriptions import Standing

Verdict = Literal["best", "as_good", "open", "alone", "no_feedback"]


# Compare by the means of all losses, or by losses divided by the probabilities of choices; or it is not known how.
Estimator = Literal["pooled", "weighted", "none"]


class Bounds(Struct, frozen=True):
    low: float
    high: float


class Latency(Struct, frozen=True):
    """The latency of a version's batches, over all workers since they started."""

    mean_ms: float
    p50_ms: float
    p99_ms: float


class ReportedModel(Struct, frozen=True):
    """A version of a model.

    Attributes:
        model: the name of its link, or ``MODEL:VERSION`` if it is no longer linked.
        version: None if the model has no current version.
        share: its share of the queries now; if several models answer together, its share of the answer.
        scored: how many pieces of feedback on it have ever come.
        mean_loss: the estimate of its mean loss on all compared queries; None without feedback. The true mean is in
            ``interval`` with the report's confidence, at all times at once.
        worse_by: an interval of its mean loss minus that of the best model; None for the best model, for a model
            without feedback, and for a model that is not linked.
        sureness: the certainty that the best model is better, from 0 to 1.
        more_feedback: the feedback that is needed to know whether it is worse; 0 if that is known, None if it cannot be
            told.
        asked, missing: how often it was asked, and how often its output was not in time, since the workers started.
    """

    model: str
    version: str | None
    is_linked: bool
    is_shadow: bool
    share: float
    scored: float
    mean_loss: float | None
    interval: Bounds
    worse_by: Bounds | None
    sureness: float | None
    more_feedback: float | None
    asked: int
    missing: int
    latency: Latency | None


class ReportGroup(Struct, frozen=True):
    """The comparison over all queries (``context`` is None), or over the queries of a context.

    Attributes:
        feedback: how many pieces of feedback have ever come.
        verdict: ``best``: the model ``best`` surely has the least mean loss; ``as_good``: surely no model is better by
            more than the tolerance; ``open``: neither is known; ``alone``: there is one model only; ``no_feedback``.
        sureness: the certainty that ``best`` is the best.
        more_feedback: the feedback that is needed for a verdict, if mean losses stay; None if it cannot be told.
            ``more_s`` is the time for this at ``feedback_per_s``, in seconds.
        test: the state of the application's policy, if it is a test and the group is all queries. Its finding is the
            verdict even if later feedback would leave the verdict open.
        estimator: the numbers that are compared: ``pooled``, the means of all losses; ``weighted``, losses divided by
            the probabilities of choices, if these depend on what comes with a query; ``none`` if that is not known.
        compared: how many pieces of feedback the comparison rests on.
        basis: the estimator, and the feedback that it leaves out, in words.
        problem: why the workers do not describe the policy; None if they do.
    """

    context: str | None
    feedback: float
    verdict: Verdict
    best: str | None
    sureness: float
    more_feedback: float | None
    more_s: float | None
    models: tuple[ReportedModel, ...]
    test: Standing | None = None
    estimator: Estimator = "pooled"
    compared: float | None = None
    basis: str = ""
    problem: str | None = None


class FrontierModel(Struct, frozen=True):
    """A model with a known cost and with feedback.

    Attributes:
        quality: 1 minus its mean loss over all queries.
        is_on_frontier: whether no other model, and no mixture of two, is as good for no more.
    """

    model: str
    cost: float
    quality: float
    is_on_frontier: bool


class Frontier(Struct, frozen=True):
    """Cost and quality: of the models, and of the application.

    Attributes:
        models: from the cheapest to the dearest.
        cost, quality: the application's mean cost of a query, and 1 minus the mean loss of its answers, since the
            workers started; None without queries, or without feedback on answers.
        possible: the best quality of a mixture of the models at that cost, whatever the queries; the application is
            above it if it knows which queries gain most. None if it is not known.
        max_cost_per_query, min_quality: the application's budget.
    """

    models: tuple[FrontierModel, ...]
    cost: float | None
    quality: float | None
    possible: float | None
    max_cost_per_query: float | None
    min_quality: float | None


class BatchTime(Struct, frozen=True, array_like=True):
    """The batches of one size: how many were answered, and their mean time."""

    count: int
    mean_ms: float


class StepModel(Struct, frozen=True):
    """A version that an application asks, or a step of a pipeline.

    Attributes:
        asked: how often the application asked it, since the workers started.
        evaluated: the share of all its look-ups that a replica evaluated; the others were cached, or asked at once.
        replicas, cpus: how many it should have, and the processors of each; None if it may use any.
        scales: whether its load decides how many it has.
        batches: by size, over all workers and applications.
        waiting: rows in its queues now.
    """

    model: str
    version: str
    asked: int
    evaluated: float
    replicas: int
    cpus: float | None
    scales: bool
    batches: dict[int, BatchTime]
    waiting: int = 0


class StepReport(Struct, frozen=True):
    """A step of a pipeline, or an application without steps, since the workers started.

    Attributes:
        queries: of the step's application, also those that came to it directly.
        defaults, errors: by reason.
    """

    step: str
    application: str
    queries: int
    defaults: dict[str, int]
    errors: dict[str, int]
    latency: Latency | None
    models: tuple[StepModel, ...]


class Report(Struct, frozen=True):
    """A comparison of an application's models, over all queries and then in contexts.

    Attributes:
        time_s: when the report was made, in seconds since 1970.
        feedback_per_s: counted since the workers started, like all fields after it. ``defaults`` and ``errors`` are by
            reason.
        last_minute: the outcomes of the last minute's queries alone; None from an older server.
        frontier: None if no cost is known.
        steps: those of a pipeline in the order in which they are asked, or the application itself; empty from an older
            server.
    """

    application: str
    policy: str
    loss: str
    confidence: float
    tolerance: float
    time_s: float
    slo_ms: float
    feedback_per_s: float
    queries: int
    defaults: dict[str, int]
    errors: dict[str, int]
    slo_misses: int
    latency: Latency | None
    groups: tuple[ReportGroup, ...]
    last_minute: LastMinute | None = None
    frontier: Frontier | None = None
    steps: tuple[StepReport, ...] = ()
