"""Readings of workers, with what a test is about."""

from collections.abc import Mapping, Sequence

from clipper.control.statistics import (
    ApplicationStatistics,
    CacheStatistics,
    HistogramData,
    ModelSelectionStatistics,
    SelectionStatistics,
    VersionStatistics,
    WorkerStatistics,
)

NO_HISTOGRAM = HistogramData((), 0.0)


def histogram(count: int, sum_: float = 0.0) -> HistogramData:
    """So many values, all of one bucket."""
    return HistogramData((count,), sum_)


def reading(
    queries: int,
    *,
    name: str = "app",
    answers: int | None = None,
    latency: Sequence[int] | None = None,
    late: int = 0,
    defaults: dict[str, int] | None = None,
    errors: dict[str, int] | None = None,
    explanations: dict[str, str] | None = None,
    models: Mapping[str, ModelSelectionStatistics] | None = None,
    confidence: HistogramData = NO_HISTOGRAM,
    feedback: int = 0,
    answers_scored: int = 0,
    answer_loss: float = 0.0,
    mark: int = 1,
    id_: str = "",
) -> ApplicationStatistics:
    counts = (queries if answers is None else answers,) if latency is None else tuple(latency)
    selection = SelectionStatistics(
        dict(models or {}), confidence, {"joined": feedback}, answers_scored, answer_loss, 0, 0, None
    )
    return ApplicationStatistics(
        name, queries, defaults or {}, errors or {}, late, HistogramData(counts, 0.0), selection, mark=mark,
        explanations=explanations or {}, id=id_,
    )  # fmt: skip


def version_reading(
    outputs: int = 0,
    failed: int = 0,
    last_error: str = "",
    *,
    version: str = "1",
    sent: int = 0,
    given_up: int = 0,
    batch_limit: int = 8,
    cache: tuple[int, int, int] = (0, 0, 0),
    waits: HistogramData = NO_HISTOGRAM,
    times: HistogramData = NO_HISTOGRAM,
    mark: int = 1,
) -> VersionStatistics:
    """``cache``: its hits, misses and joins; ``batch_limit``: of its only replica, or 0 if it has none."""
    return VersionStatistics(
        "m", version, 0, 0, outputs, failed, 0, given_up, *cache, waits, histogram(0, sent), times,
        batch_limits={"m#1": batch_limit} if batch_limit else {}, last_error=last_error, mark=mark,
    )  # fmt: skip


def answer(
    applications: Sequence[ApplicationStatistics] = (), versions: Sequence[VersionStatistics] = ()
) -> WorkerStatistics:
    """A worker's answer."""
    return WorkerStatistics(0, 1, 1, 0, {}, tuple(applications), tuple(versions), (), CacheStatistics(0, 0, 0, 0))
