"""Which model is better, how sure that is, and how much more feedback it takes."""

import math
from functools import cache
from random import Random

import pytest

from clipper.learning.mathematics.comparison import Comparison, PooledEvidence, compare
from clipper.learning.mathematics.confidence_sequences import (
    NO_EVIDENCE,
    Evidence,
    difference_interval,
    log_capital_less,
    mean_interval,
)


def losses(count: float, mean: float) -> Evidence:
    return Evidence(count, count * mean)


def compared(evidence: dict[str, Evidence], feedback: float, confidence: float, tolerance: float) -> Comparison:
    are_together = sum(each.count for each in evidence.values()) > feedback
    return compare(evidence, PooledEvidence(evidence, feedback, are_together), confidence, tolerance)


def test_without_feedback_nothing_is_said() -> None:
    found = compared({"a": NO_EVIDENCE, "b": NO_EVIDENCE}, 0, 0.95, 0.01)
    assert (found.verdict, found.best, found.sureness, found.more_feedback) == ("no_feedback", None, 0.0, None)
    assert found.models["a"].interval.high == 1.0
    assert compared({}, 0, 0.95, 0.01).verdict == "no_feedback"


def test_one_model_is_alone() -> None:
    found = compared({"a": losses(10, 0.5)}, 10, 0.95, 0.01)
    assert (found.verdict, found.best) == ("alone", "a")


def test_the_best_is_told_once_it_is_sure() -> None:
    found = compared({"a": losses(1000, 0.3), "b": losses(1000, 0.1), "c": losses(900, 0.2)}, 2900, 0.95, 0.01)
    assert (found.verdict, found.best, found.more_feedback) == ("best", "b", 0)
    assert list(found.models) == ["a", "b", "c"]
    assert found.models["b"].worse_by is None and found.models["b"].sureness is None
    for model, gap in (("a", 0.2), ("c", 0.1)):
        worse = found.models[model].worse_by
        assert worse is not None and 0 < worse.low < gap < worse.high
        assert (found.models[model].sureness or 0) >= found.sureness >= 0.95


def test_equal_models_are_as_good_within_the_tolerance() -> None:
    alike = {"a": losses(4000, 0.2), "b": losses(4000, 0.2)}
    assert compared(alike, 8000, 0.95, 0.05).verdict == "as_good"
    found = compared(alike, 8000, 0.95, 0.0)
    assert (found.verdict, found.more_feedback) == ("open", None)


def test_what_is_open_tells_how_much_feedback_it_takes() -> None:
    known = {"a": losses(200, 0.1), "b": losses(100, 0.15)}
    found = compared(known, 300, 0.95, 0.0)
    assert found.verdict == "open" and found.more_feedback is not None
    times = 1 + found.more_feedback / 300
    for factor, is_known in ((times * 0.98, False), (times * 1.02, True)):
        grown = {model: losses(each.count * factor, each.mean) for model, each in known.items()}
        assert (compared(grown, 300 * factor, 0.95, 0.0).verdict == "best") is is_known


def test_a_comparison_that_lacks_less_than_as_much_feedback_again_is_open() -> None:
    known = {"a": losses(100, 0.1), "b": losses(100, 0.3)}
    found = compared(known, 200, 0.99, 0.0)
    assert found.verdict == "open" and found.more_feedback is not None and 0 < found.more_feedback < 200


def test_models_that_are_nearly_equal_take_hundreds_of_times_the_feedback() -> None:
    known = {"a": losses(100, 0.1), "b": losses(100, 0.11)}
    found = compared(known, 200, 0.95, 0.0)
    assert found.more_feedback is not None and 100 * 200 < found.more_feedback < 1000 * 200


def test_a_model_without_feedback_keeps_it_open() -> None:
    found = compared({"a": losses(1000, 0.1), "b": losses(1000, 0.5), "new": NO_EVIDENCE}, 2000, 0.95, 0.01)
    assert (found.verdict, found.best, found.more_feedback) == ("open", "a", None)
    assert found.models["new"].sureness == 0.0


def test_verdicts_on_equal_models_are_wrong_at_most_as_often_as_they_say() -> None:
    """Looked at after each piece of feedback; of equal models each verdict ``best`` is wrong."""
    wrong = 0
    for seed in range(100):
        random, known = Random(seed), {"a": NO_EVIDENCE, "b": NO_EVIDENCE, "c": NO_EVIDENCE}
        for _ in range(200):
            model = random.choice("abc")
            known[model] += Evidence(1, float(random.random() < 0.3))
            # As ``compare`` does, and no more: the two others of the leader's pairs.
            best = min(known, key=lambda each: known[each].mean)
            least = min(log_capital_less(known[best], known[other]) for other in known if other != best)
            if least >= math.log(2 / 0.4):
                wrong += 1
                break
    assert wrong <= 40


def test_verdicts_hold_where_one_of_two_equal_models_errs_each_time() -> None:
    """Taken for independent, a false verdict would be 95 % sure in 38 of these 300 runs."""

    @cache
    def is_one_best(queries: int, fewer: int) -> bool:
        """Runs of one seed after another come by the same numbers of losses. As ``compare`` does, and no more."""
        better, worse = losses(queries, fewer / queries), losses(queries, 1 - fewer / queries)
        return log_capital_less(better, worse, are_together=True) >= math.log(1 / 0.05)

    wrong = 0
    for seed in range(300):
        random, errors = Random(seed), 0
        for query in range(1, 501):
            errors += random.random() < 0.5
            if is_one_best(query, min(errors, query - errors)):
                wrong += 1
                break
    assert wrong <= 300 * 0.05


def test_models_that_were_scored_on_the_same_queries_take_more_feedback() -> None:
    known = {"a": losses(300, 0.1), "b": losses(300, 0.25)}
    apart, together = compared(known, 600, 0.95, 0.0), compared(known, 300, 0.95, 0.0)
    assert apart.sureness > together.sureness > 0.0
    wide, narrow = together.models["b"].worse_by, apart.models["b"].worse_by
    assert wide is not None and narrow is not None and wide.low < narrow.low < narrow.high < wide.high


def test_one_model_alone_is_the_best_without_more_feedback() -> None:
    found = compared({"a": losses(10, 0.5)}, 10, 0.95, 0.01)
    assert (found.sureness, found.more_feedback, found.models["a"].mean) == (1.0, 0.0, 0.5)


def test_the_error_is_shared_by_the_pairs() -> None:
    known = {"a": losses(300, 0.1), "b": losses(300, 0.2), "c": losses(300, 0.15)}
    found = compared(known, 900, 0.9, 0.01)
    for model in ("b", "c"):
        # Three pairs share the error of the intervals; the two with the best share that of the verdict.
        assert found.models[model].worse_by == difference_interval(known[model], known["a"], (1 - 0.9) / 3)
        refuted = math.exp(-log_capital_less(known["a"], known[model]))
        assert found.models[model].sureness == pytest.approx(max(1 - 2 * refuted, 0.0))
        assert found.models[model].interval == mean_interval(known[model], 1 - 0.9)
    assert found.sureness == min(found.models["b"].sureness or 0.0, found.models["c"].sureness or 0.0)


def test_models_after_one_without_feedback_are_compared_as_well() -> None:
    found = compared({"a": losses(1000, 0.1), "new": NO_EVIDENCE, "b": losses(1000, 0.5)}, 2000, 0.95, 0.01)
    assert list(found.models) == ["a", "new", "b"]
    assert found.models["b"].mean == 0.5 and (found.models["b"].sureness or 0.0) > 0.95
