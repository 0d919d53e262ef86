"""Schemas of a report that compares an application's models. Reports are made on request."""

from typing import Literal

from msgspec import Struct

from clipper.management.learned import Standing

Verdict = Literal["best", "as_good", "open", "alone", "no_feedback"]


class Bounds(Struct, frozen=True):
    low: float
    high: float


class Latency(Struct, frozen=True):
    """Of a version's batches, over all workers and since these started."""

    mean_ms: float
    p50_ms: float
    p99_ms: float


class ReportedModel(Struct, frozen=True):
    """A version of a model.

    Attributes:
        model: by the name that its link has, or ``MODEL:VERSION`` of one that is not linked any more.
        version: None if none is current.
        share: of the queries that would ask it now; where several answer together, of the answer.
        scored: how much feedback on it has come, ever.
        mean_loss: None without feedback. It is in ``interval`` with the report's confidence, at all times at once.
        worse_by: where its mean loss less that of the best model is; None of the best, of one without feedback, and of
            one that is not linked.
        sureness: from 0 to 1, that the best is better.
        more_feedback: until it is known whether it is worse; 0 if it is known, None if that cannot be told.
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
        feedback: how much has come, ever.
        verdict: ``best``: the model ``best`` surely has the least mean loss; ``as_good``: surely none is better by more
            than the tolerance; ``open``: neither is known; ``alone``: there is no other; ``no_feedback``.
        sureness: that ``best`` is the best.
        more_feedback: until there is a verdict, as things are now; None if that cannot be told. ``more_s``: the seconds
            that this takes at the rate of ``feedback_per_s``.
        test: of the application's policy, if that is a test, and this is of all queries. What it has found is the
            verdict where what came since leaves it open: what was sure once is.
        problem: why the workers do not tell of its policy; None if they do.
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
    problem: str | None = None


class Report(Struct, frozen=True):
    """An application's models beside each other, over all queries and then in contexts.

    Attributes:
        time_s: when it was made, in seconds since 1970.
        feedback_per_s: since the workers started, as is all that follows: ``defaults`` and ``errors`` by reason.
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
