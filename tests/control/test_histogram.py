from hypothesis import given
from hypothesis import strategies as st

from clipper.control.histogram import Histogram

BOUNDS = (1, 2, 4)


def test_a_bound_counts_what_is_equal_to_it() -> None:
    histogram = Histogram(BOUNDS)
    for value in (0, 1, 1.5, 2, 3, 4, 4.5, 100):
        histogram.record(value)
    assert histogram.data().counts == (2, 2, 2, 2)
    assert histogram.data().sum == 116.0


@given(st.lists(st.floats(0, 10)))
def test_each_value_is_counted_once(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.record(value)
    data = histogram.data()
    assert sum(data.counts) == len(values)
    for index, bound in enumerate(BOUNDS):
        assert sum(data.counts[: index + 1]) == sum(value <= bound for value in values)


def test_what_was_read_does_not_change() -> None:
    histogram = Histogram(BOUNDS)
    before = histogram.data()
    histogram.record(1)
    assert before.counts == (0, 0, 0, 0)
