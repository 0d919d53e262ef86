from typing import Any

import pytest

from benchmarks.paper.cluster import COUNTS, judge


def numbers(**of_eight: Any) -> dict[str, Any]:
    """What grows as it must; the row of eight replicas has these values instead."""
    rows = [{"replicas": n, "outputs_per_s": 950.0 * n, "p99_ms": 90.0, "default_share": 0.0} for n in COUNTS]
    return {"counts": [*rows[:-1], {**rows[-1], **of_eight}]}


def test_eight_replicas_that_answer_eight_times_as_much() -> None:
    verdict = judge(numbers())
    assert verdict.passed
    assert verdict.text == "× 2.00, × 4.00, × 8.00 with 2, 4, 8 replicas, p99 90 to 90 ms"


@pytest.mark.parametrize("worse", [{"outputs_per_s": 950.0 * 7.5}, {"p99_ms": 120.0}, {"default_share": 0.02}])
def test_what_does_not_show_it(worse: dict[str, float]) -> None:
    assert not judge(numbers(**worse)).passed
