"""The reading of a query worker: its counts, and its present state.

Metrics, series, health, scaling by load, reports and the states of replicas are views of it. Counts begin when the
worker starts; a version's when its queue is made. Histograms share the bounds given here; ``counts`` has one entry more
than its bounds, for values above the last bound.

The collector does not look at readings (``gc=False``): they have no cycles, and a scrape has a hundred thousand of them
at a time, over which a pass would hold the supervisor's loop.
"""

from msgspec import Struct

from clipper.control.descriptions import Standing
from clipper.values.types import ModelId

# Fine enough to separate p99 from an SLO around 20 ms, wide enough for an SLO of seconds.
LATENCY_BOUNDS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02,
    0.025, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
# Models that an application no longer asks, whose counts are kept: more than any page shows.
MAX_FORMER_MODELS = 100
CONFIDENCE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# The mark for an application or version that has not been read yet.
NO_MARK = -1
SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class HistogramData(Struct, frozen=True, gc=False):
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean value; 0 without values."""
        return self.sum / max(self.count, 1)


class ModelSelectionStatistics(Struct, frozen=True, gc=False):
    """A model of an application: how often it was asked, missing in an answer and scored, and its summed loss.

    ``cost`` is the cost of asking it; None if it is not known. ``weight`` is how many queries its losses stand for, and
    ``weighted_loss`` what it would have lost on these: see ``learning.mathematics.weighing``.
    """

    selected: int
    missing: int
    scored: int
    loss: float
    cost: float | None = None
    weight: float = 0.0
    weighted_loss: float = 0.0


class SelectionStatistics(Struct, frozen=True, gc=False):
    """Counts of an application's selections and of its feedback.

    Attributes:
        confidence: confidences of answers that several models made, and of answers whose confidence comes from
            probabilities or is calibrated.
        feedback: pieces by outcome: ``joined``, ``duplicate``, ``late`` (after ``feedback_ttl_s``), ``evicted`` (too
            many queries came after its query), ``unknown``, ``failed``.
        answers_scored: answers with feedback; their losses sum to ``answer_loss``.
        answer_loss_by_reason: this sum by reason: ``wrong`` if the answer was a model's output, else the code of the
            default or error.
        contexts: states in memory.
        last_policy_error: the last problem of the user's own policy; None if there was none.
        why_no_policy: why the policy was not made, e.g. because an earlier worker hung on it; None if it was made.
        calibration_error: the expected calibration error of the answered confidences; None if they are not calibrated.
        stages: queries that went on to further models, by the number of their stages: from ``2`` on.
        context_answers, context_loss: scored answers to queries whose context the policy learns by, and what the best
            model of each context would have lost on them.
        spent: the sum of what queries have cost, each at the costs of its time.
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
    context_answers: int = 0
    context_loss: float = 0.0
    spent: float = 0.0


class TrialReading(Struct, frozen=True, array_like=True):
    """A worker's counts of a newcomer: see ``learning.policies.trials``.

    Attributes:
        ramp: the newcomer's number.
        answers: queries that asked the newcomer and have ended.
        newcomer, rest: of the compared queries with the newcomer, and of those with the version before or with any
            other model: their count, their failures, and the spread of these.
        last_error: the newcomer's last error; empty if there was none.
    """

    ramp: int
    answers: int
    newcomer: tuple[float, float, float]
    rest: tuple[float, float, float]
    last_error: str


class ApplicationStatistics(Struct, frozen=True, gc=False):
    """A worker's counts of an application.

    Attributes:
        defaults, errors: by reason; errors are answers without any output.
        slo_misses: answers later than the SLO, and answers without an output because no model answered within it.
        test: None if the policy is not a test.
        mark: a number that changes with these counts, except for explanations and trials.
        explanations: by reason, the explanation of the latest default or error. It may quote a client's input.
        id: tells the application from an earlier one of its name; empty from workers that do not say.
        trials: a reading for each newcomer. Explanations and trials are only sent in reply to a question with marks.
    """

    name: str
    queries: int
    defaults: dict[str, int]
    errors: dict[str, int]
    slo_misses: int
    latency_s: HistogramData
    selection: SelectionStatistics | None = None
    test: Standing | None = None
    mark: int = 0
    explanations: dict[str, str] = {}
    trials: tuple[TrialReading, ...] = ()
    id: str = ""


class BatchesOfSize(Struct, frozen=True):
    """The batches of one size that a version has answered: their number, and the sum of their times in a replica."""

    count: int
    sum_s: float


class VersionStatistics(Struct, frozen=True, gc=False):
    """The queue of a model's version, and what its containers answered.

    Attributes:
        outputs, model_errors: rows that the model answered, and rows on which it failed.
        rejected: queries that a full queue refused.
        expired: queued rows that were not sent, since they would have been late.
        cache_joins: look-ups that found an equal input in flight.
        queue_wait_s, batch_size, batch_latency_s: of batches: the wait of the oldest query, the rows, the time in the
            replica.
        arrivals: queries to evaluate: neither answered from the cache nor joined to an equal one. None from workers
            older than this field.
        slo_s: the smallest objective of the applications that ask it; None from such workers.
        batch_limits: by replica that is linked, the largest batch that it may get now.
        rows_per_s: by linked replica, the rows a second that it can answer in batches of that size; replicas whose rate
            is not known are left out.
        last_error: the model's message of the latest failure. It may quote a client's input.
        mark: a number that changes with these counts and with those of the version's replicas.
        batches: answered batches by size. Only sent if ``GetStatistics.batches`` asks for them.
        last_answered_at: when the latest batch was answered, in seconds since 1970; 0 if none was.
    """

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
    arrivals: int | None = None
    slo_s: float | None = None
    batch_limits: dict[str, int] = {}
    rows_per_s: dict[str, float] = {}
    last_error: str = ""
    mark: int = 0
    batches: dict[int, BatchesOfSize] = {}
    last_answered_at: float = 0.0

    @property
    def evaluated(self) -> float:
        """The share of the look-ups that the cache did not answer; 1 without any."""
        arrivals = self.arrivals or 0
        looked_up = arrivals + self.cache_hits + self.cache_joins
        return arrivals / looked_up if looked_up else 1.0


class ReplicaStatistics(Struct, frozen=True, gc=False):
    """``state`` is ``dialing``, ``linked``, ``draining`` or ``lost``."""

    id: str
    model: str
    version: str
    state: str
    batch_limit: int
    in_flight: int
    batches: int
    last_error: str | None


class LimitStatistics(Struct, frozen=True, gc=False):
    """The limits of an application or a key: ``of`` says which of the two, ``refused`` counts requests."""

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
        evicted: queries evicted before feedback on them was too late, since the worker started.
        age_s: how long ago the oldest query was asked; 0 if there is none.
        stored, unstored: queries that were written to the store for other servers, and that were not, since the worker
            started.
    """

    queries: int = 0
    max_queries: int = 0
    size_bytes: int = 0
    capacity_bytes: int = 0
    evicted: int = 0
    age_s: float = 0.0
    stored: int = 0
    unstored: int = 0


class DecisionLogStatistics(Struct, frozen=True):
    """A worker's part of the decision log: counts of records.

    Attributes:
        dropped: by reason: ``queue_full``, because the disk is too slow, or ``write_failed``.
        waiting_bytes: in memory, not yet written.
        problem: why the last write failed; None if it succeeded.
    """

    written: int
    written_bytes: int
    dropped: dict[str, int]
    waiting_bytes: int
    problem: str | None


class TelemetryStatistics(Struct, frozen=True):
    """A worker's counts of log lines and spans.

    Attributes:
        lines_written, lines_left_out: by log, ``access`` or ``slow``, if the worker has it. Lines are left out if there
            are too many, or if the disk does not take them.
        spans_exported: spans that the receiver took; None if no spans are sent.
        spans_dropped: by reason: ``queue_full``, because the receiver is too slow, or ``export_failed``.
        problems: logs and spans that cannot be written or sent at present, and why.
    """

    lines_written: dict[str, int]
    lines_left_out: dict[str, int]
    spans_exported: int | None
    spans_dropped: dict[str, int]
    spans_waiting: int
    problems: tuple[str, ...]


class WorkerStatistics(Struct, frozen=True):
    """A worker's counts, and its problems.

    Attributes:
        applications, versions, replicas: the readings that were asked for.
        policy_problems: by application whose policy was not made, the reason.
        store_problem: why feedback could not be stored recently; None if it could, or if none came recently.
        demanded: sleeping versions that were asked in the last seconds, in the order in which they were asked.
        learned: versions whose record has no type of outputs, and the type that this worker has learned.
        untyped: such versions of which it has learned that no type describes their first answer.
        looked: how many of the applications, and of the versions, in ``GetStatistics.known`` were looked at; None means
            all.
        gone_applications, gone_versions: those with a mark that the worker does not have.
    """

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
    telemetry: TelemetryStatistics | None = None
    limits: tuple[LimitStatistics, ...] = ()
    uptime_s: float = 0.0
    grpc_calls: int = 0
    grpc_calls_in_flight: int = 0
    policy_problems: dict[str, str] = {}
    store_problem: str | None = None
    demanded: tuple[ModelId, ...] = ()
    learned: tuple[tuple[ModelId, str], ...] = ()
    untyped: tuple[ModelId, ...] = ()
    looked: int | None = None
    gone_applications: tuple[str, ...] = ()
    gone_versions: tuple[ModelId, ...] = ()
