import math

import pytest
from msgspec.structs import replace

from clipper.control.statistics import HistogramData, VersionStatistics
from clipper.settings.server import MAX_WORKERS
from clipper.supervisor.keepers.scaler import DEFAULT_START_S, LoadMeter, StartTimes

NO_BATCH = HistogramData((0, 0), 0.0)
NOTHING = VersionStatistics("m", "1", *(0,) * 9, NO_BATCH, NO_BATCH, NO_BATCH, 0, 0.1)
COUNTED = replace(
    NOTHING,
    arrivals=100,
    rejected=1,
    expired=1,
    queue_wait_s=HistogramData((4, 6), 0.5),
    batch_latency_s=HistogramData((8, 0), 0.4),
    rows_per_s={"a": 50.0, "b": 30.0},
)


def test_a_look_is_at_what_came_since_the_one_before() -> None:
    meter = LoadMeter()
    assert meter.look({1: NOTHING}, 10.0, 1, 2.0) is None
    load = meter.look({1: COUNTED}, 10.5, 2, 2.0)
    assert load is not None
    assert (load.at_s, load.interval_s, load.ready, load.start_s) == (10.5, 0.5, 2, 2.0)
    assert (load.arrivals, load.late, load.slo_s) == (100, 2, 0.1)
    assert (load.wait_s, load.service_s, load.capacity_per_s) == pytest.approx((0.05, 0.05, 40.0))
    again = meter.look({1: COUNTED}, 11.0, 2, 2.0)
    assert again is not None
    assert (again.arrivals, again.late, again.wait_s, again.service_s, again.capacity_per_s) == (0, 0, 0, 0, 40.0)


def test_workers_count_together() -> None:
    meter = LoadMeter()
    meter.look({1: NOTHING, 2: NOTHING}, 10.0, 1, 2.0)
    waits = HistogramData((30, 0), 0.1)
    other = replace(COUNTED, arrivals=50, queue_wait_s=waits, slo_s=0.05, rows_per_s={"b": 70.0, "c": 30.0})
    load = meter.look({1: COUNTED, 2: other}, 10.5, 1, 2.0)
    assert load is not None
    assert (load.arrivals, load.late, load.slo_s) == (150, 4, 0.05)
    assert (load.wait_s, load.capacity_per_s) == pytest.approx((0.015, 50.0))


def test_a_restarted_worker_or_a_new_queue_counts_from_nothing() -> None:
    meter = LoadMeter()
    meter.look({1: COUNTED}, 10.0, 1, 2.0)
    restarted = meter.look({2: replace(COUNTED, arrivals=7)}, 10.5, 1, 2.0)
    anew = meter.look({2: replace(COUNTED, arrivals=5)}, 11.0, 1, 2.0)
    assert restarted is not None and anew is not None
    assert (restarted.arrivals, anew.arrivals) == (7, 5)


def test_ended_workers_are_forgotten_and_silent_ones_are_not() -> None:
    """A worker that ends again and again has a new instance each time."""
    meter = LoadMeter()
    meter.look({0: COUNTED, 1: COUNTED}, 10.0, 1, 2.0)
    for instance in range(2, 3 * MAX_WORKERS):
        meter.look({0: COUNTED, instance: COUNTED}, 10.0 + instance, 1, 2.0)
    assert len(meter._before) == MAX_WORKERS + 2
    load = meter.look({0: COUNTED, 2 * MAX_WORKERS: replace(COUNTED, arrivals=107)}, 1000.0, 1, 2.0)
    assert load is not None and load.arrivals == 7


def test_without_an_answer_there_is_no_look_and_the_next_is_at_all_since() -> None:
    meter = LoadMeter()
    meter.look({1: NOTHING}, 10.0, 1, 2.0)
    assert meter.look({}, 10.5, 1, 2.0) is None
    load = meter.look({1: COUNTED}, 11.0, 1, 2.0)
    assert load is not None and (load.arrivals, load.interval_s) == (100, 1.0)


def test_a_worker_of_an_older_clipper_says_only_what_came_of_queries() -> None:
    meter = LoadMeter()
    older = replace(NOTHING, arrivals=None, slo_s=None)
    meter.look({1: older}, 10.0, 1, 2.0)
    load = meter.look({1: replace(older, outputs=7, model_errors=2, expired=1)}, 10.5, 1, 2.0)
    assert load is not None and (load.arrivals, load.late, load.slo_s) == (10, 1, math.inf)


def test_how_long_replicas_take_to_start() -> None:
    starts = StartTimes()
    starts.look({"a": "ready", "b": "starting", "c": "starting"}, 10.0)
    assert starts.start_s == DEFAULT_START_S
    starts.look({"a": "ready", "b": "starting"}, 11.0)  # c died
    starts.look({"a": "ready", "b": "ready", "d": "ready"}, 12.5)
    assert starts.start_s == 2.5
