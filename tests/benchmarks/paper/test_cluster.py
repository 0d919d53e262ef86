import json
from typing import Any

import pytest

from benchmarks.harness.pages import fill
from benchmarks.paper.cluster import COUNTS, PAGE, describe_run, judge
from benchmarks.paper.results import RESULTS


def numbers(**of_eight: Any) -> dict[str, Any]:
    """Measurements that grow as they must; the row of eight replicas has these values instead."""
    rows = [{"replicas": n, "outputs_per_s": 950.0 * n, "p99_ms": 90.0, "default_share": 0.0} for n in COUNTS]
    return {"clipper": [*rows[:-1], {**rows[-1], **of_eight}]}


def test_eight_replicas_that_answer_eight_times_as_much() -> None:
    verdict = judge(numbers())
    assert verdict.broken == []
    assert [promise.here for promise in verdict.promises[:2]] == ["2.00, 4.00, 8.00 times", "90 to 90 ms"]


@pytest.mark.parametrize("worse", [{"outputs_per_s": 950.0 * 7.5}, {"p99_ms": 120.0}, {"default_share": 0.02}])
def test_what_does_not_show_it(worse: dict[str, float]) -> None:
    assert len(judge(numbers(**worse)).broken) == 1


def test_both_servers_are_in_one_table() -> None:
    rows = [
        {"replicas": n, "outputs_per_s": 950.0 * n, "default_share": 0.0, "p99_ms": 90.4, "cpu_us": 100.0}
        | {"scaled_in_s": 7.25}
        for n in COUNTS
    ]
    of_serve = [{**row, "outputs_per_s": 500.0, "scaled_in_s": 12.0} for row in rows]
    text = describe_run({"clipper": rows, "serve": of_serve})
    assert "| 8 | 7,600; 500 | 90; 90 | 100; 100 |\n" in text
    assert text.endswith("| from 1 to 8, s | 7.2; 12.0 |  |  |\n")


def test_the_page_says_what_the_last_run_found() -> None:
    found = json.loads((RESULTS / "cluster.json").read_text())["numbers"]
    page = PAGE.read_text()
    assert fill(page, {"cluster": describe_run(found)}) == page
