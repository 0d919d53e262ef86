"""The values of one step."""

import pytest

from clipper.control.statistics import (
    LATENCY_BOUNDS_S,
    HistogramData,
    ModelSelectionStatistics,
)
from clipper.supervisor.history.values import OF_MODELS, application_values, version_values
from tests.supervisor.history.readings import histogram, reading, version_reading


def latency(**counts: int) -> tuple[int, ...]:
    """Counts of answers by their bucket: ``ms20=3`` are three answers of 15 to 20 ms."""
    found = [0] * (len(LATENCY_BOUNDS_S) + 1)
    for bucket, count in counts.items():
        found[LATENCY_BOUNDS_S.index(int(bucket.removeprefix("ms")) / 1000)] = count
    return tuple(found)


def of_models(**counts: tuple[int, int, int, float]) -> dict[str, ModelSelectionStatistics]:
    return {name: ModelSelectionStatistics(*each) for name, each in counts.items()}


def test_a_model_whose_queries_all_fail_answers_none() -> None:
    # Two of them were asked just now, and will fail in the next step.
    of_model = of_models(m=(12, 10, 0, 0.0))
    failed = reading(12, errors={"model_error": 10}, latency=latency(ms10=10), models=of_model)
    assert application_values(failed, 2.0)["answer_share.m"] == 0.0
    # Queries that a worker refuses unread have no latency, and take nothing from those that were answered.
    answered = of_models(m=(10, 0, 0, 0.0))
    refused = reading(40, errors={"overloaded": 30}, latency=latency(ms10=10), models=answered)
    assert application_values(refused, 2.0)["answer_share.m"] == 1.0
    # A threshold of confidence asked for these defaults: the model had outputs.
    unsure = reading(10, defaults={"low_confidence": 10}, latency=latency(ms10=10), models=answered)
    assert application_values(unsure, 2.0)["answer_share.m"] == 1.0


def test_an_application_that_answered() -> None:
    one = reading(
        40,
        late=2,
        defaults={"timeout": 4, "no_replica": 1},
        errors={"model_error": 5},
        latency=latency(ms10=25, ms20=25),
        models=of_models(a=(40, 10, 20, 5.0), b=(10, 0, 0, 0.0), s=(0, 0, 4, 4.0)),
        confidence=HistogramData((0, 0, 0, 0, 2, 0, 0, 0, 0, 6, 0), 6.0),
        feedback=22,
        answers_scored=20,
        answer_loss=8.0,
    )
    values = application_values(one, 2.0)
    confidence = {name: value for name, value in values.items() if name.startswith("confidence_share.")}
    assert {name: value for name, value in confidence.items() if value} == {
        "confidence_share.0.5": 0.25,
        "confidence_share.1": 0.75,
    }
    assert {name: value for name, value in values.items() if name not in confidence} == pytest.approx(
        {
            "rate": 20.0,
            "feedback_rate": 11.0,
            "p50_ms": 10.0,
            "p99_ms": 19.9,
            "late_share": 0.04,
            "default_share": 0.1,
            "default_share.timeout": 0.08,
            "default_share.no_replica": 0.02,
            "error_share": 0.1,
            "error_share.model_error": 0.1,
            "answer_share.a": 0.6,
            "answer_share.b": 0.2,
            "answer_share.s": 0.0,
            "mean_loss.a": 0.25,
            "mean_loss.s": 1.0,
            "mean_loss": 0.4,
            "confidence": 0.75,
        }
    )


def test_what_has_no_value_is_left_out() -> None:
    assert application_values(reading(3, latency=()), 1.5) == {"rate": 2.0, "feedback_rate": 0.0}


def test_shares_stay_shares_if_query_and_answer_fall_in_different_steps() -> None:
    models = of_models(a=(9, 0, 0, 0.0), b=(0, 3, 0, 0.0))
    values = application_values(reading(0, latency=latency(ms10=2), models=models), 2.0)
    assert (values["answer_share.a"], values["answer_share.b"]) == (1.0, 0.0)
    values = application_values(reading(0, latency=latency(ms10=2), models=models, defaults={"timeout": 3}), 2.0)
    assert (values["default_share"], values["default_share.timeout"]) == (1.0, 1.0)


def test_a_version_at_work() -> None:
    one = version_reading(sent=100, waits=histogram(4, 0.02), times=histogram(5, 0.1), cache=(30, 60, 10))
    assert version_values(one, 2.0, 32) == pytest.approx(
        {
            "rate": 50.0,
            "batch_size": 25.0,
            "batch_limit": 32,
            "queue_wait_ms": 5.0,
            "batch_latency_ms": 20.0,
            "cache_hit_share": 0.4,
        }
    )


def test_an_idle_version() -> None:
    assert version_values(None, 2.0, 0) == {"rate": 0.0}
    assert version_values(version_reading(), 2.0, 3) == {
        "rate": 0.0,
        "batch_limit": 3,
    }
    assert set(OF_MODELS) >= {"rate", "batch_limit"}
