"""Which applications and versions are in trouble."""

import pytest

from clipper.control.statistics import ApplicationStatistics, VersionStatistics
from clipper.supervisor.history.recent import BEGINS_COUNT, BEGINS_SHARE, ENDS_SHARE, Health, Recent, Share, is_on
from clipper.values.types import ModelId
from tests.supervisor.history.readings import reading, version_reading

FAILED = {"model_error": 10}
SAID = {"model_error": "ValueError:\n  boom", "timeout": "m:1 did not answer within the SLO"}
NOTHING = Share(0, 0)


@pytest.mark.parametrize(
    ("was_on", "minute", "soon", "expected"),
    [
        (False, Share(BEGINS_COUNT, BEGINS_COUNT), Share(BEGINS_COUNT, BEGINS_COUNT), True),
        (False, Share(BEGINS_COUNT - 1, BEGINS_COUNT - 1), Share(BEGINS_COUNT - 1, BEGINS_COUNT - 1), False),
        (False, Share(round(1000 * BEGINS_SHARE), 1000), Share(5, 100), True),
        (False, Share(round(1000 * BEGINS_SHARE) - 1, 1000), Share(5, 100), False),
        # It was bad, and is good by now: nothing begins.
        (False, Share(50, 100), Share(0, 30), False),
        (False, Share(50, 100), NOTHING, False),
        # Between the two bounds it stays what it was.
        (True, Share(round(1000 * ENDS_SHARE), 1000), Share(5, 100), True),
        (True, Share(round(1000 * ENDS_SHARE) - 1, 1000), Share(5, 100), False),
        # It ends soon after its cause, but not because nobody asks.
        (True, Share(50, 100), Share(0, 30), False),
        (True, Share(50, 100), NOTHING, True),
        (True, NOTHING, NOTHING, False),
        (True, Share(0, 100), Share(0, 30), False),
    ],
)
def test_when_a_trouble_is_there(was_on: bool, minute: Share, soon: Share, expected: bool) -> None:
    assert is_on(was_on, minute, soon) == expected


def problems(*steps: ApplicationStatistics, versions: dict[ModelId, VersionStatistics] | None = None) -> list[str]:
    recent, health = Recent(0.0), Health()
    for step, counted in enumerate(steps, 1):
        recent.add(2.0 * step, {"app": counted}, versions or {})
        health.look(recent)
    return health.problems()


def test_failing_queries_are_told_with_reasons_and_the_last_explanation() -> None:
    assert problems(reading(10, errors={"model_error": 6, "timeout": 4}, late=4, explanations=SAID)) == [
        "application 'app': 10 of 10 queries in the last minute got an error (6 model_error, 4 timeout); "
        "the last model_error: ValueError: boom"
    ]
    assert problems(reading(10, defaults={"timeout": 7, "low_confidence": 3}, late=7, explanations=SAID)) == [
        "application 'app': 7 of 10 queries in the last minute got its default (7 timeout); "
        "the last timeout: m:1 did not answer within the SLO"
    ]
    mixed = problems(reading(10, errors=FAILED), reading(10, defaults={"timeout": 10}))
    assert "20 of 20 queries in the last minute got an error or its default (" in mixed[0]


def test_answers_may_be_to_queries_of_before_the_minute() -> None:
    """Of an SLO of many seconds."""
    assert "10 of 10 queries" in problems(reading(4, answers=10, errors=FAILED))[0]


def test_what_was_asked_for_and_what_is_rare_is_no_trouble() -> None:
    assert problems(reading(100, defaults={"low_confidence": 100})) == []
    assert problems(reading(100, errors={"timeout": 2})) == []
    assert problems(reading(2, errors={"timeout": 2})) == []


def test_late_answers_are_told_apart_from_time_outs() -> None:
    assert problems(reading(100, late=12)) == [
        "application 'app': 12 of 100 answers in the last minute were later than its SLO"
    ]
    assert len(problems(reading(100, late=12, errors={"timeout": 12}, explanations=SAID))) == 1


def test_a_version_that_fails_is_told_also_where_other_models_answer() -> None:
    """An ensemble goes on without it, and a shadow's failures are nobody's errors."""
    failing = {
        ModelId("b", "2"): version_reading(5, 5, "KeyError: 'age'"),
        ModelId("c", "1"): version_reading(100, 2, "once"),
    }
    assert problems(reading(10), versions=failing) == [
        "model b:2 failed on 5 of 10 inputs in the last minute; its last error: KeyError: 'age'"
    ]


def test_those_of_applications_come_first_in_the_order_of_their_names() -> None:
    recent, health = Recent(0.0), Health()
    bad = reading(10, errors=FAILED)
    recent.add(2.0, {"b": bad, "a": bad}, {ModelId("a", "1"): version_reading(0, 10, "boom")})
    health.look(recent)
    assert [one.partition(":")[0].partition(" in ")[0] for one in health.problems()][:2] == [
        "application 'a'",
        "application 'b'",
    ]
    assert health.problems()[2].startswith("model a:1 failed")


def test_a_trouble_ends_soon_after_its_cause_or_with_its_application() -> None:
    recent, health = Recent(0.0), Health()
    recent.add(2.0, {"app": reading(10, errors=FAILED)}, {})
    health.look(recent)
    assert len(health.problems()) == 1
    # Nobody asks: it is not known to be over, until the minute is.
    recent.add(40.0, {}, {})
    health.look(recent)
    assert len(health.problems()) == 1
    recent.add(42.0, {"app": reading(5)}, {})
    health.look(recent)
    assert health.problems() == []
    recent.add(44.0, {"app": reading(10, errors=FAILED)}, {})
    health.look(recent)
    assert len(health.problems()) == 1
    recent.applications.forget("app")
    health.look(recent)
    assert health.problems() == []


@pytest.mark.parametrize(
    ("sent", "given_up", "batch_limit", "is_told"),
    [(0, BEGINS_COUNT, 8, True), (0, BEGINS_COUNT - 1, 8, False), (1, 100, 8, False), (0, 100, 0, False)],
)
def test_a_version_that_is_asked_and_never_sent_anything_is_told(
    sent: int, given_up: int, batch_limit: int, is_told: bool
) -> None:
    """Not one without a replica, of which another line tells."""
    found = version_reading(0, 0, sent=sent, given_up=given_up, batch_limit=batch_limit)
    told = f"model m:1 was asked for {given_up} inputs in the last minute and sent none"
    assert [line.startswith(told) for line in problems(reading(0), versions={ModelId("m", "1"): found})] == (
        [True] * is_told
    )
