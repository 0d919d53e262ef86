"""The rows on load that does not wait: what they ask for, and what passes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks.harness import texts
from benchmarks.models.slept import Slept
from benchmarks.rows import open_loop
from benchmarks.rows.open_loop import SLEPT, outcome
from clipper.cli.load.report import Latencies, Run, SenderFacts


@pytest.mark.parametrize(
    ("name", "cap_per_s"),
    [("slept_40ms", 4000), ("slept_450ms", 100), ("slept_10ms", 6667), ("slept_3ms", 25_000), ("slept_unequal", 1259)],
)
def test_what_a_model_can_do(name: str, cap_per_s: float) -> None:
    times, slo_ms = SLEPT[name]
    assert times.cap_per_s(slo_ms / 1e3) == pytest.approx(cap_per_s, rel=1e-3)


def run(p99: float = 10.0, by_model: int = 1000) -> Run:
    latencies = Latencies(p50=1.0, p90=2.0, p99=p99, p99_9=p99, max=p99)
    return Run(
        rate_per_s=100.0,
        elapsed_s=10.0,
        slo_ms=20.0,
        offered=1000,
        not_sent=0,
        unfinished=0,
        answered=1000,
        by_model=by_model,
        good=by_model,
        late=0,
        defaults={"timeout": 1000 - by_model},
        errors={},
        latency_ms=latencies,
        sender=SenderFacts(latencies, 0.1, 1, 0, 0.0),
        seconds=(),
        percentiles=(),
    )


@pytest.mark.parametrize(
    ("load", "cold", "warm", "passed"),
    [
        (0.25, run(), run(), True),
        (0.25, run(by_model=999), run(), False),
        (0.5, run(), run(p99=21.0), False),
        (0.9, run(by_model=991), run(by_model=991), True),
        (0.9, run(), run(by_model=990), False),
        (1.5, run(by_model=0), run(p99=99.0), None),
    ],
)
def test_what_passes(load: float, cold: Run, warm: Run, passed: bool | None) -> None:
    told = outcome(load, cold, warm, {"rate_per_s": 1.0})
    assert told.passed is passed
    assert told.value.startswith("cold ") and "; warm " in told.value
    assert {"rate_per_s", "cold", "warm"} == told.numbers.keys()


def test_names_of_rows_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def measure(rows: list[Any], console: Console) -> list[Any]:
        asked.append([row.name for row in rows])
        return []

    monkeypatch.setattr(program, "measure", measure)
    monkeypatch.setattr(program, "save", lambda measured, whole: Path.cwd() / "results.json")
    assert program.main(["open_loop"]) == 0
    assert program.main(["import_time", "open_loop_topics_50"]) == 0
    assert asked == [[row.name for row in open_loop.ROWS], ["open_loop_topics_50", "import_time"]]
    assert len(asked[0]) == 5 * 4 + 4 * 2
    assert program.main(["open_loops"]) == 2


def test_texts_are_of_all_lengths() -> None:
    lengths = np.array([len(text) for text, _ in texts.drawn(2000, seed=3)])
    assert lengths.min() >= texts.SHORTEST and lengths.max() <= texts.LONGEST
    for low, high in ((10, 100), (100, 1000), (1000, 10_000)):
        assert ((low <= lengths) & (lengths <= high)).mean() == pytest.approx(1 / 3, abs=0.05)


def test_texts_are_asked_as_bodies(tmp_path: Path) -> None:
    lines = texts.write_bodies(tmp_path).read_text().splitlines()
    assert all(isinstance(json.loads(line)["input"], str) for line in lines)


def test_a_slept_model_takes_longer_for_slow_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"batch_s": 1.0, "row_s": 0.1, "slow_share": 0.25, "slow_row_s": 5.0}))
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    inputs = np.array([[1.0, 1, 1, 0.1], [1, 1, 1, 0.5], [1, 1, 1, 0.9]])
    assert Slept(str(path)).predict_batch(inputs).tolist() == pytest.approx([3.1, 3.5, 3.9])
    assert slept == [pytest.approx(1.0 + 2 * 0.1 + 5.0)]
