"""What has been counted between two readings, and over all workers."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from clipper.control.statistics import ApplicationReading, ModelReading, VersionLoad, VersionReading

NO_MODEL = ModelReading(0, 0, 0, 0.0)

# Both are of a version's queue: one for the series, one for scaling by load.
OfVersion = TypeVar("OfVersion", VersionReading, VersionLoad)

_OF_BATCHES = ("batches_sent", "wait_s", "batches_answered", "service_s")
# What is counted since the queue was made. The other fields are names, or what is so at present.
_COUNTED: Mapping[type[Struct], tuple[str, ...]] = {
    VersionReading: (
        *_OF_BATCHES,
        "rows",
        "cache_hits",
        "cache_joins",
        "cache_misses",
        "outputs",
        "model_errors",
        "given_up",
    ),
    VersionLoad: (*_OF_BATCHES, "arrivals", "late"),
}


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
        now.explanations,
        (),
        now.context_answers - before.context_answers,
        now.context_loss - before.context_loss,
    )
    return now if _has_fallen(increase) or _lacks(now, before) else increase


def version_increase(before: OfVersion | None, now: OfVersion) -> OfVersion:
    """As ``application_increase``. What is not counted, such as a limit, is that of ``now``."""
    if before is None:
        return now
    counts = {name: getattr(now, name) - getattr(before, name) for name in _COUNTED[type(now)]}
    return now if min(counts.values()) < 0 else replace(now, **counts)


def sum_of_applications(increases: Iterable[ApplicationReading]) -> ApplicationReading | None:
    """The sum over workers; None if there is none."""
    total: ApplicationReading | None = None
    for each in increases:
        total = each if total is None else _plus(total, each)
    return total


def sum_of_versions(increases: Iterable[OfVersion]) -> OfVersion | None:
    """The sum over workers, or over versions; None if there is none. What is not counted is that of the first."""
    found = list(increases)
    if len(found) < 2:
        return found[0] if found else None
    first = found[0]
    return replace(first, **{name: sum(getattr(one, name) for one in found) for name in _COUNTED[type(first)]})


def _plus(one: ApplicationReading, other: ApplicationReading) -> ApplicationReading:
    models = {
        model: model_plus(one.models.get(model, NO_MODEL), other.models.get(model, NO_MODEL))
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
        {**one.explanations, **other.explanations},
        (),
        one.context_answers + other.context_answers,
        one.context_loss + other.context_loss,
    )


def _minus(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {key: value - before.get(key, 0) for key, value in now.items()}


def _model_minus(now: ModelReading, before: ModelReading) -> ModelReading:
    return ModelReading(
        now.selected - before.selected,
        now.missing - before.missing,
        now.scored - before.scored,
        now.loss - before.loss,
        now.weight - before.weight,
        now.weighted_loss - before.weighted_loss,
    )


def model_plus(one: ModelReading, other: ModelReading) -> ModelReading:
    """Return the sum of two readings of a model."""
    return ModelReading(
        one.selected + other.selected,
        one.missing + other.missing,
        one.scored + other.scored,
        one.loss + other.loss,
        one.weight + other.weight,
        one.weighted_loss + other.weighted_loss,
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
