"""The text of a scrape, read back by the client library's own parser."""

import math
import re
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from clipper.api.learned import Newcomer
from clipper.api.schemas import GpuStatus, LeaseStatus, Status, WorkerStatus
from clipper.control.descriptions import Standing
from clipper.control.statistics import (
    CONFIDENCE_BOUNDS,
    LATENCY_BOUNDS_S,
    SIZE_BOUNDS,
    ApplicationStatistics,
    CacheStatistics,
    DecisionLogStatistics,
    HistogramData,
    LimitStatistics,
    ModelSelectionStatistics,
    ReplicaStatistics,
    SelectionStatistics,
    VersionStatistics,
    WorkerStatistics,
)
from clipper.supervisor.metrics.definitions import (
    APPLICATION,
    DECISION_LOG,
    DEPLOYED,
    GPU,
    LEASE,
    LIMIT,
    LINK,
    NEWCOMER,
    REPLICA,
    SELECTED_MODEL,
    SELECTION,
    SERVER,
    TELEMETRY,
    TEST,
    VERSION,
    WORKER,
    WORKER_PROCESS,
    Group,
    Histogram,
    Number,
    ReplicaProcess,
    counter,
    gauge,
)
from clipper.supervisor.metrics.exposition import Table
from clipper.supervisor.metrics.ledger import Existing, Ledger, Shown, WorkerFacts
from clipper.values.types import ModelId

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"

LATENCY = HistogramData(tuple(range(len(LATENCY_BOUNDS_S) + 1)), 12.5)
SIZES = HistogramData((1,) * (len(SIZE_BOUNDS) + 1), 99.0)
SELECTED = SelectionStatistics(
    models={
        "svm": ModelSelectionStatistics(selected=25, missing=4, scored=20, loss=5.0),
        "forest": ModelSelectionStatistics(selected=75, missing=0, scored=40, loss=4.0),
        "new": ModelSelectionStatistics(selected=0, missing=0, scored=0, loss=0.0),
    },
    confidence=HistogramData((1,) * (len(CONFIDENCE_BOUNDS) + 1), 4.5),
    feedback={"joined": 60, "unknown": 2},
    answers_scored=50,
    answer_loss=8.0,
    contexts=12,
    policy_errors=3,
    last_policy_error=None,
)
STATUS = Status(
    version="0.1.0",
    pid=1,
    home="/h",
    query_url="q",
    management_url="m",
    uptime_s=12.0,
    ready=True,
    problems=(),
    workers=(WorkerStatus(0, 2, "ready", 3, 1, None), WorkerStatus(1, None, "backing_off", 5, 0, "died")),
    applications=1,
    models=1,
    replicas={"ready": 1},
)


def worker(index: int = 0, application: str = "digits", reason: str = "timeout") -> WorkerStatistics:
    return WorkerStatistics(
        index=index,
        pid=2,
        generation=4,
        connections=7,
        requests_refused={"malformed_request": 6},
        applications=(ApplicationStatistics(application, 100, {reason: 3}, {"no_replica": 2}, 5, LATENCY, SELECTED),),
        versions=(
            VersionStatistics("digits", "2", 11, 88, 90, 1, 2, 3, 4, 5, 6, LATENCY, SIZES, LATENCY),
        ),
        replicas=(
            ReplicaStatistics("digits:2#1.g7", "digits", "2", "linked", 64, 2, 40, None),
            ReplicaStatistics("digits:2#1.g6", "digits", "2", "draining", 8, 1, 9, "lost"),
        ),
        cache=CacheStatistics(10, 2048, 4096, 1),
        decisions=DecisionLogStatistics(30, 3000, {"queue_full": 2}, 50, None),
        limits=(LimitStatistics("key", "web", 3, 8),),
    )  # fmt: skip


NEWCOMERS = (
    Newcomer("digits", "2", "1", 0.05, 12, 300, 200, 0.25, 0.125, None),
    Newcomer("digits", "3", None, 0.0, 0, 0, 200, None, None, "it lost more"),
)


def text_of(*workers: WorkerStatistics, status: Status | None = STATUS, by_worker: bool = True) -> str:
    """The text of a server of these workers, with two versions of a model, a replica, and an application that ramps."""
    names = dict.fromkeys([one.name for worker in workers for one in worker.applications], 1)
    versions = {f"digits:{number}": (ModelId("digits", number), 1.0) for number in ("1", "2")}
    limits = {("key", "web"): 1}
    ledger = Ledger()
    facts = {worker.index: WorkerFacts(worker.index) for worker in workers}
    ledger.follow(Existing(facts, names, versions, {"digits:2": ("digits:2#1",)}, limits))
    for worker in workers:
        ledger.take(worker.index, worker)
    processes = {"digits:2#1": ReplicaProcess("ready", 2)}
    shown = Shown(tuple(names), {"digits:1": 3, "digits:2": 0}, limits, {"best": NEWCOMERS}, processes, status)
    return ledger.text(shown, {worker.index: worker for worker in workers}, by_worker=by_worker).decode()


def samples(*workers: WorkerStatistics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = text_of(*(workers or (worker(),)))
    read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in read}
    assert len(found) == len(read), "two samples share name and labels"
    return found


def value(name: str, *workers: WorkerStatistics, **labels: str) -> float:
    return samples(*workers)[name, tuple(sorted(labels.items()))]


def test_who_leads() -> None:
    def lease_of(lease: LeaseStatus | None) -> dict[str, float]:
        text = text_of(status=msgspec.structs.replace(STATUS, lease=lease))
        read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = {one.name: one.value for one in read if one.name.startswith("clipper_lease")}
        assert all(one.labels == {"registry": "redis://h/0"} for one in read if one.name in found)
        return found

    assert lease_of(LeaseStatus("leader", "redis://h/0", 7, "m", 1e9, 0.5, "http://b", 3)) == {
        "clipper_lease_leads": 1.0,
        "clipper_lease_epoch": 7.0,
        "clipper_lease_age_seconds": 0.5,
        "clipper_lease_renewals_failed_total": 3.0,
        "clipper_lease_standbys": 1.0,
    }
    standby = lease_of(LeaseStatus("standby", "redis://h/0", None))
    assert standby["clipper_lease_leads"] == 0.0 and math.isnan(standby["clipper_lease_epoch"])
    assert lease_of(None) == {}


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_each_gpu_has_its_series_and_no_gpu_none(count: int) -> None:
    gpus = tuple(GpuStatus(f"MIG-{number}", 2000, 100 * number, None) for number in range(count))
    text = text_of(status=msgspec.structs.replace(STATUS, gpus=gpus))
    read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(one.name, one.labels["gpu"]): one.value for one in read if one.name.startswith("clipper_gpu_")}
    assert len(found) == 3 * count
    for number in range(count):
        assert found["clipper_gpu_memory_used_bytes", f"MIG-{number}"] == 100 * number
        assert found["clipper_gpu_memory_size_bytes", f"MIG-{number}"] == 2000
        assert math.isnan(found["clipper_gpu_utilization_ratio", f"MIG-{number}"])


def test_newcomers() -> None:
    ramped = {"application": "best", "model": "digits", "version": "2"}
    names = ("share", "stopped", "scored", "mean_loss", "rest_mean_loss")
    assert [value(f"clipper_newcomer_{name}", **ramped) for name in names] == [0.05, 0.0, 12.0, 0.25, 0.125]
    stopped = ramped | {"version": "3"}
    assert [value(f"clipper_newcomer_{name}", **stopped) for name in names[:3]] == [0.0, 1.0, 0.0]
    assert math.isnan(value("clipper_newcomer_mean_loss", **stopped))


def test_what_became_of_the_decision_log() -> None:
    assert value("clipper_decisions_written_total", worker="0") == 30
    assert value("clipper_decisions_bytes_total", worker="0") == 3000
    assert value("clipper_decisions_dropped_total", worker="0", reason="queue_full") == 2
    assert value("clipper_decisions_waiting_bytes", worker="0") == 50


def test_counts_of_an_application() -> None:
    own = {"application": "digits", "worker": "0"}
    assert value("clipper_queries_total", **own) == 100
    assert value("clipper_defaults_total", **own, reason="timeout") == 3
    assert value("clipper_errors_total", **own, reason="no_replica") == 2
    assert value("clipper_slo_misses_total", **own) == 5


def test_what_is_let_in_and_refused_by_limits() -> None:
    labels = (("name", "web"), ("of", "key"), ("worker", "0"))
    found = samples(worker())
    assert (found["clipper_limit_in_flight", labels], found["clipper_limit_refused_total", labels]) == (3, 8)


def test_a_histogram_is_cumulative_and_ends_at_its_count() -> None:
    own = {"application": "digits", "worker": "0"}
    buckets = [value("clipper_query_latency_seconds_bucket", **own, le=str(bound)) for bound in LATENCY_BOUNDS_S]
    assert buckets == [sum(range(n + 1)) for n in range(len(LATENCY_BOUNDS_S))]
    count = value("clipper_query_latency_seconds_count", **own)
    assert value("clipper_query_latency_seconds_bucket", **own, le="+Inf") == count == sum(LATENCY.counts)
    assert value("clipper_query_latency_seconds_sum", **own) == 12.5


def test_what_an_application_selects_and_what_feedback_says() -> None:
    own = {"application": "digits", "worker": "0"}
    assert value("clipper_selection_feedback_total", **own, outcome="joined") == 60
    assert value("clipper_selection_feedback_total", **own, outcome="unknown") == 2
    names = ("answers_scored_total", "answer_loss_total", "policy_errors_total", "contexts", "confidence_count")
    assert [value(f"clipper_selection_{name}", **own) for name in names] == [50, 8.0, 3, 12, 11]
    # The best model loses 4 in 40, so it would have lost 5 in those 50 answers.
    assert value("clipper_selection_regret", **own, against="model") == 3.0


def test_counts_of_each_of_an_applications_models() -> None:
    own = {"application": "digits", "worker": "0", "model": "svm"}
    names = ("selected_total", "share", "missing_total", "scored_total", "loss_total", "mean_loss")
    assert [value(f"clipper_selection_{name}", **own) for name in names] == [25, 0.25, 4, 20, 5.0, 0.25]
    assert math.isnan(value("clipper_selection_mean_loss", **{**own, "model": "new"}))


def test_without_feedback_there_is_no_regret() -> None:
    nothing = msgspec.structs.replace(SELECTED, models={}, answers_scored=0, answer_loss=0.0)
    application = ApplicationStatistics("digits", 0, {}, {}, 0, LATENCY, nothing)
    idle = msgspec.structs.replace(worker(), applications=(application,))
    assert value("clipper_selection_regret", idle, application="digits", worker="0", against="model") == 0.0


def test_how_a_test_of_models_stands() -> None:
    def standing(winner: str | None) -> WorkerStatistics:
        test = Standing(winner, 0.95, 0.01, 3400.0)
        return msgspec.structs.replace(
            worker(), applications=(msgspec.structs.replace(worker().applications[0], test=test),)
        )

    own = {"application": "digits", "worker": "0"}
    ended = [value(f"clipper_test_{name}", standing("svm"), **own) for name in ("ended", "confidence", "scored")]
    assert ended == [1.0, 0.95, 3400.0]
    assert value("clipper_test_winner", standing("svm"), **own, model="svm") == 1.0
    assert value("clipper_test_ended", standing(None), **own) == 0.0
    assert not any(name == "clipper_test_winner" for name, _ in samples(standing(None)))
    assert not any(name.startswith("clipper_test") for name, _ in samples(worker()))


def test_counts_of_a_version() -> None:
    own = {"model": "digits", "version": "2", "worker": "0"}
    names = ("queue_length", "queue_bytes", "outputs_total", "model_errors_total", "queue_rejected_total")
    more = ("queue_expired_total", "cache_hits_total", "cache_misses_total", "cache_joins_total")
    assert [value(f"clipper_{name}", **own) for name in names + more] == [11, 88, 90, 1, 2, 3, 4, 5, 6]
    assert value("clipper_batch_size_bucket", **own, le="1.0") == 1
    assert value("clipper_batch_size_sum", **own) == 99


def test_how_many_replicas_are_wanted() -> None:
    wanted = [value("clipper_replicas_wanted", model="digits", version=version) for version in ("1", "2")]
    assert wanted == [3, 0]


NUMBERS = st.floats() | st.integers(-(2**53), 2**53) | st.booleans() | st.none()


@given(st.lists(NUMBERS, max_size=5), st.text(max_size=9), st.lists(st.integers(0, 2**53), min_size=1, max_size=9))
def test_text_is_that_of_the_client_library(values: list[float | None], label: str, counts: list[int]) -> None:
    bounds = tuple(float(number) for number in range(len(counts) - 1))
    data = HistogramData(tuple(counts), 12.5)
    group: Group[float | None] = Group(
        ("b", "a"),
        (
            gauge("clipper_gauge", "A gauge.", lambda number: number),
            counter("clipper_counter", "A counter.", lambda number: number),
            Histogram("clipper_histogram", "A histogram.", lambda _: data, bounds),
        ),
    )
    table: Table[int, float | None] = Table([group], lambda labels, number: ([(labels, number)],))
    gauges = GaugeMetricFamily("clipper_gauge", "A gauge.", labels=("b", "a"))
    counters = CounterMetricFamily("clipper_counter", "A counter.", labels=("b", "a"))
    histograms = HistogramMetricFamily("clipper_histogram", "A histogram.", labels=("b", "a"))
    ends = [*map(str, bounds), "+Inf"]
    for key, number in enumerate(values):
        table.write(key, (label, str(key)), number)
        gauges.add_metric((label, str(key)), math.nan if number is None else number)
        counters.add_metric((label, str(key)), math.nan if number is None else number)
        histograms.add_metric((label, str(key)), list(zip(ends, map(float, accumulate(counts)))), 12.5)
    told = generate_latest(SimpleNamespace(collect=lambda: [gauges, counters, histograms]))  # type: ignore[arg-type]
    assert b"".join(table.text(range(len(values)))) == told


def test_a_replica_keeps_its_series_over_a_restart() -> None:
    own = {"model": "digits", "version": "2", "replica": "digits:2#1"}
    assert value("clipper_batch_limit", **own, worker="0") == 64
    assert value("clipper_link_state", **own, worker="0", state="linked") == 1
    assert value("clipper_link_state", **own, worker="0", state="lost") == 0
    assert value("clipper_replica_state", **own, state="ready") == 1
    assert value("clipper_replica_state", **own, state="crash_loop") == 0
    assert value("clipper_replica_restarts_total", **own) == 2


def test_workers_have_series_of_their_own() -> None:
    both = (worker(0), worker(1))
    assert value("clipper_worker_up", *both, worker="1") == 1
    assert value("clipper_queries_total", *both, application="digits", worker="1") == 100
    assert value("clipper_worker_ready", *both, worker="1") == 0
    assert value("clipper_worker_restarts_total", *both, worker="1") == 5


def test_a_worker_that_does_not_answer_has_no_series_but_its_state() -> None:
    text = text_of()
    assert "clipper_worker_up{" not in text
    assert 'clipper_worker_ready{worker="0"} 1.0' in text


def test_what_is_of_all_workers_together_has_no_label_of_a_worker() -> None:
    text = text_of(worker(), by_worker=False)
    assert 'clipper_queries_total{application="digits"} 100.0' in text
    assert 'clipper_outputs_total{model="digits",version="2"} 90.0' in text
    assert 'clipper_batches_total{model="digits",replica="digits:2#1",version="2"} 40.0' in text
    assert 'clipper_limit_refused_total{name="web",of="key"} 8.0' in text
    of_workers = set(re.findall(r'^(clipper_\w+)\{.*worker="', text, re.MULTILINE))
    assert {"clipper_connections", "clipper_worker_ready", "clipper_decisions_written_total"} <= of_workers
    assert not any(name.startswith(("clipper_quer", "clipper_batch", "clipper_selection")) for name in of_workers)


def test_what_only_some_applications_count_says_nothing_of_the_server() -> None:
    text = text_of(worker(), status=None)
    assert 'clipper_queries_total{application="digits",worker="0"} 100.0' in text
    assert "\nclipper_ready " not in text and "clipper_worker_up{" not in text


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_in_a_label_comes_back_whole(application: str, reason: str) -> None:
    labels = {"application": application, "worker": "0", "reason": reason}
    assert value("clipper_defaults_total", worker(0, application, reason), **labels) == 3


def documented() -> dict[str, str]:
    """Metric name to its row of the page."""
    rows = re.findall(r"^\| `(clipper_\w+)` \|(.*)\|$", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a metric is documented twice"
    return dict(rows)


def test_the_page_lists_every_metric_with_its_kind_and_labels() -> None:
    expected = {}
    servers = (SERVER, GPU, LEASE, WORKER_PROCESS, WORKER, LIMIT, DECISION_LOG, TELEMETRY)
    applications = (APPLICATION, SELECTION, SELECTED_MODEL, TEST, NEWCOMER)
    for group in (*servers, *applications, VERSION, DEPLOYED, LINK, REPLICA):
        for metric in group.metrics:
            is_number = isinstance(metric, Number)
            kind = metric.kind if is_number else "histogram"
            extra = (metric.extra,) if is_number and metric.extra else ()
            name = metric.name + ("_total" if kind == "counter" else "")
            labels = ", ".join((*group.labels, *extra)) or "none"
            expected[name] = f" {kind} | {labels} | {metric.help} "
    assert documented() == expected
