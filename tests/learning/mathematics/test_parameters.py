"""A parameter that a user may set is checked against its range, and the message says it."""

import math

import pytest

from clipper.errors import InvalidArgument
from clipper.learning.mathematics.parameters import MAX_NUMBER, check_choice, check_number


def refusal(value: object, low: float, high: float = MAX_NUMBER, *, above: bool = False) -> str:
    with pytest.raises(InvalidArgument) as refused:
        check_number("rate", value, low, high, above=above)
    return str(refused.value)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, 1.0])
def test_a_number_in_its_range_is_taken_with_both_ends(value: float) -> None:
    check_number("rate", value, 0.0, 1.0)


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, math.inf, -math.inf, math.nan, True, False, "0.5", None, [0.5]])
def test_what_is_not_a_number_of_the_range_is_refused(value: object) -> None:
    assert refusal(value, 0.0, 1.0) == f"rate is {value!r}: expected a number at least 0 and at most 1"


def test_a_range_may_leave_its_lower_end_out() -> None:
    for value in (1e-9, 1.0):
        check_number("rate", value, 0.0, 1.0, above=True)
    for value in (0, 1.5):
        assert refusal(value, 0.0, 1.0, above=True) == f"rate is {value}: expected a number above 0 and at most 1"


def test_the_end_that_all_ranges_have_is_named_to_who_comes_to_it() -> None:
    check_number("rate", MAX_NUMBER, 0.0)
    for value in (-1, "many"):
        assert refusal(value, 0.0) == f"rate is {value!r}: expected a number at least 0"
    for value in (2 * MAX_NUMBER, math.inf):
        assert refusal(value, 0.0) == f"rate is {value!r}: expected a number at least 0 and at most 1e+300"


def test_a_choice_is_one_of_the_given_ones_and_a_long_value_is_cut() -> None:
    check_choice("weighting", "equal", ["equal", "learned"])
    with pytest.raises(InvalidArgument, match="weighting is 'best': expected one of equal, learned"):
        check_choice("weighting", "best", ["equal", "learned"])
    with pytest.raises(InvalidArgument) as refused:
        check_choice("weighting", "x" * 1000, ["equal"])
    assert len(str(refused.value)) < 200
    assert len(refusal("x" * 1000, 0.0)) < 200
