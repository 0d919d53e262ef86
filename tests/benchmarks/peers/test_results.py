"""The page holds the table of the last run."""

from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.peers.results import BEGIN, END, OpenPair, Pair, Results, Side, save, tables
from benchmarks.peers.rounds import Open, Round
from benchmarks.peers.tasks import TASKS

MACHINE: dict[str, object] = {"cores": 2, "processor": "a processor", "python": "3.11", "wrk": "wrk 4"}


def results() -> Results:
    theirs = [Round(1000.0, 1.0, 2.0, 0, 90.0), Round(1200.0, 1.0, 4.0, 1, 110.0)]
    ours = [Round(3000.0, 1.0, 2.0, 0, 45.0), Round(2400.0, 1.0, 2.0, 0, 55.0)]
    opened = [
        OpenPair(Open(500.0, 0.999, 1.0, None, 100.0), Open(500.0, 1.0, 1.0, 4.56, 25.0)),
        OpenPair(Open(900.0, 0.0, None, None, 9e9), Open(900.0, 1.0, 1.0, 5.0, 25.0)),
    ]
    side = Side("1.2", {}, 3.21, 45.6, Pair({"32": theirs}, {"32": ours}), opened)
    return Results(MACHINE, 2, 3, {"svm": {"other": side, "broken": Side("0.1", {}, problem="it did not start")}})


def test_the_table() -> None:
    text = tables(results())["svm"]
    assert "2 rounds of 3 s; 2 cores of a processor" in text
    assert (
        "| other 1.2 | 1,100, 3.0, 100; **2.50 (2.00-3.00)**, 0.50 | 500/s: 99.9%, not answered, 100; **100.0%**, 4.6, "
        "0.25<br>900/s: 0.0%, not answered, 9000000000; **100.0%**, 5.0, - | 3.2 | 46 | 1 |" in text
    )
    assert "| broken 0.1 | it did not start |" in text


@pytest.mark.parametrize("old", ["", "\n| an older table |\n"])
def test_the_page_keeps_what_other_tasks_had(tmp_path: Path, old: str) -> None:
    other = f"{BEGIN.format('table')}\n| of other models |\n{END}"
    (tmp_path / "README.md").write_text(f"# Peers\n\n{BEGIN.format('svm')}{old}{END}\n\n{other}\n\nWhat is fair.\n")
    save(results(), tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("# Peers\n")
    assert page.endswith(f"{END}\n\nWhat is fair.\n")
    assert "| other 1.2 |" in page
    assert "older" not in page
    assert other in page


def test_the_page_of_the_peers_has_a_place_for_each_task() -> None:
    page = Path(peers.__file__).with_name("README.md").read_text()
    assert [page.count(BEGIN.format(task)) for task in TASKS] == [1] * len(TASKS)
