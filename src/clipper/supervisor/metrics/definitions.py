"""All metrics of what is served: name, kind, labels, help, and where the value comes from. There is one table for each
kind of thing. ``server_definitions`` has those of the server itself.

Names end in their base unit; the client library adds a counter's ``_total``. If ``read`` returns a mapping, ``extra``
names the label whose values are its keys.
"""

import math
from dataclasses import dataclass
from typing import get_args

from clipper.api.learned import Newcomer
from clipper.api.schemas import Replica, ReplicaState, Version
from clipper.control.descriptions import Standing
from clipper.control.statistics import (
    CONFIDENCE_BOUNDS,
    SIZE_BOUNDS,
    ApplicationStatistics,
    ModelSelectionStatistics,
    SelectionStatistics,
    VersionStatistics,
)
from clipper.supervisor.metrics.group import Group, Histogram, Number
from clipper.supervisor.metrics.regret import regret
from clipper.supervisor.metrics.totals import Link

LINK_STATES = ("dialing", "linked", "draining", "lost")
REPLICA_STATES: tuple[str, ...] = get_args(ReplicaState)


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


def _regret(selection: SelectionStatistics) -> dict[str, float]:
    """Return the regret, by what the answers are compared with; 0 without feedback."""
    found = regret(selection)
    return {"model": 0.0} if found is None else dict([found])


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
            "Loss of the scored answers minus that of the best model, or of the best of each context, in hindsight.",
            _regret,
            "against",
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

TEST: Group[Standing] = Group(
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
