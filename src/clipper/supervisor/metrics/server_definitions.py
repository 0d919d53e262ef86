"""All metrics of a server, its workers and what it lets in, as ``definitions`` has those of what it serves."""

import math
from collections.abc import Callable

from clipper.api.schemas import LeaseStatus, Status, WorkerStatus
from clipper.control.statistics import (
    DecisionLogStatistics,
    LimitStatistics,
    TelemetryStatistics,
    WorkerStatistics,
)
from clipper.supervisor.metrics.group import Group, Number


def _expiry(name: str, what: str, at_s: Callable[[Status], float | None]) -> Number[Status]:
    text = f"When {what} expires, in seconds since 1970; NaN if there is none."
    return Number("gauge", f"clipper_{name}_expiry_timestamp_seconds", text, lambda s: at_s(s) or math.nan)


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
            "clipper_disk_free_bytes",
            "What the server may still write to the disk of a folder.",
            lambda s: {disk.path: disk.free_bytes for disk in s.disks},
            "path",
        ),
        Number(
            "gauge",
            "clipper_disk_size_bytes",
            "Size of that disk.",
            lambda s: {disk.path: disk.size_bytes for disk in s.disks},
            "path",
        ),
        _expiry("certificate", "the certificate of both ports", lambda s: s.certificate_expires_at),
        _expiry("client_ca", "the first certificate of --tls-client-ca", lambda s: s.client_ca_expires_at),
        _expiry("credential", "the next key or token", lambda s: s.credential_expires_at),
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
