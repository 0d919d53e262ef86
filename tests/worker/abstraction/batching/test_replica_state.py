"""Conclusions from the facts of one replica."""

import pytest

from clipper.worker.abstraction.batching.aimd_damped import DampedAimd
from clipper.worker.abstraction.batching.flow import Batch
from clipper.worker.abstraction.batching.replica_state import (
    AHEAD_BELOW_S,
    ANSWER_GAIN,
    MAX_ANSWER_SHARE,
    SHORT_S,
    ReplicaState,
)
from clipper.worker.abstraction.batching.service_times import MAX_GROWTH, ServiceTimes
from tests.worker.abstraction.batching.scheduling import LONG, SHORT, Speed, teach
from tests.works import make_work


def known(speed: Speed, max_batch: int = 1000) -> ReplicaState:
    replica = ReplicaState("0", max_batch, None, ServiceTimes())
    teach(replica, speed)
    return replica


def run(replica: ReplicaState, rows: int, sent_s: float = 0.0, *, is_short: bool = False) -> None:
    """It has a batch of so many rows in flight."""
    number = len(replica.in_flight) + 1
    works = [make_work(b"")] * rows
    expected_s = replica.times.mean_s(rows)
    replica.in_flight[number] = Batch(number, works, sent_s, expected_s, 0, was_full=False, is_short=is_short)


def test_of_an_unknown_one_one_row_is_asked_and_nothing_expected() -> None:
    replica = ReplicaState("0", 1000, None, ServiceTimes())
    assert (replica.limit, replica.batch_limit(1.0), replica.rows_per_s(1.0)) == (1, 1, 0.0)


def test_the_limit_is_what_it_takes_or_some_times_the_largest_seen() -> None:
    assert known(Speed(limit=10)).limit == 10 * MAX_GROWTH
    assert known(Speed(limit=10), max_batch=16).limit == 16


def test_what_it_answers_a_second_is_in_batches_of_half_the_slo() -> None:
    replica = known(Speed(0.01, 0.001, 1000))
    assert replica.batch_limit(0.1) == pytest.approx(40, abs=1)
    assert replica.rows_per_s(0.1) == pytest.approx(40 / 0.05, rel=0.03)
    assert known(Speed(2.0, 0.1, 8)).batch_limit(0.1) == 1


def test_a_controller_sets_the_limit() -> None:
    replica = known(LONG)
    replica.controller = DampedAimd(0.006, 64)
    replica.controller.limit = 7
    assert (replica.limit, replica.batch_limit(0.1)) == (7, 7)


@pytest.mark.parametrize(
    ("speed", "elapsed_s", "may"),
    [
        (SHORT, 0.0, True),
        (SHORT, 2 * SHORT_S, False),  # overdue: it hangs
        (Speed(0.004, 0.0), 0.0, False),
        (Speed(0.004, 0.0), 0.0035, False),
        (Speed(0.004, 0.0), 0.0038, True),  # nearly over
        (Speed(0.004, 0.0), 0.0045, False),
        (Speed(AHEAD_BELOW_S + 0.001, 0.0), AHEAD_BELOW_S + 0.0005, False),  # so long that the round trip is no loss
    ],
)
def test_a_second_batch_goes_behind_one_that_is_nearly_over(speed: Speed, elapsed_s: float, may: bool) -> None:
    replica = known(speed)
    run(replica, 2, sent_s=5.0)
    assert replica.may_send_ahead(5.0 + elapsed_s, will_ask_again=False) is may


def test_it_is_busy_with_the_rest_of_what_runs_and_all_of_what_is_behind() -> None:
    replica = known(Speed(0.004, 0.0))
    assert replica.rest_s(5.0) == 0.0
    run(replica, 2, sent_s=5.0)
    run(replica, 2, sent_s=5.003)
    assert replica.rest_s(5.003) == pytest.approx(0.001 + 0.004)
    assert replica.rest_s(9.0) == 0.0


def test_behind_a_batch_of_returning_clients_goes_a_round_trips_cover() -> None:
    for is_short, may in ((True, True), (False, False)):
        replica = known(SHORT)
        run(replica, 2, sent_s=5.0, is_short=is_short)
        assert replica.may_send_ahead(5.0, will_ask_again=True) is may


def test_a_batch_behind_another_begins_when_that_one_is_done() -> None:
    replica = known(Speed(0.004, 0.0))
    run(replica, 2, sent_s=5.0)
    replica.last_done_s = 5.003
    assert replica.rest_s(5.004) == pytest.approx(0.003)
    assert not replica.may_send_ahead(5.004, will_ask_again=False)
    assert replica.may_send_ahead(5.0068, will_ask_again=False)


def test_a_batch_is_overdue_once_it_takes_longer_than_nine_of_ten() -> None:
    replica = known(Speed(0.004, 0.0))
    for _ in range(8):
        for factor in (0.6, 0.8, 1.0, 1.2, 1.4):
            replica.times.record(2, 0, 0.004 * factor)
    run(replica, 2, sent_s=5.0)
    assert replica.may_send_ahead(5.0 + 0.004 * 1.3, will_ask_again=False)
    assert not replica.may_send_ahead(5.0 + 0.004 * 1.5, will_ask_again=False)


def test_one_is_overdue_only_beyond_what_nine_of_ten_take() -> None:
    replica = known(Speed(0.004, 0.0))
    run(replica, 2, sent_s=5.0)
    replica.times._quantiles[2] = (0.7, 0.8, 1.0, 1.1, 1.2)
    assert replica.may_send_ahead(5.0046, will_ask_again=False)
    assert not replica.may_send_ahead(5.0049, will_ask_again=False)


def test_the_time_until_answers_have_left_is_learned_within_a_bound() -> None:
    replica = known(SHORT)
    assert replica.margin_s(0.02) == 0.0
    replica.last_done_s = 1.0
    replica.answered(1.001)
    assert replica.margin_s(0.02) == pytest.approx(0.001 * ANSWER_GAIN)
    for _ in range(100):
        replica.answered(1.001)
    assert replica.margin_s(0.02) == pytest.approx(0.001, rel=1e-3)
    assert replica.margin_s(0.005) == pytest.approx(MAX_ANSWER_SHARE * 0.005)
