"""docs/confidence.md on confidences of real pictures: the results as kept, and a small part of them again."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

from benchmarks.calibration.models import ESTIMATORS
from benchmarks.calibration.results import ABOUT, Answers, Bin, read, result, standard_error, table
from benchmarks.calibration.stream import VOTE
from clipper.learning.mathematics.calibration import Curve, bins, lesson
from clipper.learning.mathematics.ledger import Ledger

RESULTS = read()
PAGE = (Path(__file__).parents[2] / "docs" / "confidence.md").read_text()


def test_the_page_shows_the_results() -> None:
    assert table(RESULTS) in PAGE and "calibration.svg" in PAGE


@pytest.mark.parametrize("name", [*ESTIMATORS, VOTE])
def test_calibrated_confidences_are_right_as_often_as_they_say(name: str) -> None:
    found = RESULTS[name]
    assert found.calibrated.error < 0.02 < 0.035 < found.raw.error
    assert found.calibrated.error < found.raw.error / 3
    about = found.calibrated.about
    assert about is not None and about.right > ABOUT - 2 * standard_error(about)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_raw_ones_are_not(name: str) -> None:
    about = RESULTS[name].raw.about
    assert about is not None and about.right < ABOUT - 3 * standard_error(about)


def test_reliability_of_answers() -> None:
    found = result(Answers([0.9, 0.9, 0.1, 1.0], [0.5] * 4, [True, False, False, True]))
    assert (found.answers, found.right) == (4, 0.5)
    assert found.raw.about == Bin(2, 0.9, 0.5)
    assert found.raw.error == pytest.approx((2 * 0.4 + 0.1) / 4)
    assert found.calibrated.about is None and found.calibrated.error == 0.0


@pytest.mark.parametrize("seed", range(2))
def test_a_small_part_of_it_again(seed: int) -> None:
    """Naive Bayes on small digits, in one process: it says of nearly all its answers that they are certain."""
    images, labels = load_digits(return_X_y=True)
    order = np.arange(len(labels))
    Random(seed).shuffle(order)  # type: ignore[arg-type]  # it takes whatever has places
    train, asked = order[:300], order[300:]
    probabilities = GaussianNB(var_smoothing=1e-3).fit(images[train], labels[train]).predict_proba(images[asked])
    ledger, answers = Ledger(), Answers([], [], [])
    for row, label in zip(probabilities, labels[asked]):
        raw, right = min(float(row.max()), 1.0), bool(row.argmax() == label)
        calibrated = Curve(bins(ledger.totals().numbers, "m", "probability")).calibrated(raw)
        answers.raw.append(raw)
        answers.calibrated.append(calibrated)
        answers.right.append(right)
        ledger.add(ledger.entries(lesson("m", "probability", raw, calibrated, float(right))))
    found = result(answers)
    assert found.raw.error > 0.08
    assert found.calibrated.error < 0.35 * found.raw.error
