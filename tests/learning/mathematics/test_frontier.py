"""The frontier of cost and quality."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.learning.mathematics.frontier import frontier, reached

POINTS = {"dear": (10.0, 0.98), "poor": (5.0, 0.5), "cheap": (1.0, 0.6), "middling": (2.0, 0.9), "mixed": (6.0, 0.93)}


def test_what_a_mixture_beats_is_not_on_it() -> None:
    # At 6 a mixture of the middling and the dear one has 0.94.
    assert frontier(POINTS) == ["cheap", "middling", "dear"]
    assert frontier({}) == [] and frontier({"m": (0.0, 0.0)}) == ["m"]
    assert frontier({"m": (1.0, 0.5), "n": (1.0, 0.6)}) == ["n"], "of equal cost the better one"


def test_a_cost_buys_a_mixture() -> None:
    assert reached(POINTS, 0.5) is None and reached({}, 1.0) is None
    assert reached(POINTS, 1.0) == 0.6
    assert reached(POINTS, 6.0) == pytest.approx(0.94)
    assert reached(POINTS, 100.0) == 0.98


MODELS = st.dictionaries(st.text(max_size=3), st.tuples(st.floats(0, 1e6), st.floats(0, 1)), min_size=1, max_size=8)


@given(MODELS, st.floats(0, 1))
def test_no_model_and_no_mixture_of_two_is_above_it(points: dict[str, tuple[float, float]], share: float) -> None:
    for cost, quality in points.values():
        for other_cost, other_quality in points.values():
            mixed = share * quality + (1 - share) * other_quality
            possible = reached(points, share * cost + (1 - share) * other_cost)
            assert possible is None or possible >= mixed - 1e-6
    on_it = [points[model] for model in frontier(points)]
    assert on_it == sorted(on_it) and max(quality for _, quality in points.values()) == on_it[-1][1]
