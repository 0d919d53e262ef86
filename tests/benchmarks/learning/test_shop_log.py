"""The run on a real shop's log, on its first day."""

import pytest

from benchmarks.learning.shop_log import ITEMS, clicks, samples
from clipper.learning.decisions.evaluation.estimators import Estimate
from clipper.learning.decisions.evaluation.whatif import OneModel, evaluate, logged

# The package is fetched the first time.
pytestmark = pytest.mark.timeout(600)


def test_the_logs_are_what_is_known_of_them() -> None:
    even, shops = samples("random"), samples("bts")
    assert {sample.propensity for sample in even} == {1 / ITEMS}
    assert [round((1 - logged(each).value) * 10_000) for each in (even, shops)] == [38, 42]
    assert [each[0].time_s <= each[-1].time_s for each in (even, shops)] == [True, True]


def test_of_a_popular_item_the_log_tells_a_little() -> None:
    answer = evaluate(samples("random"), OneModel("item-1"))
    assert answer.snips is not None and 100 <= answer.effective_queries <= 200
    assert 0.01 < answer.snips.high - answer.snips.low < 0.1


def test_losses_are_shown_as_clicks() -> None:
    assert clicks(Estimate(0.996, 0.99, 1.01)) == "4.0 [0.0, 10.0]"
    assert clicks(None) == "-"
