"""Readings of workers, with what a test is about."""

from clipper.control.statistics import ApplicationReading, VersionReading


def reading(
    queries: int,
    *,
    answers: int | None = None,
    late: int = 0,
    defaults: dict[str, int] | None = None,
    errors: dict[str, int] | None = None,
    explanations: dict[str, str] | None = None,
) -> ApplicationReading:
    latency = (queries if answers is None else answers,)
    return ApplicationReading(
        "app", 1, queries, late, defaults or {}, errors or {}, latency, {}, (), 0.0, 0, 0, 0.0, explanations or {}
    )


def version_reading(
    outputs: int, failed: int, last_error: str = "", *, sent: int = 0, given_up: int = 0, batch_limit: int = 8
) -> VersionReading:
    return VersionReading(
        "m", "1", 1, 0, sent, 0.0, 0, 0.0, 0, 0, 0, batch_limit, outputs, failed, last_error, given_up
    )
