"""Schemas of a report that compares an application's models. Reports are made on request."""

from typing import Literal

from msgspec import Struct

from clipper.api.recent import LastMinute
from clipper.control.descriptions import Standing

Verdict = Literal["best", "as_good", "open", "alone", "no_feedback"]


# By the means of all losses; by losses over the probabilities of choices; or what is needed is not known.
Estimator = Literal["pooled", "weighted", "none"]


class Bounds(Struct, frozen=True):
    low: float
    high: float


class Latency(Struct, frozen=True):
    """Latency of a version's batches, over all workers since they started."""

    mean_ms: float
    p50_ms: float
    p99_ms: float


class ReportedModel(Struct, frozen=True):
    """A version of a model.

    Attributes:
        model: the name of its link, or ``MODEL:VERSION`` if it is no longer linked.
        version: None if the model has no current version.
        share: of the queries that would ask it now; if several models answer together, its share of the answer.
        scored: how many pieces of feedback on it have ever come.
        mean_loss: its estimate, on all queries that are compared; None if nothing is known of it. The mean is in
            ``interval`` with the report's confidence, at all times at once.
        worse_by: an interval of its mean loss minus that of the best model; None for the best model, for one without
            feedback, and for one that is not linked.
        sureness: from 0 to 1, that the best model is better.
        more_feedback: needed until it is known whether it is worse; 0 if that is known, None if it cannot be said.
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
    """All queries (``context`` is None), or those of one context.

    Attributes:
        feedback: how many pieces have ever come.
        verdict: ``best``: the model ``best`` surely has the least mean loss; ``as_good``: surely no model is better by
            more than the tolerance; ``open``: neither is known; ``alone``: there is one model only; ``no_feedback``.
        sureness: that ``best`` is the best.
        more_feedback: needed until there is a verdict, if mean losses stay; None if it cannot be said. ``more_s``: the
            seconds that this takes at ``feedback_per_s``.
        test: of the application's policy, if that is a test and the group is all queries. Its finding is the verdict
            even if feedback that came since would leave the verdict open.
        estimator: what models are compared by: ``pooled``, the means of all their losses; ``weighted``, losses over the
            probabilities of choices, if these depend on what comes with a query; ``none`` if that is not known.
        compared: how many pieces of feedback the comparison rests on.
        basis: the estimator, and what feedback it leaves out, in words.
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


class Report(Struct, frozen=True):
    """A comparison of an application's models, over all queries and then in contexts.

    Attributes:
        time_s: when the report was made, in seconds since 1970.
        feedback_per_s: since the workers started, like all fields after it. ``defaults`` and ``errors`` are by reason.
        last_minute: what came of the queries of the last minute alone; None from an older server.
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
