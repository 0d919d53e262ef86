"""The control plane at the size that docs/scale.md promises, and what is said of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.scale.__main__ import REPLICAS_OF_MODEL, SAVED, SIZES, WORKERS, Effort, broken_promises, measure
from benchmarks.scale.fleet import Size, fleet
from benchmarks.scale.measured import Measured
from benchmarks.scale.page import BEGIN, END, table, with_results

FEW = Measured(
    models=10,
    replicas=50,
    workers=64,
    create_s=(0.061, 0.1014),
    deploy_s=(0.438, 0.537),
    create_cpu_s=0.0132,
    deploy_cpu_s=0.066,
    worker_create_cpu_s=0.0006,
    rest_cores=0.0104,
    worker_rest_cores=0.0057,
    busy_cores=0.1,
    memory_bytes=95_000_000,
    reads={"/metrics": (0.06, 0.05, 400_000)},
)
MANY = replace(FEW, models=1000, replicas=5000, deploy_s=(1.25, 1.9), reads={"/metrics": (2.5, 2.25, 14_000_000)})


@pytest.mark.scale
def test_a_thousand_models_and_64_workers(tmp_path: Path) -> None:
    size = Size(SIZES[-1], SIZES[-1] * REPLICAS_OF_MODEL, WORKERS)
    with fleet(tmp_path, size) as (running, digest):
        assert broken_promises(measure(running, size, digest, Effort())) == []


def test_the_table_has_a_column_for_each_size() -> None:
    lines = table([FEW, MANY], [1.01, 1.003, 0.99]).splitlines()
    assert lines[:2] == ["| | beside 10 models | beside 1,000 models |", "|---|---|---|"]
    assert "| until all workers serve a new version of five replicas | 438 ms, 537 ms | 1,250 ms, 1,900 ms |" in lines
    assert "| processor time of each worker for it | 0.6 ms | 0.6 ms |" in lines
    assert (
        "| `GET /metrics`: time, processor time, size | 0.06 s, 0.05 s, 0.40 MB | 2.50 s, 2.25 s, 14.00 MB |" in lines
    )
    assert all(line.count("|") == 4 for line in lines if line.startswith("|"))
    assert lines[-1].startswith("A query takes a worker 1.003 times")


def test_without_queries_nothing_is_said_of_them() -> None:
    assert "query" not in table([FEW], [])


def test_the_page_takes_the_table_and_keeps_the_rest() -> None:
    page = SAVED.page.read_text()
    once = with_results(page, "the first table")
    twice = with_results(once, "the second")
    assert "the first table" in once and twice == once.replace("the first table", "the second")
    assert (page.partition(BEGIN)[0], page.partition(END)[2]) == (twice.partition(BEGIN)[0], twice.partition(END)[2])


@pytest.mark.parametrize("page", ["", f"{END}{BEGIN}", BEGIN, END])
def test_a_page_without_a_place_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="the page has no"):
        with_results(page, "table")


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ({"deploy_s": (0.5, 2.1)}, "a deployment took 2.1 s"),
        ({"create_s": (0.5, 2.1)}, "a new application took 2.1 s"),
        ({"rest_cores": 1.0}, "the supervisor took 1.00 processors at rest"),
        ({"busy_cores": 1.5}, "the supervisor took 1.50 processors while it deployed"),
        ({"memory_bytes": 1_000_000_000}, "the supervisor has 1000 MB"),
        ({"reads": {"/models": (10.0, 1.0, 1)}}, "GET /models took 10.0 s"),
    ],
)
def test_a_promise_that_is_broken_is_named(worse: dict[str, object], why: str) -> None:
    assert broken_promises(MANY) == []
    assert broken_promises(replace(MANY, **worse)) == [why]
