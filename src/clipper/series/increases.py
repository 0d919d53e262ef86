"""What has been counted between two readings, and over all workers."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from clipper.control.statistics import ApplicationReading, ModelReading, VersionReading

NO_MODEL = ModelReading(0, 0, 0, 0.0)

Number = TypeVar("Number", int, float)
Reading = TypeVar("Reading", ApplicationReading, VersionReading)


def application_increase(before: ApplicationReading | None, now: ApplicationReading) -> ApplicationReading:
    """Return what was counted since ``before``; all of ``now`` if a count fell, because what counts was made anew.

    So no count of an increase is below 0.
    """
    if before is None:
        return now
    increase = ApplicationReading(
        now.name,
        now.mark,
        now.queries - before.queries,
        now.slo_misses - before.slo_misses,
        _minus(now.defaults, before.defaults),
        _minus(now.errors, before.errors),
        tuple(after - earlier for after, earlier in zip(now.latency, before.latency)),
        {model: _model_minus(each, before.models.get(model, NO_MODEL)) for model, each in now.models.items()},
        tuple(after - earlier for after, earlier in zip(now.confidence, before.confidence)),
        now.confidence_sum - before.confidence_sum,
        now.feedback - before.feedback,
        now.answers_scored - before.answers_scored,
        now.answer_loss - before.answer_loss,
    )
    return now if _has_fallen(increase) or _lacks(now, before) else increase


def version_increase(before: VersionReading | None, now: VersionReading) -> VersionReading:
    """As ``application_increase``. ``batch_limit`` is the present one."""
    if before is None:
        return now
    increase = VersionReading(
        now.model,
        now.version,
        now.mark,
        now.batches_sent - before.batches_sent,
        now.rows - before.rows,
        now.wait_s - before.wait_s,
        now.batches_answered - before.batches_answered,
        now.service_s - before.service_s,
        now.cache_hits - before.cache_hits,
        now.cache_joins - before.cache_joins,
        now.cache_misses - before.cache_misses,
        now.batch_limit,
    )
    counts = (increase.batches_sent, increase.rows, increase.batches_answered)
    looked_up = (increase.cache_hits, increase.cache_joins, increase.cache_misses)
    return now if min(*counts, *looked_up, increase.wait_s, increase.service_s) < 0 else increase


def sum_of_applications(increases: Iterable[ApplicationReading]) -> ApplicationReading | None:
    """The sum over workers; None if there is none."""
    total: ApplicationReading | None = None
    for each in increases:
        total = each if total is None else _plus(total, each)
    return total


def sum_of_versions(increases: Iterable[VersionReading]) -> VersionReading | None:
    """The sum over workers, or over versions. The limit is the smallest of those that have one."""
    total: VersionReading | None = None
    for each in increases:
        if total is None:
            total = each
            continue
        limits = [limit for limit in (total.batch_limit, each.batch_limit) if limit]
        total = VersionReading(
            total.model,
            total.version,
            total.mark,
            total.batches_sent + each.batches_sent,
            total.rows + each.rows,
            total.wait_s + each.wait_s,
            total.batches_answered + each.batches_answered,
            total.service_s + each.service_s,
            total.cache_hits + each.cache_hits,
            total.cache_joins + each.cache_joins,
            total.cache_misses + each.cache_misses,
            min(limits, default=0),
        )
    return total


def _plus(one: ApplicationReading, other: ApplicationReading) -> ApplicationReading:
    models = {
        model: _model_plus(one.models.get(model, NO_MODEL), other.models.get(model, NO_MODEL))
        for model in one.models.keys() | other.models.keys()
    }
    return ApplicationReading(
        one.name,
        one.mark,
        one.queries + other.queries,
        one.slo_misses + other.slo_misses,
        {key: one.defaults.get(key, 0) + other.defaults.get(key, 0) for key in one.defaults.keys() | other.defaults},
        {key: one.errors.get(key, 0) + other.errors.get(key, 0) for key in one.errors.keys() | other.errors},
        tuple(map(sum, zip(one.latency, other.latency))),
        models,
        tuple(map(sum, zip(one.confidence, other.confidence))),
        one.confidence_sum + other.confidence_sum,
        one.feedback + other.feedback,
        one.answers_scored + other.answers_scored,
        one.answer_loss + other.answer_loss,
    )


def _minus(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {key: value - before.get(key, 0) for key, value in now.items()}


def _model_minus(now: ModelReading, before: ModelReading) -> ModelReading:
    return ModelReading(
        now.selected - before.selected,
        now.missing - before.missing,
        now.scored - before.scored,
        now.loss - before.loss,
    )


def _model_plus(one: ModelReading, other: ModelReading) -> ModelReading:
    return ModelReading(
        one.selected + other.selected,
        one.missing + other.missing,
        one.scored + other.scored,
        one.loss + other.loss,
    )


def _has_fallen(increase: ApplicationReading) -> bool:
    """Losses are left out: a user's own may be below 0."""
    plain = (increase.queries, increase.slo_misses, increase.feedback, increase.answers_scored)
    models = (min(each.selected, each.missing, each.scored) for each in increase.models.values())
    return (
        min(
            *plain,
            *increase.latency,
            *increase.confidence,
            min(models, default=0),
            min(increase.defaults.values(), default=0),
            min(increase.errors.values(), default=0),
        )
        < 0
    )


def _lacks(now: ApplicationReading, before: ApplicationReading) -> bool:
    """Whether something that was counted by its name has disappeared: counters never drop a name."""
    return not (
        before.defaults.keys() <= now.defaults.keys()
        and before.errors.keys() <= now.errors.keys()
        and before.models.keys() <= now.models.keys()
    )
