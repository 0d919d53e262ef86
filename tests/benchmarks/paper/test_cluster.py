from typing import Any

import pytest

from benchmarks.paper.cluster import BEGIN, COUNTS, END, PAGE, judge, table


def numbers(**of_eight: Any) -> dict[str, Any]:
    """What grows as it must; the row of eight replicas has these values instead."""
    rows = [{"replicas": n, "outputs_per_s": 950.0 * n, "p99_ms": 90.0, "default_share": 0.0} for n in COUNTS]
    return {"clipper": [*rows[:-1], {**rows[-1], **of_eight}]}


def test_eight_replicas_that_answer_eight_times_as_much() -> None:
    verdict = judge(numbers())
    assert verdict.passed
    assert verdict.text == "× 2.00, × 4.00, × 8.00 with 2, 4, 8 replicas, p99 90 to 90 ms"


@pytest.mark.parametrize("worse", [{"outputs_per_s": 950.0 * 7.5}, {"p99_ms": 120.0}, {"default_share": 0.02}])
def test_what_does_not_show_it(worse: dict[str, float]) -> None:
    assert not judge(numbers(**worse)).passed


def test_both_servers_are_in_one_table() -> None:
    rows = [
        {"replicas": n, "outputs_per_s": 950.0 * n, "p99_ms": 90.4, "cpu_us": 100.0, "scaled_in_s": 7.25}
        for n in COUNTS
    ]
    of_serve = [{**row, "outputs_per_s": 500.0, "scaled_in_s": 12.0} for row in rows]
    text = table({"clipper": rows, "serve": of_serve})
    assert "| 8 | 7,600; 500 | 90; 90 | 100; 100 |\n" in text
    assert text.endswith("| from 1 to 8, s | 7.2; 12.0 | | |\n\n")


def test_the_page_has_a_place_for_the_table() -> None:
    page = PAGE.read_text()
    assert 0 < page.index(BEGIN) < page.index(END)
