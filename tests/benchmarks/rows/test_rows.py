from rich.console import Console

from benchmarks.__main__ import measure
from benchmarks.harness.outcome import Outcome, Row
from benchmarks.harness.workbench import Workbench


def fails(bench: Workbench) -> Outcome:
    raise TimeoutError("no answer")


def test_a_row_that_cannot_be_measured_fails_alone() -> None:
    rows = [Row("a", "", "", fails), Row("b", "", "", lambda bench: Outcome("1 ms", True, {"ms": 1}))]
    measured = measure(rows, Console(quiet=True))
    assert [(row.name, outcome.passed) for row, outcome in measured] == [("a", False), ("b", True)]
    assert measured[0][1].value == "not measured: TimeoutError"
