"""What a query worker tells of itself when asked: plain counts, read at scrape time only.

All counts are since the worker started. Histograms share the bounds given here; ``counts`` has one
entry more than its bounds, for what lies above the last.
"""

from msgspec import Struct

# Fine enough to tell p99 from the SLO around 20 ms, wide enough for an SLO of seconds.
LATENCY_BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02,
    0.025, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
CONFIDENCE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class HistogramData(Struct, frozen=True):
    counts: tuple[int, ...]
    sum: float


class ModelSelectionStatistics(Struct, frozen=True):
    """One model of an application: how often it was asked, missing in an answer and scored, and its summed loss.

    ``cost`` is that of asking it; None if nobody has said.
    """

    selected: int
    missing: int
    scored: int
    loss: float
    cost: float | None = None


class SelectionStatistics(Struct, frozen=True):
    """What an application has selected and learned from.

    Attributes:
        confidence: of the answers of more than one model, and of those whose confidence is more than that they agree.
        feedback: by what came of it: ``joined``, ``duplicate``, ``late`` (longer ago than is waited
            for), ``evicted`` (too many came after it), ``unknown``, ``failed``.
        answers_scored: feedback on what was answered, whose losses sum to ``answer_loss``.
        answer_loss_by_reason: that sum by ``wrong``, the models' output, or by the error code for which the answer was
            none of theirs.
        contexts: states in memory.
        last_policy_error: what the user's own policy did wrong last, None if nothing.
        why_no_policy: why the policy was not made, such as that an earlier worker hung on it; None if it was.
        calibration_error: the expected one of the confidences that were answered; None if they are not calibrated.
        stages: queries that went on to further models, by how often they asked: from ``2`` on.
    """

    models: dict[str, ModelSelectionStatistics]
    confidence: HistogramData
    feedback: dict[str, int]
    answers_scored: int
    answer_loss: float
    contexts: int
    policy_errors: int
    last_policy_error: str | None
    answer_loss_by_reason: dict[str, float] = {}
    calibration_error: float | None = None
    stages: dict[str, int] = {}
    why_no_policy: str | None = None


class StandingStatistics(Struct, frozen=True):
    """How the test stands that an application's policy is: see ``selection.policies.policy.Standing``."""

    winner: str | None
    confidence: float
    tolerance: float
    observations: float


class ApplicationStatistics(Struct, frozen=True):
    """``defaults`` and ``errors`` count by reason; ``errors`` are answers that had no output at all. ``test`` is None
    where the policy is none.
    """

    name: str
    queries: int
    defaults: dict[str, int]
    errors: dict[str, int]
    slo_misses: int
    latency_s: HistogramData
    selection: SelectionStatistics | None = None
    test: StandingStatistics | None = None


class VersionStatistics(Struct, frozen=True):
    """A model version's queue and what its containers answered."""

    model: str
    version: str
    queue_length: int
    queue_bytes: int
    outputs: int
    model_errors: int
    rejected: int
    expired: int
    cache_hits: int
    cache_misses: int
    cache_joins: int
    queue_wait_s: HistogramData
    batch_size: HistogramData
    batch_latency_s: HistogramData


class ReplicaStatistics(Struct, frozen=True):
    """``state`` is ``dialing``, ``linked``, ``draining`` or ``lost``."""

    id: str
    model: str
    version: str
    state: str
    batch_limit: int
    in_flight: int
    batches: int
    last_error: str | None


class VersionLoad(Struct, frozen=True):
    """What autoscaling has to know of a version, in one worker. Counts and sums are since the version's queue was made.

    Attributes:
        arrivals: queries to evaluate: neither answered from the cache nor joined to an equal one.
        late: those of them that a full queue refused, or whose deadline came in it.
        batches_sent: with ``wait_s``, the sum of what the oldest query of each had waited.
        batches_answered: with ``service_s``, the sum of what each took its replica.
        slo_s: the smallest objective of the applications that ask it.
        rows_per_s: what each linked replica answers in batches as large as it may get; without those not yet known.
    """

    model: str
    version: str
    arrivals: int
    late: int
    batches_sent: int
    wait_s: float
    batches_answered: int
    service_s: float
    slo_s: float
    rows_per_s: dict[str, float]


class LimitStatistics(Struct, frozen=True):
    """An application or a key that has limits: ``of`` says which of the two, ``refused`` counts requests."""

    of: str
    name: str
    in_flight: int
    refused: int


class CacheStatistics(Struct, frozen=True):
    entries: int
    size_bytes: int
    capacity_bytes: int
    evictions: int


class FeedbackWindowStatistics(Struct, frozen=True):
    """The queries that a worker keeps for feedback by their ids.

    Attributes:
        evicted: those that had to go before their time, since the worker started.
        age_s: how long ago the oldest was asked; 0 if there is none.
    """

    queries: int = 0
    max_queries: int = 0
    size_bytes: int = 0
    capacity_bytes: int = 0
    evicted: int = 0
    age_s: float = 0.0


class DecisionLogStatistics(Struct, frozen=True):
    """A worker's part of the decision log: records, by what became of them.

    Attributes:
        dropped: ``queue_full``, since the disk did not keep up, or ``write_failed``.
        waiting_bytes: in memory, still to be written.
        problem: why the last write failed; None if it did not.
    """

    written: int
    written_bytes: int
    dropped: dict[str, int]
    waiting_bytes: int
    problem: str | None


class WorkerStatistics(Struct, frozen=True):
    index: int
    pid: int
    generation: int
    connections: int
    requests_refused: dict[str, int]
    applications: tuple[ApplicationStatistics, ...]
    versions: tuple[VersionStatistics, ...]
    replicas: tuple[ReplicaStatistics, ...]
    cache: CacheStatistics
    feedback_window: FeedbackWindowStatistics = FeedbackWindowStatistics()
    decisions: DecisionLogStatistics | None = None
    limits: tuple[LimitStatistics, ...] = ()
    uptime_s: float = 0.0
    grpc_calls: int = 0
    grpc_calls_in_flight: int = 0
