"""The table of policies that answer by several models."""

import numpy as np
import pytest

from benchmarks.paper.together import POLICIES, error


def test_errors_are_of_the_answers() -> None:
    labels = np.arange(200) % 10
    wrong = (labels + 1) % 10
    given = np.stack([labels, labels, wrong], axis=1)
    for name, parameters in POLICIES:
        assert error(name, parameters, given, labels) == 0.0
    # Of five, three copies of one that errs now and then outvote the others until that is known.
    copy = np.where(labels < 4, wrong, labels)
    other, third = np.where(labels == 8, wrong, labels), np.where(labels == 9, wrong, labels)
    given = np.stack([copy, copy, copy, other, third], axis=1)
    assert error("ensemble", {"weighting": "equal"}, given, labels) == pytest.approx(0.4)
    assert error("stacking", {}, given, labels) < 0.1
