"""Schemas of series: one value every ``step_s`` seconds, oldest first, null where there is none."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

MAX_SERIES_S = 3600

# Covariant types: the ring that keeps series has NaN for null, which JSON lacks.
Named = Mapping[str, Sequence[float | None]]


class SeriesOverview(Struct, frozen=True):
    """The last two minutes of all applications, models and workers, each by name.

    All series have the same number of points: 60, or as many as there are since the supervisor's start.

    Attributes:
        end_s: when the newest sample was taken, in seconds since 1970.
        applications: ``rate``, ``p99_ms``, ``late_share``, ``default_share`` and ``error_share``.
        models: ``rate`` and ``replicas_ready``.
        workers: ``cpu_share``, of one core, and ``rss_bytes``, by the worker's index.
        left_out: how many applications and models have series that are not kept for an hour, because there are too
            many.
    """

    step_s: float
    end_s: float
    applications: Mapping[str, Named]
    models: Mapping[str, Named]
    workers: Mapping[str, Named]
    left_out: int


class Series(Struct, frozen=True):
    """All series of an application or a model, by name; they have the same number of points.

    ``left_out`` says whether some series are not kept, because there are too many; their values are null then.
    """

    step_s: float
    end_s: float
    series: Named
    left_out: bool = False
