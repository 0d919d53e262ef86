"""All metrics: name, kind, labels, help, and where the value comes from, with one table for each kind of thing.

Names end in their base unit; the client library adds a counter's ``_total``. If ``read`` returns a mapping, ``extra``
names the label whose values are its keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from clipper.api.learned import Newcomer
from clipper.api.schemas import GpuStatus, LeaseStatus, ReplicaState, Status, WorkerStatus
from clipper.control import statistics
from clipper.control.descriptions import Standing
from clipper.supervisor.metrics.totals import Link, regret

T = TypeVar("T")
# A number, or a number for each value of the label ``extra``. None is shown as NaN: Prometheus then has no value.
Read = Callable[[T], float | Mapping[str, float] | None]


@dataclass(frozen=True, slots=True)
class Number(Generic[T]):
    kind: Literal["counter", "gauge"]
    name: str
    help: str
    read: Read[T]
    extra: str | None = None


def counter(name: str, help_: str, read: Read[T], extra: str | None = None) -> Number[T]:
    return Number("counter", name, help_, read, extra)


def gauge(name: str, help_: str, read: Read[T], extra: str | None = None) -> Number[T]:
    return Number("gauge", name, help_, read, extra)


@dataclass(frozen=True, slots=True)
class Histogram(Generic[T]):
    name: str
    help: str
    read: Callable[[T], statistics.HistogramData]
    bounds: tuple[float, ...] = statistics.LATENCY_BOUNDS_S


Metric = Number[T] | Histogram[T]


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """The metrics of a kind of thing, and the labels that identify a thing.

    ``is_summed``: each worker has such things of its own, which are summed, or get ``worker`` as a further label.
    """

    labels: tuple[str, ...]
    metrics: tuple[Metric[T], ...]
    is_summed: bool = False


LINK_STATES = ("dialing", "linked", "draining", "lost")
REPLICA_STATES: tuple[str, ...] = get_args(ReplicaState)


APPLICATION: Group[statistics.ApplicationStatistics] = Group(
    ("application",),
    (
        counter("clipper_queries", "Queries accepted.", lambda a: a.queries),
        counter("clipper_defaults", "Answers with the default output, by reason.", lambda a: a.defaults, "reason"),
        counter("clipper_errors", "Answers without any output, by error code.", lambda a: a.errors, "reason"),
        counter("clipper_slo_misses", "Queries without an output within the SLO.", lambda a: a.slo_misses),
        Histogram("clipper_query_latency_seconds", "Time from a query's arrival to its answer.", lambda a: a.latency_s),
    ),
    is_summed=True,
)

SELECTION: Group[statistics.SelectionStatistics] = Group(
    ("application",),
    (
        Histogram(
            "clipper_selection_confidence",
            "Confidence of answers that is not always 1: of several models, from probabilities, or calibrated.",
            lambda s: s.confidence,
            statistics.CONFIDENCE_BOUNDS,
        ),
        counter("clipper_selection_feedback", "Feedback received, by outcome.", lambda s: s.feedback, "outcome"),
        counter("clipper_selection_answers_scored", "Answers with feedback.", lambda s: s.answers_scored),
        counter("clipper_selection_answer_loss", "Sum of the losses of scored answers.", lambda s: s.answer_loss),
        counter(
            "clipper_selection_answer_loss_by_reason",
            "Sum of the losses of scored answers, by reason: wrong if a model's output was answered, else the code of "
            "the default or error.",
            lambda s: s.answer_loss_by_reason,
            "reason",
        ),
        gauge(
            "clipper_selection_regret",
            "Loss of the scored answers minus that of the best model, or of the best of each context, in hindsight.",
            lambda s: dict([regret(s) or ("model", 0.0)]),
            "against",
        ),
        counter(
            "clipper_selection_policy_errors",
            "Times that the application's own policy failed.",
            lambda s: s.policy_errors,
        ),
        counter(
            "clipper_selection_stages",
            "Queries that asked further models, by how often they had asked by then: 2, 3 and so on.",
            lambda s: s.stages,
            "stage",
        ),
        gauge(
            "clipper_selection_calibration_error",
            "Mean difference between confidence and the share of right answers with that confidence.",
            lambda s: s.calibration_error,
        ),
        gauge("clipper_selection_contexts", "Contexts whose state is in memory.", lambda s: s.contexts),
    ),
    is_summed=True,
)

# The number of an application's queries, and the counts of one of its models.
SelectedModel = tuple[int, statistics.ModelSelectionStatistics]

SELECTED_MODEL: Group[SelectedModel] = Group(
    ("application", "model"),
    (
        counter("clipper_selection_selected", "Queries that asked the model.", lambda m: m[1].selected),
        gauge(
            "clipper_selection_share",
            "Share of the counted queries that asked the model.",
            lambda m: m[1].selected / m[0] if m[0] else 0.0,
        ),
        counter("clipper_selection_missing", "Answers that left without the model's output.", lambda m: m[1].missing),
        counter("clipper_selection_scored", "Outputs of the model with feedback.", lambda m: m[1].scored),
        counter("clipper_selection_loss", "Sum of the losses of scored outputs.", lambda m: m[1].loss),
        gauge(
            "clipper_selection_mean_loss",
            "Mean loss of the model's outputs with feedback; NaN without feedback.",
            lambda m: m[1].loss / m[1].scored if m[1].scored else None,
        ),
        gauge(
            "clipper_selection_cost",
            "Cost of asking the model once; NaN if neither set nor measured yet.",
            lambda m: m[1].cost,
        ),
        gauge(
            "clipper_selection_mean_cost",
            "Mean cost of the model for a query of the application; NaN if no cost is set.",
            lambda m: None if m[1].cost is None or not m[0] else m[1].cost * m[1].selected / m[0],
        ),
    ),
    is_summed=True,
)

TEST: Group[Standing] = Group(
    ("application",),
    (
        gauge(
            "clipper_test_winner",
            "1 for the winner of a best_arm test; absent while the test is open.",
            lambda t: {} if t.winner is None else {t.winner: 1.0},
            "model",
        ),
        gauge("clipper_test_ended", "1 once the test has ended.", lambda t: t.winner is not None),
        gauge(
            "clipper_test_confidence", "Confidence of the test's verdict, once it has ended.", lambda t: t.confidence
        ),
        gauge("clipper_test_scored", "Feedback that counts in the test.", lambda t: t.observations),
    ),
    is_summed=True,
)

NEWCOMER: Group[Newcomer] = Group(
    ("application", "model", "version"),
    (
        gauge("clipper_newcomer_share", "Its share of the queries; 0 once it is stopped.", lambda n: n.share),
        gauge("clipper_newcomer_stopped", "1 once it is stopped because it did harm.", lambda n: bool(n.stopped)),
        gauge("clipper_newcomer_scored", "Its answers with feedback so far.", lambda n: n.feedback),
        gauge(
            "clipper_newcomer_mean_loss",
            "Mean loss of the newcomer's answers; NaN without feedback.",
            lambda n: n.mean_loss,
        ),
        gauge(
            "clipper_newcomer_rest_mean_loss",
            "Mean loss of the application's other answers since the newcomer came.",
            lambda n: n.rest_mean_loss,
        ),
    ),
)

VERSION: Group[statistics.VersionStatistics] = Group(
    ("model", "version"),
    (
        gauge("clipper_queue_length", "Queries that wait for a replica.", lambda v: v.queue_length),
        gauge("clipper_queue_bytes", "Size of the inputs that wait.", lambda v: v.queue_bytes),
        Histogram("clipper_queue_wait_seconds", "Wait of the oldest query of each batch.", lambda v: v.queue_wait_s),
        Histogram("clipper_batch_size", "Queries in a batch.", lambda v: v.batch_size, statistics.SIZE_BOUNDS),
        Histogram(
            "clipper_batch_latency_seconds", "Time a replica was busy with a batch.", lambda v: v.batch_latency_s
        ),
        counter("clipper_outputs", "Outputs of the model.", lambda v: v.outputs),
        counter("clipper_model_errors", "Inputs on which the model failed.", lambda v: v.model_errors),
        counter("clipper_queue_rejected", "Queries refused by a full queue.", lambda v: v.rejected),
        counter("clipper_queue_expired", "Queries whose deadline passed in the queue.", lambda v: v.expired),
        counter("clipper_cache_hits", "Queries answered from the cache.", lambda v: v.cache_hits),
        counter("clipper_cache_misses", "Queries that the model had to run.", lambda v: v.cache_misses),
        counter("clipper_cache_joins", "Queries that joined an equal one in flight.", lambda v: v.cache_joins),
    ),
    is_summed=True,
)

# The target number of a version's replicas.
DEPLOYED: Group[int] = Group(
    ("model", "version"),
    (
        gauge(
            "clipper_replicas_wanted",
            "Target replica count, set by the operator or by load; 0 while the version does not run.",
            lambda wanted: wanted,
        ),
    ),
)

LINK: Group[Link] = Group(
    ("model", "version", "replica"),
    (
        gauge(
            "clipper_batch_limit",
            "Largest batch allowed now, by the worker that allows least.",
            lambda r: r.batch_limit or 0,
        ),
        gauge("clipper_batches_in_flight", "Batches sent and not answered.", lambda r: r.in_flight),
        counter("clipper_batches", "Batches answered.", lambda r: r.batches),
        gauge(
            "clipper_link_state",
            "Workers whose connection to the replica is in that state.",
            lambda r: {**dict.fromkeys(LINK_STATES, 0), **r.states},
            "state",
        ),
    ),
    is_summed=True,
)


class ReplicaProcess(NamedTuple):
    """A replica's process, as the supervisor knows it."""

    state: ReplicaState
    restarts: int


REPLICA: Group[ReplicaProcess] = Group(
    ("model", "version", "replica"),
    (
        gauge(
            "clipper_replica_state",
            "1 for the state of the replica's process.",
            lambda r: {**dict.fromkeys(REPLICA_STATES, 0.0), r.state: 1.0},
            "state",
        ),
        counter("clipper_replica_restarts", "Times that the replica was restarted.", lambda r: r.restarts),
    ),
)


def _expiry(name: str, what: str, at_s: Callable[[Status], float | None]) -> Number[Status]:
    text = f"When {what} expires, in seconds since 1970; NaN if there is none."
    return gauge(f"clipper_{name}_expiry_timestamp_seconds", text, at_s)


SERVER: Group[Status] = Group(
    (),
    (
        gauge("clipper_info", "Always 1; the label is the version.", lambda s: {s.version: 1}, "version"),
        gauge("clipper_ready", "1 if the server is ready for queries.", lambda s: s.ready),
        gauge("clipper_uptime_seconds", "Age of the supervisor.", lambda s: s.uptime_s),
        gauge("clipper_applications", "Number of applications.", lambda s: s.applications),
        gauge(
            "clipper_applications_ready", "Number of applications that can answer.", lambda s: s.applications_ready or 0
        ),
        gauge("clipper_models", "Number of models.", lambda s: s.models),
        gauge(
            "clipper_disk_free_bytes",
            "Bytes that the server may still write to the disk of a folder.",
            lambda s: {disk.path: disk.free_bytes for disk in s.disks},
            "path",
        ),
        gauge(
            "clipper_disk_size_bytes",
            "Size of the disk of a folder that the server writes to.",
            lambda s: {disk.path: disk.size_bytes for disk in s.disks},
            "path",
        ),
        _expiry("certificate", "the certificate of both ports", lambda s: s.certificate_expires_at),
        _expiry("client_ca", "the first certificate of --tls-client-ca", lambda s: s.client_ca_expires_at),
        _expiry("credential", "the next key or token", lambda s: s.credential_expires_at),
    ),
)

GPU: Group[GpuStatus] = Group(
    ("gpu",),
    (
        gauge("clipper_gpu_memory_used_bytes", "Experimental: used memory of the GPU.", lambda g: g.memory_used_bytes),
        gauge("clipper_gpu_memory_size_bytes", "Experimental: size of the GPU's memory.", lambda g: g.memory_bytes),
        gauge(
            "clipper_gpu_utilization_ratio",
            "Experimental: share of the driver's last sample in which the GPU computed; NaN for a part of one (MIG).",
            lambda g: g.utilization,
        ),
    ),
)

# The lease of servers that share a registry, whose address says which servers belong together.
LEASE: Group[LeaseStatus] = Group(
    ("registry",),
    (
        gauge("clipper_lease_leads", "1 if this server leads its cluster.", lambda s: s.role == "leader"),
        gauge(
            "clipper_lease_epoch", "Number of the lease in force; a new one begins with each leader.", lambda s: s.epoch
        ),
        gauge(
            "clipper_lease_age_seconds", "Time since the registry last confirmed the lease.", lambda s: s.renewed_s_ago
        ),
        counter(
            "clipper_lease_renewals_failed",
            "Renewals of this lease that the registry did not confirm.",
            lambda s: s.renewals_failed,
        ),
        gauge("clipper_lease_standbys", "1 if a server stands by.", lambda s: s.standby is not None),
    ),
)

WORKER_PROCESS: Group[WorkerStatus] = Group(
    ("worker",),
    (
        counter("clipper_worker_restarts", "Times that the worker was restarted.", lambda w: w.restarts),
        gauge("clipper_worker_ready", "Whether the worker serves.", lambda w: w.state == "ready"),
    ),
)

WORKER: Group[statistics.WorkerStatistics] = Group(
    ("worker",),
    (
        gauge("clipper_worker_up", "1 for each worker that answered this scrape.", lambda w: 1),
        gauge("clipper_worker_generation", "Generation of the snapshot in force.", lambda w: w.generation),
        gauge("clipper_connections", "Open client connections, REST and gRPC.", lambda w: w.connections),
        counter("clipper_grpc_calls", "Calls by gRPC.", lambda w: w.grpc_calls),
        gauge(
            "clipper_grpc_calls_in_flight",
            "Calls by gRPC that have not been answered.",
            lambda w: w.grpc_calls_in_flight,
        ),
        counter(
            "clipper_requests_refused",
            "Requests refused before they became queries, by error code.",
            lambda w: w.requests_refused,
            "reason",
        ),
        gauge("clipper_cache_entries", "Outputs in the cache.", lambda w: w.cache.entries),
        gauge("clipper_cache_bytes", "Size of the cache, with inputs.", lambda w: w.cache.size_bytes),
        gauge("clipper_cache_capacity_bytes", "Bound of the cache.", lambda w: w.cache.capacity_bytes),
        counter("clipper_cache_evictions", "Outputs evicted from the cache.", lambda w: w.cache.evictions),
        gauge("clipper_feedback_queries", "Queries kept for feedback.", lambda w: w.feedback_window.queries),
        gauge(
            "clipper_feedback_capacity_queries",
            "Bound of the queries kept for feedback.",
            lambda w: w.feedback_window.max_queries,
        ),
        gauge(
            "clipper_feedback_bytes", "Bytes of the queries kept for feedback.", lambda w: w.feedback_window.size_bytes
        ),
        gauge(
            "clipper_feedback_capacity_bytes",
            "Bound of the bytes of the queries kept for feedback.",
            lambda w: w.feedback_window.capacity_bytes,
        ),
        counter(
            "clipper_feedback_evictions",
            "Queries evicted while feedback on them could still come.",
            lambda w: w.feedback_window.evicted,
        ),
        counter(
            "clipper_feedback_queries_stored",
            "Queries written to the store for other servers (--remember-in-store).",
            lambda w: w.feedback_window.stored,
        ),
        counter(
            "clipper_feedback_queries_unstored",
            "Queries not written to the store for other servers: they were too long, or the store refused them.",
            lambda w: w.feedback_window.unstored,
        ),
        gauge(
            "clipper_feedback_age_seconds",
            "Age of the oldest query kept for feedback.",
            lambda w: w.feedback_window.age_s,
        ),
    ),
)

DECISION_LOG: Group[statistics.DecisionLogStatistics] = Group(
    ("worker",),
    (
        counter("clipper_decisions_written", "Decisions and feedback written to the log.", lambda d: d.written),
        counter("clipper_decisions_bytes", "Bytes written to the decision log.", lambda d: d.written_bytes),
        counter(
            "clipper_decisions_dropped",
            "Decisions and feedback missing from the log, by reason.",
            lambda d: d.dropped,
            "reason",
        ),
        gauge("clipper_decisions_waiting_bytes", "Bytes that wait to be written.", lambda d: d.waiting_bytes),
    ),
)

TELEMETRY: Group[statistics.TelemetryStatistics] = Group(
    ("worker",),
    (
        counter(
            "clipper_log_lines_written",
            "Lines written to the access log and the slow-query log.",
            lambda t: t.lines_written,
            "log",
        ),
        counter(
            "clipper_log_lines_left_out",
            "Lines missing from the access log and the slow-query log: there were too many, or the disk refused them.",
            lambda t: t.lines_left_out,
            "log",
        ),
        counter("clipper_spans_exported", "Spans that the receiver took.", lambda t: t.spans_exported or 0),
        counter("clipper_spans_dropped", "Spans that were dropped.", lambda t: t.spans_dropped, "reason"),
        gauge("clipper_spans_waiting", "Spans that wait to be sent.", lambda t: t.spans_waiting),
    ),
)

LIMIT: Group[statistics.LimitStatistics] = Group(
    ("of", "name"),
    (
        gauge("clipper_limit_in_flight", "Queries let in and not yet answered.", lambda one: one.in_flight),
        counter("clipper_limit_refused", "Requests refused for the limit.", lambda one: one.refused),
    ),
    is_summed=True,
)
