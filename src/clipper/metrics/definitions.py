"""All metrics: name, kind, labels, help, and where the value comes from. There is one table for each kind of thing.

Names end in their base unit; the client library adds a counter's ``_total``. If ``read`` returns a mapping, ``extra``
names the label whose values are its keys.
"""

import math
from dataclasses import dataclass
from typing import get_args

from clipper.control.statistics import (
    CONFIDENCE_BOUNDS,
    SIZE_BOUNDS,
    ApplicationStatistics,
    DecisionLogStatistics,
    LimitStatistics,
    ModelSelectionStatistics,
    SelectionStatistics,
    StandingStatistics,
    TelemetryStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.management.learned import Newcomer
from clipper.management.schemas import LeaseStatus, Replica, ReplicaState, Status, Version, WorkerStatus
from clipper.metrics.group import Group, Histogram, Number
from clipper.metrics.totals import Link

LINK_STATES = ("dialing", "linked", "draining", "lost")
REPLICA_STATES: tuple[str, ...] = get_args(ReplicaState)


SERVER: Group[Status] = Group(
    (),
    (
        Number("gauge", "clipper_info", "Always 1; the label is the version.", lambda s: {s.version: 1}, "version"),
        Number("gauge", "clipper_ready", "1 if the server is ready for queries.", lambda s: s.ready),
        Number("gauge", "clipper_uptime_seconds", "Age of the supervisor.", lambda s: s.uptime_s),
        Number("gauge", "clipper_applications", "Number of applications.", lambda s: s.applications),
        Number("gauge", "clipper_applications_ready", "Those that can answer.", lambda s: s.applications_ready or 0),
        Number("gauge", "clipper_models", "Number of models.", lambda s: s.models),
        Number(
            "gauge",
            "clipper_certificate_expiry_timestamp_seconds",
            "When the certificate of both ports expires, in seconds since 1970; NaN without TLS.",
            lambda s: math.nan if s.certificate_expires_at is None else s.certificate_expires_at,
        ),
        Number(
            "gauge",
            "clipper_client_ca_expiry_timestamp_seconds",
            "When the first certificate of --tls-client-ca expires, in seconds since 1970; NaN without it.",
            lambda s: math.nan if s.client_ca_expires_at is None else s.client_ca_expires_at,
        ),
    ),
)

# Of servers that share a registry; its address says which are of one cluster.
LEASE: Group[LeaseStatus] = Group(
    ("registry",),
    (
        Number("gauge", "clipper_lease_leads", "1 if this server leads its cluster.", lambda s: s.role == "leader"),
        Number(
            "gauge",
            "clipper_lease_epoch",
            "Number of the lease in force; a new one begins with each leader.",
            lambda s: math.nan if s.epoch is None else s.epoch,
        ),
        Number(
            "gauge",
            "clipper_lease_age_seconds",
            "Time since the registry has confirmed the lease.",
            lambda s: math.nan if s.renewed_s_ago is None else s.renewed_s_ago,
        ),
        Number(
            "counter",
            "clipper_lease_renewals_failed",
            "Renewals of this lease that the registry did not confirm.",
            lambda s: s.renewals_failed,
        ),
        Number("gauge", "clipper_lease_standbys", "1 if a server stands by.", lambda s: s.standby is not None),
    ),
)

WORKER_PROCESS: Group[WorkerStatus] = Group(
    ("worker",),
    (
        Number("counter", "clipper_worker_restarts", "Times that the worker was restarted.", lambda w: w.restarts),
        Number("gauge", "clipper_worker_ready", "Whether the worker serves.", lambda w: w.state == "ready"),
    ),
)

WORKER: Group[WorkerStatistics] = Group(
    ("worker",),
    (
        Number("gauge", "clipper_worker_up", "1 for each worker that answered this scrape.", lambda w: 1),
        Number("gauge", "clipper_worker_generation", "Generation of the snapshot in force.", lambda w: w.generation),
        Number("gauge", "clipper_connections", "Open client connections, REST and gRPC.", lambda w: w.connections),
        Number("counter", "clipper_grpc_calls", "Calls by gRPC.", lambda w: w.grpc_calls),
        Number(
            "gauge",
            "clipper_grpc_calls_in_flight",
            "Calls by gRPC that have not been answered.",
            lambda w: w.grpc_calls_in_flight,
        ),
        Number(
            "counter",
            "clipper_requests_refused",
            "Requests refused before they became queries, by error code.",
            lambda w: w.requests_refused,
            "reason",
        ),
        Number("gauge", "clipper_cache_entries", "Outputs in the cache.", lambda w: w.cache.entries),
        Number("gauge", "clipper_cache_bytes", "Size of the cache, with inputs.", lambda w: w.cache.size_bytes),
        Number("gauge", "clipper_cache_capacity_bytes", "Bound of the cache.", lambda w: w.cache.capacity_bytes),
        Number("counter", "clipper_cache_evictions", "Outputs evicted from the cache.", lambda w: w.cache.evictions),
        Number("gauge", "clipper_feedback_queries", "Queries kept for feedback.", lambda w: w.feedback_window.queries),
        Number(
            "gauge",
            "clipper_feedback_capacity_queries",
            "Bound of the queries kept for feedback.",
            lambda w: w.feedback_window.max_queries,
        ),
        Number(
            "gauge",
            "clipper_feedback_bytes",
            "Bytes of the queries kept for feedback.",
            lambda w: w.feedback_window.size_bytes,
        ),
        Number(
            "gauge",
            "clipper_feedback_capacity_bytes",
            "Bound of these bytes.",
            lambda w: w.feedback_window.capacity_bytes,
        ),
        Number(
            "counter",
            "clipper_feedback_evictions",
            "Queries evicted while feedback on them could still come.",
            lambda w: w.feedback_window.evicted,
        ),
        Number(
            "gauge",
            "clipper_feedback_age_seconds",
            "Age of the oldest query kept for feedback.",
            lambda w: w.feedback_window.age_s,
        ),
    ),
)

DECISION_LOG: Group[DecisionLogStatistics] = Group(
    ("worker",),
    (
        Number(
            "counter", "clipper_decisions_written", "Decisions and feedback written to the log.", lambda d: d.written
        ),
        Number("counter", "clipper_decisions_bytes", "Bytes written to the decision log.", lambda d: d.written_bytes),
        Number(
            "counter",
            "clipper_decisions_dropped",
            "Decisions and feedback missing from the log, by reason.",
            lambda d: d.dropped,
            "reason",
        ),
        Number("gauge", "clipper_decisions_waiting_bytes", "Bytes that wait to be written.", lambda d: d.waiting_bytes),
    ),
)

TELEMETRY: Group[TelemetryStatistics] = Group(
    ("worker",),
    (
        Number(
            "counter",
            "clipper_log_lines_written",
            "Lines written to the access log and the slow-query log.",
            lambda t: t.lines_written,
            "log",
        ),
        Number(
            "counter",
            "clipper_log_lines_left_out",
            "Lines that these logs lack, since there were too many or the disk did not take them.",
            lambda t: t.lines_left_out,
            "log",
        ),
        Number("counter", "clipper_spans_exported", "Spans that the receiver took.", lambda t: t.spans_exported or 0),
        Number("counter", "clipper_spans_dropped", "Spans that were dropped.", lambda t: t.spans_dropped, "reason"),
        Number("gauge", "clipper_spans_waiting", "Spans that wait to be sent.", lambda t: t.spans_waiting),
    ),
)

LIMIT: Group[LimitStatistics] = Group(
    ("of", "name"),
    (
        Number("gauge", "clipper_limit_in_flight", "Queries let in and not yet answered.", lambda one: one.in_flight),
        Number("counter", "clipper_limit_refused", "Requests refused for the limit.", lambda one: one.refused),
    ),
    is_summed=True,
)

APPLICATION: Group[ApplicationStatistics] = Group(
    ("application",),
    (
        Number("counter", "clipper_queries", "Queries accepted.", lambda a: a.queries),
        Number(
            "counter", "clipper_defaults", "Answers with the default output, by reason.", lambda a: a.defaults, "reason"
        ),
        Number("counter", "clipper_errors", "Answers without any output, by error code.", lambda a: a.errors, "reason"),
        Number("counter", "clipper_slo_misses", "Queries without an output within the SLO.", lambda a: a.slo_misses),
        Histogram("clipper_query_latency_seconds", "Time from a query's arrival to its answer.", lambda a: a.latency_s),
    ),
    is_summed=True,
)


def _mean_loss(model: ModelSelectionStatistics) -> float:
    """Return the mean loss; NaN, which Prometheus shows as no value, without feedback."""
    return model.loss / model.scored if model.scored else math.nan


def _regret(selection: SelectionStatistics) -> float:
    """Return how much more the answers have lost than the best model would have lost on the same feedback."""
    means = [_mean_loss(model) for model in selection.models.values() if model.scored]
    return selection.answer_loss - selection.answers_scored * min(means) if means else 0.0


SELECTION: Group[SelectionStatistics] = Group(
    ("application",),
    (
        Histogram(
            "clipper_selection_confidence",
            "Confidence of answers that is not always 1: of several models, from probabilities, or calibrated.",
            lambda s: s.confidence,
            CONFIDENCE_BOUNDS,
        ),
        Number(
            "counter",
            "clipper_selection_feedback",
            "Feedback received, by outcome.",
            lambda s: s.feedback,
            "outcome",
        ),
        Number("counter", "clipper_selection_answers_scored", "Answers with feedback.", lambda s: s.answers_scored),
        Number(
            "counter", "clipper_selection_answer_loss", "Sum of the losses of scored answers.", lambda s: s.answer_loss
        ),
        Number(
            "counter",
            "clipper_selection_answer_loss_by_reason",
            "The same by reason: wrong if the answer was a model's output, else the code of the default or error.",
            lambda s: s.answer_loss_by_reason,
            "reason",
        ),
        Number(
            "gauge",
            "clipper_selection_regret",
            "Loss of the scored answers minus that of the best model in hindsight.",
            _regret,
        ),
        Number(
            "counter",
            "clipper_selection_policy_errors",
            "Times that the application's own policy failed.",
            lambda s: s.policy_errors,
        ),
        Number(
            "counter",
            "clipper_selection_stages",
            "Queries that asked further models, by how often they had asked by then: 2, 3 and so on.",
            lambda s: s.stages,
            "stage",
        ),
        Number(
            "gauge",
            "clipper_selection_calibration_error",
            "Mean difference between confidence and the share of right answers with that confidence.",
            lambda s: math.nan if s.calibration_error is None else s.calibration_error,
        ),
        Number("gauge", "clipper_selection_contexts", "Contexts whose state is in memory.", lambda s: s.contexts),
    ),
    is_summed=True,
)


@dataclass(frozen=True, slots=True)
class SelectedModel:
    """One model of an application, and how many queries the application had."""

    queries: int
    counts: ModelSelectionStatistics


SELECTED_MODEL: Group[SelectedModel] = Group(
    ("application", "model"),
    (
        Number("counter", "clipper_selection_selected", "Queries that asked the model.", lambda m: m.counts.selected),
        Number(
            "gauge",
            "clipper_selection_share",
            "Share of the counted queries that asked the model.",
            lambda m: m.counts.selected / m.queries if m.queries else 0.0,
        ),
        Number(
            "counter",
            "clipper_selection_missing",
            "Answers that left without the model's output.",
            lambda m: m.counts.missing,
        ),
        Number("counter", "clipper_selection_scored", "Outputs of the model with feedback.", lambda m: m.counts.scored),
        Number("counter", "clipper_selection_loss", "Sum of the losses of scored outputs.", lambda m: m.counts.loss),
        Number(
            "gauge",
            "clipper_selection_mean_loss",
            "Mean loss of the model's outputs with feedback; NaN without feedback.",
            lambda m: _mean_loss(m.counts),
        ),
        Number(
            "gauge",
            "clipper_selection_cost",
            "Cost of asking the model once; NaN if neither set nor measured yet.",
            lambda m: math.nan if m.counts.cost is None else m.counts.cost,
        ),
        Number(
            "gauge",
            "clipper_selection_mean_cost",
            "Mean cost of the model for a query of the application; NaN if no cost is set.",
            lambda m: (
                math.nan if m.counts.cost is None or not m.queries else m.counts.cost * m.counts.selected / m.queries
            ),
        ),
    ),
    is_summed=True,
)

TEST: Group[StandingStatistics] = Group(
    ("application",),
    (
        Number(
            "gauge",
            "clipper_test_winner",
            "1 for the winner of a best_arm test; absent while the test is open.",
            lambda t: {} if t.winner is None else {t.winner: 1.0},
            "model",
        ),
        Number("gauge", "clipper_test_ended", "1 once the test has ended.", lambda t: t.winner is not None),
        Number(
            "gauge",
            "clipper_test_confidence",
            "Confidence of the test's verdict, once it has ended.",
            lambda t: t.confidence,
        ),
        Number("gauge", "clipper_test_scored", "Feedback that counts in the test.", lambda t: t.observations),
    ),
    is_summed=True,
)

NEWCOMER: Group[Newcomer] = Group(
    ("application", "model", "version"),
    (
        Number("gauge", "clipper_newcomer_share", "Its share of the queries; 0 once it is stopped.", lambda n: n.share),
        Number(
            "gauge", "clipper_newcomer_stopped", "1 once it is stopped because it did harm.", lambda n: bool(n.stopped)
        ),
        Number("gauge", "clipper_newcomer_scored", "Its answers with feedback so far.", lambda n: n.feedback),
        Number(
            "gauge",
            "clipper_newcomer_mean_loss",
            "Mean loss of the newcomer's answers; NaN without feedback.",
            lambda n: math.nan if n.mean_loss is None else n.mean_loss,
        ),
        Number(
            "gauge",
            "clipper_newcomer_rest_mean_loss",
            "Mean loss of the application's other answers since the newcomer came.",
            lambda n: math.nan if n.rest_mean_loss is None else n.rest_mean_loss,
        ),
    ),
)

VERSION: Group[VersionStatistics] = Group(
    ("model", "version"),
    (
        Number("gauge", "clipper_queue_length", "Queries that wait for a replica.", lambda v: v.queue_length),
        Number("gauge", "clipper_queue_bytes", "Size of the inputs that wait.", lambda v: v.queue_bytes),
        Histogram("clipper_queue_wait_seconds", "Wait of the oldest query of each batch.", lambda v: v.queue_wait_s),
        Histogram("clipper_batch_size", "Queries in a batch.", lambda v: v.batch_size, SIZE_BOUNDS),
        Histogram(
            "clipper_batch_latency_seconds", "Time a replica was busy with a batch.", lambda v: v.batch_latency_s
        ),
        Number("counter", "clipper_outputs", "Outputs of the model.", lambda v: v.outputs),
        Number("counter", "clipper_model_errors", "Inputs on which the model failed.", lambda v: v.model_errors),
        Number("counter", "clipper_queue_rejected", "Queries refused by a full queue.", lambda v: v.rejected),
        Number("counter", "clipper_queue_expired", "Queries whose deadline passed in the queue.", lambda v: v.expired),
        Number("counter", "clipper_cache_hits", "Queries answered from the cache.", lambda v: v.cache_hits),
        Number("counter", "clipper_cache_misses", "Queries that the model had to run.", lambda v: v.cache_misses),
        Number(
            "counter", "clipper_cache_joins", "Queries that joined an equal one in flight.", lambda v: v.cache_joins
        ),
    ),
    is_summed=True,
)

DEPLOYED: Group[Version] = Group(
    ("model", "version"),
    (
        Number(
            "gauge",
            "clipper_replicas_wanted",
            "Target replica count, set by the operator or by load; 0 while the version does not run.",
            lambda v: v.replicas_wanted if v.state in ("starting", "ready") else 0,
        ),
    ),
)

LINK: Group[Link] = Group(
    ("model", "version", "replica"),
    (
        Number(
            "gauge",
            "clipper_batch_limit",
            "Largest batch allowed now, by the worker that allows least.",
            lambda r: r.batch_limit or 0,
        ),
        Number("gauge", "clipper_batches_in_flight", "Batches sent and not answered.", lambda r: r.in_flight),
        Number("counter", "clipper_batches", "Batches answered.", lambda r: r.batches),
        Number(
            "gauge",
            "clipper_link_state",
            "Workers whose connection to the replica is in that state.",
            lambda r: {**dict.fromkeys(LINK_STATES, 0), **r.states},
            "state",
        ),
    ),
    is_summed=True,
)

REPLICA: Group[Replica] = Group(
    ("model", "version", "replica"),
    (
        Number(
            "gauge",
            "clipper_replica_state",
            "1 for the state of the replica's process.",
            lambda r: {**dict.fromkeys(REPLICA_STATES, 0.0), r.state: 1.0},
            "state",
        ),
        Number("counter", "clipper_replica_restarts", "Times that the replica was restarted.", lambda r: r.restarts),
    ),
)
