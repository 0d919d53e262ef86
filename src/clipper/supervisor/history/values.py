"""The values of a step, from its counts."""

from collections.abc import Mapping
from dataclasses import dataclass

from clipper.control.histogram import quantile
from clipper.control.statistics import (
    CONFIDENCE_BOUNDS,
    LATENCY_BOUNDS_S,
    ApplicationStatistics,
    HistogramData,
    SelectionStatistics,
    VersionStatistics,
)
from clipper.supervisor.history.recent import answers_of

NO_SELECTION = SelectionStatistics({}, HistogramData((), 0.0), {}, 0, 0.0, 0, 0, None)
# Series that every application and every model has, also before they have a value.
OF_APPLICATIONS = ("rate", "p50_ms", "p99_ms", "slo_ms", "late_share", "default_share", "error_share")
OF_MODELS = (
    "rate",
    "batch_size",
    "batch_limit",
    "queue_wait_ms",
    "batch_latency_ms",
    "replicas_ready",
    "replicas_wanted",
)
OF_OVERVIEW = {
    "application": ("rate", "p99_ms", "late_share", "default_share", "error_share"),
    "model": ("rate", "replicas_ready"),
    "worker": ("cpu_share", "rss_bytes"),
}


@dataclass(frozen=True, slots=True)
class Replicas:
    ready: int
    wanted: int


def application_values(counted: ApplicationStatistics, interval_s: float) -> dict[str, float]:
    """Return the values of an application with counts.

    Returns:
        ``rate`` of queries and ``feedback_rate``, a second. Of the answers of the step ``p50_ms`` and ``p99_ms``, and
        the shares that were late, had the default or no output (``error_share``), of these two also by reason
        (``default_share.timeout``), and the share with the output of each model (``answer_share.MODEL``). If costs are
        known, the ``mean_cost`` of a query. Of the feedback ``mean_loss`` of the answers and ``mean_loss.MODEL``. Of
        answers with a confidence its mean (``confidence``), and their share up to each bound
        (``confidence_share.0.5``: above 0.4). Keys without a value, such as a mean of nothing, are left out.
    """
    selection = counted.selection or NO_SELECTION
    feedback, answers = sum(selection.feedback.values()), counted.latency_s.count
    values = {"rate": counted.queries / interval_s, "feedback_rate": feedback / interval_s}
    if answers:
        values |= {
            "p50_ms": 1000 * quantile(counted.latency_s.counts, LATENCY_BOUNDS_S, 0.5),
            "p99_ms": 1000 * quantile(counted.latency_s.counts, LATENCY_BOUNDS_S, 0.99),
            "late_share": counted.slo_misses / answers,
        }
        values |= _shares("default_share", counted.defaults, answers)
        values |= _shares("error_share", counted.errors, answers)
        # A query may be answered in a later step than the one in which it asks its models, so queries under way would
        # look like answers of the models. So a model is counted for no more answers than there were outputs.
        failures = answers_of(counted).failures
        # Queries that a worker refuses without reading them are not among the answers.
        most = max(answers - failures.total() + failures["overloaded"], 0)
        for model, each in selection.models.items():
            values[f"answer_share.{model}"] = min(max(each.selected - each.missing, 0), most) / answers
    if counted.queries and any(each.cost is not None for each in selection.models.values()):
        values["mean_cost"] = selection.spent / counted.queries
    for model, each in selection.models.items():
        if each.scored:
            values[f"mean_loss.{model}"] = each.loss / each.scored
    if selection.answers_scored:
        values["mean_loss"] = selection.answer_loss / selection.answers_scored
    if confident := selection.confidence.count:
        values["confidence"] = selection.confidence.sum / confident
        for bound, count in zip(CONFIDENCE_BOUNDS, selection.confidence.counts):
            values[f"confidence_share.{bound:g}"] = count / confident
    return values


def _shares(name: str, counts: Mapping[str, int], answers: int) -> dict[str, float]:
    shares = {f"{name}.{reason}": min(count / answers, 1.0) for reason, count in counts.items()}
    return {name: min(sum(counts.values()) / answers, 1.0), **shares}


def version_values(counted: VersionStatistics | None, interval_s: float, limit: int) -> dict[str, float]:
    """Return the values of a version, or of all versions of a model.

    Args:
        counted: the counts of the step, over all workers; None if there are none.
        limit: the batch limit that was last read; 0 if there is none.

    Returns:
        ``rate`` of rows sent to replicas, a second; the mean ``batch_size``, ``queue_wait_ms`` of the oldest row of
        each batch and ``batch_latency_ms`` of a batch in a replica; ``batch_limit``; and ``cache_hit_share``: of
        look-ups, those that found an output or an equal input in flight. Keys without a value are left out.
    """
    values = {"rate": 0.0}
    if limit:
        values["batch_limit"] = limit
    if counted is None:
        return values
    rows, waits, times = counted.batch_size.sum, counted.queue_wait_s, counted.batch_latency_s
    values["rate"] = rows / interval_s
    if waits.count:
        values["batch_size"] = rows / waits.count
        values["queue_wait_ms"] = 1000 * waits.mean
    if times.count:
        values["batch_latency_ms"] = 1000 * times.mean
    found = counted.cache_hits + counted.cache_joins
    if found + counted.cache_misses:
        values["cache_hit_share"] = found / (found + counted.cache_misses)
    return values
