"""The words of a report, and its page."""

import re
from typing import Any

import pytest
from msgspec.structs import replace

from clipper.api.recent import LastMinute
from clipper.api.reports import Bounds, Frontier, FrontierModel, Latency, Report, ReportedModel, ReportGroup
from clipper.base.tls.expiry import duration
from clipper.cli.commands import report_summary as summary
from clipper.cli.commands.report import as_page
from clipper.control.descriptions import Standing


def model(name: str, mean: float | None = 0.2, **fields: Any) -> ReportedModel:
    is_known = mean is not None
    made = ReportedModel(
        model=name,
        version="1",
        is_linked=True,
        is_shadow=False,
        share=0.5,
        scored=1234.0 if is_known else 0.0,
        mean_loss=mean,
        interval=Bounds(0.1, 0.3) if is_known else Bounds(0.0, 1.0),
        worse_by=None,
        sureness=None,
        more_feedback=None,
        asked=200,
        missing=3,
        latency=Latency(1.0, 0.9, 4.56),
    )
    return replace(made, **fields)


FOUND = Standing("svm", 0.95, 0.01, 1500.0)
BEST, OTHER = model("svm"), model("net", 0.25, worse_by=Bounds(-0.01, 0.1), sureness=0.7, more_feedback=5000.0)


def group(**fields: Any) -> ReportGroup:
    return replace(ReportGroup(None, 2468.0, "open", "svm", 0.7, 5000.0, 9000.0, (OTHER, BEST)), **fields)


def report(*groups: ReportGroup, **fields: Any) -> Report:
    made = Report(
        "digits",
        "thompson",
        "zero_one",
        0.95,
        0.01,
        0.0,
        20.0,
        0.5,
        10,
        {"timeout": 2},
        {},
        1,
        None,
        groups or (group(),),
    )
    return replace(made, **fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "Not known yet. svm:1 is ahead; it is 70 % sure that it is the best. If mean losses stay as they are, "
             "that takes some 5,000 more pieces of feedback: 2 hours at the rate since the workers started."),
        ({"more_s": None}, "that takes some 5,000 more pieces of feedback."),
        ({"more_feedback": None, "more_s": None}, "How much feedback is needed cannot be said"),
        ({"verdict": "best", "sureness": 0.99999}, "svm:1 is the best: this is over 99.99 % sure, after 2,468"),
        ({"verdict": "best", "sureness": 0.996}, "svm:1 is the best: this is 99.6 % sure, after 2,468 pieces of "),
        ({"verdict": "as_good"}, "No model is better than svm:1 by more than 0.01: this is 95 % sure"),
        ({"sureness": 0.2}, "svm:1 is ahead; it is less than 50 % sure that it is the best."),
        ({"test": FOUND, "verdict": "as_good"}, "The test is over: svm:1 is the best, confidence 0.95, tolerance 0.01"),
        ({"test": FOUND}, "Not known yet. svm:1 is ahead"),
        ({"verdict": "alone"}, "svm:1 is the only linked model"),
        ({"verdict": "no_feedback", "best": None}, "There is no feedback yet"),
        ({"best": None, "estimator": "none", "compared": 0.0}, "Not known."),
        ({"verdict": "best", "sureness": 0.996, "compared": 2000.0}, "sure, after 2,000 pieces of feedback."),
    ],
)  # fmt: skip
def test_the_conclusion_says_who_how_sure_and_how_long(fields: dict[str, Any], text: str) -> None:
    assert text in summary.conclusion(report(), group(**fields))


WEIGHTED = {"estimator": "weighted", "compared": 2000.0, "basis": "compared over all queries alike"}


def test_it_says_by_what_models_are_compared_if_that_is_not_all_feedback() -> None:
    assert summary.basis(group()) is None
    assert summary.basis(group(basis="compared by means", compared=2468.0)) is None
    assert summary.basis(group(basis="compared by means; 2 are left out", compared=2466.0)) is not None
    assert summary.basis(group(**WEIGHTED)) == "compared over all queries alike"
    assert "<p>Compared over all queries alike.</p>" in as_page(report(group(**WEIGHTED)))
    assert "if mean losses do not change" in summary.notes(report())[0]
    assert "if feedback comes whatever" in summary.notes(report(group(**WEIGHTED)))[0], "these may change"


def test_rows_have_the_best_first_and_nothing_where_nothing_is_known() -> None:
    new, gone = model("new", None), model("old:3", 0.1, is_linked=False, latency=None, asked=0)
    rows = summary.rows(group(models=(gone, new, OTHER, BEST)))
    assert [row[0] for row in rows] == ["svm:1", "net:1", "new:1", "old:3 (not linked)"]
    assert rows[0][:7] == ("svm:1", "50.0%", "1,234", "0.2000", "0.1000 to 0.3000", None, None)
    assert rows[1][5:] == ("-0.0100 to 0.1000", "70 %", "5,000", "1.50%", "0.9", "4.56")
    assert rows[2][2:5] == ("0", None, None)
    assert rows[3][1] is None and rows[3][8:] == (None, None, None)


def test_notes_tell_of_what_is_no_model_s() -> None:
    recent = LastMinute(1060, 3, {"timeout": 3}, {"model_error": 40, "no_replica": 0}, {"timeout": "m did not answer"})
    first, second, third, fourth = summary.notes(report(latency=Latency(1.0, 2.0, 3.0), last_minute=recent))
    assert "confidence 0.95 at all times at once" in first
    assert "10 queries, 2 defaults (timeout 2), no errors, 1 not within 20 ms, p99 3 ms" in second
    assert third == "in the last minute: 1,060 queries, 40 errors (model_error 40), 3 defaults (timeout 3), 3 late"
    assert fourth == "the last timeout: m did not answer"
    assert summary.of_last_minute(LastMinute()) == "no queries"


@pytest.mark.parametrize(
    ("test", "text"),
    [
        (Standing("svm", 0.95, 0.01, 1500.0), "svm is the best, confidence 0.95, tolerance 0.01, after 1,500 pieces"),
        (Standing(None, 0.95, 0.01, 20.0), "the test is open, after 20 pieces of feedback"),
    ],
)
def test_a_test_says_how_it_stands(test: Standing, text: str) -> None:
    assert text in summary.of_test(test)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.2, "1 second"), (119, "119 seconds"), (150, "2 minutes"), (7200, "2 hours"), (1e7, "116 days")],
)
def test_durations_are_in_a_unit_of_which_there_are_two(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_context_cannot_steer_a_terminal() -> None:
    assert summary.title(group(context="\x1b[2J")) == 'context "\\u001b[2J"'


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    groups = group(test=FOUND, verdict="as_good"), group(context="<script>x</script>", problem="no worker")
    page = as_page(report(*groups, application="a & b"))
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert page.count("<svg") == page.count("</svg>") == 4
    assert not re.search(r"<script|<link|<img|src=|@import|url\(", page)
    assert "a &amp; b" in page and "&lt;script&gt;" in page and "The test is over: svm:1 is the best" in page
    assert not re.search(r"\b(nan|inf)\b", page)


def test_a_page_without_feedback_draws_nothing() -> None:
    empty = group(verdict="no_feedback", best=None, models=(model("svm", None),), more_feedback=None, more_s=None)
    page = as_page(report(empty))
    assert "There is nothing to draw." in page and "<svg" not in page


MODELS = (("svm", 1.0, 0.9, True), ("net", 5.0, 0.8, False), ("forest", 20.0, 0.98, True))
FRONTIER = Frontier(tuple(FrontierModel(*each) for each in MODELS), 3.9, 0.95, 0.9122, 4.0, None)


def test_cost_and_quality_are_said_beside_the_budget() -> None:
    assert summary.of_frontier(FRONTIER) == (
        "cost and quality since the workers started: a query costs 3.9 on average of at most 4; the quality of answers "
        "is 0.9500; by shares of the queries alone its models reach 0.9122 at that cost"
    )
    kept = summary.of_frontier(replace(FRONTIER, max_cost_per_query=None, min_quality=0.94))
    assert "a query costs 3.9 on average; the quality of answers is 0.9500 of at least 0.94" in kept
    nothing = Frontier((), None, None, None, None, 0.94)
    assert "no query yet; there is no feedback on answers, so nobody knows" in summary.of_frontier(nothing)
    assert summary.frontier_rows(FRONTIER)[1] == ("net", "5", "0.8000", "no")
    page = as_page(report(frontier=FRONTIER))
    assert "Cost and quality" in page and "<td>0.9800</td>" in page
    assert "Cost and quality" not in as_page(report())
