"""The true worth of a confidence: the curve from sums of feedback."""

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize

from clipper.learning.mathematics.calibration import (
    BINS,
    PRIOR_ANSWERS,
    Bin,
    Curve,
    _interpolated,
    bin_of,
    bins,
    expected_error,
    lesson,
)
from clipper.learning.mathematics.ledger import Ledger

confidences = st.floats(0, 1)
some_bins = st.lists(
    st.builds(Bin, st.floats(0.001, 1e12), confidences, confidences), max_size=BINS, unique_by=lambda b: b.confidence
).map(lambda found: sorted(found, key=lambda each: each.confidence))

# How often a model is right, and how sure it says it is, by how easy an input is to it.
Model = Callable[[float], tuple[float, float]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


MODELS: dict[str, Model] = {
    "calibrated": lambda x: (sigmoid(x), sigmoid(x)),
    "too sure": lambda x: (sigmoid(x), sigmoid(3 * x)),
    "not sure enough": lambda x: (sigmoid(x), sigmoid(0.4 * x)),
    "no straight line": lambda x: (0.55 if x < 1.5 else 0.95, sigmoid(x)),
    "a label alone": lambda x: (0.87, 1.0),
}


def feed(ledger: Ledger, model: Model, times: int, random: Random) -> None:
    for _ in range(times):
        right, confidence = model(random.gauss(1.5, 1.5))
        ledger.add(ledger.entries(lesson("m", "probability", confidence, confidence, float(random.random() < right))))


def curve_of(ledger: Ledger) -> Curve:
    return Curve(bins(ledger.totals().numbers, "m", "probability"))


def error(curve: Curve, model: Model) -> float:
    """Mean difference between what is answered and how often such an answer is right."""
    random = Random("fresh")
    cases = [model(random.gauss(1.5, 1.5)) for _ in range(300)]
    return sum(abs(curve.calibrated(confidence) - right) for right, confidence in cases) / len(cases)


@given(confidences)
def test_without_feedback_it_is_the_identity(confidence: float) -> None:
    assert Curve([]).calibrated(confidence) == confidence
    assert Curve([]).least_raw(confidence) == confidence


@given(some_bins, st.lists(confidences, min_size=2, max_size=20))
def test_curve_is_monotone_and_stays_a_probability(found: list[Bin], raw: list[float]) -> None:
    curve = Curve(found)
    answered = [curve.calibrated(each) for each in sorted(raw)]
    assert all(0 <= each <= 1 for each in answered)
    assert all(low <= high + 1e-12 for low, high in pairwise(answered))


@given(some_bins, confidences, confidences)
# Billions of answers make the curve so steep that it is rounded to 1 in its middle.
@example([Bin(1327182731.0, 0.0, 0.0), Bin(1034.0, 0.0625, 0.75), Bin(2.0, 0.5, 0.0)], 0.75, 0.5)
def test_threshold_is_found_back(found: list[Bin], threshold: float, raw: float) -> None:
    curve = Curve(found)
    least = curve.least_raw(threshold)
    if raw >= least + 1e-6:
        assert curve.calibrated(raw) >= threshold - 1e-6
    elif raw < least - 1e-6:
        assert curve.calibrated(raw) <= threshold + 1e-6


def test_a_threshold_that_only_wrong_answers_are_below_is_found_back() -> None:
    curve = Curve([Bin(1000, 0.9, 0.1), Bin(1000, 0.99, 0.3)])
    assert curve.calibrated(0.0) < 0.01
    assert curve.calibrated(curve.least_raw(0.01)) == pytest.approx(0.01)


@given(st.lists(confidences, min_size=2, max_size=20).map(sorted))
def test_bins_are_in_order_of_confidence(raw: list[float]) -> None:
    numbers = [bin_of(each) for each in raw]
    assert numbers == sorted(numbers)
    assert set(numbers) <= set(range(BINS))


def test_what_nearly_all_of_a_model_is_sure_of_is_told_apart() -> None:
    assert len({bin_of(raw) for raw in (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0)}) == 7


# Without calibration the second is off by 0.13, the third by 0.15, the fourth by 0.11, the last by 0.13.
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("times", "most", "mean"), [(100, 0.13, 0.095), (1000, 0.06, 0.045)])
def test_confidence_becomes_how_often_answers_are_right(name: str, times: int, most: float, mean: float) -> None:
    errors = []
    for seed in range(6):
        ledger = Ledger(None)
        feed(ledger, MODELS[name], times, Random(seed))
        errors.append(error(curve_of(ledger), MODELS[name]))
    assert max(errors) < most
    assert sum(errors) / len(errors) < mean


def test_ten_pieces_of_feedback_already_tell_that_a_model_is_too_sure() -> None:
    before = error(Curve([]), MODELS["too sure"])
    after = []
    for seed in range(20):
        ledger = Ledger(None)
        feed(ledger, MODELS["too sure"], 10, Random(seed))
        after.append(error(curve_of(ledger), MODELS["too sure"]))
    assert sum(after) / len(after) < 0.9 * before


def test_few_wrong_answers_do_not_turn_the_curve_over() -> None:
    curve = Curve([Bin(1.0, 0.999, 0.0)])
    assert 0.3 < curve.calibrated(0.999) < 0.95
    assert curve.calibrated(0.999) > curve.calibrated(0.6)


def test_drift_is_followed() -> None:
    ledger = Ledger(half_life=300)
    random = Random(7)
    feed(ledger, MODELS["too sure"], 3000, random)
    assert error(curve_of(ledger), MODELS["not sure enough"]) > 0.12
    feed(ledger, MODELS["not sure enough"], 1500, random)
    assert error(curve_of(ledger), MODELS["not sure enough"]) < 0.06


def test_feedback_of_several_workers_adds_up() -> None:
    together, parts = Ledger(None), [Ledger(None), Ledger(None)]
    random = Random(3)
    for number in range(400):
        right, confidence = MODELS["too sure"](random.gauss(1.5, 1.5))
        taught = lesson("m", "probability", confidence, 0.5, float(random.random() < right))
        together.add(together.entries(taught))
        parts[number % 2].add(parts[number % 2].entries(taught))
    merged = Ledger(None)
    for part in parts:
        merged.add(part.sums())
    for raw in (0.3, 0.7, 0.99, 1.0):
        assert curve_of(merged).calibrated(raw) == pytest.approx(curve_of(together).calibrated(raw))


def test_kinds_of_confidence_and_models_are_kept_apart() -> None:
    numbers = lesson("m", "probability", 0.8, 0.7, 1.0)
    assert bins(numbers, "m", "probability") == [Bin(1.0, 0.8, 1.0)]
    assert bins(numbers, "m", "probability", "answered") == [Bin(1.0, 0.7, 1.0)]
    assert bins(numbers, "m", "agreement") == bins(numbers, "other", "probability") == []


def test_expected_error_counts_bins_by_their_answers() -> None:
    assert expected_error([Bin(3.0, 0.9, 0.8), Bin(1.0, 0.5, 0.9)]) == pytest.approx(0.175)


def most_probable(found: list[Bin]) -> Callable[[float], float]:
    """Platt scaling by a general minimiser, from the formula."""

    def cost(line: tuple[float, float]) -> float:
        a, b = line
        total = ((a - 1) / 0.5) ** 2 / 2 + (b / 0.5) ** 2 / 2
        for each in found:
            q = sigmoid(a * math.log(each.confidence / (1 - each.confidence)) + b)
            total -= each.answers * (each.right * math.log(q) + (1 - each.right) * math.log(1 - q))
        return total

    a, b = minimize(cost, (1.0, 0.0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    return lambda confidence: sigmoid(a * math.log(confidence / (1 - confidence)) + b)


def test_at_each_bin_the_curve_is_its_right_share_mixed_with_the_lines() -> None:
    found = [Bin(20.0, 0.3, 0.1), Bin(50.0, 0.7, 0.4), Bin(100.0, 0.95, 0.9)]
    line, curve = most_probable(found), Curve(found)
    assert curve.answers == 170.0
    for each in found:
        value = (each.right * each.answers + PRIOR_ANSWERS * line(each.confidence)) / (each.answers + PRIOR_ANSWERS)
        assert curve.calibrated(each.confidence) == pytest.approx(value, abs=1e-5)
        assert curve.least_raw(value) == pytest.approx(each.confidence, abs=1e-4)


def test_bins_whose_shares_fall_are_pooled_by_their_answers() -> None:
    found = [Bin(20.0, 0.3, 0.8), Bin(50.0, 0.7, 0.4), Bin(100.0, 0.95, 0.9)]
    line, curve = most_probable(found), Curve(found)
    right = sum(each.right * each.answers + PRIOR_ANSWERS * line(each.confidence) for each in found[:2])
    pooled = right / (70.0 + 2 * PRIOR_ANSWERS)
    for confidence in (0.3, 0.5, 0.7):
        assert curve.calibrated(confidence) == pytest.approx(pooled, abs=1e-5)
    assert curve.least_raw(pooled - 1e-3) < 0.3 < 0.7 < curve.least_raw(pooled + 1e-3)


def test_a_bin_that_has_all_but_faded_is_not_read() -> None:
    taught = lesson("m", "probability", 0.8, 0.8, 0.5)
    for share, count in ((0.001, 1), (0.0009, 0)):
        assert len(bins({key: amount * share for key, amount in taught.items()}, "m", "probability")) == count
    (only,) = bins(taught, "m", "probability")
    assert only == Bin(1.0, 0.8, 0.5)
    assert not any(name.endswith(".right") for _, name in lesson("m", "agreement", 0.8, 0.8, 0.0))


def test_what_no_answer_reaches_has_no_least_confidence() -> None:
    curve = Curve([Bin(50.0, 0.7, 0.4)])
    assert (curve.calibrated(0.0), curve.calibrated(1.0)) == pytest.approx((0.0, 1.0), abs=0.1)
    assert curve.least_raw(1.0 + 1e-9) == math.inf
    assert curve.least_raw(0.0) == 0.0


def test_the_curve_is_flat_where_surer_answers_are_wrong() -> None:
    curve = Curve([Bin(1000.0, 0.1, 0.9), Bin(1000.0, 0.9, 0.1)])
    answered = [curve.calibrated(step / 100) for step in range(101)]
    assert answered == sorted(answered)
    assert answered[20] == pytest.approx(0.5, abs=0.05) and answered[80] == pytest.approx(0.5, abs=0.05)
    assert curve.least_raw(0.7) == math.inf
    assert curve.least_raw(curve.calibrated(0.0)) == 0.0


def test_only_the_bins_that_fall_are_pooled() -> None:
    curve = Curve([Bin(100.0, 0.2, 0.1), Bin(100.0, 0.5, 0.8), Bin(100.0, 0.7, 0.4), Bin(100.0, 0.9, 0.95)])
    low, one, other, high = (curve.calibrated(confidence) for confidence in (0.2, 0.5, 0.7, 0.9))
    assert low < one == other < high


@pytest.mark.parametrize(
    ("log_odds", "number"),
    [(-40.0, 0), (-3.2, 0), (-2.75, 1), (-2.25, 2), (0.25, 7), (11.75, BINS - 2), (12.25, BINS - 1), (40.0, BINS - 1)],
)
def test_bins_are_half_as_wide_as_one_in_log_odds(log_odds: float, number: int) -> None:
    assert bin_of(sigmoid(log_odds)) == number


@pytest.mark.parametrize(("at", "y"), [(0.0, 0.0), (0.2, 0.25), (0.4, 0.5), (0.7, 0.7), (1.0, 1.0)])
def test_a_curve_whose_last_bin_is_as_sure_as_can_be_ends_at_1(at: float, y: float) -> None:
    """So sure that its probability is rounded to 1: the last two places of the curve are one."""
    assert _interpolated(at, [0.0, 0.4, 1.0, 1.0], [0.0, 0.5, 0.9, 1.0]) == pytest.approx(y)
