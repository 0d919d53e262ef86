"""What is found of a server of one size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """At one size.

    Attributes:
        create_s: seconds until all workers serve a new application: the median, and the longest.
        deploy_s: seconds until all workers serve a new version.
        create_cpu_s, deploy_cpu_s: processor time of the supervisor for each.
        worker_create_cpu_s: processor time of one worker for a new application.
        rest_cores, worker_rest_cores: share of a processor that the supervisor, and one worker, take while nothing
            changes.
        busy_cores: and the supervisor, while one deployment follows another.
        memory_bytes: of the supervisor, after all else.
        reads: by path, the median seconds until the answer is there, the supervisor's processor time for it, and its
            bytes.
    """

    models: int
    replicas: int
    workers: int
    create_s: tuple[float, float]
    deploy_s: tuple[float, float]
    create_cpu_s: float
    deploy_cpu_s: float
    worker_create_cpu_s: float
    rest_cores: float
    worker_rest_cores: float
    busy_cores: float
    memory_bytes: int
    reads: dict[str, tuple[float, float, int]]
