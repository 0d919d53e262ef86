"""The report's conclusions from the numbers, and their words."""

import re
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.cli.load import summary
from clipper.cli.load.page import as_page
from clipper.cli.load.report import (
    Found,
    Latencies,
    Percentile,
    Report,
    Run,
    Second,
    SenderFacts,
    as_document,
    grouped,
    keeps_slo,
    max_lag_ms,
    verdict,
    why_too_slow,
)
from clipper.cli.load.sweep import Verdict


def latencies(p99: float) -> Latencies:
    return Latencies(p50=1.0, p90=2.0, p99=p99, p99_9=p99 * 2, max=p99 * 3)


def sender(lag_ms: float = 0.1, **facts: Any) -> SenderFacts:
    settings = {"cpu_share": 0.2, "connections": 10, "waited_for_connection": 0, "longest_wait_ms": 0.0} | facts
    return SenderFacts(lag_ms=latencies(lag_ms), **settings)


def second(number: int, **counts: Any) -> Second:
    settings = {"offered": 100, "by_model": 98, "good": 97, "defaults": 1, "errors": 1, "not_sent": 0, "p99_ms": 5.0}
    return Second(number, **(settings | counts))


def run(p99: float = 10.0, **facts: Any) -> Run:
    settings: dict[str, Any] = {
        "rate_per_s": 100.0,
        "elapsed_s": 10.0,
        "slo_ms": 20.0,
        "offered": 1000,
        "not_sent": 0,
        "unfinished": 0,
        "answered": 1000,
        "by_model": 995,
        "good": 990,
        "late": 5,
        "defaults": {"timeout": 5},
        "errors": {},
        "latency_ms": latencies(p99),
        "sender": sender(),
        "seconds": tuple(second(number) for number in range(10)),
        "percentiles": (Percentile(0.0, 0.5), Percentile(50.0, 1.0), Percentile(99.0, p99), Percentile(100.0, p99 * 3)),
    }
    return Run(**(settings | facts))


def report(*runs: Run, **facts: Any) -> Report:
    settings: dict[str, Any] = {
        "application": "digits",
        "url": "http://localhost:1337/digits/predict",
        "arrivals": "poisson",
        "inputs": "random inputs of float64[4]",
        "slo_ms": 20.0,
        "slo_of": "application",
        "max_connections": 1000,
        "interrupted": False,
        "runs": runs or (run(),),
    }
    return Report(**(settings | facts))


def words(rows: list[summary.Row]) -> str:
    return "\n".join(" ".join(row) for row in rows)


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        ({}, True),
        ({"p99": 20.0}, True),
        ({"p99": 20.1}, False),
        ({"by_model": 989}, False),
        ({"by_model": 990}, True),
        ({"by_model": 980, "unfinished": 12}, True),
        ({"latency_ms": None, "by_model": 0}, False),
    ],
)
def test_when_the_slo_is_kept(facts: dict[str, Any], kept: bool) -> None:
    assert keeps_slo(run(**facts)) is kept


@pytest.mark.parametrize(("slo_ms", "most_ms"), [(1, 0.5), (20, 2), (100, 10), (60_000, 10)])
def test_how_much_lag_is_too_much(slo_ms: float, most_ms: float) -> None:
    assert max_lag_ms(slo_ms) == most_ms
    assert why_too_slow(run(slo_ms=slo_ms, sender=sender(most_ms))) is None
    assert "after they were due" in (why_too_slow(run(slo_ms=slo_ms, sender=sender(most_ms + 0.1))) or "")


def test_a_full_processor_is_too_slow_whatever_the_lag() -> None:
    assert "97% of one processor" in (why_too_slow(run(sender=sender(cpu_share=0.97))) or "")


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({}, Verdict.KEPT),
        # Kept in spite of its lag is kept.
        ({"sender": sender(5)}, Verdict.KEPT),
        ({"p99": 24.0}, Verdict.BROKEN),
        ({"p99": 24.0, "sender": sender(5)}, Verdict.SENDER_TOO_SLOW),
        ({"p99": 240.0, "sender": sender(5)}, Verdict.BROKEN),
        ({"p99": 24.0, "by_model": 500, "sender": sender(5)}, Verdict.BROKEN),
        ({"latency_ms": None}, Verdict.BROKEN),
        ({"latency_ms": None, "offered": 0, "by_model": 0}, Verdict.KEPT),
    ],
)
def test_whom_to_blame(facts: dict[str, Any], wanted: Verdict) -> None:
    assert verdict(run(**facts)) is wanted


@given(st.integers(0, 500), st.integers(1, 50))
def test_seconds_together(count: int, most: int) -> None:
    rows = grouped([second(number, p99_ms=float(number)) for number in range(count)], most)
    assert len(rows) <= most
    assert sum(row.offered for row in rows) == 100 * count
    assert max((row.p99_ms or 0 for row in rows), default=0) == max(0, count - 1)


def test_seconds_without_an_answer() -> None:
    (row,) = grouped([second(0, p99_ms=None), second(1, p99_ms=None)], 1)
    assert row.p99_ms is None


def test_rows() -> None:
    counts = words(summary.count_rows(run(errors={"503 overloaded": 4}, not_sent=3, unfinished=2, over_limit=7)))
    assert "offered 1,000 100.20% 100.0" in counts
    assert "within the SLO: goodput 990" in counts
    for line in (
        "default: timeout 5",
        "error: 503 overloaded 4",
        "over a limit (429) 7",
        "late 5",
        "not sent 3",
        "cut off 2",
    ):
        assert line in counts
    assert words(summary.latency_rows(run())).splitlines()[0] == "answered 1.00 2.00 10.00 20.00 30.00"
    assert summary.latency_rows(run(latency_ms=None, sender=msgspec.structs.replace(sender(), lag_ms=None))) == []


def test_queries_over_a_limit_are_told_apart() -> None:
    limited = report(run(over_limit=7))
    assert "7 queries were refused because of a limit" in " ".join(summary.warnings(limited))
    assert as_document(limited)["runs"][0]["over_limit"] == 7


def test_rows_of_seconds() -> None:
    assert [row[0] for row in summary.second_rows(run())] == [str(number) for number in range(10)]
    long = summary.second_rows(run(seconds=tuple(second(number) for number in range(100))))
    assert [row[0] for row in long[:2]] == ["0-4", "5-9"]


def test_conclusions() -> None:
    assert summary.conclusion(report()).startswith("The SLO of 20 ms is kept: p99 10.0 ms, 99.50% answered by a model")
    assert "is broken" in summary.conclusion(report(run(p99=30)))
    assert summary.conclusion(report(run(latency_ms=None))) == "Nothing was answered."
    assert "No query became due" in summary.conclusion(report(run(latency_ms=None, offered=0)))
    assert "cut off" in summary.conclusion(report(run(), run()))

    def found(*facts: Any) -> str:
        return summary.conclusion(report(run(), run(), found=Found(*facts)))

    assert found(150.0, 160.0, False) == "Up to 150.0 queries/s the SLO of 20 ms is kept; at 160.0 it is not."
    assert "the server may do more" in found(150.0, 160.0, True)
    assert found(1e6, None, False).endswith("is kept.")
    assert "breaks at every rate" in found(None, 1.0, False)
    assert "load generator was too slow at every rate" in found(None, 1.0, True)


def test_warnings() -> None:
    assert summary.warnings(report()) == []
    (slow,) = summary.warnings(report(run(sender=sender(5))))
    assert slow.startswith("the load generator itself was too slow: it noticed 1 % of the queries 5.0 ms or more")
    (not_sent,) = summary.warnings(report(run(not_sent=7)))
    assert not_sent.startswith("7 queries were not sent") and "--connections" in not_sent
    waited = sender(connections=1000, waited_for_connection=5, longest_wait_ms=120.0)
    assert "5 queries waited for one of 1000" in summary.warnings(report(run(sender=waited)))[0]
    # While connections are still being opened, some wait for a moment.
    assert summary.warnings(report(run(sender=sender(waited_for_connection=5)))) == []
    assert summary.warnings(report(run(sender=sender(5)), run(), found=Found(1.0, 2.0, False))) == []


def test_progress() -> None:
    assert summary.progress(500, 0.5, None) == "0 s at 500.0 queries/s"
    assert "98 of 100 by a model, 1 defaults, 1 errors, p99 5.0 ms" in summary.progress(500, 3, second(2))
    assert summary.progress(500, 3, second(2, p99_ms=None)).endswith("p99 -")


RUNS = {
    "one": report(),
    "nothing": report(run(offered=0, latency_ms=None, seconds=(), percentiles=())),
    "hours": report(run(seconds=tuple(second(number) for number in range(7200)))),
    "equal": report(run(percentiles=(Percentile(0.0, 1.0), Percentile(100.0, 1.0)), seconds=(second(0, p99_ms=0.0),))),
    "sweep": report(
        run(), run(rate_per_s=200.0, p99=40.0), run(rate_per_s=200.0, latency_ms=None), found=Found(100.0, 200.0, False)
    ),
    "cut sweep": report(run(), run(rate_per_s=200.0), interrupted=True),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_page_is_whole_and_needs_nothing_else(name: str) -> None:
    page = as_page(RUNS[name])
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for svg in svgs:
        drawing = ElementTree.fromstring(svg)
        assert "nan" not in svg and "inf" not in svg
        for part in drawing.iter("circle"):
            assert 0 <= float(part.attrib["cx"]) <= 720 and 0 <= float(part.attrib["cy"]) <= 300
    assert len(svgs) == {"nothing": 0, "sweep": 2, "cut sweep": 2}.get(name, 3)
    assert not re.search(r"<script|<link|<img|src=|@import|url\(", page)
    assert len(page) < 200_000


def test_names_on_the_page_are_text() -> None:
    page = as_page(report(application="<script>alert(1)</script>", inputs="a & b"))
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &amp; b" in page


def test_the_json_can_be_read_again() -> None:
    given = RUNS["sweep"]
    text = msgspec.json.encode(as_document(given))
    assert msgspec.json.decode(text, type=Report) == given
    document = msgspec.json.decode(text)
    assert document["schema_version"] == 1
    assert [run["slo_kept"] for run in document["runs"]] == [True, False, False]
    assert [run["too_slow"] for run in document["runs"]] == [None] * 3
    assert (document["runs"][0]["sent"], document["runs"][0]["goodput_per_s"]) == (1000, 99.0)
