"""The ring of series, against a list of everything that was written."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.supervisor.history.ring import IDLE_STEPS, SeriesRing, Subject

A, B, C = (Subject("application", name) for name in "abc")
finite = st.floats(-1e6, 1e6, width=32)


def read(ring: SeriesRing, subject: Subject, name: str, points: int) -> list[float]:
    return ring.read(subject, [name], points)[name]


def same(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(
        (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-5)
        for left, right in zip(one, other)
    )


@given(
    points=st.integers(1, 7),
    steps=st.lists(st.tuples(st.integers(1, 12), st.one_of(st.none(), finite)), min_size=1, max_size=40),
    asked=st.integers(1, 10),
)
def test_the_last_points_are_what_was_written_and_gaps(
    points: int, steps: list[tuple[int, float | None]], asked: int
) -> None:
    ring, written, step = SeriesRing(points, 4), dict[int, float](), 5
    first = step + steps[0][0]
    for ahead, value in steps:
        step += ahead
        ring.begin(step)
        if value is not None:
            written[step] = value
            ring.write(A, {"rate": value}, is_busy=True)
    length = min(step - first + 1, points)
    assert ring.length == length
    expected = [written.get(each, math.nan) for each in range(step - min(asked, length) + 1, step + 1)]
    assert same(read(ring, A, "rate", asked), expected)


def test_a_series_that_begins_later_has_gaps_before() -> None:
    ring = SeriesRing(4, 4)
    for step in range(3):
        ring.begin(step)
        ring.write(A, {"rate": 1.0} if step < 2 else {"rate": 1.0, "p99_ms": 20.0}, is_busy=True)
    assert same(read(ring, A, "p99_ms", 10), [math.nan, math.nan, 20.0])
    assert ring.names(A) == ("p99_ms", "rate")
    assert same(read(ring, B, "rate", 10), [math.nan] * 3)
    assert ring.names(B) == ()


@given(st.integers(1, 6), st.integers(0, 8), st.integers(1, 9))
def test_values_of_several_steps_go_back_no_further_than_the_ring(points: int, before: int, steps: int) -> None:
    ring = SeriesRing(points, 4)
    for step in range(before + 1):
        ring.begin(step)
    ring.write(A, {"rate": 3.0}, is_busy=True, steps=steps)
    length = min(before + 1, points)
    assert same(read(ring, A, "rate", 9), [math.nan] * (length - steps) + [3.0] * min(length, steps))


def test_steps_only_go_forward() -> None:
    ring = SeriesRing(4, 4)
    ring.begin(3)
    with pytest.raises(ValueError, match="step 3 does not follow 3"):
        ring.begin(3)


def test_a_row_that_is_used_again_begins_anew() -> None:
    ring = SeriesRing(4, 1)
    ring.begin(0)
    ring.write(A, {"rate": 7.0}, is_busy=True)
    ring.drop(A)
    ring.drop(A)
    ring.begin(1)
    ring.write(B, {"rate": 8.0}, is_busy=True)
    assert same(read(ring, B, "rate", 4), [math.nan, 8.0])
    assert same(read(ring, A, "rate", 4), [math.nan, math.nan])
    ring.keep_only([A])
    assert ring.names(B) == ()


def test_without_room_a_newcomer_is_left_out_and_counted() -> None:
    ring = SeriesRing(4, 2)
    ring.begin(0)
    ring.write(A, {"rate": 1.0, "p99_ms": 2.0}, is_busy=True)
    ring.write(B, {"rate": 3.0}, is_busy=True)
    assert ring.left_out == {B}
    assert ring.names(A) == ("p99_ms", "rate")
    ring.begin(1)
    ring.leave_out(C)
    assert ring.left_out == {B, C}
    ring.drop(A)
    ring.write(B, {"rate": 3.0}, is_busy=True)
    assert ring.left_out == {C}
    ring.keep_only([B])
    assert ring.left_out == frozenset()


def test_a_busy_subject_takes_the_room_of_the_longest_idle_one() -> None:
    ring = SeriesRing(4, 2)
    ring.begin(0)
    ring.write(A, {"rate": 1.0}, is_busy=True)
    ring.begin(1)
    ring.write(B, {"rate": 1.0}, is_busy=True)
    ring.begin(IDLE_STEPS - 1)
    ring.write(C, {"rate": 1.0}, is_busy=True)
    assert ring.left_out == {C}
    ring.begin(IDLE_STEPS)
    ring.write(C, {"rate": 1.0}, is_busy=False)
    assert ring.left_out == {C}  # an idle one takes nobody's room
    ring.begin(IDLE_STEPS + 1)
    ring.write(C, {"rate": 5.0}, is_busy=True)
    assert (ring.names(A), ring.names(B), ring.names(C)) == ((), ("rate",), ("rate",))
    of_a, of_c = ring.read_all([A, C], ["rate", "none"], 2)
    assert same(of_a["rate"], [math.nan] * 2) and same(of_c["rate"], [math.nan, 5.0])
    assert same(of_c["none"], [math.nan] * 2) and ring.read_all([], ["rate"], 2) == []
    assert ring.left_out == {A}  # until it is written again


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from("xyz"), st.booleans()), max_size=60))
def test_no_two_series_share_a_row(writes: list[tuple[Subject, str, bool]]) -> None:
    ring, last = SeriesRing(2, 3), dict[tuple[Subject, str], float]()
    for number, (subject, name, is_drop) in enumerate(writes):
        ring.begin(number * IDLE_STEPS)
        if is_drop:
            ring.drop(subject)
        else:
            ring.write(subject, {name: float(number)}, is_busy=True)
        last = {(one, each): float("nan") for one in (A, B, C) for each in ring.names(one)}
        if (subject, name) in last:
            last[subject, name] = float(number)
        assert len(last) <= 3
        for (one, each), value in last.items():
            assert same(read(ring, one, each, 1), [value])


def test_memory_that_nobody_wrote_is_not_read() -> None:
    ring = SeriesRing(4, 2)
    ring.begin(0)
    ring.write(A, {"rate": 1.0}, is_busy=True)
    ring._values[1].view(np.uint32)[:] = 0x7F800001  # a signalling NaN, whose conversion warns
    with np.errstate(all="raise"):
        of_a, of_b = ring.read_all([A, B], ["rate", "p99_ms"], 4)
    assert same(of_a["rate"], [1.0])
    assert same(of_a["p99_ms"] + of_b["rate"] + of_b["p99_ms"], [math.nan] * 3)


def test_memory_is_touched_only_where_rows_are_used() -> None:
    ring = SeriesRing(1800, 8192)
    assert ring._values.nbytes == 8192 * 1800 * 4
    assert ring._values.dtype == np.float32
