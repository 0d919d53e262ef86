"""The time that a row takes: a mean over rows of the last batches, which no container can overstate."""

import pytest

from clipper.worker.abstraction.compute_time import ComputeTime


def test_nothing_is_known_before_a_batch_came_back() -> None:
    assert ComputeTime().row_ms is None


def test_it_is_a_mean_over_rows() -> None:
    found = ComputeTime()
    found.record(1, 0.5, 1.0)
    assert found.row_ms == 500.0
    # The first batch, which may have loaded something, counts no more.
    found.record(1, 0.010, 1.0)
    assert found.row_ms == 10.0
    for _ in range(20):
        found.record(10, 0.010, 1.0)
    assert found.row_ms == pytest.approx(1.0, rel=0.1)


def test_a_version_that_changed_is_followed() -> None:
    found = ComputeTime()
    for _ in range(500):
        found.record(4, 0.004, 1.0)
    for _ in range(150):
        found.record(4, 0.040, 1.0)
    assert found.row_ms == pytest.approx(10.0, rel=0.06)


def test_a_lying_container_is_believed_no_more_than_its_batch_took() -> None:
    found = ComputeTime()
    found.record(2, 1e13, 0.004)
    assert found.row_ms == 2.0
    # One that does not say counts by the same.
    found.record(2, 0.0, 0.006)
    assert found.row_ms == 3.0
