"""The estimators against Open Bandit Pipeline's, on its logs of a real shop."""

import json
from pathlib import Path

import numpy as np
import pytest

from clipper.learning.decisions.evaluation.estimators import dr, ips, snips
from scripts.real_models import made

# Installing the library takes minutes the first time.
pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

CASES = 4


@pytest.mark.parametrize("number", range(CASES))
def test_values_are_those_of_obp(number: int) -> None:
    cases = json.loads((made(Path(__file__).with_name("make_obp.py"), "obp") / "cases.json").read_text())
    assert len(cases) == CASES
    case = cases[number]
    clicks, weights, chosen = (np.array(case[name]) for name in ("click", "weight", "expected_chosen"))
    target = np.full(len(clicks), case["expected_target"])
    assert len(clicks) == 10_000 and clicks.sum() > 30
    # It counts rewards, for which the formulas are the same.
    assert ips(clicks, weights).value == pytest.approx(case["ips"], rel=1e-9)
    assert snips(clicks, weights).value == pytest.approx(case["snips"], rel=1e-9)
    assert dr(clicks, weights, chosen, target).value == pytest.approx(case["dr"], rel=1e-9)
