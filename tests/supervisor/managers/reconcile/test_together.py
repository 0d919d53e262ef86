"""Scaling a pipeline's steps together: what is coming to each, and what each gets of a total."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.supervisor.managers.reconcile.autoscale import Autoscaler, Load
from clipper.supervisor.managers.reconcile.together import Coming, Envelope, within_total
from tests.example_counts import share_of

LOOK_S = 0.5


def rates(arrivals: list[int]) -> list[float]:
    envelope = Envelope()
    return [envelope.look(LOOK_S * (1 + place), LOOK_S, each) for place, each in enumerate(arrivals)]


def test_step_shows_within_a_second_and_is_remembered() -> None:
    found = rates([10] * 40 + [100] * 4 + [10] * 100)
    assert found[39] == pytest.approx(20, rel=0.12)
    assert found[41] >= 160.0
    # Thirty-two seconds later the burst is over.
    assert found[-1] == pytest.approx(20, rel=0.12)


def test_chance_is_no_load() -> None:
    chance = random.Random(3)
    arrivals = [sum(chance.random() < 0.02 for _ in range(1000)) for _ in range(400)]
    assert max(rates(arrivals)[10:]) <= 1.3 * 40


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=100))
@settings(max_examples=share_of(100), deadline=None)
def test_envelope_is_no_more_than_the_busiest_second(arrivals: list[int]) -> None:
    busiest = max(arrivals)
    assert all(0.0 <= each <= busiest / LOOK_S for each in rates(arrivals))


def test_each_version_is_told_of_its_rows_before_they_come() -> None:
    coming = Coming()
    for place in range(1, 20):
        found = coming.look(LOOK_S * place, LOOK_S, 50, 0, {"detector": 50.0, "classifier": 200.0})
    assert found["classifier"] == pytest.approx(4 * found["detector"])
    # The first step is full: fewer reach the second, which is told of all nevertheless.
    for place in range(20, 30):
        found = coming.look(LOOK_S * place, LOOK_S, 500, 300, {"detector": 200.0, "classifier": 300.0})
    assert found["detector"] == pytest.approx(1000.0, rel=0.1)
    assert found["classifier"] == pytest.approx(4 * found["detector"])
    # A version that took another's place is learned anew.
    assert "classifier" not in coming.look(15.0, LOOK_S, 500, 300, {"detector": 200.0, "newer": 1.0})


def load(at_s: float, arrivals: int, coming_per_s: float) -> Load:
    return Load(at_s, LOOK_S, arrivals, 0, 0.0, 0.01, 0.2, 100.0, 1, 5.0, coming_per_s)


def test_later_step_gets_its_replicas_before_its_own_queue_grows() -> None:
    alone, told = Autoscaler(1, 8, 1, 0.0), Autoscaler(1, 8, 1, 0.0)
    for place in range(1, 20):
        alone.plan(load(LOOK_S * place, 25, 0.0))
        told.plan(load(LOOK_S * place, 25, 50.0))
    assert (alone.target.replicas, told.target.replicas) == (1, 1)
    alone.plan(load(10.0, 25, 0.0))
    told.plan(load(10.0, 25, 200.0))
    assert (alone.target.replicas, told.target.replicas) == (1, 3)


def test_total_goes_to_the_step_that_limits() -> None:
    assert within_total({"a": 1, "b": 1}, {"a": 2, "b": 8}, 20) == {"a": 2, "b": 8}
    assert within_total({"a": 1, "b": 1}, {"a": 2, "b": 8}, 5) == {"a": 1, "b": 4}
    assert within_total({"a": 3, "b": 4}, {"a": 1, "b": 9}, 7) == {"a": 1, "b": 6}
    # A total that was lowered takes from the one that has most of what it wants.
    assert within_total({"a": 4, "b": 4}, {"a": 4, "b": 8}, 6) == {"a": 2, "b": 4}


@given(
    st.dictionaries(st.integers(), st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6),
    st.integers(0, 40),
)
@settings(max_examples=share_of(200), deadline=None)
def test_total_is_kept_and_used(drawn: dict[int, tuple[int, int]], total: int) -> None:
    now, wanted = ({key: pair[place] for key, pair in drawn.items()} for place in (0, 1))
    got = within_total(now, wanted, total)
    assert all(0 <= got[key] <= wanted[key] for key in wanted)
    assert sum(got.values()) <= max(total, len(got))
    assert sum(got.values()) >= min(total, sum(wanted.values()))


def test_rise_that_has_no_room_is_taken_back() -> None:
    scaler = Autoscaler(1, 8, 1, 0.0)
    for place in range(1, 10):
        scaler.plan(load(LOOK_S * place, 150, 300.0))
    assert scaler.target.replicas > 1
    assert scaler.hold_at(1, "no room").replicas == 1
    assert scaler.plan(load(5.5, 150, 300.0)).replicas > 1
