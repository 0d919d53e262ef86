"""An accelerator that several versions share: whose turn it is, whose its time was, and what is ahead of a query."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.worker.abstraction.batching.device import HANGS_S, Device
from clipper.worker.abstraction.batching.flow import Flow
from clipper.worker.abstraction.batching.in_time import InTime
from clipper.worker.abstraction.batching.scheduler import Scheduler
from tests.worker.abstraction.batching.scheduling import SHORT, Speed, finish_all, push, sizes, teach

TEN_MS, ONE_MS = Speed(0.0, 0.01, 64), Speed(0.0, 0.001, 64)


def sharing(*speeds: Speed, device: Device | None = None) -> tuple[list[Scheduler], list[str]]:
    """Return a version for each speed, all on one device, and where the numbers of those go that get a turn."""
    device, turns, made = device or Device("GPU 0"), list[str](), []
    for number, speed in enumerate(speeds):
        scheduler = Scheduler(1000, 1 << 20, 0.0, Flow())
        name = str(number)
        replica = scheduler.add_replica(
            name, speed.limit, is_fixed=True, devices=(device,), await_turn=lambda name=name: turns.append(name)
        )
        teach(replica, speed)
        made.append(scheduler)
    return made, turns


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5)), min_size=1, max_size=12))
def test_each_moment_is_counted_once(flights: list[tuple[float, float]]) -> None:
    # However batches overlap, the sum of what they took is how long any was in flight.
    device = Device("GPU 0")
    (scheduler,), _ = sharing(TEN_MS, device=device)
    in_flight = scheduler.replicas["0"].in_flight
    ends = sorted((sent_s + took_s, sent_s) for sent_s, took_s in flights)
    # One batch that is sent first and never ends: nothing may be dropped.
    push(scheduler, 1)
    scheduler.decide(0.0)
    assert in_flight
    taken = [device.service_s(sent_s, end_s) for end_s, sent_s in ends]
    busy_s, until_s = 0.0, 0.0
    for sent_s, end_s in sorted((sent_s, end_s) for end_s, sent_s in ends):
        busy_s += max(0.0, end_s - max(sent_s, until_s))
        until_s = max(until_s, end_s)
    assert sum(taken) == pytest.approx(busy_s, abs=1e-9) and min(taken) >= -1e-9


def test_what_others_take_is_not_learned_as_a_models_own_time() -> None:
    (slow, quick), _ = sharing(TEN_MS, ONE_MS)
    now_s = 0.0
    for _ in range(40):
        push(slow, 1, now_s)
        slow.decide(now_s)
        push(quick, 1, now_s + 0.001)
        # It computes one batch after the other: the quick one waits for nine milliseconds.
        assert sizes(quick.decide(now_s + 0.001)) == [("1", 1)]
        finish_all(slow, now_s + 0.01)
        finish_all(quick, now_s + 0.011)
        now_s += 0.02
    assert quick.replicas["1"].times.mean_s(1) == pytest.approx(0.001, rel=0.01)
    assert slow.replicas["0"].times.mean_s(1) == pytest.approx(0.01, rel=0.01)


def test_a_query_has_all_that_waits_for_the_device_ahead() -> None:
    (slow, quick), _ = sharing(TEN_MS, ONE_MS)
    alone = InTime(quick).outlook(0.0, 0.05)
    assert alone[0] == 1.0
    push(slow, 4, slo_s=0.045)
    # They wait, and then they compute: 40 ms in both cases.
    assert InTime(quick).outlook(0.0, 0.05)[1] == pytest.approx(alone[1] - 40, abs=1)
    slow.decide(0.0)
    assert InTime(quick).outlook(0.0, 0.05)[1] == pytest.approx(alone[1] - 40, abs=1)
    assert InTime(quick).outlook(0.0, 0.03)[0] == 0.0
    push(slow, 9, slo_s=1.0)
    assert InTime(quick).outlook(0.0, 0.05)[0] == 1.0, "what is due later is behind it"


def test_what_is_in_flight_or_waits_fills_a_device() -> None:
    device = Device("GPU 0")
    (slow, quick), _ = sharing(TEN_MS, ONE_MS, device=device)
    assert device.filled(0.0, 0.1) == 0.0
    push(slow, 2, slo_s=0.05)
    push(quick, 10, slo_s=0.05)
    assert device.filled(0.0, 0.1) == pytest.approx(0.3, abs=0.001)
    slow.decide(0.0)
    assert device.filled(0.0, 0.1) == pytest.approx(0.3, abs=0.001), "in flight it takes as long"
    assert device.filled(0.01, 0.11) == pytest.approx(0.2, abs=0.001)
    assert device.filled(0.0, 0.015) == 1.0
    push(quick, 50, slo_s=1.0)
    assert device.filled(0.0, 0.1) == pytest.approx(0.3, abs=0.001), "what is due later is behind it"


def test_the_first_due_sends_and_two_batches_are_in_flight_at_most() -> None:
    (first, second, third), turns = sharing(ONE_MS, ONE_MS, ONE_MS)
    push(first, 1, slo_s=0.5)
    push(second, 1, slo_s=0.4)
    assert not first.decide(0.0).batches, "another row is due sooner"
    assert sizes(second.decide(0.0)) == [("1", 1)] and turns == ["0"], "and is told once that one has left"
    assert sizes(first.decide(0.0)) == [("0", 1)]
    push(third, 1, slo_s=0.1)
    refused = third.decide(0.0)
    assert not refused.batches and refused.wake_s is not None, "it does not wait beyond its deadline"
    del turns[:]
    finish_all(second, 0.001)
    assert turns == ["2"]
    assert sizes(third.decide(0.001)) == [("2", 1)]


def test_batch_that_waits_for_an_ask_leaves_the_device_to_others() -> None:
    (first, second, third), turns = sharing(ONE_MS, ONE_MS, ONE_MS)
    for each in (first, second, third):
        push(each, 1, slo_s=0.5)
    ((state, batch),) = first.decide(0.0).batches
    assert second.decide(0.0).batches and not third.decide(0.0).batches
    del turns[:]
    batch.asks += 1
    state.release_devices()
    assert turns == ["2"] and sizes(third.decide(0.0)) == [("2", 1)]
    push(second, 1, slo_s=0.5)
    batch.asks -= 1
    assert not second.decide(0.0).batches


def test_who_cannot_send_holds_nobody_up() -> None:
    (first, second), turns = sharing(ONE_MS, ONE_MS)
    push(first, 1, slo_s=0.5)
    push(second, 1, slo_s=0.4)
    second.drain_replica("1")
    assert sizes(first.decide(0.0)) == [("0", 1)]
    second.resume_replica("1")
    push(first, 1, slo_s=0.5)
    finish_all(first, 0.01)
    assert not first.decide(0.01).batches
    second.lose_replica("1")
    assert turns == ["0"]
    assert sizes(first.decide(0.01)) == [("0", 1)]


def test_replicas_of_one_version_have_a_device_together() -> None:
    device, scheduler = Device("GPU 0"), Scheduler(1000, 1 << 20, 0.0, Flow())
    scheduler.set_slo(0.2)
    for name in "ab":
        teach(scheduler.add_replica(name, 8, is_fixed=True, devices=(device,)), TEN_MS)
    in_time = InTime(scheduler)
    push(scheduler, 9, slo_s=0.2)
    assert in_time.outlook(0.0, 0.2)[0] == 1.0
    push(scheduler, 14, slo_s=0.2)
    assert in_time.outlook(0.0, 0.2)[0] == 0.0
    assert in_time.rows_per_s == pytest.approx(100, rel=0.01) and not device.is_shared


def test_what_waits_for_the_device_is_late_at_its_deadline() -> None:
    (first, second, third), _ = sharing(TEN_MS, TEN_MS, TEN_MS)
    for scheduler in (first, second):
        push(scheduler, 1)
        scheduler.decide(0.0)
    (work,) = push(third, 1, slo_s=0.1)
    assert third.decide(0.0).wake_s == 0.1
    assert third.decide(0.1).late == [work]


def hung(*speeds: Speed) -> list[Scheduler]:
    """Return versions of which all but the last have sent a batch at 0 s that does not come back."""
    made, _ = sharing(*speeds)
    for scheduler in made[:-1]:
        push(scheduler, 1, slo_s=10.0)
        assert scheduler.decide(0.0).batches
    return made


def test_batches_that_hang_hold_no_other_version_up() -> None:
    """Two of them stopped all other versions on the device until their containers were ended."""
    *_, third = hung(TEN_MS, TEN_MS, ONE_MS)
    push(third, 1, 0.2, slo_s=0.1)
    refused = third.decide(0.2)
    assert not refused.batches and refused.wake_s == pytest.approx(0.3), "they may only be late"
    for number in range(50):
        now_s = 0.301 + 0.02 * number
        push(third, 1, now_s, slo_s=0.05)
        assert sizes(third.decide(now_s)) == [("2", 1)], now_s
        finish_all(third, now_s + 0.001)


def test_a_query_that_waits_behind_a_batch_that_hangs_is_sent_soon() -> None:
    *_, third = hung(TEN_MS, TEN_MS, ONE_MS)
    push(third, 1, 0.01, slo_s=10.0)
    decided, now_s = third.decide(0.01), 0.01
    while not decided.batches:
        assert decided.wake_s is not None and now_s < decided.wake_s
        now_s = decided.wake_s
        decided = third.decide(now_s)
    assert now_s < 2 * HANGS_S + 0.02


def test_one_that_hangs_is_not_in_the_outlook_of_others() -> None:
    first, second = hung(TEN_MS, ONE_MS)
    assert InTime(second).outlook(0.2, 0.25)[0] == 0.0
    assert InTime(second).outlook(1.0, 1.05)[0] == 1.0
    assert InTime(first).outlook(1.0, 1.05)[0] == 0.0
    push(first, 1, 1.0, slo_s=0.1)
    assert not first.decide(1.0).batches


def test_a_slow_batch_does_not_hang() -> None:
    *_, third = hung(Speed(0.0, 1.0, 64), Speed(0.0, 1.0, 64), ONE_MS)
    push(third, 1, 3.0, slo_s=0.1)
    assert not third.decide(3.0).batches, "they are to take two seconds, and are late"


def test_a_batch_leaves_time_for_the_first_row_of_another_version() -> None:
    (slow, quick), _ = sharing(TEN_MS, TEN_MS)
    push(slow, 1, slo_s=0.06)
    push(quick, 1, slo_s=0.065)
    push(slow, 9, slo_s=0.5)
    # The other one's row is due in 65 ms, and takes ten.
    assert sizes(slow.decide(0.0)) == [("0", 5)]


@pytest.mark.parametrize(("takes", "due_s", "leaves"), [(TEN_MS, 0.025, 0), (ONE_MS, 0.025, 1), (TEN_MS, 0.035, 1)])
def test_a_row_due_later_waits_if_it_would_make_another_late(takes: Speed, due_s: float, leaves: int) -> None:
    (slow, other), turns = sharing(TEN_MS, takes)
    push(slow, 1, slo_s=0.02)
    slow.decide(0.0)
    # It cannot be sent yet, and with ten milliseconds in flight and ten of its own there is time left for less.
    push(slow, 1, slo_s=due_s)
    push(other, 1, slo_s=0.5)
    assert len(other.decide(0.0).batches) == leaves
    finish_all(slow, 0.01)
    assert ("1" in turns) is not bool(leaves), "it gets its turn"
    assert sizes(slow.decide(0.01)) == [("0", 1)]


def test_a_row_that_is_late_in_any_case_holds_nobody_up() -> None:
    (slow, other), _ = sharing(TEN_MS, TEN_MS)
    push(slow, 1, slo_s=0.02)
    slow.decide(0.0)
    push(slow, 1, slo_s=0.019)
    push(other, 1, slo_s=0.5)
    assert len(other.decide(0.0).batches) == 1


def test_a_model_by_itself_has_its_device_for_itself() -> None:
    (one,), _ = sharing(SHORT)
    push(one, 3)
    assert sizes(one.decide(0.0)) == [("0", 3)]
    push(one, 2)
    assert sizes(one.decide(0.0001)) == [("0", 2)], "a second batch hides the round trip, as without a device"


def batches_of_hopeless(beside: Speed) -> int:
    """How many batches a model that takes two seconds a row is sent in a thousand seconds of an SLO of 0.1 s."""
    (slow, _), _ = sharing(Speed(2.0, 0.0, 64), beside)
    sent, now_s = 0, 0.0
    for _ in range(400):
        push(slow, 1, now_s, slo_s=0.1)
        if slow.decide(now_s).batches:
            sent += 1
            finish_all(slow, now_s + 2.0)
        now_s += 2.5
    return sent


def test_a_hopeless_model_takes_a_hundredth_of_a_device() -> None:
    assert 1 <= batches_of_hopeless(ONE_MS) <= 6
    # Beside others that are as slow, it has nothing to lose: a machine without processors makes all of them slow.
    assert batches_of_hopeless(Speed(3.0, 0.0, 64)) == 400
    (slow, _), _ = sharing(Speed(2.0, 0.0, 64), ONE_MS)
    assert not InTime(slow).may_try(10.0) and InTime(slow).may_try(200.1)
